"""A tool of an MCP server, which is a program of this machine: `mcp = { server = "notes", tool = "add_note" }`.

    [servers.notes]
    command = ["/usr/bin/notes-server", "--stdio"]
    paths = { write = ["/home/pi/notes"] }

The server is started when it is first needed, confined like any program, and ended with the hands. What the model is
told of a tool is what the manifest says, not what the server says today.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, require
from edge.runtimes.act.manifest import Paths, Tool, flag, known, number, paths
from edge.runtimes.act.ran import Arguments, Place, Ran
from edge.runtimes.act.schema import canonical

if TYPE_CHECKING:
    from edge.runtimes.act.servers import Server


@dataclass(frozen=True)
class Served:
    """A tool of a server, and how that server is started."""

    server: str
    tool: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    paths: Paths = field(default_factory=Paths)
    network: bool = False
    memory_bytes: int = 2 << 30


def read(value: Any, *, folder: Path, where: str) -> Served:
    server = value.get("server") if isinstance(value, dict) else None
    if not isinstance(server, dict) or not isinstance(value.get("tool"), str) or set(value) - {"server", "tool"}:
        raise InputError(
            f"{where}: mcp must be a table with server and tool", hint="and there must be a [servers.NAME]"
        )
    about, at = server["about"], f"{where}: server {server['name']!r}"
    if not isinstance(about, dict):
        raise InputError(f"{at}: it must be a table")
    known(about, {"command", "env", "paths", "network", "memory_bytes"}, at)
    command, env = about.get("command"), about.get("env", {})
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        raise InputError(f"{at}: command must be a list of words, the program first, not {command!r}")
    if not isinstance(env, dict) or not all(isinstance(text, str) for text in env.values()):
        raise InputError(f"{at}: env must be a table of texts")
    program = str(folder / os.path.expanduser(command[0])) if "/" in command[0] else command[0]
    return Served(
        server["name"], value["tool"], (program, *command[1:]), tuple(sorted(env.items())),
        paths(about.get("paths", {}), folder, at), flag(about.get("network", False), "network", at),
        int(number(about.get("memory_bytes", 2 << 30), "memory_bytes", at)),
    )  # fmt: skip


def describe(spec: Served, arguments: Arguments) -> str:
    return f"ask the MCP server {spec.server} for {spec.tool} {canonical(dict(arguments))}"


def run(tool: Tool, arguments: Arguments, place: Place) -> Ran:
    require("mcp", extra="act", purpose="a tool of an MCP server")
    from edge.runtimes.act.servers import Server

    spec: Served = tool.run
    # One process for all tools of a server, unless another manifest gives one of that name other bounds.
    key = replace(spec, tool="")
    server: Server | None = place.kept.get(key)
    if server is None or not server.alive:
        server = place.kept[key] = place.closing.enter_context(Server(spec))
    return server.call(spec.tool, dict(arguments), timeout_s=tool.timeout_s, output_bytes=tool.output_bytes)
