import json
import sys
from pathlib import Path

import pytest

from edge import cli
from edge.runtimes.act import manifest

SERVER = Path(__file__).parents[1] / "runtimes/act/mcp_server.py"


@pytest.fixture
def edge(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "state"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/todo.txt").write_text("milk")

    def run(*words):
        code = cli.main(["tools", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_without_words_it_lists_what_is_built_in(edge):
    code, out, _ = edge()
    assert code == 0
    assert "read_file        read     builtin, held by its own code" in out
    assert "Set a timer that rings after a while." in out


def test_a_manifest_is_checked_and_shown(edge, tmp_path):
    path = tmp_path / "home.toml"
    path.write_text('[tools.lamp]\ndescription = "A lamp."\nrisk = "write"\ncommand = ["/bin/echo"]\nrate = "2/hour"\n')
    assert "lamp             write    command, " in edge(path)[1]
    assert "2 times an hour" in edge(path)[1]
    [tool] = json.loads(edge(path, "--json")[1])["tools"]
    assert (tool["name"], tool["risk"], tool["way"]) == ("lamp", "write", "command")
    path.write_text('[tools.lamp]\nrisk = "write"\ncolour = "red"\n')
    code, _, err = edge(path)
    assert code == 1
    assert "unknown key 'colour'" in err


def test_a_call_is_made_like_those_of_a_model(edge, tmp_path):
    files = f"files:{tmp_path / 'home'}"
    call = ("--call", "read_file", '{"path": "todo.txt"}')
    assert edge(files, *call, "--yes-to", "read")[:2] == (0, "milk\n")
    code, out, _ = edge(files, *call)
    assert code == 1
    assert "nobody is there to be asked" in out
    code, out, _ = edge(files, "--call", "write_file", '{"path": "a", "text": "x"}', "--dry-run")
    assert code == 0
    assert out.startswith('would: files.write_file {"path":"a","text":"x"} in ')
    assert json.loads(edge(files, *call, "--json")[1])["status"] == "denied"
    assert not (tmp_path / "home/a").exists()
    code, out, _ = edge("--log", 2)
    assert [line.split()[1] for line in out.splitlines()] == ["dry", "deny"]
    assert len(json.loads(edge("--log", 50, "--json")[1])["records"]) == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("files", "--log", "1"), "a manifest, --server and --log exclude each other"),
        (("--call", "x", "{}"), "--call needs a manifest"),
        (("files", "--dry-run"), "--dry-run and --yes-to need --call"),
        (
            ("files", "--call", "readfile", "{}"),
            "there is no tool 'readfile' in files\n  there are: list_files, read_file",
        ),
        (("files", "--call", "read_file", "{"), "the arguments are no JSON"),
        (("files", "--call", "read_file", "[]"), "the arguments must be a JSON object"),
        (("files", "--call", "read_file", "{}", "--yes-to", "write"), "only reading can be allowed beforehand"),
    ],
)
def test_what_makes_no_sense(edge, words, says):
    code, _, err = edge(*words)
    assert code == 2
    assert says in err


def test_the_tools_of_a_server_become_a_manifest(edge, tmp_path):
    reads = [word for path in (sys.prefix, sys.base_prefix, SERVER) for word in ("--read", path)]
    code, out, err = edge("--server", f"{sys.executable} {SERVER}", *reads)
    assert code == 0, err
    (tmp_path / "server.json").write_text(out)
    tools = manifest.read(tmp_path / "server.json").tools
    assert {tool.risk for tool in tools.values()} == {"execute"}
    assert tools["add"].description == "Add two numbers."
    code, out, _ = edge(tmp_path / "server.json", "--call", "add", '{"a": 2, "b": 3}', "--dry-run")
    assert 'for add {"a":2,"b":3}' in out


def test_a_server_that_is_none(edge):
    code, _, err = edge("--server", "no-such-server", "--stdio")
    assert code == 1
    assert "the program no-such-server is not installed here" in err


def test_a_server_without_tools(edge, tmp_path):
    text = (Path(__file__).parents[1] / "runtimes/act/test_mcp.py").read_text()
    script = text.split('ROUGH = """')[1].split('"""')[0].replace("BREAK", "pass")
    import textwrap

    (tmp_path / "x.py").write_text(
        textwrap.dedent(script).replace('{"name": "go", "inputSchema": {"type": "object"}}', "")
    )
    words = [word for path in (sys.prefix, sys.base_prefix, tmp_path / "x.py") for word in ("--read", path)]
    assert "offers no tools" in edge("--server", f"{sys.executable} {tmp_path / 'x.py'}", *words)[2]


@pytest.mark.parametrize(
    ("command", "says"), [("notes 'server", "is no command: no closing quotation"), (" ", "--server needs a command")]
)
def test_a_server_whose_command_is_none(edge, command, says):
    code, _, err = edge("--server", command)
    assert code == 2
    assert says in err


def test_what_is_hidden_in_a_description_or_in_the_log_shows(edge, tmp_path):
    path = tmp_path / "home.toml"
    path.write_text(
        '[tools.lamp]\ndescription = "A \\u001B[8mlamp\\u202E.\\U000E0041"\nrisk = "write"\ncommand = ["/bin/sh"]\n'
    )
    for words in ((path,), (path, "--json")):
        out = edge(*words)[1]
        assert "u001b[8mlamp" in out
        assert "u202e" in out
        assert out.replace("\n", "").isprintable()
    from edge.runtimes.act.audit import Audit

    Audit(tmp_path / "state/act/audit.jsonl").add("failed", tool="lamp", reason="it said \x1b[8mno")
    assert "(it said \\u001b[8mno)" in edge("--log", "1")[1]
