"""llama.cpp alone: one static arm64 program that runs a GGUF bundle with no Python and no library beneath it.

Linked from the same objects as the runtime pack's libraries (`edge.devices.pack.llama`), so it computes the same.
`program/main.cpp` says what it does, and what it does not.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge import cache
from edge.bundle import sha256_of
from edge.devices.pack import llama
from edge.devices.pack.levels import Level
from edge.progress import Progress, Silent

PROGRAM = "edge-llama"
_SOURCES = Path(__file__).with_name("program")
_LINK = ("-static", "-s", "-Wl,--gc-sections", "-Wl,-z,max-page-size=65536")


def build(level: Level, progress: Progress | None = None) -> Path:
    """The folder with the program for `level` and llama.cpp's licence, from the cache or made now.

    Raises `MissingError` with the line that installs the compiler or fetches the sources.
    """
    progress = progress or Silent()
    objects = llama.objects(progress)
    sources = {path.name: sha256_of(path) for path in sorted(_SOURCES.iterdir())}
    key = cache.key(objects=objects.name, level=level.name, sources=sources, link=_LINK)
    if (kept := cache.find("alone", key)) is None:
        progress.start("building llama.cpp as one program for arm64")
        with cache.building("alone", key) as work:
            made = str(work / "alone.o")
            llama.run([*llama.compiler(objects / "headers"), "-c", str(_SOURCES / "main.cpp"), "-o", made])
            # What stands in both is needed by both.
            archives = [str(objects / "llama.a"), str(objects / level.name / "ggml-cpu.a")]
            together = ["-Wl,--start-group", *archives, "-Wl,--end-group"]
            llama.run([llama.CXX, *_LINK, "-o", str(work / PROGRAM), made, *together])
            (work / "alone.o").unlink()
            shutil.copy2(objects / "llama_cpp/LICENSE.llama.cpp", work / "LICENSE.llama.cpp")
        kept = cache.root() / "alone" / key
    return kept
