"""Tools of MCP servers: one made with the SDK, and ones that hang, flood, die, or speak something else."""

import sys
import textwrap
import time
from pathlib import Path

import pytest

from edge.errors import InputError
from edge.runtimes.act import confinement, manifest
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.policy import Policy
from edge.runtimes.tool_calls import ToolCall

SERVER = Path(__file__).with_name("mcp_server.py")
# One that needs no SDK, and breaks at a given point.
ROUGH = """
    import json, sys, time
    def say(request, **result): print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        method = request.get("method")
        if method == "initialize":
            about = {"name": "x", "version": "1"}
            say(request, protocolVersion="2025-06-18", capabilities={"tools": {}}, serverInfo=about)
        elif method == "tools/list":
            say(request, tools=[{"name": "go", "inputSchema": {"type": "object"}}])
        elif method == "tools/call":
            BREAK
"""


@pytest.fixture
def call(tmp_path):
    """Opens the hands on a server, and gives what calls its tools."""
    kept = []
    read = [sys.prefix, sys.base_prefix, str(SERVER), str(tmp_path / "x.py")]

    def make(command, *tools, **about):
        offered = {
            tool: {
                "description": "x", "risk": "execute", "mcp": {"server": "s", "tool": tool}, "timeout_s": 20,
                "parameters": {"additionalProperties": True}, **about,
            }
            for tool in tools
        }  # fmt: skip
        data = {"servers": {"s": {"command": command, "paths": {"read": read}}}, "tools": offered}
        made = manifest.parse(data, folder=tmp_path, where="home.toml")
        hands = Hands(made, Policy(), ask=lambda q: True, state=tmp_path / "state")
        hands.plan([Planned(tool) for tool in tools])
        kept.append(hands)
        return lambda tool=tools[0], **arguments: hands.perform(ToolCall(tool, arguments), origin="user")

    yield make
    for hands in kept:
        hands.close()


def rough(tmp_path, breaks):
    (tmp_path / "x.py").write_text(textwrap.dedent(ROUGH).replace("BREAK", breaks))
    return [sys.executable, str(tmp_path / "x.py")]


def test_the_tools_of_a_server_work_unchanged_and_confined(call, tmp_path):
    (tmp_path / "secret").write_text("secret")
    go = call([sys.executable, str(SERVER)], "add", "fail", "picture", "reach")
    added = go("add", a=2, b=3)
    assert (added.status, added.text, added.origin) == ("done", "5", "tool")
    failed = go("fail")
    assert failed.status == "failed"
    assert "no ink" in failed.text
    assert go("picture").text == "(image/png, which is no text)"
    assert "validation error" in go("add", a="x", b=3).text
    if confinement.by() == "landlock":
        assert go("reach", path=str(tmp_path / "secret")).text == "Permission denied"


def test_a_server_that_dies_is_started_again_for_the_next_call(call, tmp_path):
    go = call([sys.executable, str(SERVER)], "die")
    assert go().reason.startswith("the MCP server s has died")
    assert go().status == "unknown"


def test_a_server_that_hangs_is_ended(call, tmp_path):
    go = call(rough(tmp_path, "time.sleep(60)"), "go", timeout_s=1)
    began = time.monotonic()
    outcome = go()
    assert outcome.status == "unknown"
    assert "has not answered within 1 s, and was ended" in outcome.reason
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        ("sys.stdout.write('x' * (9 << 20)); sys.stdout.flush()", "has died"),
        ("sys.exit()", "has died"),
        ("print(json.dumps(dict(jsonrpc='2.0', id=request['id'], error=dict(code=1, message='no'))), flush=True)",
         "says: no"),
        ("say(request, content=[{'type': 'text', 'text': 'y' * 100_000}])", "cut off here"),
        ("say(request, content='nonsense')", "gave no sound answer: 1 validation error for CallToolResult"),
    ],
)  # fmt: skip
def test_a_server_that_breaks_ends_the_call_and_no_more(call, tmp_path, breaks, words):
    go = call(rough(tmp_path, breaks), "go")
    outcome = go()
    assert words in outcome.reason + outcome.text[-100:] or (outcome.status == "done" and "more" in outcome.text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "could not be started: the program no-such-program is not installed here"),
        ([sys.executable, "-c", "pass"], "could not be started: Connection closed"),
        ([sys.executable, "-c", "print('hello')"], "could not be started: Connection closed"),
    ],
)
def test_a_server_that_is_none(call, command, words):
    outcome = call(command, "go")()
    assert outcome.status == "failed"
    assert words in outcome.reason


def test_a_server_that_never_begins(call, monkeypatch):
    from edge.runtimes.act import servers

    monkeypatch.setattr(servers, "_START_S", 1.0)
    outcome = call([sys.executable, "-c", "import time; time.sleep(61.3)"], "go")()
    assert "has not started within 1 s" in outcome.reason
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in running if b"sleep(61.3)" in line]


def test_a_tool_that_the_server_does_not_have(call, tmp_path):
    outcome = call(rough(tmp_path, "pass"), "gone")()
    assert outcome.reason == "the MCP server s has no tool 'gone'; it has: go"


@pytest.mark.parametrize(
    ("servers", "way", "words"),
    [
        ({}, {"server": "s", "tool": "t"}, r"there is no \[servers.s\]"),
        ({"s": {"command": ["a"]}}, {"server": "s"}, "mcp must be a table with server and tool"),
        ({"s": {"command": ["a"]}}, "s.t", "mcp must be a table with server and tool"),
        ({"s": []}, {"server": "s", "tool": "t"}, "server 's': it must be a table"),
        ({"s": {"command": "a"}}, {"server": "s", "tool": "t"}, "server 's': command must be a list of words"),
        ({"s": {"command": ["a"], "env": {"A": 1}}}, {"server": "s", "tool": "t"}, "env must be a table of texts"),
        ({"s": {"command": ["a"], "shell": 1}}, {"server": "s", "tool": "t"}, "unknown key 'shell'"),
    ],
)
def test_a_server_that_makes_no_sense_is_named(tmp_path, servers, way, words):
    data = {"servers": servers, "tools": {"a": {"description": "x", "risk": "read", "mcp": way}}}
    with pytest.raises(InputError, match=words):
        manifest.parse(data, folder=tmp_path, where="home.toml")


def test_a_server_that_tells_its_tools_in_pages_and_does_not_keep_to_their_schema(call, tmp_path):
    command = rough(tmp_path, "say(request, content=[], structuredContent={'a': 1})")
    go = '{"name": "go", "inputSchema": {"type": "object"}}'
    form = '"outputSchema": {"type": "object", "properties": {"a": {"type": "string"}}}'
    pages = f"""**({{"tools": [{go[:-1]}, {form}}}]}} if request["params"] else {{"tools": [], "nextCursor": "2"}})"""
    script = (tmp_path / "x.py").read_text()
    (tmp_path / "x.py").write_text(script.replace(f"tools=[{go}]", pages).replace('["params"]', '.get("params")'))
    assert "gave no sound answer: Invalid structured content" in call(command, "go")().reason


def test_a_server_of_the_same_name_with_other_bounds_is_another_process(call, tmp_path):
    command = rough(tmp_path, "import os; say(request, content=[{'type': 'text', 'text': str(os.getpid())}])")
    read = [sys.prefix, sys.base_prefix, str(tmp_path)]

    def offered(tool, **bounds):
        servers = {"s": {"command": command, "paths": {"read": read}, **bounds}}
        about = {"description": "x", "risk": "execute", "mcp": {"server": "s", "tool": "go"}}
        return manifest.parse({"servers": servers, "tools": {tool: about}}, folder=tmp_path, where="x")

    made = manifest.join([offered("a"), offered("b"), offered("c", network=True)])
    with Hands(made, Policy(), ask=lambda q: True, state=tmp_path / "state") as hands:
        hands.plan([Planned(tool) for tool in made.tools])
        a, b, c = [hands.perform(ToolCall(tool, {}), origin="user").text for tool in "abc"]
    assert a == b
    assert a != c
