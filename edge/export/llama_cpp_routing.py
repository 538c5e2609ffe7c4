"""What the routers of a GGUF file choose, on llama.cpp: its evaluation callback sees every sorted list of experts."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, InputError
from edge.export import experts
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

METHOD = "llama.cpp's own choices while it runs the shipped file (its evaluation callback, ffn_moe_argsort)"
_SORTED = re.compile(rb"ffn_moe_argsort-(\d+)$")


def choices(path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Iterator[dict[int, np.ndarray]]:
    """The experts of each token of each window, by layer: `(tokens, used)`."""
    import llama_cpp
    import numpy as np

    from edge.runtimes.llama_log import captured

    used, n_experts = experts.used(checkpoint.config), experts.count(checkpoint.config)
    ggml = _ggml(Path(llama_cpp.__file__).parent / "lib")
    found: dict[int, np.ndarray] = {}

    def seen(tensor: int, ask: bool, _: Any) -> bool:
        named = _SORTED.match(ggml.ggml_get_name(tensor))
        if named is None:
            return not ask  # False when asked: no interest; True afterwards: go on
        if not ask:
            values = np.empty(ggml.ggml_nelements(tensor), np.int32)
            ggml.ggml_backend_tensor_get(tensor, values.ctypes.data_as(ctypes.c_void_p), 0, values.nbytes)
            found[int(named[1])] = values.reshape(-1, n_experts)[:, :used]
        return True

    callback = llama_cpp.ggml_backend_sched_eval_callback(seen)
    longest = max(map(len, windows), default=1)
    model = context = None
    with captured() as log:
        try:
            model_params = llama_cpp.llama_model_default_params()
            model_params.n_gpu_layers = 0
            model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
            if not model:
                raise InputError(f"llama.cpp cannot load {path}: {log.reason()}")
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = params.n_batch = params.n_ubatch = longest
            params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
            params.n_outputs_max = longest
            params.cb_eval = callback
            context = llama_cpp.llama_init_from_model(model, params)
            if not context:
                raise EdgeError(f"llama.cpp cannot make a context of {longest} tokens for {path}: {log.reason()}")
            for window in windows:
                found.clear()
                llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
                if llama_cpp.llama_decode(context, _batch(window)) != 0:
                    raise EdgeError(f"llama.cpp cannot run {path}: {log.reason()}")
                yield dict(found)
        finally:
            if context:
                llama_cpp.llama_free(context)
            if model:
                llama_cpp.llama_model_free(model)


def _batch(window: Sequence[int]) -> Any:
    """Tokens of which every one wants logits: otherwise the last layer leaves the others out."""
    import llama_cpp

    n = len(window)
    batch = llama_cpp.llama_batch()
    batch.n_tokens = n
    batch.token = (ctypes.c_int32 * n)(*window)
    batch.logits = (ctypes.c_int8 * n)(*[1] * n)
    return batch


def _ggml(folder: Path) -> Any:
    """The three functions that read a tensor, from the library that the runtime itself uses."""
    name = next((n for n in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll") if (folder / n).exists()), None)
    if name is None:
        raise EdgeError(f"llama-cpp-python in {folder} has no ggml library", hint="reinstall llama-cpp-python")
    ggml = ctypes.CDLL(str(folder / name))
    ggml.ggml_get_name.restype, ggml.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    ggml.ggml_nelements.restype, ggml.ggml_nelements.argtypes = ctypes.c_int64, [ctypes.c_void_p]
    ggml.ggml_backend_tensor_get.restype = None
    ggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    return ggml
