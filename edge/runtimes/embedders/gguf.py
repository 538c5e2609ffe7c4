"""States of a GGUF model, as llama.cpp's embedding mode gives them, for files that say how they are pooled.

llama.cpp's converter writes `pooling_type` for models that were made to give vectors. The session's own context is
switched to embedding mode while a text is read, so the cache is in memory once; every token of a batch then has logits
too, which llama.cpp cannot leave out, so only the states that are needed are asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.runtimes.embedders import Pooling

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.engines.gguf import GgufSession

_POOLINGS: Mapping[str, Pooling] = {"1": "mean", "2": "cls", "3": "last"}  # llama.cpp's numbers; 4 ranks texts
_VALUE_BYTES = 128


class GgufEmbedder:
    """See `edge.runtimes.embedders.Embedder`."""

    def __init__(self, session: GgufSession, pooling: Pooling) -> None:
        import llama_cpp

        self._c: Any = llama_cpp
        self._session = session
        self.pooling: Pooling = pooling
        self.width: int = llama_cpp.llama_model_n_embd_out(session.model_pointer)
        self.most = session.n_outputs

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        context = self._session.context_pointer
        self._c.llama_set_embeddings(context, True)
        try:
            out = np.empty((len(tokens), self.width), np.float32)
            for start in range(0, len(tokens), self.most):
                n = min(self.most, len(tokens) - start)
                self._session.feed(tokens[start : start + n])
                first = self._c.llama_get_embeddings_ith(context, 0)
                rows: Any = (ctypes.c_float * (n * self.width)).from_address(ctypes.addressof(first.contents))
                out[start : start + n] = np.frombuffer(rows, np.float32).reshape(n, self.width)
            return out
        finally:
            self._c.llama_set_embeddings(context, False)


def load(session: GgufSession, bundle: Bundle) -> GgufEmbedder | None:
    """An embedder for a file that names its pooling; one whose tokens see what comes after them has none."""
    architecture = _value(session, "general.architecture")
    pooling = _POOLINGS.get(_value(session, f"{architecture}.pooling_type"))
    if pooling is None or _value(session, f"{architecture}.attention.causal") == "false":
        return None
    return GgufEmbedder(session, pooling)


def _value(session: GgufSession, key: str) -> str:
    """What the file's metadata has under a key, as llama.cpp writes it; empty for nothing."""
    import llama_cpp

    held = ctypes.create_string_buffer(_VALUE_BYTES)
    n = llama_cpp.llama_model_meta_val_str(session.model_pointer, key.encode(), held, _VALUE_BYTES)
    return held.value.decode(errors="replace") if n >= 0 else ""
