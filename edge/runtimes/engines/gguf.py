"""GGUF on llama.cpp, through the low-level API of `llama-cpp-python`.

What was measured, and what follows from it (2 cores, SmolLM2-135M):

1. The KV cache is float32 for an `f32` bundle and float16 for every other: half the memory, and
   quantization hides the difference. Exported with a cache of 8 bits, it is q8_0: half of that again.
2. Flash attention is on: without it a token fed alone and the same token fed in a batch give
   different bits, so a rewound session would not repeat itself. (With several threads they differ even
   so from 256 tokens on, and batches of four rows of q4_K too: decision 24.) It also needs less scratch.
   But it rounds keys and values to half precision whatever the cache holds (NMSE 1e-6 of a tiny random
   model, 1e-12 without), so an `f32` bundle, which is there to be exact, goes without it.
3. Logits are kept for at most `_LOGITS_BYTES` of positions per call of llama.cpp, which would
   otherwise reserve them for the whole batch: 100 MB for 512 tokens of a 49,152-word vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError, require
from edge.runtimes.ahead import Way
from edge.runtimes.cores import physical_cores
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

EXTRA = "gguf"

_BATCH = 512  # tokens per call of llama_decode; more does not make prefill faster on a CPU
_LOGITS_BYTES = 12 << 20
_CACHES = {"f32": 0, "f16": 1, "q8_0": 8}  # ggml's numbers of these types
_FLASH_ATTENTION_OFF, _FLASH_ATTENTION_ON = 0, 1
_WHOLE_CELLS = 256  # llama.cpp looks at the cache in so many at a time
# How many rows kernels compute as they compute one alone, by the type of the matrix: those of simple blocks any number,
# those of K-quants fewer than the four that they were written for, those of floats none (decision 24).
_TOGETHER = {"Q4_0": 8, "Q4_1": 8, "Q5_0": 8, "Q5_1": 8, "Q8_0": 8, "F32": 0, "F16": 0, "BF16": 0}
_TOGETHER_ELSE = 3
_SIZES = {0: (), 3: (2, 3), 8: (4, 8)}  # of batches that are worth trying
_REASONS = {1: "no room in the KV cache", 2: "the computation was aborted", -1: "the batch is invalid"}


class _Weights:
    """llama.cpp's model, in memory once for all sessions on it; freed with the last of them."""

    def __init__(self, pointer: Any, free: Callable[[Any], None]) -> None:
        self.pointer = pointer
        self._free, self._users = free, 0

    def take(self) -> _Weights:
        self._users += 1
        return self

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._free(self.pointer)


class GgufSession:
    """One llama.cpp context on a model; see `edge.runtimes.session.Session`."""

    def __init__(
        self,
        path: Path,
        *,
        context_length: int,
        threads: int,
        cache: str = "f16",
        bidirectional: bool = False,
        together: int = 0,
        weights: _Weights | None = None,
        watch: Any = None,
    ) -> None:
        import llama_cpp
        import numpy as np

        from edge.runtimes.llama_log import captured

        self._c: Any = llama_cpp
        self._model: Any = None
        self._context: Any = None
        self._again = functools.partial(
            GgufSession, path, context_length=context_length, threads=threads, cache=cache,
            bidirectional=bidirectional, together=together,
        )  # fmt: skip
        with captured() as log:
            if weights is None:
                model_params = llama_cpp.llama_model_default_params()
                model_params.n_gpu_layers = 0
                model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
                pointer = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
                if not pointer:
                    raise InputError(f"llama.cpp cannot load {path}: {log.reason()}", hint="export it again")
                weights = _Weights(pointer, llama_cpp.llama_model_free)
            self._weights = weights.take()
            self._model = weights.pointer
            vocab = llama_cpp.llama_model_get_vocab(self._model)
            self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(vocab)
            self.hidden_size: int = llama_cpp.llama_model_n_embd_inp(self._model)
            self.context_length = context_length
            # Tokens whose logits there is room for, in one call.
            self.n_outputs = max(1, min(_BATCH, context_length, _LOGITS_BYTES // (4 * self.vocab_size)))

            params = llama_cpp.llama_context_default_params()
            params.n_ctx = context_length
            params.n_batch = params.n_ubatch = min(_BATCH, context_length)
            params.n_outputs_max = self.n_outputs
            params.n_threads = params.n_threads_batch = threads
            params.flash_attn_type = _FLASH_ATTENTION_OFF if cache == "f32" else _FLASH_ATTENTION_ON
            params.type_k = params.type_v = _CACHES[cache]
            # Of a model that makes vectors too: they are pooled by whoever asks for them (edge.runtimes.embedders).
            params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
            params.no_perf = True
            if watch is not None:  # called before and after every operator, which then run one by one
                self._watch = params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(watch)
            self._context = llama_cpp.llama_init_from_model(self._model, params)
            if not self._context:
                self.close()
                raise EdgeError(
                    f"llama.cpp cannot make a context of {context_length} tokens for {path}: {log.reason()}",
                    hint="ask for a shorter one with --context",
                )
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch_size: int = params.n_batch
        self._bidirectional = bidirectional  # whether the rows of a picture see each other
        self._position = 0
        self._peeked = 0  # tokens behind the position that the cache has already
        self._ways = tuple(Way(n, f"{n} rows") for n in _SIZES[together] if n <= self.n_outputs)
        # With several threads a single token's attention is cut up where the cache is longer, unless it is q8_0.
        self._alike_until = context_length if cache == "q8_0" or threads == 1 else _WHOLE_CELLS
        self._rope_type = llama_cpp.llama_model_rope_type(self._model)
        self._grids: list[tuple[int, int, int]] = []  # pictures in the cache: their first row, rows, places they take
        self._tokens = np.empty(self._batch_size, np.int32)
        self._places = np.empty(4 * self._batch_size, np.int32)
        self._wanted = np.ones(self._batch_size, np.int8)
        self._token_pointer = self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._places_pointer = self._places.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._wanted_pointer = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self._views: dict[int, np.ndarray] = {}

    @property
    def position(self) -> int:
        return self._position

    @property
    def model_pointer(self) -> Any:
        """llama.cpp's model, for what works on it: the multimodal library. Valid until `close`."""
        self._open()
        return self._model

    @property
    def context_pointer(self) -> Any:
        """llama.cpp's context, for what reads more from it than logits. Valid until `close`."""
        self._open()
        return self._context

    @property
    def ways(self) -> tuple[Way, ...]:
        left = min(self._alike_until, self.context_length) - self._position
        return () if self._grids else tuple(way for way in self._ways if way.size <= left)

    def peek(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` after each of the tokens, none of which is held yet: see `edge.runtimes.ahead`."""
        n = len(tokens)
        ids = self._check(tokens)
        if n not in [way.size for way in self.ways]:
            raise UsageError(f"cannot look {n} tokens ahead here")
        self._append(n, lambda start, n: self._decode_tokens(ids, start, n, all_logits=True))
        self._position -= n
        self._peeked = n
        return self._logits(0, rows=n)

    def take(self) -> None:
        """Hold the next of the tokens that were peeked at."""
        if not self._peeked:
            raise UsageError("nothing was looked at ahead, or something else was fed since")
        self._position += 1
        self._peeked -= 1

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        ids = self._check(tokens)
        return self._append(len(ids), lambda start, n: self._decode_tokens(ids, start, n, all_logits=False))

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        ids = self._check(tokens)
        out = np.empty((len(ids), self.vocab_size), np.float32)

        def decode(start: int, n: int) -> int:
            rc = self._decode_tokens(ids, start, n, all_logits=True)
            if rc == 0:
                out[start : start + n] = self._logits(0, rows=n)
            return rc

        self._append(len(ids), decode, chunk=min(self.n_outputs, self._batch_size))
        return out

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        rows = self._rows(embeddings)
        pointer = ctypes.POINTER(ctypes.c_float)

        def decode(start: int, n: int) -> int:
            batch = self._c.llama_batch(n_tokens=n, embd=rows[start : start + n].ctypes.data_as(pointer))
            return self._c.llama_decode(self._context, batch)

        if not self._bidirectional:
            return self._append(len(rows), decode)
        if len(rows) > self._batch_size:
            raise UsageError(f"{len(rows)} rows of a picture see each other, at most {self._batch_size} at once can")
        self._c.llama_set_causal_attn(self._context, False)
        try:
            return self._append(len(rows), decode)
        finally:
            self._c.llama_set_causal_attn(self._context, True)

    def feed_grid(self, embeddings: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Append a picture whose rows are placed in height and width (M-RoPE), `grid` rows and columns of them.

        All of it stands at one point in time; what follows comes after as many places as its longer side has.
        """
        import numpy as np

        rows = self._rows(embeddings)
        if self._rope_type not in (self._c.LLAMA_ROPE_TYPE_MROPE, self._c.LLAMA_ROPE_TYPE_IMROPE):
            raise UsageError("this model places what it reads one after the other, not in rows and columns")
        if len(rows) != grid[0] * grid[1]:
            raise UsageError(f"{len(rows)} rows are no picture of {grid[0]} x {grid[1]}")
        begin = self._place(self._position)
        at = (
            np.stack([np.zeros(len(rows), np.int32), *np.divmod(np.arange(len(rows), dtype=np.int32), grid[1])]) + begin
        )
        pointer = ctypes.POINTER(ctypes.c_float)

        def decode(start: int, n: int) -> int:
            self._places[: 3 * n] = at[:, start : start + n].reshape(-1)
            self._places[3 * n : 4 * n] = 0
            embd = rows[start : start + n].ctypes.data_as(pointer)
            batch = self._c.llama_batch(n_tokens=n, embd=embd, pos=self._places_pointer)
            return self._c.llama_decode(self._context, batch)

        first = self._position
        logits = self._append(len(rows), decode)
        self._grids.append((first, len(rows), max(grid)))
        return logits

    def rewind(self, n_tokens: int) -> None:
        self._open()
        if not 0 <= n_tokens <= self._position:
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {self._position} tokens")
        if any(first < n_tokens < first + n for first, n, _ in self._grids):
            raise UsageError(f"cannot rewind to {n_tokens}: that is inside a picture")
        if not self._c.llama_memory_seq_rm(self._memory, 0, self._place(n_tokens), -1):
            raise EdgeError(
                f"this model's memory cannot be cut back to {n_tokens} tokens: it is not a plain KV cache",
                hint="rewind to 0 and feed the conversation again",
            )
        self._position, self._peeked = n_tokens, 0
        self._grids = [grid for grid in self._grids if grid[0] < n_tokens]

    def another(self) -> GgufSession:
        """A session on the same weights, with a cache of its own."""
        self._open()
        return self._again(weights=self._weights)

    def keep(self) -> list[np.ndarray]:
        """What the cache holds, for `restore`. `UsageError` with a picture that is placed in rows and columns."""
        import numpy as np

        self._open()
        if self._grids:
            raise UsageError("a cache with pictures that are placed in rows and columns cannot be kept")
        self._forget()
        size = self._c.llama_state_seq_get_size(self._context, 0)
        held = np.empty(size, np.uint8)
        used = self._c.llama_state_seq_get_data(self._context, _bytes_of(held), size, 0)
        return [held[:used]]

    def restore(self, n_tokens: int, kept: Sequence[np.ndarray]) -> None:
        """Hold what was kept instead. `InputError` when it does not fit; the cache is empty then."""
        self.rewind(0)
        [held] = kept
        if not self._c.llama_state_seq_set_data(self._context, _bytes_of(held), len(held), 0):
            self._c.llama_memory_seq_rm(self._memory, 0, 0, -1)
            raise InputError("llama.cpp cannot take this cache back")
        self._position = n_tokens

    def close(self) -> None:
        self._views = {}
        if self._context:
            self._c.llama_free(self._context)
            self._context = None
        if self._model:
            self._weights.leave()
            self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    def _open(self) -> None:
        if not self._context:
            raise UsageError("this session is closed", hint="open the bundle again")

    def _forget(self) -> None:
        """Drop from the cache what was only peeked at."""
        if self._peeked:
            self._c.llama_memory_seq_rm(self._memory, 0, self._place(self._position), -1)
            self._peeked = 0

    def _room(self, n: int) -> None:
        if self._position + n > self.context_length:
            raise ContextFull(self._position, n, self.context_length)

    def _check(self, tokens: Sequence[int]) -> Any:
        """The tokens, once they are known to be ids of this vocabulary that still fit."""
        import numpy as np

        self._open()
        n = len(tokens)
        if not n:
            raise UsageError("there is nothing to feed: no tokens were given")
        ids: Any = tokens if n == 1 else np.asarray(tokens)
        low, high = (ids[0], ids[0]) if n == 1 else (ids.min(), ids.max())
        if low < 0 or high >= self.vocab_size:
            bad = low if low < 0 else high
            raise UsageError(f"token id {bad} is outside the vocabulary of {self.vocab_size}")
        self._room(n)
        return ids

    def _rows(self, embeddings: np.ndarray) -> np.ndarray:
        """The embeddings, once they are known to be the model's and still fit."""
        import numpy as np

        self._open()
        rows = np.ascontiguousarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.hidden_size or not len(rows):
            raise UsageError(f"wanted embeddings of shape (n, {self.hidden_size}), found {rows.shape}")
        self._room(len(rows))
        return rows

    def _place(self, n_tokens: int) -> int:
        """Where in llama.cpp's counting what follows the first `n_tokens` stands: a picture may take fewer places."""
        return n_tokens - sum(n - places for first, n, places in self._grids if first < n_tokens)

    def _decode_tokens(self, ids: Sequence[int], start: int, n: int, *, all_logits: bool) -> int:
        self._tokens[:n] = ids[start : start + n]
        batch = self._c.llama_batch(n_tokens=n, token=self._token_pointer)
        if self._grids:  # llama.cpp would count on from the picture's first place
            begin = self._place(self._position) + start
            self._places[:n] = range(begin, begin + n)
            batch.pos = self._places_pointer
        if all_logits:
            batch.logits = self._wanted_pointer
        return self._c.llama_decode(self._context, batch)

    def _append(self, n: int, decode: Any, *, chunk: int | None = None) -> np.ndarray:
        """Run `decode(start, n)` over chunks; the last position's logits. All of it or nothing."""
        self._forget()
        step = chunk or self._batch_size
        for start in range(0, n, step):
            rc = decode(start, min(step, n - start))
            if rc != 0:
                self._c.llama_memory_seq_rm(self._memory, 0, self._place(self._position), -1)
                raise EdgeError(
                    f"llama.cpp failed at token {self._position + start}: {_REASONS.get(rc, 'internal error')} ({rc})",
                    hint="the session is as it was before; check the bundle with: edge inspect BUNDLE --check",
                )
        self._position += n
        return self._logits(-1)

    def _logits(self, index: int, rows: int | None = None) -> np.ndarray:
        """A view of llama.cpp's own buffer: nothing is copied."""
        import numpy as np

        pointer = self._c.llama_get_logits_ith(self._context, index)
        if not pointer:
            raise EdgeError("llama.cpp returned no logits", hint="is this a model that generates text?")
        address = ctypes.addressof(pointer.contents)
        if rows is not None:
            flat: Any = (ctypes.c_float * (rows * self.vocab_size)).from_address(address)
            return np.frombuffer(flat, np.float32).reshape(rows, self.vocab_size)
        view = self._views.get(address)
        if view is None:
            row: Any = (ctypes.c_float * self.vocab_size).from_address(address)
            view = np.frombuffer(row, np.float32)
            self._views[address] = view
        return view


def _bytes_of(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def load(
    folder: Path,
    bundle: Bundle,
    *,
    threads: int | None = None,
    context_length: int | None = None,
    watch: Any = None,
) -> GgufSession:
    """A session for a bundle of format `gguf`.

    The file's header is checked before llama.cpp sees it. `threads` defaults to the physical
    cores this process may use. Raises `InputError` for a file that cannot be a model.
    `watch(tensor, ask, _)` is called around every operator (`edge.runtimes.profilers.gguf`).
    """
    require("llama_cpp", extra=EXTRA, purpose="running a GGUF bundle")
    path = Path(folder) / bundle.model_file
    return open_file(
        path,
        threads=threads,
        context_length=context_length or bundle.context_length,
        cache=cache_type(bundle),
        bidirectional=bool(bundle.image.get("bidirectional")),
        watch=watch,
    )


def cache_type(bundle: Bundle) -> str:
    """What keys and values are held in. Raises `InputError` for a type that was never exported."""
    asked = (bundle.plan.get("kv_cache") or {}).get("type")
    if asked is not None and asked not in _CACHES:
        raise InputError(
            f"{bundle.name} asks for a KV cache of type {asked!r}", hint=f"there are: {', '.join(_CACHES)}"
        )
    return str(asked or ("f32" if bundle.quantization == "f32" else "f16"))


def open_file(
    path: Path,
    *,
    context_length: int,
    threads: int | None = None,
    cache: str = "f16",
    bidirectional: bool = False,
    watch: Any = None,
) -> GgufSession:
    """A session for one GGUF file, without a bundle around it."""
    from edge.runtimes.llama_vocab import check_file

    if context_length < 1:
        raise UsageError(f"a context of {context_length} tokens holds nothing")
    if threads is not None and threads < 1:
        raise UsageError(f"cannot run on {threads} threads")
    types = {tensor.type for tensor in check_file(path).tensors.values() if len(tensor.shape) > 1}
    return GgufSession(
        path,
        context_length=context_length,
        threads=threads or physical_cores(),
        cache=cache,
        bidirectional=bidirectional,
        together=min((_TOGETHER.get(kind, _TOGETHER_ELSE) for kind in types), default=0),
        watch=watch,
    )


def build() -> dict[str, str]:
    """What runs: the package's version and what its library was compiled for."""
    require("llama_cpp", extra=EXTRA, purpose="running a GGUF bundle")
    import llama_cpp

    features = llama_cpp.llama_print_system_info().decode(errors="replace")
    return {"llama-cpp-python": llama_cpp.__version__, "llama.cpp": " ".join(features.split())}
