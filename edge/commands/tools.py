"""Look at tools: those built in, those of a manifest, those of an MCP server; call one; read the log.

A manifest is checked as a whole, and each tool is shown with its risk, how it is run and what holds it.
--call makes one call the way a model's calls are made: the same checks, questions, limits and log.
--server starts an MCP server, and prints a manifest of its tools to look at, correct and keep: all of
them are of the highest risk until you say otherwise.

examples:
  edge tools
  edge tools home.toml
  edge tools files:notes --call list_files '{}' --yes-to read
  edge tools home.toml --call set_light '{"room": "hall", "state": "on"}' --dry-run
  edge tools --server notes-server --stdio --read /usr/lib/notes-server > notes.json
  edge tools --log 20
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError

if TYPE_CHECKING:
    from edge.runtimes.act.manifest import Manifest, Tool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tools", metavar="MANIFEST", nargs="*", help="a file (home.toml), or built-in tools (files:FOLDER)"
    )
    parser.add_argument("--call", nargs=2, metavar=("TOOL", "JSON"), help="make this call")
    parser.add_argument("--dry-run", action="store_true", help="with --call: say what would be done, and do nothing")
    parser.add_argument(
        "--yes-to", action="append", default=[], metavar="RISK", help="with --call: allow it unasked: read"
    )
    parser.add_argument("--server", metavar="COMMAND", help="an MCP server's command, in one word or quoted")
    parser.add_argument("--stdio", action="store_true", help="with --server: add --stdio to its command")
    for key in ("read", "write"):
        about = f"with --server: what it may {key}; may be given several times"
        parser.add_argument(f"--{key}", action="append", default=[], metavar="PATH", help=about)
    parser.add_argument("--log", type=int, metavar="N", help="the last N decisions, if nobody has changed the log")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if sum(map(bool, (args.tools, args.server, args.log is not None))) > 1:
        raise UsageError("a manifest, --server and --log exclude each other")
    if (args.call or args.dry_run or args.yes_to) and not (args.call and args.tools):
        raise UsageError("--call needs a manifest, and --dry-run and --yes-to need --call")
    if args.log is not None:
        return _log(args.log, as_json=args.json)
    if args.server:
        command = [*_words(args.server), *(["--stdio"] if args.stdio else [])]
        print(_json(_served(command, args.read, args.write)))
        return 0
    from edge.find import names
    from edge.runtimes.act import manifest
    from edge.runtimes.act.words import for_person

    sources = args.tools or names(manifest.TOOLSETS)
    made = manifest.join([manifest.read(source) for source in sources])
    if args.call:
        return _called(args, made)
    if args.json:
        print(_json({"tools": [_record(tool) for tool in made.tools.values()]}))
        return 0
    for source in sources:
        print(source)
        for tool in manifest.read(source).tools.values():
            print(f"  {tool.name:<16} {tool.risk:<8} {_how(tool)}\n  {'':<16} {for_person(tool.description)}")
    return 0


def _json(data: Any) -> str:
    """Descriptions are somebody's words: what is hidden in them shows."""
    from edge.runtimes.act.words import for_json

    return for_json(json.dumps(data, indent=2, ensure_ascii=False))


def _words(command: str) -> list[str]:
    """A command line as the shell would read it, without a shell."""
    try:
        words = shlex.split(command)
    except ValueError as err:
        raise UsageError(f"--server {command!r} is no command: {str(err).lower()}") from err
    if not words:
        raise UsageError("--server needs a command", hint="for example --server '/usr/bin/notes-server --stdio'")
    return words


def _how(tool: Tool) -> str:
    from edge.runtimes.act import confinement
    from edge.runtimes.act.policy import spoken

    held = confinement.of(tool)
    rate = f", {spoken(tool.rate)}" if tool.rate else ""
    return f"{tool.kind}, {f'held by {held}' if held else 'NOT confined on this machine'}{rate}"


def _record(tool: Tool) -> dict[str, Any]:
    from edge.runtimes.act import confinement

    return {
        **tool.function()["function"], "risk": tool.risk, "way": tool.kind, "idempotent": tool.idempotent,
        "trusted": tool.trusted, "timeout_s": tool.timeout_s, "confined_by": confinement.of(tool),
    }  # fmt: skip


def _called(args: argparse.Namespace, made: Manifest) -> int:
    from edge.runtimes.act.hands import Hands
    from edge.runtimes.act.person import at_terminal
    from edge.runtimes.act.policy import Policy
    from edge.runtimes.tool_calls import ToolCall

    name, text = args.call
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise UsageError(f"the arguments are no JSON: {err}", hint="""for example '{"room": "hall"}'""") from err
    if not isinstance(arguments, dict):
        raise UsageError("the arguments must be a JSON object", hint="""for example '{"room": "hall"}'""")
    if name not in made.tools:
        raise UsageError(
            f"there is no tool {name!r} in {' '.join(args.tools)}", hint=f"there are: {', '.join(made.tools)}"
        )
    with Hands(made, Policy(frozenset(args.yes_to), dry_run=args.dry_run), ask=at_terminal()) as hands:
        outcome = hands.perform(ToolCall(name, arguments), origin="user")
    if args.json:
        keys = ("tool", "status", "text", "reason", "would", "duration_ms")
        print(_json({key: getattr(outcome, key) for key in keys}))
    elif outcome.status == "dry":
        print(f"would: {outcome.would}\n{outcome.reason}")
    else:
        print(outcome.text)
    return 0 if outcome.status in ("done", "dry") else 1


def _served(command: list[str], read: list[str], write: list[str]) -> dict[str, Any]:
    """A manifest of all tools of an MCP server, in its own words, for a person to read before a model does."""
    from edge.errors import require

    require("mcp", extra="act", purpose="looking at an MCP server")
    from edge.runtimes.act.executors.mcp import Served
    from edge.runtimes.act.manifest import Paths
    from edge.runtimes.act.servers import Server

    paths = {
        key: [os.path.abspath(os.path.expanduser(p)) for p in given]
        for key, given in (("read", read), ("write", write))
    }
    name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(command[0]).stem) or "server"
    bounds = Paths(tuple(paths["read"]), tuple(paths["write"]))
    with Server(Served(name, "", tuple(command), paths=bounds)) as server:
        offered = server.tools()
    if not offered:
        raise EdgeError(f"the MCP server {name} offers no tools")
    tools = {
        re.sub(r"[^A-Za-z0-9_.-]", "_", tool.name)[:64]: {
            "description": tool.description or tool.name,
            "risk": "execute",
            "mcp": {"server": name, "tool": tool.name},
            "parameters": tool.inputSchema,
        }
        for tool in offered
    }
    about = {"command": command, **({"paths": {k: v for k, v in paths.items() if v}} if read or write else {})}
    return {"servers": {name: about}, "tools": tools}


def _log(count: int, *, as_json: bool) -> int:
    from edge.runtimes.act.audit import Audit
    from edge.runtimes.act.hands import state_folder

    records = Audit(state_folder() / "audit.jsonl").read()[-count:] if count > 0 else []
    if as_json:
        print(json.dumps({"records": records}, indent=2))
        return 0
    for line in map(_line, records):
        print(line)
    return 0


def _line(record: Any) -> str:
    from edge.runtimes.act.words import for_person

    def parts() -> Iterator[str]:
        yield str(record["at"])
        yield f"{record['event']:<7}"
        yield str(record.get("tool") or f"{len(record.get('steps', []))} steps for {record.get('request', '')!r}")
        yield str(record.get("arguments", ""))
        if record.get("reason"):
            yield f"({record['reason']})"

    return for_person(" ".join(filter(None, parts())))
