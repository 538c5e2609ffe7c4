"""The two ways to run a TFLite decoder: LiteRT's compiled model, and the interpreter where that is all there is.

Both run a signature on token ids (or embeddings, for a model that sees), positions and a mask, keep
the KV cache, and give the logits of `decode`. Measured on SmolLM2-135M with 2,048 positions: the
interpreter copies the whole cache in and out at every token (14 tok/s in float32); the compiled
model is given the same buffers as inputs and outputs (38 tok/s), which the graph's
DYNAMIC_UPDATE_SLICE then updates in place.
"""

from __future__ import annotations

import atexit
import functools
import gc
import hashlib
import importlib.util
import math
import os
import platform
import re
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge import cache
from edge.errors import EdgeError, InputError, require
from edge.readers.tflite import Signature
from edge.runtimes import native_stderr

if TYPE_CHECKING:
    import numpy as np

CACHE_PREFIX = "kv_cache_"
AHEAD = "ahead_"
_NEAR = re.compile(r"near_([1-9][0-9]{0,8})_(.+)")
_PACKED_FILES = 4  # of the most recently used models; each is as large as its model


class Runner(Protocol):
    """Runs one signature; `logits` float32 for all of its tokens in a row, nothing for a prefill."""

    def run(self, signature: str, given: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray | None: ...

    def another(self) -> Runner:
        """The same weights, with a cache of its own."""
        ...

    def cache(self) -> dict[str, np.ndarray]:
        """The whole cache: a copy of each tensor, by its name."""
        ...

    def set_cache(self, values: Mapping[str, np.ndarray]) -> None: ...

    def close(self) -> None: ...


class CompiledRunner:
    """`ai_edge_litert.compiled_model`, with one set of cache buffers for all signatures."""

    def __init__(self, path: Path, signatures: Mapping[str, Signature], *, threads: int, packed: str) -> None:
        import ai_edge_litert
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.cpu_options import CpuOptions
        from ai_edge_litert.environment import Environment
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import Options

        # A folder without plugins: left to itself, the library tries every accelerator it was shipped with.
        nothing = str(Path(ai_edge_litert.__file__).parent / "tools")
        options = Options(
            hardware_accelerators=HardwareAccelerator.CPU,
            cpu_options=CpuOptions(num_threads=threads, xnnpack_weight_cache_path=packed),
        )
        with native_stderr.captured() as log:
            try:
                environment = Environment.create(compiler_plugin_path=nothing, dispatch_library_path=nothing)
                model = CompiledModel.from_file(str(path), environment=environment, options=options)
                failed = None
            except (RuntimeError, ValueError) as err:
                failed = str(err)
        if failed is not None:
            raise InputError(f"LiteRT cannot load {path}: {failed or log.reason():.300}", hint="export it again")
        self._begin(path, signatures, model, environment)

    def _begin(self, path: Path, signatures: Mapping[str, Signature], model: Any, environment: Any) -> None:
        import numpy as np

        self._path, self._signatures = path, signatures
        self._open: dict[str, Any] = {}
        # The library logs every accelerator it meets, when it meets them and when it leaves them.
        weakref.finalize(self, _close_quietly, self._open)
        _end_quietly()
        decode = signatures["decode"]
        with native_stderr.captured() as log:
            try:
                create = model.create_input_buffer_by_name
                cache = {name: create("decode", name) for name in decode.inputs if name.startswith(CACHE_PREFIX)}
                self._inputs = {
                    key: {name: cache.get(name) or create(key, name) for name in signature.inputs}
                    for key, signature in signatures.items()
                }
                self._outputs = {
                    key: {name: cache.get(name) or model.create_output_buffer_by_name(key, name) for name in s.outputs}
                    for key, s in signatures.items()
                }
                # Every row is written before it is read; zeros keep old memory from becoming a NaN.
                for name, buffer in cache.items():
                    buffer.write(np.zeros(decode.inputs[name].shape, np.float32))
                failed = None
            except (RuntimeError, ValueError) as err:
                failed = str(err)
        if failed is not None:
            raise InputError(f"LiteRT cannot load {path}: {failed or log.reason():.300}", hint="export it again")
        # By number and in order: finding 120 buffers by their names takes 0.05 ms of every token.
        ordered = {
            key: (
                model.get_signature_index(key),
                [self._inputs[key][name] for name in names["inputs"]],
                [self._outputs[key][name] for name in names["outputs"]],
            )
            for key, names in model.get_signature_list().items()
            if key in signatures
        }
        self._open |= {
            "model": model, "inputs": self._inputs, "outputs": self._outputs, "ordered": ordered,
            "environment": environment,
        }  # fmt: skip
        self._n_logits = {
            key: math.prod(s.outputs["logits"].shape) for key, s in signatures.items() if "logits" in s.outputs
        }
        self._given = given_input(decode)

    def another(self) -> CompiledRunner:
        made = object.__new__(CompiledRunner)
        made._begin(self._path, self._signatures, self._open["model"], self._open["environment"])
        return made

    def cache(self) -> dict[str, np.ndarray]:
        import numpy as np

        held = {name: t.shape for name, t in self._signatures["decode"].inputs.items() if name.startswith(CACHE_PREFIX)}
        buffers = self._inputs["decode"]
        return {name: buffers[name].read(math.prod(shape), np.float32).reshape(shape) for name, shape in held.items()}

    def set_cache(self, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            self._inputs["decode"][name].write(value)

    def close(self) -> None:
        _close_quietly(self._open)

    def run(self, signature: str, given: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        import numpy as np

        inputs, outputs = self._inputs[signature], self._outputs[signature]
        inputs[self._given].write(given)
        inputs["input_pos"].write(positions)
        inputs["mask"].write(mask)
        try:
            self._open["model"].run_by_index(*self._open["ordered"][signature])
        except RuntimeError as err:
            raise failed(err) from None
        n = self._n_logits.get(signature)
        found: np.ndarray | None = outputs["logits"].read(n, np.float32) if n else None
        return found

    def read(self, signature: str, output: str, n: int) -> np.ndarray:
        """What another output of the last run holds, float32 `(n,)`."""
        import numpy as np

        found: np.ndarray = self._outputs[signature][output].read(n, np.float32)
        return found


class InterpreterRunner:
    """The TFLite interpreter of `ai-edge-litert` or `tflite-runtime`; the cache goes through NumPy."""

    def __init__(self, path: Path, signatures: Mapping[str, Signature], *, threads: int) -> None:
        import numpy as np

        with native_stderr.captured() as log:
            try:
                self._interpreter: Any = interpreter_class()(model_path=str(path), num_threads=threads)
                self._runners = {key: self._interpreter.get_signature_runner(key) for key in signatures}
                failed = None
            except (RuntimeError, ValueError) as err:
                failed = str(err)
        if failed is not None:
            raise InputError(f"the TFLite interpreter cannot load {path}: {failed or log.reason():.300}")
        self._path, self._signatures, self._threads = path, signatures, threads
        self._given = given_input(signatures["decode"])
        self._cache = {
            name: np.zeros(tensor.shape, np.float32)
            for name, tensor in signatures["decode"].inputs.items()
            if name.startswith(CACHE_PREFIX)
        }

    def run(self, signature: str, given: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        try:
            found = self._runners[signature](**{self._given: given}, input_pos=positions, mask=mask, **self._cache)
        except (RuntimeError, ValueError) as err:
            raise failed(err) from None
        self._cache = {name: found[name] for name in self._cache}
        return found["logits"].reshape(-1) if "logits" in found else None

    def another(self) -> InterpreterRunner:
        # An interpreter has one set of tensors: a second one maps the file again.
        return InterpreterRunner(self._path, self._signatures, threads=self._threads)

    def cache(self) -> dict[str, np.ndarray]:
        return dict(self._cache)

    def set_cache(self, values: Mapping[str, np.ndarray]) -> None:
        self._cache = dict(values)

    def close(self) -> None:
        self._runners, self._cache, self._interpreter = {}, {}, None


def _close_quietly(state: dict[str, Any]) -> None:
    with native_stderr.captured():
        for part in ("inputs", "outputs", "ordered"):
            state.get(part, {}).clear()
        state.clear()
        gc.collect()


@functools.cache
def _end_quietly() -> None:
    """Drop what the library's own globals log when the process has nothing else left to do."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def near_key(window: int, key: str) -> str:
    """The name of a signature that does what `key` does and sees only the first `window` rows of the cache."""
    return f"near_{window}_{key}"


def near_of(name: str) -> tuple[int, str] | None:
    """The window and the key of such a signature; None for one that sees the whole cache."""
    found = _NEAR.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def is_ahead(name: str) -> bool:
    """Whether a signature takes several tokens and gives logits after each."""
    return (near_of(name) or (0, name))[1].startswith(AHEAD)


def given_input(decode: Signature) -> str:
    """What a decoder is given: `tokens`, or `embeddings` if its token embedding is in a file of its own."""
    return "embeddings" if "embeddings" in decode.inputs else "tokens"


def open_signature(path: Path, key: str, *, threads: int) -> Any:
    """One signature of a file as a function, by the interpreter. Raises `InputError` when it does not load."""
    with native_stderr.captured() as log:
        try:
            return interpreter_class()(model_path=str(path), num_threads=threads).get_signature_runner(key)
        except (RuntimeError, ValueError) as err:
            reason = str(err)
    raise InputError(
        f"the TFLite interpreter cannot load {path}: {reason or log.reason():.300}", hint="export it again"
    )


def failed(err: Exception) -> EdgeError:
    reason = (str(err).splitlines() or ["it gave no reason"])[0][:300]
    return EdgeError(f"LiteRT failed: {reason}", hint="check the bundle with: edge inspect BUNDLE --check")


def has_compiled_model() -> bool:
    """Whether the newer of the two is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None and (
        importlib.util.find_spec("ai_edge_litert.compiled_model") is not None
    )


def interpreter_class() -> Callable[..., Any]:
    """`Interpreter`, from `ai-edge-litert`, or from its predecessor, which 32-bit systems have."""
    if importlib.util.find_spec("ai_edge_litert") is not None:
        from ai_edge_litert.interpreter import Interpreter
    elif importlib.util.find_spec("tflite_runtime") is not None:
        from tflite_runtime.interpreter import Interpreter
    else:
        require("ai_edge_litert", extra="tflite", purpose="running a TFLite bundle")
    found: Callable[..., Any] = Interpreter
    return found


def packed_weights(sha256: str, version: str) -> str:
    """Where XNNPACK keeps the weights of this model as its kernels want them.

    Packing takes seconds and a second copy in memory; a file of packed weights is mapped, and all
    signatures share it. It lies in the user's own cache, for this model, runtime and processor;
    where that cannot be written, the copy is in memory (XNNPACK's name for it: `:memory`).
    """
    machine = hashlib.sha256(f"{sha256} {version} {platform.machine()} {_cpu_flags()}".encode()).hexdigest()[:24]
    folder = cache.root() / "xnnpack"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / machine
        if path.exists():
            os.utime(path)
        others = sorted((p for p in folder.iterdir() if p != path), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in others[_PACKED_FILES - 1 :]:
            old.unlink(missing_ok=True)
        if not os.access(folder, os.W_OK):
            return ":memory"
    except OSError:
        return ":memory"
    return str(path)


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
