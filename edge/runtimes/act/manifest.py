"""Which tools there are, and what each may do: a file that a person writes and a model never sees.

    [toolsets]
    calendar = {}
    files = { folder = "/home/pi/notes" }

    [tools.set_light]
    description = "Switch a lamp on or off."
    risk = "write"
    idempotent = true
    rate = "20/minute"
    timeout_s = 5
    command = ["/usr/local/bin/lamp", "--room={room}", "{state}"]

    [tools.set_light.parameters]
    properties.room = { type = "string", description = "which room" }
    properties.state = { type = "string", enum = ["on", "off"] }
    required = ["room", "state"]

JSON says the same with the same keys.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError
from edge.find import load, names
from edge.runtimes.act import schema

RISKS = ("read", "write", "execute")
TOOLSETS = "edge.runtimes.act.toolsets"
EXECUTORS = "edge.runtimes.act.executors"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_RATE = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour|day)")
_PERIODS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_LIMIT_BYTES = 4 << 20
KEYS = {
    "description", "parameters", "risk", "paths", "rate", "timeout_s", "memory_bytes", "output_bytes", "idempotent",
    "network", "trusted",
}  # fmt: skip


@dataclass(frozen=True)
class Paths:
    """Folders and files, absolute, that a tool may read, and that it may also write."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rate:
    """At most `count` calls in any `per_s` seconds."""

    count: int
    per_s: float


@dataclass(frozen=True)
class Tool:
    """One thing that can be done. `kind` names the executor, `run` is what that executor read from the manifest.

    `idempotent`: done twice is as good as done once. `trusted`: its answers are the device's own (a clock, a
    temperature), with nobody else's words in them. `network`: a confined program may use it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    risk: str
    kind: str
    run: Any
    paths: Paths = Paths()
    rate: Rate | None = None
    timeout_s: float = 30.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 10
    idempotent: bool = False
    network: bool = False
    trusted: bool = False

    def function(self) -> dict[str, Any]:
        """The tool as chat templates show it: a JSON Schema function."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}


@dataclass(frozen=True)
class Manifest:
    """Tools by name."""

    tools: Mapping[str, Tool] = field(default_factory=dict)

    def functions(self) -> list[dict[str, Any]]:
        """All tools, as chat templates show them."""
        return [tool.function() for tool in self.tools.values()]


@dataclass(frozen=True)
class Source:
    """Where tools come from: a built-in set (`files:FOLDER`), or the text of the file called `name`."""

    name: str
    text: str | None = None


def read(source: str | Path) -> Manifest:
    """The tools of a file (`home.toml`, `home.json`), or of a built-in set: `files`, `files:FOLDER`.

    Raises as `find` and `understood`.
    """
    found = find(source)
    return understood(found, Path.cwd() if found.text is None else Path(found.name).parent.absolute())


def find(source: str | Path) -> Source:
    """What a person names. Raises `UsageError` when there is no such file or set."""
    if isinstance(source, str) and source.partition(":")[0] in names(TOOLSETS) and not Path(source).is_file():
        return Source(source)
    path = Path(os.path.expanduser(source))
    if not path.is_file():
        raise UsageError(
            f"there is no tool manifest {source}", hint=f"built in are: {', '.join(names(TOOLSETS))}; or name a file"
        )
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, which no tool manifest has")
    try:
        return Source(str(path), path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as err:
        raise InputError(f"{path} is no tool manifest: {err}") from err


def understood(source: Source, folder: Path) -> Manifest:
    """The tools of `source`; relative paths in it begin at `folder`.

    Raises `InputError`, which names the tool, for one that is damaged: an unknown key, a name twice, a schema that
    admits nothing.
    """
    if source.text is None:
        word, _, setting = source.name.partition(":")
        return Manifest(_toolset(word, _setting(word, setting), folder, f"the built-in tools {word!r}"))
    try:
        toml = source.name.endswith(".toml")
        data = tomllib.loads(source.text) if toml else json.loads(source.text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{source.name} is no tool manifest: {err}") from err
    return parse(data, folder=folder, where=source.name)


def join(manifests: Sequence[Manifest]) -> Manifest:
    """All tools of all `manifests`. Raises `InputError` when two have a name in common."""
    tools: dict[str, Tool] = {}
    for manifest in manifests:
        _add(tools, manifest.tools, "the manifests")
    return Manifest(tools)


def parse(data: Any, *, folder: Path, where: str) -> Manifest:
    """The tools of what a manifest file says; relative paths in it begin at `folder`."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is no tool manifest: it holds no table")
    known(data, {"tools", "toolsets", "servers"}, where)
    for key in data:
        if not isinstance(data[key], dict):
            raise InputError(f"{where}: {key} must be a table of names")
    tools: dict[str, Tool] = {}
    for name, settings in data.get("toolsets", {}).items():
        if not isinstance(settings, dict):
            raise InputError(f"{where}: toolsets.{name} must be a table, if only {{}}")
        _add(tools, _toolset(name, settings, folder, f"{where}: toolsets.{name}"), where)
    for name, about in data.get("tools", {}).items():
        if not isinstance(about, dict):
            raise InputError(f"{where}: tools.{name} must be a table")
        made = _tool(name, _with_server(about, data, where), folder, f"{where}: tool {name!r}")
        _add(tools, {name: made}, where)
    if not tools:
        raise InputError(f"{where} names no tools", hint="add a [tools.NAME], or a toolset under [toolsets]")
    return Manifest(tools)


def _with_server(about: dict[str, Any], data: dict[str, Any], where: str) -> dict[str, Any]:
    """A tool of an MCP server, with what the manifest says of that server."""
    way, servers = about.get("mcp"), data.get("servers", {})
    if not isinstance(way, dict) or not isinstance(name := way.get("server"), str):
        return about
    if name not in servers:
        raise InputError(f"{where}: there is no [servers.{name}]", hint=f"there are: {', '.join(servers) or 'none'}")
    return {**about, "mcp": {**way, "server": {"name": name, "about": servers[name]}}}


def _toolset(name: str, settings: dict[str, Any], folder: Path, where: str) -> dict[str, Tool]:
    module = load(TOOLSETS, name)
    known(settings, set(module.SETTINGS), where)
    file = Path(str(module.__file__)).with_suffix(".toml")
    made = parse(tomllib.loads(file.read_text(encoding="utf-8")), folder=folder, where=where).tools
    executor = load(EXECUTORS, "builtin")
    return {key: replace(tool, run=executor.settle(tool.run, settings, folder, where)) for key, tool in made.items()}


def _setting(name: str, value: str) -> dict[str, str]:
    """`files:FOLDER` sets the first setting of the set."""
    if not value:
        return {}
    settings = load(TOOLSETS, name).SETTINGS
    if not settings:
        raise UsageError(f"the built-in tools {name!r} take no setting, but were given {value!r}")
    return {next(iter(settings)): value}


def _tool(name: str, about: dict[str, Any], folder: Path, where: str) -> Tool:
    kinds = names(EXECUTORS)
    known(about, KEYS | set(kinds), where)
    if not _NAME.fullmatch(name):
        raise InputError(f"{where}: a name has letters, digits, '_', '-' and '.', at most 64")
    risk = about.get("risk")
    if risk not in RISKS:
        raise InputError(f"{where}: risk must be one of {', '.join(RISKS)}, not {risk!r}")
    ways = [kind for kind in kinds if kind in about]
    if len(ways) != 1:
        raise InputError(f"{where}: say in exactly one way how it is run ({', '.join(kinds)}), not {len(ways)}")
    description = about.get("description", "")
    if not isinstance(description, str) or not description.strip():
        raise InputError(f"{where}: it needs a description, which is all that the model knows of it")
    limits: dict[str, Any] = {
        key: number(about[key], key, where)
        for key in ("timeout_s", "memory_bytes", "output_bytes")
        if key in about
    }  # fmt: skip
    flags: dict[str, Any] = {
        key: flag(about[key], key, where) for key in ("idempotent", "network", "trusted") if key in about
    }
    flags.setdefault("idempotent", risk == "read")
    _held(ways[0], about, where)
    if flags.get("trusted") and risk != "read":
        raise InputError(f"{where}: only a tool of risk read can be trusted")
    return Tool(
        name=name,
        description=description.strip(),
        parameters=schema.closed(about.get("parameters", {}), where),
        risk=risk,
        kind=ways[0],
        run=load(EXECUTORS, ways[0]).read(about[ways[0]], folder=folder, where=where),
        paths=paths(about.get("paths", {}), folder, where),
        rate=_rate(about.get("rate"), where),
        **limits,
        **flags,
    )


def _held(kind: str, about: dict[str, Any], where: str) -> None:
    """Raise `InputError` for bounds that would hold nothing: who wrote them believes that they do."""
    instead = {"mcp": "say it of the server, under [servers.NAME]", "builtin": "a toolset's settings bound it"}
    program = kind in ("command", "python")
    if not program and (key := next((k for k in ("paths", "network", "memory_bytes") if k in about), None)):
        raise InputError(f"{where}: {key} holds programs, and not what is run by {kind}", hint=instead.get(kind))
    parameters = about.get("parameters", {})
    if kind == "mcp":
        return  # the schema is the server's own, and its paths are the server's matter
    if isinstance(parameters, dict) and (name := schema.path_out_of_reach(parameters, reached=program)):
        raise InputError(
            f'{where}: format = "path" holds nothing at {name}',
            hint="it is for arguments of type string, not within lists and tables, of a command or a python function",
        )


def paths(value: Any, folder: Path, where: str) -> Paths:
    if not isinstance(value, dict):
        raise InputError(f"{where}: paths must be a table with read and write")
    known(value, {"read", "write"}, f"{where}: paths")
    made = {}
    for key, found in value.items():
        if not isinstance(found, list) or not all(isinstance(path, str) and path for path in found):
            raise InputError(f"{where}: paths.{key} must be a list of paths")
        made[key] = tuple(str(folder / os.path.expanduser(path)) for path in found)
    return Paths(**made)


def _rate(value: Any, where: str) -> Rate | None:
    if value is None:
        return None
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise InputError(f"{where}: rate must be like '10/minute' (second, minute, hour, day), not {value!r}")
    return Rate(int(found[1]), _PERIODS_S[found[2]])


def number(value: Any, key: str, where: str) -> float | int:
    whole = key != "timeout_s"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 2**40:
        raise InputError(f"{where}: {key} must be a {'whole ' if whole else ''}number above 0, not {value!r}")
    return value


def flag(value: Any, key: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where}: {key} must be true or false, not {value!r}")
    return value


def known(found: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}", hint=f"there are: {', '.join(sorted(known)) or 'none'}")


def _add(tools: dict[str, Tool], more: Mapping[str, Tool], where: str) -> None:
    for name, tool in more.items():
        if name in tools:
            raise InputError(f"{where}: there are two tools called {name!r}")
        tools[name] = tool


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice: the second would silently replace the first."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise ValueError(f"the name {twice!r} stands there twice")
    return made
