"""Text windows and conversations with pictures to calibrate with, windows to judge by; what calibration measures."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, UsageError
from edge.export import cache, expert_use, experts, shown, streamed
from edge.export.checkpoint import Checkpoint
from edge.export.reference import load_model
from edge.export.vision import conversation
from edge.export.vision.conversation import Conversation, Eyes
from edge.progress import Progress, Silent
from edge.runtimes.sight import fitted

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

WINDOW = 256  # tokens; short windows keep the memory of the reference small
_TEXT_LIMIT_BYTES = 64 << 20
_HESSIAN_BYTES = 1 << 30
_FEWEST_TOKENS = 64  # fewer say nothing about which columns of an expert matter
_OVERLAP = 24  # tokens in a row that two texts may share: chat templates repeat, sentences do not
_JUDGED_TRACES = 16  # more than half of the positions that are compared
_CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Calibration:
    """Windows of token ids, each at most `WINDOW` long, with the hash of all of them and where they came from.

    For one that sees, conversations with pictures are `shown` too, which the whole source, `seer`, reads.
    """

    windows: tuple[tuple[int, ...], ...]
    sha256: str
    source: str
    shown: tuple[Conversation, ...] = ()
    seer: Checkpoint | None = None

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.passages))

    @property
    def passages(self) -> tuple[tuple[int, ...], ...]:
        """Windows and conversations, the ones spread evenly among the others."""
        kinds = (self.windows, self.shown)
        placed = [((i + 0.5) / len(kind), n, i) for n, kind in enumerate(kinds) for i in range(len(kind))]
        return tuple(kinds[n][i] for _, n, i in sorted(placed))

    def record(self) -> dict[str, Any]:
        """What a manifest says of it: `tokens` are all of them, `picture_tokens` those that are rows of pictures."""
        return {
            "source": self.source, "sha256": self.sha256, "windows": len(self.windows),
            "pictures": sum(len(c.pictures) for c in self.shown),
            "tokens": self.n_tokens, "picture_tokens": sum(c.n_rows for c in self.shown),
        }  # fmt: skip


def default_calibration(tokenizer: Tokenizer, template: ChatTemplate | None, eyes: Eyes | None = None) -> Calibration:
    """The conversations that ship with edge for calibration, in the model's own chat template.

    A model that acts is calibrated with tool calls too: every other text is one. One that sees, with pictures too.
    """
    texts = _conversations("calibration", tokenizer, template)
    source = "edge: calibration.jsonl"
    if _acts(template):
        traces = _conversations("tool_calibration", tokenizer, template)
        texts = [text for pair in zip(traces, texts, strict=False) for text in pair]
        source = "edge: tool_calibration.jsonl and calibration.jsonl"
    found = _windows(texts, source)
    if eyes is None or template is None:
        return found
    return _seen(found, shown.default(eyes, found.n_tokens), eyes, f"{source} and pictures")


def held_out(tokenizer: Tokenizer, template: ChatTemplate | None) -> Calibration:
    """The conversations that ship with edge for judging; they share no prompt with calibration.

    A model that acts is judged by tool calls first, of tools that no other text names.
    """
    texts = _conversations("held_out", tokenizer, template)
    if not _acts(template):
        return _windows(texts, "edge: held_out.jsonl")
    traces = _conversations("tool_calls", tokenizer, template, split="unseen")[:_JUDGED_TRACES]
    return _windows(traces + texts, "edge: tool_calls.jsonl and held_out.jsonl")


def from_file(
    path: Path, tokenizer: Tokenizer, template: ChatTemplate | None = None, eyes: Eyes | None = None
) -> Calibration:
    """Windows from the user's own text: a plain text file, or `.jsonl` with `messages` or `text` on each line.

    With `eyes`, messages may have parts that name pictures beside the file. Raises `UsageError` when the file is
    missing or holds too little, `InputError` when it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no text file {path}")
    if path.stat().st_size > _TEXT_LIMIT_BYTES:
        raise UsageError(f"{path} is larger than {_TEXT_LIMIT_BYTES >> 20} MiB", hint="a few hundred kB are plenty")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise InputError(f"{path} is not UTF-8 text: {err}") from err
    if path.suffix == ".jsonl":
        lines = [(f"{path}:{n}", line) for n, line in enumerate(text.splitlines(), 1) if line]
        pictures = shown.Named(path.parent, eyes)
        looked = {where: pictures.conversation(line, where) for where, line in lines}
        texts = [_line(line, where, tokenizer, template) for where, line in lines if looked[where] is None]
    else:
        looked, texts = {}, [tokenizer.encode(text)]
    found = _windows(texts, path.name)
    if eyes is not None and (seen := tuple(filter(None, looked.values()))):
        found = _seen(found, seen, eyes, path.name)
    if found.n_tokens < WINDOW:
        raise UsageError(f"{path} has {found.n_tokens} tokens, at least {WINDOW} are needed")
    return found


def completed(own: Calibration, usual: Calibration) -> Calibration:
    """`own`, and of what ships what a model that sees lacks there: text, or pictures."""
    if own.windows and (own.shown or not usual.shown):
        return own
    digest = hashlib.sha256(f"{own.sha256} {usual.sha256}".encode()).hexdigest()
    lacks = "pictures" if own.windows else "text"
    source = f"{own.source} and edge's {lacks}"
    return Calibration(own.windows or usual.windows, digest, source, own.shown or usual.shown, usual.seer)


def check_disjoint(calibration: Calibration, judged: Calibration) -> None:
    """Raise `UsageError` when what is judged by was calibrated with: a run of 24 tokens in both, or a picture."""
    shown.check_apart(calibration.shown, calibration.source)
    seen = {w[i : i + _OVERLAP] for w in _bodies(calibration) for i in range(len(w) - _OVERLAP + 1)}
    for window in _bodies(judged):
        for i in range(len(window) - _OVERLAP + 1):
            if window[i : i + _OVERLAP] in seen:
                raise UsageError(
                    f"{judged.source} shares text with {calibration.source}, so it cannot judge what was made with it",
                    hint="give another text with --held-out",
                )


def _bodies(texts: Calibration) -> list[tuple[int, ...]]:
    """The windows without what a chat template puts before every conversation."""
    bodies = []
    before = texts.windows[1] if len(texts.windows) > 1 else ()
    for window in texts.windows:
        start = next((i for i, (a, b) in enumerate(zip(before, window, strict=False)) if a != b), 0)
        bodies.append(window[start:])
        before = window
    return bodies + [c[c.index(c.token_id) :] for c in texts.shown]


def activation_statistics(
    checkpoint: Checkpoint, calibration: Calibration, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """How strongly each input column of each matrix is used: the mean of x_j^2 over the tokens.

    Keys are the source's weight names (`model.layers.0.mlp.down_proj.weight`), values float32
    `(in_features,)`. Measured with forward hooks on the source in float32, kept in the cache.
    This is what llama.cpp calls an importance matrix (llama.cpp, tools/imatrix). An expert's mean is
    over the tokens that were routed to it; how many those were is under `expert_use.key(layer)`.
    """
    import numpy as np

    progress = progress or Silent()
    key = cache.key(checkpoint=checkpoint.id, calibration=calibration.sha256, code=cache.code_of(__name__))
    folder = cache.find("activations", key)
    if folder is None:
        with cache.building("activations", key) as work:
            np.savez(work / "statistics.npz", **_measure(checkpoint, calibration, progress))  # type: ignore[arg-type]
        folder = cache.root() / "activations" / key
    with np.load(folder / "statistics.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def activation_hessians(
    checkpoint: Checkpoint,
    calibration: Calibration,
    consume: Callable[[str, np.ndarray | None], None],
    progress: Progress | None = None,
    *,
    wanted: Collection[str] | None = None,
) -> None:
    """Hand over, for each input that matrices share, the mean of x x^T over the tokens, float32 `(in, in)`.

    `consume(name, hessian)` is called once for every weight name, in the model's order. As many
    layers are measured in one pass as fit `_HESSIAN_BYTES`, so memory stays bounded for any
    size of model. Matrices with the same input get the same array. An expert's mean is over the tokens
    that were routed to it; one that saw fewer than `_FEWEST_TOKENS` gets `None`. With `wanted`, only those are
    measured, and handed over.
    """
    import torch

    progress = progress or Silent()
    model, passages = running(checkpoint, calibration), calibration.passages
    watched = [w for w in _watched(model, checkpoint) if wanted is None or set(w.names) & set(wanted)]
    groups: list[list[_Watched]] = [[]]
    used = 0
    for one in watched:
        if used + one.hessian_bytes > _HESSIAN_BYTES and groups[-1]:
            groups.append([])
            used = 0
        groups[-1].append(one)
        used += one.hessian_bytes
    if not watched:
        return
    progress.start("measuring activations", len(groups) * len(passages))
    done = 0
    for group in groups:
        sums: dict[str, Any] = {}
        counts: dict[str, int] = {}
        # Matrices that are fed the same tensor (queries, keys and values) share one sum.
        shared: dict[str, str] = {}
        seen: tuple[Any, str] | None = None

        def add(name: str, x: Any, sums: Any = sums, shared: Any = shared, counts: Any = counts) -> None:
            nonlocal seen
            if name in shared:
                return
            if seen is not None and seen[0] is x:
                shared[name] = seen[1]
                return
            seen = (x, name)
            x = x.detach().reshape(-1, x.shape[-1])
            counts[name] = counts.get(name, 0) + len(x)
            if name in sums:
                sums[name].addmm_(x.T, x)
            else:
                sums[name] = x.T @ x

        handles = [one.watch(add) for one in group]
        try:
            with torch.inference_mode():
                for passage in passages:
                    conversation.run(model, passage)
                    done += 1
                    progress.advance(done)
        finally:
            for handle in handles:
                handle.remove()
        seen = None
        for name in (name for one in group for name in one.names):
            kept = shared.get(name, name)
            n = counts.get(kept, 0)
            consume(name, (sums[kept] / n).numpy() if n >= _FEWEST_TOKENS else None)


def running(checkpoint: Checkpoint, calibration: Calibration) -> Any:
    """The source that is measured: `checkpoint`, or within its whole if there are pictures to see."""
    return load_model(checkpoint) if calibration.seer is None else conversation.text_part(calibration.seer)


def _measure(checkpoint: Checkpoint, calibration: Calibration, progress: Progress) -> dict[str, np.ndarray]:
    import numpy as np
    import torch

    passages = calibration.passages
    progress.start("calibrating", len(passages))
    model = running(checkpoint, calibration)
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    size = streamed.together(model, passages, int(checkpoint.text_config["vocab_size"]))
    real: Any = None  # where tokens are, when several windows go through at once

    def add(name: str, x: Any) -> None:
        x = x.detach().reshape(-1, x.shape[-1]) if real is None else x.detach()[real]
        squares = x.square().sum(0)
        sums[name] = sums[name] + squares if name in sums else squares
        counts[name] = counts.get(name, 0) + len(x)

    handles = [one.watch(add) for one in _watched(model, checkpoint)]
    try:
        with torch.inference_mode(), expert_use.counting(model, checkpoint) as tokens:
            for at in range(0, len(passages), size):
                together = passages[at : at + size]
                if size == 1:
                    conversation.run(model, together[0])
                else:  # text alone: what sees is not streamed
                    ids, mask = streamed.padded(calibration.windows[at : at + size])
                    real = mask.bool()
                    model(ids, attention_mask=mask, use_cache=False)
                progress.advance(at + len(together))
    finally:
        for handle in handles:
            handle.remove()
    found = {name: (total / max(1, counts[name])).numpy() for name, total in sums.items()}
    return found | {expert_use.key(layer): np.stack(rows) for layer, rows in tokens.items()}


@dataclass(frozen=True)
class _Watched:
    """A module whose inputs are measured: the weights `names` in it, and what their Hessians take.

    `watch(add)` puts a hook on it that calls `add(name, x)` with float32 `(..., in_features)`.
    """

    names: tuple[str, ...]
    hessian_bytes: int
    watch: Callable[[Callable[[str, Any], None]], Any]


def _watched(model: Any, checkpoint: Checkpoint) -> list[_Watched]:
    """Every matrix of the model: linear layers, and the experts' in their stacks, in the model's order."""
    import torch

    layers = {layer.index: layer for layer in experts.layers(checkpoint)}
    found = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found.append(_linear(checkpoint.stored_name(f"{name}.weight"), module))
        elif layers and (layer := expert_use.layer_of(name, module, layers)) is not None:
            inner, hidden = module.down_proj.shape[2], module.down_proj.shape[1]
            names = tuple(n for e in range(len(module.down_proj)) for n in layer.keys(e))
            n_bytes = 4 * len(module.down_proj) * (hidden**2 + inner**2)
            found.append(_Watched(names, n_bytes, functools.partial(expert_use.watch, module, layer)))
    return found


def _linear(name: str, module: Any) -> _Watched:
    def watch(add: Callable[[str, Any], None]) -> Any:
        return module.register_forward_pre_hook(lambda _, inputs: add(name, inputs[0]))

    return _Watched((name,), 4 * module.in_features**2, watch)


def _acts(template: ChatTemplate | None) -> bool:
    from edge.export.families.lam import shows_tools

    return template is not None and shows_tools(template)


def _conversations(
    name: str, tokenizer: Tokenizer, template: ChatTemplate | None, *, split: str | None = None
) -> list[list[int]]:
    """The texts of a file of the corpus as ids; with `split`, only the rows of that one."""
    path = _CORPUS / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    chosen = [(n, x) for n, x in enumerate(lines, 1) if split is None or json.loads(x)["split"] == split]
    return [_line(line, f"{path.name}:{n}", tokenizer, template) for n, line in chosen]


def _line(line: str, where: str, tokenizer: Tokenizer, template: ChatTemplate | None) -> list[int]:
    try:
        row = json.loads(line)
        messages = row.get("messages")
        text = row["text"] if messages is None else None
    except (ValueError, AttributeError, KeyError, RecursionError) as err:
        raise InputError(f"{where}: wanted a JSON object with messages or text: {err}") from err
    if messages is not None:
        tools, answer = row.get("tools"), _answer(row)
        text = (
            _plain(messages + answer)
            if template is None
            else template.render(fitted(template, messages + answer), tools=tools, add_generation_prompt=False)
        )
    if not isinstance(text, str):
        raise InputError(f"{where}: text is not text but {type(text).__name__}")
    return tokenizer.encode(text)


def _seen(texts: Calibration, seen: tuple[Conversation, ...], eyes: Eyes, source: str) -> Calibration:
    """The texts, and conversations with pictures; the hash is over both, and over whose eyes see them."""
    digest = hashlib.sha256(f"{texts.sha256} {eyes.checkpoint.id}".encode())
    for one in seen:
        digest.update(json.dumps(one).encode())
        for data in one.pictures:
            digest.update(hashlib.sha256(data).digest())
    return Calibration(texts.windows, digest.hexdigest(), source, seen, eyes.checkpoint)


def _answer(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The right answer of a case of the gate as a message; other rows hold theirs already."""
    if "split" not in row:
        return []
    calls = [{"type": "function", "function": call} for call in row["calls"]]
    return [{"role": "assistant", "content": row["text"], **({"tool_calls": calls} if calls else {})}]


def _plain(messages: Sequence[Mapping[str, Any]]) -> str:
    """For models without a chat template: the contents, one after another."""
    return "\n\n".join(str(m.get("content", "")) for m in messages) + "\n"


def _windows(texts: Sequence[Sequence[int]], source: str) -> Calibration:
    windows = tuple(
        tuple(text[i : i + WINDOW]) for text in texts for i in range(0, len(text), WINDOW) if len(text) - i >= 2
    )
    digest = hashlib.sha256(json.dumps(windows).encode()).hexdigest()
    return Calibration(windows, digest, source)
