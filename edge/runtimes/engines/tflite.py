"""TFLite on LiteRT: prompts in the largest prefill that they fill, then token by token.

The file has a `decode` signature for one token, which gives logits, and `prefill_N` signatures for N tokens, which
only fill the cache; `ahead_N` does both, with logits after each. Each may be there again as `near_W_…`, which sees only
the first W rows of the cache and is faster for it: what runs is the nearest that sees enough. The cache is as long as
it was exported; a shorter context can be asked for, but saves no memory. A model that sees takes embeddings: those of
pictures, and those of tokens, which are in a file of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.bundle import Bundle
from edge.errors import InputError, UsageError, require
from edge.readers import tflite as reader
from edge.runtimes import litert
from edge.runtimes.ahead import Way
from edge.runtimes.cores import physical_cores
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

EXTRA = "tflite"
_HIDDEN = -1e30  # minus infinity gives NaN for a row in which everything is hidden
_WORTH = 4  # a prefill that is filled by a quarter is faster than single tokens


class _Graph(NamedTuple):
    """A signature: it takes `size` rows at once (1: it is a `decode`) and sees `window` rows of the cache."""

    size: int
    window: int
    key: str


class TfliteSession:
    """One LiteRT model; see `edge.runtimes.session.Session`."""

    def __init__(
        self,
        runner: litert.Runner,
        signatures: Mapping[str, reader.Signature],
        *,
        context_length: int,
        embedder: Callable[..., Any] | None = None,
        bidirectional: bool = False,
    ) -> None:
        import numpy as np

        decode = signatures["decode"]
        self._signatures = signatures
        self._runner: litert.Runner | None = runner
        self._cache_length = decode.inputs["mask"].shape[-1]
        self.context_length = min(context_length, self._cache_length)
        self.vocab_size = decode.outputs["logits"].shape[-1]
        given = litert.given_input(decode)
        self._embedder = embedder
        self._bidirectional = bidirectional  # whether the rows of a picture see each other
        self.hidden_size = decode.inputs[given].shape[-1] if embedder is not None else 0
        graphs = sorted(
            _Graph(s.inputs[given].shape[1], s.inputs["mask"].shape[-1], key) for key, s in signatures.items()
        )
        self._graphs = [graph for graph in graphs if not litert.is_ahead(graph.key)]
        self._ahead = [graph for graph in graphs if litert.is_ahead(graph.key)]
        self._peeked = 0  # tokens behind the position that the cache has already
        self._position = 0
        self._at = np.zeros(1, np.int32)
        self._seen = np.full((1, 1, 1, self._cache_length), _HIDDEN, np.float32)

    @property
    def position(self) -> int:
        return self._position

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        self._check(tokens)
        return self._feed(self._given(tokens))

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(tokens)
        out = np.empty((len(tokens), self.vocab_size), np.float32)
        for row, one in zip(out, self._given(tokens), strict=True):
            row[:] = self._decode(one[None])
        return out

    @property
    def ways(self) -> tuple[Way, ...]:
        graph = self._peeking()
        if graph is None:
            return ()
        size = min(graph.size, graph.window - self._position, self.context_length - self._position)
        return (Way(size, graph.key),) if size > 1 else ()

    def peek(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` after each of the tokens, none of which is held yet: see `edge.runtimes.ahead`."""
        self._check(tokens)
        graph = self._peeking()
        most = max((way.size for way in self.ways), default=0)
        if graph is None or len(tokens) > most:
            raise UsageError(f"cannot look {len(tokens)} tokens ahead: {most} at most")
        logits = self._run(graph.key, *self._inputs(self._given(tokens), graph))
        assert logits is not None
        self._peeked = len(tokens)
        return logits.reshape(graph.size, self.vocab_size)[: len(tokens)]

    def take(self) -> None:
        """Hold the next of the tokens that were peeked at."""
        if not self._peeked:
            raise UsageError("nothing was looked at ahead, or something else was fed since")
        self._seen[..., self._position] = 0
        self._position += 1
        self._peeked -= 1

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        import numpy as np

        self._open()
        if self._embedder is None:
            raise UsageError("this TFLite bundle takes token ids only: it is no vision-language model")
        rows = np.ascontiguousarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.hidden_size or not len(rows):
            raise UsageError(f"wanted embeddings of shape (n, {self.hidden_size}), found {rows.shape}")
        self._room(len(rows))
        return self._feed_together(rows) if self._bidirectional else self._feed(rows)

    def _given(self, tokens: Sequence[int]) -> np.ndarray:
        """What the decoder takes for these tokens, one row for each: ids int32 `(n,)`, or embeddings `(n, hidden)`."""
        import numpy as np

        ids = np.asarray(tokens, np.int32)
        if self._embedder is None:
            return ids
        rows = [self._embedder(token_ids=ids[i : i + 1, None])["embeddings"].reshape(1, -1) for i in range(len(ids))]
        return np.concatenate(rows)

    def _feed(self, rows: np.ndarray) -> np.ndarray:
        done = 0
        while n := len(rows) - 1 - done:
            graph = self._prefill_for(n)
            used = min(graph.size, n) if graph else 1
            part = rows[done : done + used]
            if graph:
                self._prefill(part, graph)
            else:
                self._decode(part)
            done += used
        return self._decode(rows[-1:])

    def _feed_together(self, rows: np.ndarray) -> np.ndarray:
        """Rows that see each other: all of them in one prefill, then the last once more for its logits."""
        n = len(rows)
        sizes = [graph.size for graph in self._graphs if graph.size > 1]
        if n > max(sizes, default=0):
            raise UsageError(
                f"{n} rows of a picture see each other, at most {max(sizes, default=0)} at once can",
                hint="export it again",
            )
        graph = next((g for g in self._fitting() if g.size >= max(n, 2)), None)
        if graph is None:
            raise ContextFull(self._position, min(s for s in sizes if s >= n), self._cache_length)
        self._prefill(rows, graph, together=True)
        self.rewind(self._position - 1)
        return self._decode(rows[-1:])

    def rewind(self, n_tokens: int) -> None:
        self._open()
        if not 0 <= n_tokens <= self._position:
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {self._position} tokens")
        self._seen[..., n_tokens : self._position] = _HIDDEN
        self._position, self._peeked = n_tokens, 0

    def another(self) -> TfliteSession:
        """A session on the same weights, with a cache of its own."""
        return TfliteSession(
            self._open().another(), self._signatures, context_length=self.context_length, embedder=self._embedder,
            bidirectional=self._bidirectional,
        )  # fmt: skip

    def keep(self) -> list[np.ndarray]:
        """What the cache holds, for `restore`."""
        held = self._open().cache()
        return [value[self._first(value.shape, self._position)].copy() for _, value in sorted(held.items())]

    def restore(self, n_tokens: int, kept: Sequence[np.ndarray]) -> None:
        """Hold what was kept instead. `InputError` when it does not fit; the cache is as it was then."""
        runner = self._open()
        held = {name: value.copy() for name, value in sorted(runner.cache().items())}
        if [k.shape for k in kept] != [v[self._first(v.shape, n_tokens)].shape for v in held.values()]:
            raise InputError("this cache has another shape than the model's")
        for value, known in zip(held.values(), kept, strict=True):
            value[self._first(value.shape, n_tokens)] = known
        runner.set_cache(held)
        self.rewind(0)
        self._seen[..., :n_tokens] = 0
        self._position = n_tokens

    def _first(self, shape: Sequence[int], n_tokens: int) -> tuple[slice, ...]:
        """The first places of a cache tensor: keys have them in another dimension than values."""
        axis = next(i for i in range(len(shape) - 1, -1, -1) if shape[i] == self._cache_length)
        return tuple(slice(n_tokens) if i == axis else slice(None) for i in range(len(shape)))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._runner = self._embedder = None

    def _fitting(self) -> list[_Graph]:
        """Of each size, the nearest graph that sees what it would fill, the smallest first."""
        found: dict[int, _Graph] = {}
        for graph in self._graphs:
            if self._position + graph.size <= graph.window:
                found.setdefault(graph.size, graph)
        return list(found.values())

    def _peeking(self) -> _Graph | None:
        """The graph that looks ahead from here.

        It sees what that for single tokens sees here, if there is one. Rows that it has and does not need are written
        behind its window, where they are hidden, but not behind the cache.
        """
        if self._position + 1 > self._cache_length:
            return None
        window = self._fitting()[0].window
        graph = next((g for g in self._ahead if g.window >= window), None)
        if graph is None or self._position + graph.size > self._cache_length:
            return None
        return graph

    def _prefill_for(self, n: int) -> _Graph | None:
        """The graph for the next of `n` tokens, None for single ones."""
        prefills = [graph for graph in self._fitting() if graph.size > 1]
        holding = next((g for g in prefills if g.size >= n), None)
        if holding and _WORTH * n >= holding.size:
            return holding
        return next((g for g in reversed(prefills) if g.size <= n), None)

    def _prefill(self, rows: np.ndarray, graph: _Graph, *, together: bool = False) -> None:
        """Fill the cache. What stands behind the rows is written too, and hidden until it is overwritten.

        Each row sees those before it, or, `together`, all of them.
        """
        given, at, mask = self._inputs(rows, graph, together=together)
        self._run(graph.key, given, at, mask)
        self._seen[..., self._position : self._position + len(rows)] = 0
        self._position += len(rows)

    def _inputs(
        self, rows: np.ndarray, graph: _Graph, *, together: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows, filled up with zeros, their positions, and what each of them sees."""
        import numpy as np

        given = np.zeros((1, graph.size, *rows.shape[1:]), rows.dtype)
        given[0, : len(rows)] = rows
        at = np.arange(self._position, self._position + graph.size, dtype=np.int32)
        last = np.maximum(at, at[len(rows) - 1]) if together else at
        later = np.arange(graph.window)[None, :] > last[:, None]
        return given, at, np.where(later, np.float32(_HIDDEN), np.float32(0))[None, None]

    def _decode(self, row: np.ndarray) -> np.ndarray:
        """Logits after one row `(1,)` or `(1, hidden)`."""
        graph = self._fitting()[0]
        self._at[0] = self._position
        self._seen[..., self._position] = 0
        try:
            logits = self._run(graph.key, row[None], self._at, self._seen[..., : graph.window])
        except BaseException:
            self._seen[..., self._position] = _HIDDEN
            raise
        self._position += 1
        assert logits is not None
        return logits

    def _run(self, signature: str, given: np.ndarray, at: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        self._peeked = 0
        return self._open().run(signature, given, at, mask)

    def _open(self) -> litert.Runner:
        if self._runner is None:
            raise UsageError("this session is closed", hint="open the bundle again")
        return self._runner

    def _check(self, tokens: Sequence[int]) -> None:
        self._open()
        if not len(tokens):
            raise UsageError("there is nothing to feed: no tokens were given")
        low, high = min(tokens), max(tokens)
        if low < 0 or high >= self.vocab_size:
            raise UsageError(f"token id {low if low < 0 else high} is outside the vocabulary of {self.vocab_size}")
        self._room(len(tokens))

    def _room(self, n: int) -> None:
        if self._position + n > self.context_length:
            raise ContextFull(self._position, n, self.context_length)


def load(
    folder: Path,
    bundle: Bundle,
    *,
    threads: int | None = None,
    context_length: int | None = None,
    interpreter: bool = False,
) -> TfliteSession:
    """A session for a bundle of format `tflite`.

    The file is checked before a runtime sees it. `threads` defaults to the physical cores this
    process may use; `interpreter` takes the interpreter where the compiled model is there too.
    Raises `InputError` for a file that cannot be a decoder.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"cannot run on {threads} threads")
    path = Path(folder) / bundle.model_file
    header = reader.read(path)
    _refuse_others(path, header)
    n = threads or physical_cores()
    runner: litert.Runner
    signatures = header.signatures
    if litert.has_compiled_model() and not interpreter:
        sha256 = next((f.sha256 for f in bundle.files if f.path == bundle.model_file), "")
        packed = litert.packed_weights(sha256, _version()) if sha256 else ":memory"
        runner = litert.CompiledRunner(path, signatures, threads=n, packed=packed)
    else:
        # It copies the whole cache at every token: what a near graph saves is lost in that.
        signatures = {key: signature for key, signature in signatures.items() if not litert.near_of(key)}
        runner = litert.InterpreterRunner(path, signatures, threads=n)
    return TfliteSession(
        runner,
        signatures,
        context_length=context_length or bundle.context_length,
        embedder=embedder(Path(folder), bundle, header),
        bidirectional=bool(bundle.image.get("bidirectional")),
    )


def embedder(folder: Path, bundle: Bundle, header: reader.TfliteHeader) -> Any:
    """What makes embeddings of tokens, for a decoder that takes those; None for one that takes tokens.

    Raises `InputError` when the bundle does not have it.
    """
    if litert.given_input(header.signatures["decode"]) != "embeddings":
        return None
    if "embedding" not in bundle.parts:
        path = folder / bundle.model_file
        raise InputError(f"{path} takes embeddings, and the bundle has no embedder", hint="export it again")
    return litert.open_signature(folder / bundle.parts["embedding"], "decode_embedder", threads=1)


def build() -> dict[str, str]:
    """What runs: the runtime's version."""
    if not litert.has_compiled_model():
        litert.interpreter_class()
    return {"ai-edge-litert" if litert.has_compiled_model() else "tflite-runtime": _version()}


def _version() -> str:
    from importlib import metadata

    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    require("ai_edge_litert", extra=EXTRA, purpose="running a TFLite bundle")
    return ""


def _refuse_others(path: Path, header: reader.TfliteHeader) -> None:
    """Raise `InputError` unless all signatures are those of a decoder with one float32 cache."""
    decode = header.signatures.get("decode")
    given = litert.given_input(decode) if decode else "tokens"
    wanted = {given, "input_pos", "mask"}
    reason = "" if decode else f"its signatures are {', '.join(header.signatures) or 'none'}"
    for key, signature in header.signatures.items() if decode else ():
        inputs = signature.inputs
        cache = {n: t.shape for n, t in inputs.items() if n.startswith(litert.CACHE_PREFIX)}
        logits = signature.outputs.get("logits")
        tokens = inputs.get(given)
        window, plain = litert.near_of(key) or (decode.inputs["mask"].shape[-1] if decode else 0, key)
        if set(inputs) - set(cache) != wanted or not cache or tokens is None or len(tokens.shape) < 2:
            reason = f"{key} takes {', '.join(inputs)[:200]}"
        elif not set(cache) <= set(signature.outputs) or ("prefill" not in plain and logits is None):
            reason = f"{key} gives {', '.join(signature.outputs)[:200]}"
        elif any(t.type != "float32" for n, t in inputs.items() if n not in {"tokens", "input_pos"}):
            reason = f"{key} takes something else than float32"
        elif plain not in ("decode", f"prefill_{tokens.shape[1]}", f"{litert.AHEAD}{tokens.shape[1]}"):
            reason = f"{key} is no prefill of {tokens.shape[1]} tokens"
        elif litert.is_ahead(key) and logits is not None and logits.shape[-2:-1] != (tokens.shape[1],):
            reason = f"{key} gives no logits after each token"
        elif decode is not None and (
            any(decode.inputs[n].shape != shape for n, shape in cache.items() if n in decode.inputs)
            or inputs["mask"].shape[-1:] != (window,)
            or window > decode.inputs["mask"].shape[-1]
        ):
            reason = f"{key} and decode have caches of different sizes"
    if reason:
        raise InputError(f"{path} is no decoder with a KV cache as edge writes it: {reason}", hint="export it again")
