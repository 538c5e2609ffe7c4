"""The sources of the pinned llama.cpp: its converter comes from the commit that the runtime was built from.

The source distribution of `llama-cpp-python` contains all of llama.cpp. It is looked for, never
downloaded, and only the converter, its Python library and the C headers are unpacked.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath

from edge.bundle import sha256_of
from edge.errors import InputError, MissingError
from edge.export import cache

VERSION = "0.3.36"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_WANTED = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", "include/", "ggml/include/", "LICENSE")
_LIMIT_BYTES = 64 << 20
_LIMIT_FILES = 2000


def folder() -> Path:
    """The unpacked sources, laid out as in llama.cpp's repository; unpacked at the first call.

    Raises `MissingError` with the line that fetches the archive, `InputError` when it is another one.
    """
    name = f"{VERSION}-{SHA256[:12]}"
    if found := cache.find("llama.cpp", name):
        return found
    archive = _archive()
    if sha256_of(archive) != SHA256:
        raise InputError(
            f"{archive} is not the pinned llama.cpp: its sha256 is not {SHA256}", hint=_hint(archive.parent)
        )
    with cache.building("llama.cpp", name) as work:
        unpack(archive, work)
    return cache.root() / "llama.cpp" / name


def _archive() -> Path:
    places = [cache.root() / "sources" / ARCHIVE]
    if named := os.environ.get("EDGE_LLAMA_CPP_SDIST"):
        places = [Path(named)]
    for place in places:
        if place.is_file():
            return place
    raise MissingError(
        f"converting to GGUF needs the sources of llama.cpp, and there is no {places[0]}", hint=_hint(places[0].parent)
    )


def _hint(where: Path) -> str:
    pin = f"llama-cpp-python=={VERSION}"
    return f"fetch them with: pip download --no-deps --no-binary llama-cpp-python {pin} -d {where}"


def unpack(archive: Path, target: Path) -> None:
    """Write the wanted files of the sdist `archive` below `target`.

    Raises `InputError` for members that are not plain files below it, or too many, or too large.
    """
    prefix = PurePosixPath(ARCHIVE.removesuffix(".tar.gz"), "vendor", "llama.cpp")
    n_files = n_bytes = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not path.is_relative_to(prefix):
                continue
            inside = path.relative_to(prefix)
            if member.isdir() or not inside.as_posix().startswith(_WANTED):
                continue
            if not member.isreg() or ".." in inside.parts or inside.is_absolute():
                raise InputError(f"{archive} holds {member.name!r}, which is not a plain file of llama.cpp")
            n_files, n_bytes = n_files + 1, n_bytes + member.size
            if n_files > _LIMIT_FILES or n_bytes > _LIMIT_BYTES:
                raise InputError(f"{archive} holds more than llama.cpp's converter can be")
            source = tar.extractfile(member)
            if source is None:
                raise InputError(f"{archive} holds {member.name!r}, which cannot be read")
            out = target / inside
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(source.read())
    if not (target / "convert_hf_to_gguf.py").is_file():
        raise InputError(f"{archive} does not contain llama.cpp's converter")
