"""A program of this machine, without a shell: `command = ["/usr/bin/lamp", ["--dim", "{level}"], "{room}"]`.

`{name}` is the value of an argument. A list within the list is left out as a whole when one of its arguments was not
given, and so is a word. A table says more: `command = { argv = […], env = { KEY = "value" }, stdin = "json" }`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.runtimes.act import program, reach
from edge.runtimes.act.manifest import Tool
from edge.runtimes.act.ran import Arguments, Place, Ran, ToolError
from edge.runtimes.act.schema import canonical

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Command:
    """Words with slots, in groups that are left out together; `stdin` gives the arguments as JSON as well."""

    groups: tuple[tuple[str, ...], ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False


def read(value: Any, *, folder: Path, where: str) -> Command:
    about = value if isinstance(value, dict) else {"argv": value}
    if unknown := set(about) - {"argv", "env", "stdin"}:
        raise InputError(f"{where}: unknown key {sorted(unknown)[0]!r} in command", hint="there are: argv, env, stdin")
    argv, env = about.get("argv"), about.get("env", {})
    groups = [[word] if isinstance(word, str) else word for word in argv] if isinstance(argv, list) else []
    if not groups or not all(isinstance(g, list) and g and all(isinstance(w, str) and w for w in g) for g in groups):
        raise InputError(f"{where}: command must be a list of words, the program first, not {argv!r}")
    if not isinstance(env, dict) or not all(isinstance(text, str) for text in env.values()):
        raise InputError(f"{where}: env of command must be a table of texts")
    if about.get("stdin", "json") != "json":
        raise InputError(f"{where}: stdin of command can only be 'json', not {about['stdin']!r}")
    name = groups[0][0]
    if _SLOT.search(name):
        raise InputError(f"{where}: which program is run cannot be an argument: {name!r}")
    if "/" in name:
        groups[0][0] = str(folder / os.path.expanduser(name))
    return Command(tuple(tuple(group) for group in groups), env, "stdin" in about)


def describe(spec: Command, arguments: Arguments) -> str:
    return f"run {shlex.join(_argv(spec, arguments))}"


def run(tool: Tool, arguments: Arguments, place: Place) -> Ran:
    argv = _argv(tool.run, reach.settled(tool, arguments))
    found = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=program.ENVIRONMENT["PATH"])
    if found is None or not os.path.isfile(found):
        raise ToolError(f"the program {argv[0]} is not installed here")
    return program.run(
        [os.path.abspath(found), *argv[1:]], paths=tool.paths, network=tool.network, timeout_s=tool.timeout_s,
        memory_bytes=tool.memory_bytes, output_bytes=tool.output_bytes, env=tool.run.env,
        stdin=canonical(dict(arguments)).encode() if tool.run.stdin else b"",
    )  # fmt: skip


def _argv(spec: Command, arguments: Arguments) -> list[str]:
    argv: list[str] = []
    for group in spec.groups:
        if all(name in arguments for word in group for name in _SLOT.findall(word)):
            argv += [_filled(word, arguments, guarded="--" not in argv) for word in group]
    return argv


def _filled(word: str, arguments: Arguments, *, guarded: bool) -> str:
    """The word with its values. One that is nothing but a value must not become an option of the program."""
    text = _SLOT.sub(lambda found: _text(arguments[found[1]]), word)
    if guarded and word.startswith("{") and text.startswith("-") and _SLOT.match(word):
        slot = _SLOT.match(word)
        if slot and not _is_number(arguments[slot[1]]):
            raise ToolError(f"{slot[1]} begins with '-', which the program would take for an option: {text[:60]!r}")
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
