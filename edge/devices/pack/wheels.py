"""Python packages for another machine: pip downloads their wheels, and they are unpacked here.

The versions are those installed on this machine: a bundle was proven with them.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath

from edge.errors import EdgeError, InputError, MissingError

# pip takes a platform by its word: a wheel for glibc 2.28 is not found by asking for 2.34.
_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)] + ["manylinux2014_aarch64"]
# What is never used on a device; the rest is what the packages need to be imported.
_LEFT_OUT = (
    "*/tests/*", "*/testing/*", "*.pyi", "*.h", "*.hpp", "*.pxd", "*.pyx", "*.a", "*.f", "*.f90", "*/include/*",
    "numpy/f2py/*", "numpy/distutils/*", "numpy/doc/*", "numpy/_pyinstaller/*",
    "onnxruntime/quantization/*", "onnxruntime/tools/*", "onnxruntime/transformers/*", "onnxruntime/datasets/*",
    "onnxruntime/backend/*", "onnxruntime/capi/libonnxruntime.so*", "ai_edge_litert/*WebGpu*",
    "ai_edge_litert/*converter*", "ai_edge_litert/*calibration*", "ai_edge_litert/schema_py_generated.py",
    "ai_edge_litert/_pywrap_modify_model_interface.so", "ai_edge_litert/_pywrap_analyzer_wrapper.so",
    "ai_edge_litert/vendors/*", "ai_edge_litert/aot/*",
    "*.data/scripts/*", "*.data/data/*",
)  # fmt: skip


def version_of(name: str, *, extra: str | None) -> str:
    """What is installed here, or `MissingError` with the line that installs it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        install = f"edge-deploy[{extra}]" if extra else "edge-deploy"
        raise MissingError(
            f"the runtime pack takes the version of {name} that is installed here, and it is not",
            hint=f"install it with: pip install '{install}'",
        ) from None


def download(requirements: Sequence[str], python: str, target: Path) -> tuple[Path, ...]:
    """Wheels of exactly `requirements` for arm64 and Python `python` ("3.11"), by name.

    Raises `EdgeError` with pip's last words, and the requirement that it found nothing for.
    """
    short = python.replace(".", "")
    tags = [word for name in _PLATFORMS for word in ("--platform", name)]
    tags += ["--python-version", python, "--implementation", "cp"]
    tags += [word for abi in (f"cp{short}", "abi3", "none") for word in ("--abi", abi)]
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", *tags, "-d", str(target), *requirements,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise EdgeError(
            f"pip finds no package for arm64 and Python {python}: {said[-1]:.300}",
            hint="is a package index within reach? it is needed once per version",
        )
    return tuple(sorted(target.glob("*.whl")))


def unpack(wheel: Path, target: Path) -> None:
    """Write a wheel's files below `target`, without tests, headers and tools."""
    with zipfile.ZipFile(wheel) as packed:
        for entry in packed.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or any(fnmatch.fnmatch(entry.filename, pattern) for pattern in _LEFT_OUT):
                continue
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"{wheel.name} holds {entry.filename!r}, which lies outside of it")
            if path.parts[0].endswith(".data"):
                path = PurePosixPath(*path.parts[2:])
            out = target / path
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(packed.read(entry))
