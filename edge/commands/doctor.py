"""Say what is installed, what is missing, and the line that installs it.

Nothing is changed, downloaded or loaded into this process; each runtime is started in one of its own. The one
exception is asked for: --install fetches with pip what cannot live in this environment, into edge's cache.

examples:
  edge doctor
  edge doctor --json
  edge doctor --install optimum
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import edge
from edge import profile
from edge.find import names

_DISTRIBUTION = "edge-deploy"
_GROUPS = {"gguf": "GGUF", "onnx": "ONNX", "tflite": "TFLite", "export": "exporting", "chat": "chat", "zoo": "built-in models"}  # noqa: E501  # fmt: skip
_TIMEOUT_S = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--install", choices=["optimum"], help="the exporter behind: edge export --exporter optimum")


def run(args: argparse.Namespace) -> int:
    if args.install:
        from edge.export import optimum_env

        print(optimum_env.install())
        return 0
    facts = _facts()
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        for line in _lines(facts):
            print(line)
    return 0 if facts["healthy"] else 1


def _facts() -> dict[str, Any]:
    from edge.devices import needs
    from edge.export import cache

    machine = profile.this_machine()
    root = cache.root()
    near = next(p for p in (root, *root.parents) if p.exists())
    extras = {name: _extra(name) for name in ("", *_GROUPS)}
    runtimes = {name: _runtime(name) for name in names("edge.runtimes.engines") if name != "echo"}
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    broken = [name for name, found in runtimes.items() if found["error"] and not extras[name]["missing"]]
    return {
        "edge": edge.__version__,
        "python": platform.python_version(),
        "machine": machine.record(),
        "available_bytes": profile.conditions().available_bytes,
        "cache": str(root),
        "cache_bytes": sum(p.lstat().st_size for p in root.rglob("*") if p.is_file()) if root.exists() else 0,
        "disk_free_bytes": shutil.disk_usage(near).free,
        "compiler": compiler,
        "packages": extras,
        "devices": {need.name: need.record() for need in needs.every()},
        "runtimes": runtimes,
        "healthy": not extras[""]["missing"] and not broken,
    }


def _extra(extra: str) -> dict[str, Any]:
    """What one extra asks for (the empty one: edge itself), what of it is there, and what is not."""
    installed: dict[str, str] = {}
    missing: list[str] = []
    for name, bounds in _requirements(extra):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name + bounds)
            continue
        if _older(version, bounds):
            missing.append(f"{name}{bounds} (there is {version})")
        else:
            installed[name] = version
    install = f"pip install '{_DISTRIBUTION}[{extra}]'" if extra else f"pip install {_DISTRIBUTION}"
    return {"installed": installed, "missing": missing, "install": install if missing else None}


def _requirements(extra: str) -> Iterator[tuple[str, str]]:
    """Names and bounds of what the distribution asks for with `extra`."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        words, _, marker = line.partition(";")
        wanted = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        found = re.match(r"\s*([A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(.*)", words)
        if found and found[1] != _DISTRIBUTION and (wanted[1] if wanted else "") == extra:
            yield found[1], found[3].strip(" ()")


def _older(version: str, bounds: str) -> bool:
    wanted = re.search(r">=\s*([0-9.]+)", bounds)
    return bool(wanted) and _numbers(version) < _numbers(wanted[1] if wanted else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:4])


def _runtime(name: str) -> dict[str, Any]:
    """Load one engine's library in a process of its own: some of them end the process when the CPU is too old."""
    code = f"import json; from edge.runtimes.engines import {name}; print(json.dumps({name}.build()))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"build": None, "error": f"it did not start within {_TIMEOUT_S} s"}
    if done.returncode == 0:
        return {"build": json.loads(done.stdout.splitlines()[-1]), "error": None}
    if done.returncode < 0:
        return {"build": None, "error": f"it was ended by signal {-done.returncode}"}
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {"build": None, "error": (said[-1] if said else "it said nothing")[:300]}


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    machine = facts["machine"]
    yield f"edge {facts['edge']}, Python {facts['python']}, {machine['machine']}"
    ram = machine["ram_bytes"] or 0
    free = facts["available_bytes"] or 0
    yield f"  processor   {machine['cpu']}, {machine['physical_cores']} cores ({' '.join(machine['features'])})"
    yield f"  memory      {ram / 2**30:.1f} GiB, {free / 2**30:.1f} free"
    yield (
        f"  cache       {facts['cache']}, {facts['cache_bytes'] / 1e9:.1f} GB used, "
        f"{facts['disk_free_bytes'] / 1e9:.0f} GB free"
    )
    yield f"  compiler    {facts['compiler'] or 'none: llama-cpp-python cannot be built (Debian: apt install g++)'}"
    yield "runtimes"
    for name, found in facts["runtimes"].items():
        if found["build"]:
            version = ", ".join(f"{k} {v}" for k, v in list(found["build"].items())[:1])
            yield f"  ok       {name:<10} {version}"
        else:
            yield f"  missing  {name:<10} {found['error']}"
    yield "packages"
    for extra, found in facts["packages"].items():
        words = _GROUPS.get(extra, "edge itself")
        if found["missing"]:
            yield f"  missing  {words:<16} {', '.join(found['missing'])}"
            yield f"           install with: {found['install']}"
        else:
            yield f"  ok       {words:<16} {', '.join(f'{k} {v}' for k, v in found['installed'].items())}"
    yield "devices"
    for name, found in facts["devices"].items():
        if found["missing"]:
            yield f"  missing  {name:<25} {', '.join(found['missing'])}"
            yield f"           install with: {found['install']}"
        else:
            yield f"  ok       {name:<25} {found['version'] or 'it does not say its version'}"
    yield "everything that is installed works" if facts["healthy"] else "something is broken; see above"
