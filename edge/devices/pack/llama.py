"""llama.cpp for arm64, built on this machine by Debian's cross compiler from the pinned sources.

One build gives every CPU level: only the library of CPU kernels differs between them, and only that is compiled
again. It takes about 5 minutes of one core, once. The same objects are kept as archives, from which
`edge.devices.pack.alone` links a program that needs no library at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edge import cache
from edge.devices.needs import Need
from edge.devices.pack.levels import LEVELS, Level
from edge.errors import EdgeError, MissingError
from edge.llama_cpp_sdist import ARCHIVE, SHA256, VERSION, archive
from edge.progress import Progress, Silent

_COMPILER = "aarch64-linux-gnu"
CXX = f"{_COMPILER}-g++"
NEED = Need(
    "GGUF on arm64 devices", (f"{_COMPILER}-g++", "cmake", "ninja"), "--version",
    "apt-get install g++-aarch64-linux-gnu cmake ninja-build",
)  # fmt: skip
_SOURCES = (
    "CMakeLists.txt",
    "LICENSE",
    "cmake",
    "common",
    "ggml",
    "include",
    "licenses",
    "src",
    "tools/mtmd",
    "vendor",
)
_PER_LEVEL = "libggml-cpu.so"
# What a program of its own takes from llama.cpp's: JSON, and chat templates.
_COMMON = ("json", "unicode", "jinja/lexer", "jinja/parser", "jinja/runtime", "jinja/string", "jinja/value")
_HEADERS = ("include", "ggml/include", "common", "vendor/nlohmann")
_TOOLCHAIN = f"""
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER {_COMPILER}-gcc)
set(CMAKE_CXX_COMPILER {_COMPILER}-g++)
set(CMAKE_FIND_ROOT_PATH /usr/{_COMPILER})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
"""
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_SHARED_LINKER_FLAGS": "-s -Wl,-z,max-page-size=65536",  # phones with pages of 16 KiB load it too
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",
    "GGML_CCACHE": "OFF",
    "LLAMA_BUILD_MTMD": "ON",
    **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "EXAMPLES", "TOOLS", "SERVER", "APP", "UI")},
    **{f"LLAMA_{part}": "OFF" for part in ("USE_PREBUILT_UI", "SUBPROCESS", "CURL", "OPENSSL")},
}


def package(level: Level, target: Path, progress: Progress | None = None) -> str:
    """Put the Python package `llama_cpp` for `level` below `target`; the key of the build that it came from.

    Raises `MissingError` with the line that installs the compiler or fetches the sources.
    """
    built = objects(progress)
    shutil.copytree(built / "llama_cpp", target / "llama_cpp", dirs_exist_ok=True)
    shutil.copy2(built / level.name / _PER_LEVEL, target / "llama_cpp/lib" / _PER_LEVEL)
    return built.name


def objects(progress: Progress | None = None) -> Path:
    """The build, from the cache or made now. Raises as `package` does."""
    found = key()
    return cache.find("llama-arm64", found) or _build(found, progress or Silent())


def key() -> str:
    """What names the build: sources, compiler and options. Raises `MissingError` when it cannot be made here."""
    for program in NEED.missing:
        raise MissingError(
            f"llama.cpp for arm64 is built with {program}, which is not installed", hint=f"install it: {NEED.install}"
        )
    said = subprocess.run([f"{_COMPILER}-g++", "--version"], capture_output=True, text=True, check=True).stdout
    march = {level.name: level.march for level in LEVELS.values()}
    return cache.key(
        sources=SHA256, compiler=said.splitlines()[0], toolchain=_TOOLCHAIN, options=_OPTIONS, levels=march,
        alone=[_COMMON, _HEADERS],
    )  # fmt: skip


def _build(key: str, progress: Progress) -> Path:
    packed = archive("the GGUF runtime for arm64")
    progress.start("building llama.cpp for arm64 (once; minutes)")
    with cache.building("llama-arm64", key) as work:
        source = work / "source"
        _unpack(packed, source)
        (work / "toolchain.cmake").write_text(_TOOLCHAIN)
        libraries = work / "llama_cpp/lib"
        shutil.copytree(source / "llama_cpp", work / "llama_cpp", ignore=shutil.ignore_patterns("server"))
        libraries.mkdir()
        for level in LEVELS.values():
            _compile(work, level)
            (work / level.name).mkdir()
            shutil.move(work / "build/bin" / _PER_LEVEL, work / level.name / _PER_LEVEL)
            _archive(work / level.name / "ggml-cpu.a", [work / "build/ggml/src/CMakeFiles/ggml-cpu.dir"])
        for library in (work / "build/bin").glob("*.so"):
            shutil.move(library, libraries / library.name)
        shutil.copy2(source / "vendor/llama.cpp/LICENSE", work / "llama_cpp/LICENSE.llama.cpp")
        _alone(work, source / "vendor/llama.cpp")
        for name in ("source", "build"):
            shutil.rmtree(work / name)
    return cache.root() / "llama-arm64" / key


def _compile(work: Path, level: Level) -> None:
    source = work / "source/vendor/llama.cpp"
    # Assertions carry the names of their files: those of a temporary folder say nothing to anybody.
    plain = f"-ffile-prefix-map={source}=llama.cpp"
    options = {**_OPTIONS, "GGML_CPU_ARM_ARCH": level.march, "CMAKE_C_FLAGS": plain, "CMAKE_CXX_FLAGS": plain}
    configure = [
        "cmake", "-G", "Ninja", "-S", str(source), "-B", str(work / "build"),
        f"-DCMAKE_TOOLCHAIN_FILE={work / 'toolchain.cmake'}", *(f"-D{k}={v}" for k, v in options.items()),
    ]  # fmt: skip
    jobs = len(os.sched_getaffinity(0))
    for command in (configure, ["ninja", "-C", str(work / "build"), f"-j{jobs}", "llama", "mtmd"]):
        run(command)


def _alone(work: Path, source: Path) -> None:
    """Archives and headers for programs that are linked with all of it."""
    objects = work / "build/common"
    for name in _COMMON:
        (objects / name).parent.mkdir(parents=True, exist_ok=True)
        run([*compiler(source), "-c", str(source / f"common/{name}.cpp"), "-o", str(objects / f"{name}.o")])
    parts = [work / f"build/{name}" for name in ("src/CMakeFiles/llama.dir", "ggml/src/CMakeFiles/ggml.dir")]
    _archive(work / "llama.a", [*parts, work / "build/ggml/src/CMakeFiles/ggml-base.dir", objects])
    for name in _HEADERS:
        for path in sorted(p for p in (source / name).rglob("*") if p.suffix in (".h", ".hpp")):
            kept = work / "headers" / path.relative_to(source)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept)


def compiler(source: Path) -> list[str]:
    """What compiles C++ that includes llama.cpp's headers, which lie in `source`."""
    places = [word for name in ("include", "ggml/include", "common", "vendor") for word in ("-I", str(source / name))]
    return [CXX, "-std=c++17", "-O2", "-march=armv8-a", f"-ffile-prefix-map={source}=llama.cpp", *places]


def _archive(target: Path, folders: Sequence[Path]) -> None:
    # Several objects have the same name, of which `r` would keep one.
    objects = sorted(str(path) for folder in folders for path in folder.rglob("*.o"))
    run([f"{_COMPILER}-ar", "qcsD", str(target), *objects])


def run(command: Sequence[str]) -> None:
    """A step of a build; `EdgeError` with the first line that tells why it failed."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "error" in line.lower()] or done.stdout.splitlines()
        raise EdgeError(f"llama.cpp {VERSION} cannot be built for arm64: {(lines or ['it said nothing'])[0]:.300}")


def _unpack(packed: Path, target: Path) -> None:
    """What the build needs, of 14,000 files."""
    top = PurePosixPath(ARCHIVE.removesuffix(".tar.gz"))
    wanted = (top / "llama_cpp", *(top / "vendor/llama.cpp" / name for name in _SOURCES))
    with tarfile.open(packed, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if any(path.is_relative_to(place) for place in wanted):
                member.name = str(path.relative_to(top))
                tar.extract(member, target, filter="data")
