"""ONNX on onnxruntime, with inputs, outputs and the KV cache bound once and kept in place.

What follows from measuring (2 cores, SmolLM2-135M):

1. Past and present of each layer are the same buffer, as long as the context: GroupQueryAttention
   appends in place, and rewinding is a smaller attention mask. Nothing is copied between tokens.
2. A token's id and the mask are views of NumPy arrays that the runtime reads where they are.
3. A prompt is fed in pieces of `CHUNK`; more at once would only cost memory. The graph gives logits for
   every position unless it is told by `logits_from` that the last ones are enough: the head is a fifth of
   the work, and its rows are most of the memory.

A model that sees has its token embedding in a file of its own, and its decoder takes embeddings:
those of tokens and those of pictures go into one cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError, require
from edge.readers import onnx as reader
from edge.runtimes.ahead import Way
from edge.runtimes.cores import physical_cores
from edge.runtimes.onnx_growing import GrowingSession
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

EXTRA = "onnx"
CHUNK = 128
LOGITS_FROM = "logits_from"
_WAYS = tuple(Way(n, f"{n} rows") for n in (2, 4, 8))
_NUMPY = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int8)": "int8"}


class OnnxSession:
    """One onnxruntime session; see `edge.runtimes.session.Session`."""

    def __init__(self, path: Path, graph: Any, *, context_length: int, embedding: Any = None) -> None:
        """`graph` and `embedding` are onnxruntime's sessions; `path` is for saying what is wrong."""
        import numpy as np

        self._ort = _onnxruntime()
        self._path = path
        self._inner: Any = graph
        self._embedding: Any = embedding
        self._input = "inputs_embeds" if embedding else "input_ids"
        inputs = {i.name: i for i in self._inner.get_inputs()}
        outputs = {o.name: o for o in self._inner.get_outputs()}
        past = [n for n in inputs if n.startswith("past_key_values.")]
        missing = {self._input, "attention_mask"} - set(inputs) or {"logits"} - set(outputs)
        if missing or not past or set(inputs) - set(past) - {self._input, "attention_mask"}:
            raise InputError(
                f"{path} is no decoder with a KV cache as edge writes it: its inputs are {', '.join(inputs)[:200]}",
                hint="export it again",
            )
        self.context_length = context_length
        self.vocab_size = int(outputs["logits"].shape[-1])
        self.hidden_size = int(inputs[self._input].shape[-1]) if embedding else 0
        self._position = 0
        self._peeked = 0  # tokens behind the position that the cache has already
        # Of one row, attention over floats sums up in another order than of several; over int8 it does not.
        self._alike = {inputs[name].type for name in past} == {"tensor(int8)"}
        self._logits_type = _NUMPY[outputs["logits"].type]
        self._value = self._ort.OrtValue.ortvalue_from_numpy
        self._binding = self._inner.io_binding()
        self._mask = np.ones((1, context_length), np.int64)
        self._ids = np.zeros((1, CHUNK), np.int64)
        self._one_id = self._value(self._ids[:, :1])
        # Each row of the cache is written before it is read; zeros only keep old memory out of sight.
        # Name of the graph's input -> keys or values `(1, heads, context, width)`, which the runtime reads in place.
        self.cache: dict[str, np.ndarray] = {}
        self._cache = []
        for name in past:
            _, heads, _, width = inputs[name].shape
            self.cache[name] = np.zeros((1, heads, context_length, width), _NUMPY[inputs[name].type])
            self._cache.append(self._value(self.cache[name]))
            self._binding.bind_ortvalue_input(name, self._cache[-1])
            self._binding.bind_ortvalue_output(name.replace("past_key_values", "present"), self._cache[-1])
        self._one_row = np.empty((1, 1, self.vocab_size), self._logits_type)
        self._rows = np.empty((1, 0, self.vocab_size), self._logits_type)
        self._one_output = self._value(self._one_row)
        self._chooses_rows = LOGITS_FROM in {i.name for i in self._inner.get_overridable_initializers()}
        self._last, self._first = (self._value(np.array([row])) for row in (-1, 0))

    @property
    def position(self) -> int:
        return self._position

    @property
    def ways(self) -> tuple[Way, ...]:
        left = self.context_length - self._position
        return tuple(way for way in _WAYS if way.size <= left) if self._alike else ()

    def peek(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` after each of the tokens, none of which is held yet: see `edge.runtimes.ahead`."""
        import numpy as np

        self._check(tokens)
        if len(tokens) not in [way.size for way in self.ways]:
            raise UsageError(f"cannot look {len(tokens)} tokens ahead here")
        rows = self._feed_chunk(np.asarray(tokens, np.int64)[None])
        self._position -= len(tokens)
        self._peeked = len(tokens)
        return rows.astype(np.float32, copy=False)

    def take(self) -> None:
        """Hold the next of the tokens that were peeked at."""
        if not self._peeked:
            raise UsageError("nothing was looked at ahead, or something else was fed since")
        self._position += 1
        self._peeked -= 1

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(tokens)
        if len(tokens) == 1:
            self._ids[0, 0] = tokens[0]
            one = self._one_id if self._embedding is None else self._value(self._rows_of(self._ids[:, :1]))
            self._run(1, one, self._one_output)
            return self._one_row[0, 0].astype(np.float32, copy=False)
        ids = np.asarray(tokens, np.int64)[None]
        for start in range(0, ids.shape[1], CHUNK):
            rows = self._feed_chunk(ids[:, start : start + CHUNK], last=True)
        return rows[-1].astype(np.float32, copy=False)

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(tokens)
        ids = np.asarray(tokens, np.int64)[None]
        out = np.empty((ids.shape[1], self.vocab_size), np.float32)
        for start in range(0, ids.shape[1], CHUNK):
            rows = self._feed_chunk(ids[:, start : start + CHUNK])
            out[start : start + len(rows)] = rows
        return out

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        import numpy as np

        self._open()
        if self._embedding is None:
            raise UsageError("this ONNX bundle takes token ids only: it is no vision-language model")
        given = np.ascontiguousarray(embeddings, np.float32)
        if given.ndim != 2 or given.shape[1] != self.hidden_size or not len(given):
            raise UsageError(f"wanted embeddings of shape (n, {self.hidden_size}), found {given.shape}")
        self._room(len(given))
        for start in range(0, len(given), CHUNK):
            rows = self._feed_rows(given[None, start : start + CHUNK], last=True)
        return rows[-1].astype(np.float32, copy=False)

    def rewind(self, n_tokens: int) -> None:
        self._open()
        if not 0 <= n_tokens <= self._position:
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {self._position} tokens")
        self._position, self._peeked = n_tokens, 0

    def another(self) -> OnnxSession:
        """A session on the same weights, with a cache of its own."""
        self._open()
        return OnnxSession(self._path, self._inner, context_length=self.context_length, embedding=self._embedding)

    def keep(self) -> list[np.ndarray]:
        """What the cache holds, for `restore`."""
        self._open()
        return [rows[:, :, : self._position].copy() for rows in self.cache.values()]

    def restore(self, n_tokens: int, kept: Sequence[np.ndarray]) -> None:
        """Hold what was kept instead. `InputError` when it does not fit; the cache is as it was then."""
        self._open()
        if [k.shape for k in kept] != [rows[:, :, :n_tokens].shape for rows in self.cache.values()]:
            raise InputError("this cache has another shape than the model's")
        for rows, values in zip(self.cache.values(), kept, strict=True):
            rows[:, :, :n_tokens] = values
        self._position = n_tokens

    def close(self) -> None:
        self._inner = self._binding = self._embedding = None
        self._cache = []
        self.cache = {}

    def _feed_chunk(self, ids: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Logits `(n, vocab)` of up to `CHUNK` tokens, or of the `last` alone, until the next call overwrites them."""
        return self._feed_rows(ids if self._embedding is None else self._rows_of(ids), last=last)

    def _rows_of(self, ids: np.ndarray) -> np.ndarray:
        """The embeddings of ids `(1, n)`, float32 `(1, n, hidden)`."""
        import numpy as np

        out: np.ndarray = self._embedding.run(None, {"input_ids": np.ascontiguousarray(ids)})[0]
        return out

    def _feed_rows(self, given: np.ndarray, *, last: bool = False) -> np.ndarray:
        import numpy as np

        n = given.shape[1]
        value = self._value(np.ascontiguousarray(given))
        if last and self._chooses_rows:
            self._run(n, value, self._one_output, self._last)
            one: np.ndarray = self._one_row[0]
            return one
        if self._rows.shape[1] != n:
            self._rows = np.empty((1, n, self.vocab_size), self._logits_type)
        self._run(n, value, self._value(self._rows), self._first)
        out: np.ndarray = self._rows[0]
        return out

    def _run(self, n: int, given: Any, logits: Any, logits_from: Any = None) -> None:
        binding = self._binding
        self._peeked = 0
        binding.bind_ortvalue_input(self._input, given)
        binding.bind_ortvalue_input("attention_mask", self._value(self._mask[:, : self._position + n]))
        binding.bind_ortvalue_output("logits", logits)
        if self._chooses_rows and logits_from is not None:
            binding.bind_ortvalue_input(LOGITS_FROM, logits_from)
        try:
            self._inner.run_with_iobinding(binding)
        except Exception as err:  # noqa: BLE001
            reason = (str(err).splitlines() or [type(err).__name__])[0][:300]
            raise EdgeError(
                f"onnxruntime failed at token {self._position}: {reason}",
                hint="check the bundle with: edge inspect BUNDLE --check",
            ) from None
        self._position += n

    def _open(self) -> None:
        if self._inner is None:
            raise UsageError("this session is closed", hint="open the bundle again")

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
    profile_to: str = "",
) -> OnnxSession | GrowingSession:
    """A session for a bundle of format `onnx`.

    The file is checked before onnxruntime sees it. `threads` defaults to the physical cores this
    process may use. Raises `InputError` for a file that cannot be a model. With `profile_to`, onnxruntime
    writes the time of every operator into a file whose name begins so (`edge.runtimes.profilers.onnx`).
    """
    require("onnxruntime", extra=EXTRA, purpose="running an ONNX bundle")
    if threads is not None and threads < 1:
        raise UsageError(f"cannot run on {threads} threads")
    length = context_length or bundle.context_length
    path = checked(Path(folder) / bundle.model_file)
    embedding = bundle.parts.get("embedding")
    if "position_ids" in reader.read(path).inputs:
        return GrowingSession(open_graph(path, threads or physical_cores(), profile_to), context_length=length)
    n = threads or physical_cores()
    return OnnxSession(
        path,
        open_graph(path, n, profile_to),
        context_length=length,
        embedding=open_graph(checked(Path(folder) / embedding), n) if embedding else None,
    )


def checked(path: Path) -> Path:
    """The path of a file that can be a model. Raises `InputError` for any other."""
    if not reader.read(path).tensors:
        raise InputError(f"{path} has no weights", hint="export it again")
    return path


def open_graph(path: Path, threads: int, profile_to: str = "") -> Any:
    """An onnxruntime session. Raises `InputError` when it does not load."""
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The mask grows by one with every token, and onnxruntime would plan its memory anew for each length:
    # 4 % of a token of SmolLM2-135M at 4 bits.
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    if profile_to:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime raises its own exception types, none of which is exported.
    except Exception as err:  # noqa: BLE001
        reason = (str(err).splitlines() or [type(err).__name__])[0][:300]
        raise InputError(f"onnxruntime cannot load {path}: {reason}", hint="export it again") from None


def build() -> dict[str, str]:
    """What runs: onnxruntime's version and how it was built."""
    ort = _onnxruntime()
    return {"onnxruntime": ort.__version__, "build": ort.get_build_info()}


def _onnxruntime() -> Any:
    """The library, without its telemetry: the variable must be there before it loads."""
    require("onnxruntime", extra=EXTRA, purpose="running an ONNX bundle")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime
