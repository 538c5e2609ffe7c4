"""A bundle, opened: messages in, text out, on whatever runtime its format needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.errors import InputError, UsageError
from edge.find import load
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.session import ContextFull, Mask, Sampling, Session, generate
from edge.runtimes.tokenizer import Tokenizer

# Put into control tokens that a person typed, so that they stay text. A code point that is no
# character and that no text may contain.
_QUOTE = "\ufdd0"


@dataclass(frozen=True)
class Piece:
    """A piece of the answer: text (possibly empty while a character is incomplete), its token, and when it came."""

    text: str
    token_id: int
    time_ns: int


@dataclass(frozen=True)
class Stats:
    """What one answer took. `reused_tokens` of the prompt were in the cache already.

    `tokens_per_second` counts the tokens after the first, over the time after the first.
    `stopped_by` is "end" (the model ended), "length" (`max_tokens`) or "context" (it is full).
    """

    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    ttft_ms: float
    tokens_per_second: float | None
    total_ms: float
    stopped_by: str


class Model:
    """An open bundle. One thread at a time; use it as a context manager.

    Consecutive prompts that begin alike, as the turns of a conversation do, are not computed
    again: the session is rewound to where they part.
    """

    def __init__(self, folder: Path, bundle: Bundle, session: Session) -> None:
        self.folder = folder
        self.bundle = bundle
        self.session = session
        self.tokenizer = Tokenizer.load(folder)
        self.template = ChatTemplate.load(folder)
        self.stats: Stats | None = None
        self._specials = _specials(self.tokenizer)
        self._held: list[int] = []

    @property
    def context_length(self) -> int:
        return self.session.context_length

    def prompt(self, messages: str | Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a conversation in the model's own template, ready for an answer.

        A plain string is one user message. Control tokens that somebody typed into a message
        stay plain text, so a message cannot pretend to be another turn. A model without a
        template gets the text as it is.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not messages:
            raise UsageError("there is nothing to answer: no messages were given")
        if self.template is None:
            text = "\n".join(str(m.get("content", "")) for m in messages)
            return self.tokenizer.encode(text, add_special=True, parse_special=False)
        return self._encode(self.template.render([self._quoted(m) for m in messages]))

    def generate(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        sampling: Sampling | None = None,
        *,
        mask: Mask | None = None,
    ) -> Iterator[Piece]:
        """Stream the answer to a conversation; afterwards `stats` says what it took.

        Raises `ContextFull` when the conversation itself does not fit.
        """
        yield from self.generate_ids(self.prompt(messages), sampling, mask=mask)

    def generate_ids(
        self, prompt: Sequence[int], sampling: Sampling | None = None, *, mask: Mask | None = None
    ) -> Iterator[Piece]:
        """Stream what follows these ids."""
        sampling = sampling or Sampling()
        began_ns = time.perf_counter_ns()
        self.stats = None
        # The prompt is checked before the cache is cut, so that a refusal changes nothing.
        if len(prompt) > self.context_length:
            raise ContextFull(0, len(prompt), self.context_length)
        reused = self._rewind(prompt)
        stream = self.tokenizer.stream()
        times: list[int] = []
        tokens = generate(self.session, prompt[reused:], sampling, stop_ids=self.bundle.stop_ids, mask=mask)
        try:
            for token in tokens:
                # What was yielded before this token is in the cache; this one is not yet.
                times.append(token.time_ns)
                yield Piece(stream.push(token.id), token.id, token.time_ns)
                self._held.append(token.id)
            if rest := stream.flush():
                yield Piece(rest, -1, time.perf_counter_ns())
        finally:
            del self._held[self.session.position :]
            self.stats = self._measure(prompt, reused, times, began_ns, sampling)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _rewind(self, prompt: Sequence[int]) -> int:
        """Keep what the cache and the prompt have in common, but for the prompt's last token."""
        most = min(len(self._held), len(prompt) - 1, self.session.position)
        same = next((i for i in range(most) if self._held[i] != prompt[i]), max(0, most))
        self.session.rewind(same)
        self._held = list(prompt)
        return same

    def _measure(
        self, prompt: Sequence[int], reused: int, times: Sequence[int], began_ns: int, sampling: Sampling
    ) -> Stats:
        now_ns = time.perf_counter_ns()
        between_s = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
        if len(times) >= sampling.max_tokens:
            reason = "length"
        else:
            reason = "context" if self.session.position >= self.context_length else "end"
        return Stats(
            prompt_tokens=len(prompt),
            reused_tokens=reused,
            new_tokens=len(times),
            ttft_ms=((times[0] if times else now_ns) - began_ns) / 1e6,
            tokens_per_second=(len(times) - 1) / between_s if between_s else None,
            total_ms=(now_ns - began_ns) / 1e6,
            stopped_by=reason,
        )

    def _quoted(self, value: Any) -> Any:
        """The message with every control token in its texts made recognizable as typed."""
        if isinstance(value, str):
            text = value.replace(_QUOTE, "")
            for special in self._specials:
                text = text.replace(special, special[:1] + _QUOTE + special[1:])
            return text
        if isinstance(value, Mapping):
            return {k: self._quoted(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._quoted(v) for v in value]
        return value

    def _encode(self, text: str) -> list[int]:
        """Control tokens of the template are parsed; those that were quoted are read as text."""
        if _QUOTE not in text:
            return self.tokenizer.encode(text)
        ids: list[int] = []
        rest = text
        while (at := rest.find(_QUOTE)) > 0:
            special = next((s for s in self._specials if rest.startswith(s[1:], at + 1) and rest[at - 1] == s[0]), "")
            end = at + max(1, len(special))
            ids += self.tokenizer.encode(rest[: at - 1])
            ids += self.tokenizer.encode(rest[at - 1 : end].replace(_QUOTE, ""), parse_special=False)
            rest = rest[end:]
        return ids + self.tokenizer.encode(rest)


def open_bundle(
    folder: str | Path, *, threads: int | None = None, context_length: int | None = None, check: bool = False
) -> Model:
    """Open a bundle on its runtime; nothing touches the network.

    The manifest and every file's size are checked always, every file's sha256 with `check`
    (about a second for each gigabyte). Raises `UsageError` when `folder` is no bundle,
    `InputError` when it is damaged, `MissingError` when its runtime is not installed.
    """
    folder = Path(folder).expanduser()
    bundle = bundles.check(folder) if check else _check_sizes(folder, bundles.read(folder))
    if context_length is not None and context_length < 1:
        raise UsageError(f"a context of {context_length} tokens holds nothing")
    engine = load("edge.runtimes.engines", bundle.format)
    session = engine.load(folder, bundle, threads=threads, context_length=context_length)
    try:
        return Model(folder, bundle, session)
    except BaseException:
        session.close()
        raise


def _check_sizes(folder: Path, bundle: Bundle) -> Bundle:
    for file in bundle.files:
        path = folder / file.path
        if not path.is_file():
            raise InputError(f"{path} is missing from the bundle", hint="export it again")
        if path.stat().st_size != file.size_bytes:
            raise InputError(
                f"{path} is damaged: {path.stat().st_size} bytes, the manifest says {file.size_bytes}",
                hint="export it again",
            )
    return bundle


def _specials(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Control tokens as text, longest first."""
    texts = {tokenizer.decode([i]) for i in tokenizer.special_ids}
    return tuple(sorted((t for t in texts if len(t) > 1), key=lambda t: (-len(t), t)))
