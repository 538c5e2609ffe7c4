"""A bundle, opened: messages in, text out, on whatever runtime its format needs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.errors import InputError, UsageError
from edge.find import load, names
from edge.runtimes import integrity, noted
from edge.runtimes.ahead import Ahead, Known, Peeking, Way
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.draft import Draft, Tried
from edge.runtimes.embedders import Embedder
from edge.runtimes.encoders import Encoder
from edge.runtimes.prompt import encode_chat
from edge.runtimes.session import ContextFull, Mask, Sampling, Session, StopReason, generate, keep_first
from edge.runtimes.sight import Prompt, Sight, feed, image_parts, in_common, place
from edge.runtimes.threads import remembered
from edge.runtimes.tokenizer import Tokenizer

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}; content with pictures: edge.runtimes.sight
Reading = Callable[[int, int], None]

# Prompts are read in chunks so that whoever waits can show it and stop it. Engines take this many
# tokens at once or fewer, so a chunk costs nothing.
_CHUNK = 512
# What decides how text becomes tokens: a file of these that the manifest does not list is an intruder.
_SPOKEN = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    `text` is empty while a character is incomplete. `time_ns` is when the token's logits were
    there (`time.perf_counter_ns`). A last piece without a token (`token_id` None) gives what
    was left of an incomplete character.
    """

    text: str
    token_id: int | None
    time_ns: int


@dataclass(frozen=True)
class Read:
    """So many tokens of a prompt are in the cache."""

    done: int
    total: int


@dataclass(frozen=True)
class Stats:
    """What one answer took.

    `reused_tokens` of the prompt were in the cache already. `tokens_per_second` counts the
    tokens after the first over the time after the first; None when there are fewer than two.
    `stopped_by` is "end" (the model ended), "length" (`max_tokens`), "context" (it is full) or
    "caller" (the answer was not read to its end). Of the time to the first token of a question
    with pictures, `preprocess_ms` is opening and cutting them, which comes before, and `encode_ms`
    what the vision encoder took; pictures that were seen before take neither. Of the `guessed_tokens`
    (`edge.runtimes.lookup`), `accepted_tokens` are the answer's own.
    """

    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    ttft_ms: float | None
    tokens_per_second: float | None
    total_ms: float
    stopped_by: StopReason | Literal["caller"]
    pictures: int = 0
    preprocess_ms: float = 0.0
    encode_ms: float = 0.0
    guessed_tokens: int = 0
    accepted_tokens: int = 0


class Model:
    """An open bundle. One thread at a time; use it as a context manager.

    Consecutive prompts that begin alike, as the turns of a conversation do, are not computed
    again: the session is rewound to where they part.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        session: Session,
        *,
        threads: int | None = None,
        tokenizer: Tokenizer | None = None,
        known: Known | None = None,
    ) -> None:
        self.folder = folder
        self.threads = threads
        self.bundle = bundle
        self.session = session
        self.tokenizer = tokenizer or Tokenizer.load(folder)
        self.template = ChatTemplate.load(folder)
        self.sight = Sight(bundle.image, self._encoder)
        self.stats: Stats | None = None
        self.looks_up = True  # where its session can: guesses what comes next, which changes no answer
        self._ahead: Ahead | None = None
        if self.ways:
            self._ahead = Ahead(self.peeking, known=known or Known.of(noted.read(self._note())))
        self._guesser: Model | None = None
        self._tried: Tried | None = None
        self._held: list[int] = []  # what the session's cache holds, as far as we put it there
        self._answer = 0  # which answer may use the session

    @property
    def context_length(self) -> int:
        return self.session.context_length

    @property
    def ways(self) -> Sequence[Way]:
        """How several tokens can be looked at together now; none where that gives other logits."""
        return getattr(self.session, "ways", ())

    @property
    def peeking(self) -> Peeking:
        """The session, of a model that has `ways`."""
        return cast(Peeking, self.session)

    @property
    def known(self) -> Known:
        """What is known of its ways."""
        return self._ahead.known if self._ahead else Known()

    def gain_of_drafts(self, tried: Tried) -> float:
        """What another's guesses would give at best, in single tokens for the time of one."""
        return self._ahead.gain_of_drafts(tried) if self._ahead else 0.0

    def draft_with(self, guesser: Model, draft: Draft, tried: Tried) -> None:
        """Have `draft`, which runs `guesser`, guess ahead; `guesser` is closed with this one. See `drafting`."""
        self._guesser, self._tried = guesser, tried
        self._ahead = Ahead(self.peeking, known=self.known, draft=draft, tried=tried)

    @functools.cached_property
    def embedder(self) -> Embedder | None:
        """What gives the states behind the logits; None for a model that was not made to give vectors."""
        if self.bundle.format not in names("edge.runtimes.embedders"):
            return None
        found: Embedder | None = load("edge.runtimes.embedders", self.bundle.format).load(self.session, self.bundle)
        return found

    @property
    def held(self) -> list[int]:
        """What the cache holds, as far as answers put it there: ids, and below 0 the rows of pictures."""
        return list(self._held)

    def keep_first(self, n_tokens: int) -> int:
        """Keep the first `n_tokens` of the cache, or nothing where it can only be emptied; how many are kept."""
        return keep_first(self.session, n_tokens)

    def hold(self, held: Sequence[int]) -> None:
        """Say what somebody else put into the session's cache."""
        self._held = list(held)

    def prompt(self, messages: str | Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None) -> Prompt:
        """Ids of a conversation in the model's own template, ready for an answer, and its pictures.

        A plain string is one user message; for a model without a template, it is text to be
        continued. Control tokens spelled out in a message stay plain text, so that no message
        can pretend to be another turn.
        """
        return prompt_for(self.bundle, self.tokenizer, self.template, self.sight, messages, tools=tools)

    def generate(
        self,
        messages: str | Sequence[Message],
        sampling: Sampling | None = None,
        *,
        mask: Mask | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        reading: Reading | None = None,
    ) -> Iterator[Piece]:
        """Stream the answer to a conversation (greedily unless `sampling` says otherwise).

        Nothing happens before the first piece is asked for. When the stream has ended, or was
        closed, `stats` says what it took. `reading(done, total)` is called while a long prompt
        is read; what it raises stops the answer. Raises `ContextFull` when the conversation
        itself does not fit, before anything changes.

        >>> with open_bundle("out/SmolLM2-135M-Instruct-gguf-q8_0") as model:  # doctest: +SKIP
        ...     for piece in model.generate("What is the capital of France?"):
        ...         print(piece.text, end="", flush=True)
        The capital of France is Paris.
        """
        yield from self.generate_ids(self.prompt(messages, tools=tools), sampling, mask=mask, reading=reading)

    def generate_ids(
        self,
        prompt: Sequence[int],
        sampling: Sampling | None = None,
        *,
        mask: Mask | None = None,
        reading: Reading | None = None,
    ) -> Iterator[Piece]:
        """Stream what follows these ids; otherwise as `generate`."""
        # Closed here and not when it is collected: what `reading` raises would keep it alive.
        with closing(self.steps(prompt, sampling, mask=mask)) as steps:
            for step in steps:
                if isinstance(step, Piece):
                    yield step
                elif reading is not None:
                    reading(step.done, step.total)

    def steps(
        self, prompt: Sequence[int], sampling: Sampling | None = None, *, mask: Mask | None = None, chunk: int = _CHUNK
    ) -> Generator[Piece | Read, None, None]:
        """As `generate_ids`, with a pause after every `chunk` tokens of a long prompt too.

        For whoever lets several answers take turns: between two steps, nothing of this model runs.
        """
        if not prompt:
            raise UsageError("there is nothing to continue: the prompt is empty")
        prompt = prompt if isinstance(prompt, Prompt) else Prompt(prompt)
        # Checked before the cache is cut, so that a refusal changes nothing.
        if len(prompt) > self.context_length:
            raise ContextFull(0, len(prompt), self.context_length)
        self._answer += 1
        mine = self._answer
        self.stats = None
        began_ns = time.perf_counter_ns()
        times: list[int] = []
        said: list[int] = []
        reused = 0
        ended: StopReason | Literal["caller"] = "caller"
        ahead = self._ahead if self.looks_up else None
        stream = self.tokenizer.stream()
        try:
            reused = read = self.keep_first(self.reusable(prompt))
            for read in self._read(prompt, reused, chunk):
                yield Read(read, len(prompt))
                self._still(mine)
            if ahead:
                ahead.begin(prompt)
            tokens = generate(
                self.session, prompt[read:], sampling, stop_ids=self.bundle.stop_ids, mask=mask,
                feed=ahead.feed if ahead else None,
            )  # fmt: skip
            while True:
                try:
                    token = next(tokens)
                except StopIteration as end:
                    ended = cast(StopReason, end.value)
                    break
                said.append(token.id)
                times.append(token.time_ns)
                yield Piece(stream.push(token.id), token.id, token.time_ns)
                self._still(mine)
            if rest := stream.flush():
                yield Piece(rest, None, time.perf_counter_ns())
        finally:
            if self._answer == mine:
                self._held = [*prompt.identity, *said][: self.session.position]
                self.stats = replace(
                    _stats(prompt, reused, times, began_ns, ended),
                    pictures=len(prompt.pictures),
                    preprocess_ms=self.sight.preprocess_ms,
                    encode_ms=self.sight.encode_ms,
                    guessed_tokens=ahead.guessed if ahead else 0,
                    accepted_tokens=ahead.accepted if ahead else 0,
                )
                self.sight.preprocess_ms = self.sight.encode_ms = 0.0
                self.note_ways()

    def note_ways(self) -> None:
        """Write down what was found out about ways to look ahead."""
        if self._ahead and self._ahead.known.news:
            noted.write(self._note(), self._ahead.known.told())
            self._ahead.known.news = False

    def _note(self) -> Path:
        """Where it is noted which ways to look ahead give what single tokens give."""
        return noted.path("ahead", self.bundle, threads=self.threads)

    def _still(self, mine: int) -> None:
        """Raise `UsageError` when another answer has used the session since."""
        if self._answer != mine:
            raise UsageError("this answer was left for another one: one model gives one answer at a time")

    def another(self) -> Model:
        """A model for a second conversation at the same time: the same weights, a cache of its own.

        What turns text into tokens and pictures into features is shared, so the two may take turns
        and not run at once. Close this one last.
        """
        again = getattr(self.session, "another", None)
        session: Session = (
            again()
            if again
            else load("edge.runtimes.engines", self.bundle.format).load(
                self.folder, self.bundle, threads=self.threads, context_length=self.context_length
            )
        )
        made = Model(
            self.folder, self.bundle, session, threads=self.threads, tokenizer=self.tokenizer,
            known=self._ahead.known if self._ahead else None,
        )  # fmt: skip
        made.template, made.sight, made.looks_up = self.template, self.sight, self.looks_up
        if self._guesser and self._tried:
            guesser = self._guesser.another()
            made.draft_with(guesser, Draft.between(guesser.session, guesser.tokenizer, self.tokenizer), self._tried)
        return made

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of this prompt are in the cache and need not be read again."""
        # Somebody who used the session directly left something else in it.
        held = self._held if len(self._held) == self.session.position else []
        return in_common(held, prompt)

    def close(self) -> None:
        """Free the session and the encoder; a second call does nothing."""
        if self._guesser:
            self._guesser.close()
        self.sight.close()
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encoder(self) -> Encoder:
        """The vision part, loaded when the first picture is shown."""
        if "vision" not in self.bundle.parts:
            raise UsageError(f"{self.bundle.name} has no vision encoder: it takes text alone")
        found: Encoder = load("edge.runtimes.encoders", self.bundle.format).load(
            self.folder, self.bundle, self.session, threads=self.threads
        )
        return found

    def _read(self, prompt: Prompt, start: int, chunk: int) -> Iterator[int]:
        """Feed all of the prompt but its last chunk of words; after each piece, how much of it is in the cache."""
        for begin, end, placed, row in prompt.segments(start):
            last = end == len(prompt)
            done = begin
            while done < end and not (last and end - done <= chunk):
                n = min(chunk, end - done) if placed is None else end - done
                if placed is None:
                    self.session.feed(prompt[done : done + n])
                else:
                    feed(self.session, placed, self.sight.features(placed.seen)[row : row + n])
                done += n
                yield done


def prompt_for(
    bundle: Bundle,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    sight: Sight,
    messages: str | Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> Prompt:
    """`Model.prompt`, without a model: for whoever makes prompts while the model is at work."""
    if isinstance(messages, str):
        if template is None:
            return Prompt(tokenizer.encode(messages, add_special=True, parse_special=False))
        messages = [{"role": "user", "content": messages}]
    if not messages:
        raise UsageError("there is nothing to answer: no messages were given")
    if template is None:
        raise UsageError(
            f"{bundle.name} has no chat template, so it cannot tell who says what",
            hint="give it one string to continue, or export a checkpoint that was tuned for chat",
        )
    seen = [sight.look(part) for part in image_parts(messages)]
    rule = bundle.image
    ids = encode_chat(
        tokenizer, template, messages, tools=tools,
        pictures=[s.views.text for s in seen], placeholder=rule.get("placeholder", ""),
    )  # fmt: skip
    if not seen:
        return Prompt(ids)
    placed = place(ids, seen, rule["token_id"])
    if sum(placed[-1].runs[-1]) == len(ids):
        raise UsageError("the conversation ends with a picture; words must follow it")
    return Prompt(ids, placed)


def open_bundle(
    folder: str | Path, *, threads: int | None = None, context_length: int | None = None, check: bool = True
) -> Model:
    """Open a bundle on its runtime; nothing touches the network.

    With `check`, every file is compared with the manifest (`edge.runtimes.integrity`: hashes
    are remembered, so this costs a fifth of a second the first time and nothing after that).
    Without `threads`, it runs on what a trial found fastest (`edge.runtimes.threads`), else on the physical cores.
    `context_length` may be shorter than the bundle's, to save memory. Raises `UsageError` when
    `folder` is no bundle or cannot be opened that way, `InputError` when it is damaged,
    `MissingError` when its runtime is not installed.
    """
    folder = Path(folder).expanduser()
    bundle = bundles.read(folder)
    if context_length is not None and not 0 < context_length <= bundle.context_length:
        raise UsageError(
            f"a context of {context_length} tokens was asked for; {bundle.name} takes 1 to {bundle.context_length}",
            hint=f"export it again with --context {context_length}" if context_length > 0 else None,
        )
    if threads is not None and threads < 1:
        raise UsageError(f"cannot run on {threads} threads")
    if check:
        integrity.check(folder, bundle)
        _refuse_intruders(folder, bundle)
    # Before the weights: reading a tokenizer takes memory that is given back.
    tokenizer = Tokenizer.load(folder)
    engine = load("edge.runtimes.engines", bundle.format)
    threads = threads or remembered(bundle)
    session: Session = engine.load(folder, bundle, threads=threads, context_length=context_length)
    try:
        return Model(folder, bundle, session, threads=threads, tokenizer=tokenizer)
    except BaseException:
        session.close()
        raise


def _refuse_intruders(folder: Path, bundle: Bundle) -> None:
    listed = {f.path for f in bundle.files}
    for name in _SPOKEN:
        if name not in listed and (folder / name).exists():
            raise InputError(
                f"{folder / name} is not in the manifest: somebody put it there after the export",
                hint="remove it, or export again",
            )


def _stats(
    prompt: Sequence[int],
    reused: int,
    times: Sequence[int],
    began_ns: int,
    ended: StopReason | Literal["caller"],
) -> Stats:
    between_s = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
    return Stats(
        prompt_tokens=len(prompt),
        reused_tokens=reused,
        new_tokens=len(times),
        ttft_ms=(times[0] - began_ns) / 1e6 if times else None,
        tokens_per_second=(len(times) - 1) / between_s if between_s else None,
        total_ms=(time.perf_counter_ns() - began_ns) / 1e6,
        stopped_by=ended,
    )
