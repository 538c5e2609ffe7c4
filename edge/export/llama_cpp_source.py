"""llama.cpp's converter, its Python library and the C headers, unpacked from the pinned sources."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from edge.errors import InputError
from edge.export import cache
from edge.llama_cpp_sdist import ARCHIVE, SHA256, VERSION, archive

__all__ = ["VERSION", "folder", "unpack"]

_WANTED = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", "include/", "ggml/include/", "LICENSE")
_LIMIT_BYTES = 64 << 20
_LIMIT_FILES = 2000


def folder() -> Path:
    """The unpacked sources, laid out as in llama.cpp's repository; unpacked at the first call.

    Raises as `edge.llama_cpp_sdist.archive` does.
    """
    name = f"{VERSION}-{SHA256[:12]}"
    if found := cache.find("llama.cpp", name):
        return found
    packed = archive("converting to GGUF")
    with cache.building("llama.cpp", name) as work:
        unpack(packed, work)
    return cache.root() / "llama.cpp" / name


def unpack(packed: Path, target: Path) -> None:
    """Write the wanted files of the sdist `packed` below `target`.

    Raises `InputError` for members that are not plain files below it, or too many, or too large.
    """
    prefix = PurePosixPath(ARCHIVE.removesuffix(".tar.gz"), "vendor", "llama.cpp")
    n_files = n_bytes = 0
    with tarfile.open(packed, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not path.is_relative_to(prefix):
                continue
            inside = path.relative_to(prefix)
            if member.isdir() or not inside.as_posix().startswith(_WANTED):
                continue
            if not member.isreg() or ".." in inside.parts or inside.is_absolute():
                raise InputError(f"{packed} holds {member.name!r}, which is not a plain file of llama.cpp")
            n_files, n_bytes = n_files + 1, n_bytes + member.size
            if n_files > _LIMIT_FILES or n_bytes > _LIMIT_BYTES:
                raise InputError(f"{packed} holds more than llama.cpp's converter can be")
            source = tar.extractfile(member)
            if source is None:
                raise InputError(f"{packed} holds {member.name!r}, which cannot be read")
            out = target / inside
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(source.read())
    if not (target / "convert_hf_to_gguf.py").is_file():
        raise InputError(f"{packed} does not contain llama.cpp's converter")
