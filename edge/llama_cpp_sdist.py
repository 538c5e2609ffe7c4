"""The source distribution of the pinned `llama-cpp-python`, which contains all of llama.cpp.

The converter, the headers and the libraries for devices all come from this one archive. It is looked for,
never downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge import cache
from edge.bundle import sha256_of
from edge.errors import InputError, MissingError

VERSION = "0.3.36"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"


def archive(purpose: str) -> Path:
    """The archive, checked by its hash; `purpose` begins the error when it is not there.

    Raises `MissingError` with the line that fetches it, `InputError` when it is another one.
    """
    places = [cache.root() / "sources" / ARCHIVE]
    if named := os.environ.get("EDGE_LLAMA_CPP_SDIST"):
        places = [Path(named)]
    for place in places:
        if not place.is_file():
            continue
        if sha256_of(place) != SHA256:
            raise InputError(
                f"{place} is not the pinned llama.cpp: its sha256 is not {SHA256}", hint=_hint(place.parent)
            )
        return place
    raise MissingError(
        f"{purpose} needs the sources of llama.cpp, and there is no {places[0]}", hint=_hint(places[0].parent)
    )


def _hint(where: Path) -> str:
    pin = f"llama-cpp-python=={VERSION}"
    return f"fetch them with: pip download --no-deps --no-binary llama-cpp-python {pin} -d {where}"
