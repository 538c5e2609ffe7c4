"""Vision encoders on llama.cpp's multimodal library (mtmd), and in NumPy where that is wrong.

The library is handed pictures of exactly the size that its encoder takes, because its own resizing
letterboxes where the source's processor crops or stretches. What it is asked for are features;
they go into the session as embeddings, like those of every other format.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError, require
from edge.readers.gguf import read_header
from edge.runtimes.cores import physical_cores
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.encoders import Encoder
    from edge.runtimes.pixels import Views

_IMAGE_CHUNK = 1


class MtmdEncoder:
    """See `edge.runtimes.encoders.Encoder`."""

    def __init__(self, path: Path, session: Any, rule: Any, threads: int) -> None:
        from llama_cpp import mtmd_cpp

        from edge.runtimes.llama_log import captured

        self._m: Any = mtmd_cpp
        self._context: Any = None
        self._hidden: int = session.hidden_size
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = params.print_timings = params.warmup = False
        params.n_threads = threads
        params.flash_attn_type = 0
        if rule["kind"] == "tiles":
            # A tile as it is: left to itself, the library would enlarge it and cut it into tiles again.
            params.image_min_tokens = params.image_max_tokens = rule["n_tokens"]
        if rule["kind"] == "patches":  # as large as it is: its size was chosen already
            area = (rule["patch"] * rule["merge"]) ** 2
            params.image_min_tokens, params.image_max_tokens = 1, rule["most"] // area + 1
        with captured(also_mtmd=True) as log:
            self._context = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), session.model_pointer, params)
        if not self._context or not mtmd_cpp.mtmd_support_vision(self._context):
            raise InputError(
                f"llama.cpp cannot use {path} with this model: {log.reason()}",
                hint="it belongs to another model, or is damaged: export it again",
            )

    def encode(self, views: Views) -> np.ndarray:
        import numpy as np

        if not self._context:
            raise UsageError("this encoder is closed", hint="open the bundle again")
        rows = views.n_tokens // len(views.rgb)
        found = np.concatenate([self._one(view, rows) for view in views.rgb])
        return found

    def _one(self, rgb: np.ndarray, rows: int) -> np.ndarray:
        """Features of one view, a copy."""
        import numpy as np

        m, context = self._m, self._context
        data = np.ascontiguousarray(rgb)
        height, width = data.shape[:2]
        bitmap = m.mtmd_bitmap_init(width, height, data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        chunks = m.mtmd_input_chunks_init()
        try:
            marker = m.mtmd_default_marker()
            text = m.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
            bitmaps = (m.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if m.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) != 0:
                raise EdgeError(f"llama.cpp cannot take a picture of {width} x {height}")
            for i in range(m.mtmd_input_chunks_size(chunks)):
                chunk = m.mtmd_input_chunks_get(chunks, i)
                if m.mtmd_input_chunk_get_type(chunk) != _IMAGE_CHUNK:
                    continue
                n = m.mtmd_input_chunk_get_n_tokens(chunk)
                if n != rows:
                    raise EdgeError(
                        f"llama.cpp makes {n} rows of a picture that takes {rows}",
                        hint="mmproj.gguf belongs to another model; export it again",
                    )
                if m.mtmd_encode_chunk(context, chunk) != 0:
                    raise EdgeError(f"llama.cpp failed to encode a picture of {width} x {height}")
                pointer = m.mtmd_get_output_embd(context)
                flat: np.ndarray = np.ctypeslib.as_array(pointer, (n * self._hidden,))
                return flat.reshape(n, self._hidden).copy()
            raise EdgeError("llama.cpp made no picture of the picture")
        finally:
            m.mtmd_input_chunks_free(chunks)
            m.mtmd_bitmap_free(bitmap)

    def close(self) -> None:
        if self._context:
            self._m.mtmd_free(self._context)
        self._context = None

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self.close()


def load(folder: Path, bundle: Bundle, session: Session, *, threads: int | None = None) -> Encoder:
    """The encoder of a bundle of format `gguf`; the file's header is checked before llama.cpp sees it.

    Raises `InputError` for a file that cannot be one, or belongs to another model.
    """
    require("llama_cpp", extra="gguf", purpose="looking at pictures with a GGUF bundle")
    path = Path(folder) / bundle.parts["vision"]
    header = read_header(path)
    if header.metadata.get("general.architecture") != "clip":
        raise InputError(f"{path} is no vision encoder", hint="export it again")
    hidden = getattr(session, "hidden_size", None)
    width = header.metadata.get("clip.vision.projection_dim")
    if hidden != width:
        raise InputError(
            f"{path} makes features of {width}, the text model takes {hidden}",
            hint="it belongs to another model; export it again",
        )
    side, wanted = header.metadata.get("clip.vision.image_size"), bundle.image.get("height")
    if wanted is not None and side != wanted:
        raise InputError(
            f"{path} takes pictures of {side} pixels, this bundle makes them of {wanted}",
            hint="it belongs to another model; export it again",
        )
    if "v.class_embd" in header.tensors:
        from edge.runtimes.encoders._clip import ClipEncoder

        return ClipEncoder(path, header, bundle.image)
    return MtmdEncoder(path, session, bundle.image, threads or physical_cores())
