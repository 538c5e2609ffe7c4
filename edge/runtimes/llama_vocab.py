"""A GGUF file's own vocabulary, as llama.cpp reads it: what its tokenizer makes of a text."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.errors import InputError, require
from edge.readers.gguf import GgufHeader, read_header

_STRING_OVERRIDE = 3  # LLAMA_KV_OVERRIDE_TYPE_STR


def check_file(path: Path) -> GgufHeader:
    """The header at `path`. Raises `InputError` unless it is sound: llama.cpp ends the process at some that are not."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no model file at {path}", hint="export it again")
    return read_header(path)


@contextmanager
def _vocabulary(path: Path, pre: str | None) -> Iterator[tuple[Any, Any]]:
    """llama_cpp and the vocabulary in `path`; `pre` replaces the file's pre-tokenizer."""
    require("llama_cpp", extra="gguf", purpose="reading a GGUF vocabulary")
    import llama_cpp

    from edge.runtimes.llama_log import captured

    check_file(path)
    with captured() as log:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        if pre is not None:
            overrides = (llama_cpp.llama_model_kv_override * 2)()
            overrides[0].tag, overrides[0].key = _STRING_OVERRIDE, b"tokenizer.ggml.pre"
            overrides[0].value.val_str = pre.encode()
            params.kv_overrides = overrides
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise InputError(f"llama.cpp cannot read the vocabulary of {path}: {log.reason()}", hint="export it again")
    try:
        yield llama_cpp, llama_cpp.llama_model_get_vocab(model)
    finally:
        llama_cpp.llama_model_free(model)


def tokenizer_ids(path: Path, texts: Iterable[str], *, pre: str | None = None) -> list[list[int]]:
    """The ids of each text by the tokenizer inside the GGUF file at `path`.

    Special tokens in the text are parsed; none is added. Raises `InputError` when llama.cpp
    refuses the file.
    """
    out = []
    with _vocabulary(path, pre) as (llama_cpp, vocab):
        room = 4096
        ids = (ctypes.c_int32 * room)()
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            n = llama_cpp.llama_tokenize(vocab, data, len(data), ids, room, False, True)
            if n < 0:
                room = -n
                ids = (ctypes.c_int32 * room)()
                n = llama_cpp.llama_tokenize(vocab, data, len(data), ids, room, False, True)
            if n < 0:
                raise InputError(f"llama.cpp cannot tokenize a text of {len(data)} bytes with {path}")
            out.append(list(ids[:n]))
    return out
