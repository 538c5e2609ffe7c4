"""LiteRT by its C interface, for what its Python interface does not reach: the profiler.

The library is the one that the package ships. Structures and functions are those of `litert/c/litert_model.h`,
`litert_compiled_model.h`, `litert_profiler.h` and `litert_profiler_event.h` of LiteRT 2.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, require

_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_TYPE_BYTES = 256  # LiteRtRankedTensorType is 76 bytes; room for it to grow
OPERATOR, DELEGATED = 2, 8  # event types: an operator of the graph, one of those that XNNPACK runs for it


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("total", "in_use", "private")]


class Event(ctypes.Structure):
    """LiteRT's `ProfiledEventData`."""

    _fields_ = [
        ("tag", ctypes.c_char_p), ("type", ctypes.c_int), ("start_us", ctypes.c_uint64), ("us", ctypes.c_uint64),
        ("before", _Memory), ("after", _Memory), ("index", ctypes.c_uint64), ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]  # fmt: skip


class ProfiledModel:
    """A compiled model whose operators are timed; inputs are written by name, the cache is shared by all signatures."""

    def __init__(self, path: Path, *, threads: int, packed: str) -> None:
        require("ai_edge_litert", extra="tflite", purpose="profiling a TFLite bundle")
        import ai_edge_litert

        library = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"
        if not library.is_file():
            raise EdgeError(f"this LiteRT has no C library at {library}: its operators cannot be timed")
        self._c = ctypes.CDLL(str(library))
        self._libc = ctypes.CDLL(None)
        self._libc.strdup.restype, self._libc.strdup.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self._environment, self._model, self._compiled = (ctypes.c_void_p() for _ in range(3))
        self._profiler = ctypes.c_void_p()
        options = ctypes.c_void_p()
        self._call("LiteRtCreateEnvironment", 0, None, byref(self._environment))
        self._call("LiteRtCreateModelFromFile", self._environment, str(path).encode(), byref(self._model))
        self._call("LiteRtCreateOptions", byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f'num_threads = {threads}\nweight_cache_file_path = "{packed}"\n')
        self._call("LiteRtCreateCompiledModel", self._environment, self._model, options, byref(self._compiled))
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, byref(self._profiler))
        self._inputs: dict[str, dict[str, Any]] = {}
        self._ordered: dict[str, tuple[int, Any, Any]] = {}
        self._buffers: list[Any] = []
        self._make_buffers()

    def write(self, signature: str, name: str, values: Any) -> None:
        """Put a NumPy array into an input."""
        self._fill(self._inputs[signature][name], values)

    def run(self, signature: str) -> None:
        """Run one signature on what its inputs hold."""
        index, given, made = self._ordered[signature]
        self._call(
            "LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(index), ctypes.c_size_t(len(given)), given,
            ctypes.c_size_t(len(made)), made,
        )  # fmt: skip

    def start(self) -> None:
        self._call("LiteRtStartProfiler", self._profiler)

    def take(self) -> list[dict[str, Any]]:
        """What was timed since the last time, in the order in which it ran."""
        n = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, byref(n))
        rows = (Event * max(1, n.value))()
        if n.value:
            self._call("LiteRtGetProfilerEvents", self._profiler, n, rows)
        found = [
            {"name": row.tag.decode(errors="replace"), "type": row.type, "us": row.us, "index": row.index}
            for row in rows[: n.value]
        ]
        # Emptying it ends it as well.
        self._call("LiteRtResetProfiler", self._profiler)
        self.start()
        return found

    def close(self) -> None:
        for buffer in self._buffers:
            self._c.LiteRtDestroyTensorBuffer(buffer)
        for name, handle in (
            ("CompiledModel", self._compiled),
            ("Model", self._model),
            ("Environment", self._environment),
        ):
            if handle:
                getattr(self._c, f"LiteRtDestroy{name}")(handle)
        self._buffers = []
        self._compiled = self._model = self._environment = ctypes.c_void_p()

    def _call(self, name: str, *args: Any) -> None:
        function = getattr(self._c, name)
        function.restype = ctypes.c_int
        code = function(*args)
        if code:
            raise EdgeError(f"LiteRT's {name} failed with {code}: its operators cannot be timed")

    def _add(self, options: Any, identifier: str, text: str) -> None:
        """Options that only their names and a line of TOML reach; LiteRT frees the text."""
        made = ctypes.c_void_p()
        text_pointer = ctypes.c_void_p(self._libc.strdup(text.encode()))
        free = ctypes.cast(self._libc.free, ctypes.c_void_p)
        self._call("LiteRtCreateOpaqueOptions", identifier.encode(), text_pointer, free, byref(made))
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _make_buffers(self) -> None:
        n = ctypes.c_size_t()
        self._call("LiteRtGetNumModelSignatures", self._model, byref(n))
        cache: dict[str, Any] = {}
        for index in range(n.value):
            signature, key = ctypes.c_void_p(), ctypes.c_char_p()
            self._call("LiteRtGetModelSignature", self._model, ctypes.c_size_t(index), byref(signature))
            self._call("LiteRtGetSignatureKey", signature, byref(key))
            sides = [self._side(signature, index, side, cache) for side in ("Input", "Output")]
            name = (key.value or b"").decode()
            self._inputs[name] = sides[0]
            given, made = ((ctypes.c_void_p * len(side))(*side.values()) for side in sides)
            self._ordered[name] = (index, given, made)

    def _side(self, signature: Any, index: int, side: str, cache: dict[str, Any]) -> dict[str, Any]:
        n = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", signature, byref(n))
        found: dict[str, Any] = {}
        for i in range(n.value):
            raw, tensor, needs, buffer = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
            at = ctypes.c_size_t(i)
            self._call(f"LiteRtGetSignature{side}Name", signature, at, byref(raw))
            name = (raw.value or b"").decode()
            if name in cache:
                found[name] = cache[name]
                continue
            self._call(f"LiteRtGetSignature{side}TensorByIndex", signature, at, byref(tensor))
            kind = (ctypes.c_uint8 * _TYPE_BYTES)()
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            self._call(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(index),
                at,
                byref(needs),
            )
            self._call("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs, byref(buffer))
            self._buffers.append(buffer)
            self._fill(buffer, None)
            found[name] = buffer
            if name.startswith("kv_cache_"):
                cache[name] = buffer
        return found

    def _fill(self, buffer: Any, values: Any) -> None:
        """Values, or zeros."""
        size, pointer = ctypes.c_size_t(), ctypes.c_void_p()
        self._call("LiteRtGetTensorBufferSize", buffer, byref(size))
        self._call("LiteRtLockTensorBuffer", buffer, byref(pointer), _WRITE)
        if values is None:
            ctypes.memset(pointer, 0, size.value)
        else:
            ctypes.memmove(pointer, values.ctypes.data, min(size.value, values.nbytes))
        self._call("LiteRtUnlockTensorBuffer", buffer)
