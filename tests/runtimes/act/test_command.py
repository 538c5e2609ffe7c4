"""Programs that hang, crash, flood, or reach for what is not theirs."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edge.runtimes.act import confined_worker, confinement, manifest, reach
from edge.runtimes.act.executors import command
from edge.runtimes.act.hands import Hands
from edge.runtimes.act.person import shown
from edge.runtimes.act.policy import Policy
from edge.runtimes.act.ran import ToolError
from edge.runtimes.tool_calls import ToolCall

held = pytest.mark.skipif(confinement.by() != "landlock", reason="this kernel has no Landlock")


@pytest.fixture
def run(tmp_path):
    """Runs a Python script as a tool, and gives its outcome."""
    folder = tmp_path / "tool"
    folder.mkdir()

    def go(script, arguments=None, **about):
        (folder / "tool.py").write_text(textwrap.dedent(script))
        ask = about.pop("ask", lambda question: True)
        about = {"risk": "execute", "timeout_s": 10, **about}
        paths = about.pop("paths", {})
        about["paths"] = {**paths, "read": [str(folder), sys.prefix, sys.base_prefix, *paths.get("read", [])]}
        argv = [sys.executable, str(folder / "tool.py"), *[f"{{{name}}}" for name in arguments or {}]]
        properties = {name: {"type": "string"} for name in arguments or {}}
        tool = {
            "description": "x", "command": {"argv": argv, "stdin": "json"}, "parameters": {"properties": properties},
            **about,
        }  # fmt: skip
        tools = manifest.parse({"tools": {"tool": tool}}, folder=tmp_path, where="x")
        with Hands(tools, Policy(frozenset({"read"})), ask=ask, state=tmp_path / "state") as hands:
            return hands.perform(ToolCall("tool", arguments or {}), origin="user")

    return go


def test_a_program_gets_its_arguments_as_words_and_as_json_and_nobodys_environment(run, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    script = "import sys, os, json; print(json.dumps([sys.argv[1:], json.load(sys.stdin), sorted(os.environ)]))"
    room = "a b; $(id) `id` 'x"
    outcome = run(script, {"room": room})
    assert outcome.status == "done"
    argv, given, environment = json.loads(outcome.text)
    assert argv == [room]
    assert given == {"room": room}
    assert "PATH" in environment
    assert "SECRET" not in environment


def test_one_that_hangs_is_stopped_with_all_that_it_started(run, tmp_path):
    pids = tmp_path / "tool" / "pids"
    outcome = run(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()  # out of the process group
            if os.fork() == 0:
                pass
        with open("pids", "a") as f: print(os.getpid(), file=f)
        time.sleep(60)
        """,
        timeout_s=1, paths={"write": [str(tmp_path / "tool")]},
    )  # fmt: skip
    assert outcome.status == "unknown"
    assert "stopped after 1 s" in outcome.reason
    started = [int(word) for word in pids.read_text().split()]
    assert len(started) == 3
    assert not [pid for pid in started if alive(pid)]


def test_one_that_leaves_something_running_does_not(run, tmp_path):
    outcome = run(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            for fd in (0, 1, 2): os.close(fd)
            time.sleep(60)
        print("started")
        """
    )
    assert (outcome.status, outcome.text) == ("done", "started")
    assert not [pid for pid in children() if "tool.py" in pid]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children(own=True):
    """What runs, without (or with) what confines it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return [line for line in found if not own or "confined_worker" not in line]


def test_one_that_crashes_says_how(run):
    outcome = run("import os, signal; print('half'); os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.status == "unknown"
    assert "it crashed (SIGSEGV)" in outcome.reason
    failed = run("import sys; sys.exit('no such lamp')")
    assert (failed.status, failed.reason) == ("failed", "it ended with exit code 1: no such lamp")


def test_one_that_floods_is_stopped(run):
    began = time.monotonic()
    outcome = run("while True: print('x' * 1000)", output_bytes=10_000)
    assert "stopped: more than 10000 bytes of output" in outcome.reason
    assert len(outcome.text) < 6000
    assert time.monotonic() - began < 8
    quiet = run("import sys\nfor _ in range(3000): print('x' * 1000, file=sys.stderr)\nprint('done')")
    assert quiet.text == "done"  # what it complains about is drained, and only its end is kept


def test_what_is_no_text_is_not_shown(run):
    outcome = run("import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert (outcome.status, outcome.text) == ("done", "(256 bytes that are no text)")


def test_one_that_wants_too_much_memory_fails(run):
    outcome = run("x = bytearray(2 << 30); print(len(x))", memory_bytes=512 << 20)
    assert outcome.status == "failed"
    assert "MemoryError" in outcome.reason


def test_one_that_closes_its_input_is_none_the_worse(run):
    assert run("import os; os.close(0); print('fine')", {"text": "x" * 60_000}).text == "fine"


@held
def test_it_reads_and_writes_where_it_may_and_nowhere_else(run, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "data" / "link")
    script = f"""
        import os
        def tried(what):
            try: what(); return "yes"
            except OSError as err: return err.strerror
        here = {str(tmp_path)!r}
        print(tried(lambda: open(here + "/data/new", "w").write("x")))
        print(tried(lambda: open(here + "/secret").read()))
        print(tried(lambda: open(here + "/data/link").read()))
        print(tried(lambda: open("/etc/shadow").read()))
        print(tried(lambda: open("/proc/1/environ").read()))
        print(tried(lambda: os.listdir(os.path.expanduser("~root"))))
        print(tried(lambda: open(here + "/tool/new", "w")))
        print(tried(lambda: os.rename(here + "/data/new", here + "/gone")))
    """
    outcome = run(script, paths={"write": [str(tmp_path / "data")]})
    no = "Permission denied"
    assert outcome.text.splitlines()[:7] == ["yes", no, no, no, no, no, no]
    assert outcome.text.splitlines()[7] != "yes"
    assert (tmp_path / "data/new").exists()


@held
def test_it_has_no_network_unless_it_is_given_one(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"""
            import socket
            try: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2); print("connected")
            except OSError as err: print("no")
        """
        assert run(script).text == "no"
        assert run(script, network=True).text == "connected"


@held
def test_it_cannot_speak_to_a_socket_with_a_path_unless_it_may_write_there(run, tmp_path):
    (tmp_path / "own").mkdir()
    with socket.socket(socket.AF_UNIX) as theirs, socket.socket(socket.AF_UNIX) as own:
        for one, path in ((theirs, "theirs"), (own, "own/own")):
            one.bind(str(tmp_path / path))
            one.listen()
        script = f"""
            import socket
            for path in ("theirs", "own/own"):
                try: socket.socket(socket.AF_UNIX).connect({str(tmp_path)!r} + "/" + path); print("connected")
                except OSError as err: print("no")
        """
        said = run(script, paths={"write": [str(tmp_path / "own")]}).text.split()
    new = confined_worker.landlock_version(ctypes.CDLL(None, use_errno=True)) >= 9
    assert said == ["no" if new else "connected", "connected"]  # older kernels cannot hold that, as the guide says


def test_a_kernel_is_asked_for_nothing_that_it_does_not_know():
    held_by = [confined_worker.files_held(version).bit_length() for version in range(1, 11)]
    assert held_by == [13, 14, 15, 15, 16, 16, 16, 16, 17, 17]


@held
def test_it_cannot_signal_others(run):
    script = f"import os\ntry: os.kill({os.getpid()}, 0); print('could')\nexcept OSError: print('no')"
    assert run(script).text == "no"


@pytest.mark.rig
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_holds_it_where_there_is_no_landlock(run, tmp_path, monkeypatch):
    monkeypatch.setattr(confinement, "by", lambda: "bubblewrap")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"""
            import os, socket
            def tried(what):
                try: what(); return "yes"
                except OSError as err: return type(err).__name__
            here = {str(tmp_path)!r}
            print(tried(lambda: open(here + "/data/new", "w").write("x")))
            print(tried(lambda: open(here + "/secret").read()))
            print(tried(lambda: open(here + "/tool/new", "w")))
            print(tried(lambda: os.listdir("/var")))
            print(tried(lambda: os.kill({os.getpid()}, 0)))
            print(tried(lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2)))
        """
        outcome = run(script, paths={"write": [str(tmp_path / "data")]})
        assert outcome.status == "done", outcome
        assert outcome.text.split() == [
            "yes", "FileNotFoundError", "OSError", "FileNotFoundError", "ProcessLookupError", "ConnectionRefusedError",
        ]  # fmt: skip
        assert (tmp_path / "data/new").read_text() == "x"
        assert run(script, network=True).text.split()[-1] == "yes"
    slow = run("import time; time.sleep(60)", timeout_s=1)
    assert "stopped after 1 s" in slow.reason


def test_where_nothing_confines_it_that_is_said(run, monkeypatch):
    monkeypatch.setattr(confinement, "by", lambda: "")
    asked = []
    outcome = run("print(1)", risk="read", ask=lambda q: not asked.append(q))
    assert outcome.text == "1"
    assert asked[0].confined_by == ""
    assert "NOT confined" in shown(asked[0])


def test_a_program_that_is_not_there(tmp_path):
    about = {"description": "x", "risk": "read", "command": ["no-such-program"]}
    tool = manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="x").tools["a"]
    with pytest.raises(ToolError, match="the program no-such-program is not installed here"):
        command.run(tool, {}, None)


def test_one_that_cannot_be_started_says_so(tmp_path):
    (tmp_path / "tool").write_text("no program")
    about = {"description": "x", "risk": "execute", "command": [str(tmp_path / "tool")]}
    tool = manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="x").tools["a"]
    assert command.run(tool, {}, None).why.startswith("it could not be started: ")


def spec(argv):
    return command.read(argv, folder="/", where="x")


@pytest.mark.parametrize(
    ("argv", "arguments", "would"),
    [
        (["lamp", "{room}"], {"room": "a b"}, "run lamp 'a b'"),
        (["lamp", ["--dim", "{level}"], "{room}"], {"room": "a"}, "run lamp a"),
        (["lamp", ["--dim", "{level}"], "{room}"], {"room": "a", "level": -3}, "run lamp --dim -3 a"),
        (["lamp", "--room={room}"], {"room": "-rf"}, "run lamp --room=-rf"),
        (["lamp", "--", "{room}"], {"room": "-rf"}, "run lamp -- -rf"),
        (["lamp", "{on}", "{rooms}"], {"on": True, "rooms": ["a", "b"]}, 'run lamp true \'["a","b"]\''),
        (["lamp", "{room}"], {"room": "{other}", "other": "x"}, "run lamp '{other}'"),
    ],
)
def test_values_fill_the_words(argv, arguments, would):
    assert command.describe(spec(argv), arguments) == would


@pytest.mark.parametrize("value", ["-rf", "--config=/etc/shadow", "-"])
def test_a_value_cannot_become_an_option(value):
    with pytest.raises(ToolError, match=r"room begins with '-', which the program would take for an option"):
        command.describe(spec(["lamp", "{room}"]), {"room": value})


def test_path_arguments_are_held_to_the_tools_paths(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("inside")
    os.symlink("/etc/passwd", tmp_path / "data/link")
    about = {
        "description": "x", "risk": "read", "command": ["/bin/cat", "{path}"], "paths": {"read": ["data"]},
        "parameters": {"properties": {"path": {"type": "string", "format": "path"}}},
    }  # fmt: skip
    tool = manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="x").tools["a"]
    assert command.run(tool, {"path": "a"}, None).output == b"inside"
    for path in ("/etc/passwd", "../x", "link", "a/../../x"):
        with pytest.raises(ToolError, match=r"path leads to .*, which is not beneath the tool's paths"):
            command.run(tool, {"path": path}, None)


@held
def test_a_path_that_is_swapped_after_it_was_looked_at_leads_nowhere(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("inside")
    about = {
        "description": "x", "risk": "read", "command": ["/bin/cat", "{path}"], "paths": {"read": ["data"]},
        "parameters": {"properties": {"path": {"type": "string", "format": "path"}}},
    }  # fmt: skip
    tool = manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="x").tools["a"]
    settled = reach.settled

    def swapped(*about):
        found = settled(*about)
        (tmp_path / "data/a").unlink()
        os.symlink(tmp_path / "secret", tmp_path / "data/a")
        return found

    monkeypatch.setattr(command.reach, "settled", swapped)
    ran = command.run(tool, {"path": "a"}, None)
    assert not ran.ok
    assert ran.output == b""
    assert "Permission denied" in ran.why


def test_what_was_to_confine_it_has_died(run, monkeypatch):
    from edge.runtimes.act import program

    monkeypatch.setattr(program, "launched", lambda *a, **k: ([sys.executable, "-c", "pass"], b""))
    outcome = run("print(1)")
    assert outcome.reason.startswith("what was to confine it has died")
    assert outcome.status == "unknown"  # how far the program came, nobody can tell


def test_a_process_that_cannot_be_made_is_an_answer(run, monkeypatch):
    from edge.runtimes.act import program

    def refused(*about, **more):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(program.subprocess, "Popen", refused)
    assert run("print(1)").reason == "it could not be started: Resource temporarily unavailable"


def plain(tmp_path, command, **about):
    data = {"description": "x", "risk": "execute", "command": command, **about}
    return manifest.parse({"tools": {"a": data}}, folder=tmp_path, where="x").tools["a"]


def test_what_a_program_is_given_is_not_for_everybody_to_read(tmp_path):
    keyed = plain(tmp_path, {"argv": ["/bin/cat", "/proc/self/status"], "env": {"KEY": "s3cr3t-s3cr3t"}})
    seen = []
    real = command.program.launched

    def watched(*about, **more):
        launch, bounds = real(*about, **more)
        seen.append((" ".join(launch), b"s3cr3t" in bounds))
        return launch, bounds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.program, "launched", watched)
        command.run(keyed, {}, None)
    assert len(seen) == 1
    assert seen[0][1]
    assert "s3cr3t" not in seen[0][0]


def test_arguments_of_any_length_that_is_allowed_reach_the_program(tmp_path):
    properties = {"properties": {"text": {"type": "string"}}}
    said = plain(tmp_path, ["/bin/echo", "{text}"], parameters=properties, output_bytes=1 << 20)
    assert command.run(said, {"text": "é" * 30_000}, None).output.decode() == "é" * 30_000 + "\n"
    too_long = command.run(plain(tmp_path, ["/bin/echo", "{text}{text}{text}"], parameters=properties),
                           {"text": "é" * 30_000}, None)  # fmt: skip
    assert too_long.why == "it could not be started: Argument list too long"


def test_an_end_that_has_no_name_and_an_environment_that_is_none(tmp_path):
    assert command.run(plain(tmp_path, ["/bin/sh", "-c", "kill -40 $$"]), {}, None).why == "it crashed (signal 40)"
    odd = plain(tmp_path, {"argv": ["/bin/echo"], "env": {"A=B": "x"}})
    assert command.run(odd, {}, None).why == "it could not be started: illegal environment variable name"


@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_it_ends_with_a_process_that_ends_while_it_starts(after_s):
    code = (
        "from edge.runtimes.act import program\nfrom edge.runtimes.act.manifest import Paths\nprint('go', flush=True)\n"
    )
    code += "program.run(['/bin/sleep', '63.1'], paths=Paths(), network=False, timeout_s=60, memory_bytes=1 << 30, "
    ours = subprocess.Popen([sys.executable, "-c", code + "output_bytes=10)"], stdout=subprocess.PIPE)
    ours.stdout.readline()
    time.sleep(after_s)
    ours.kill()
    ours.wait()
    ours.stdout.close()
    ends = time.monotonic() + 20
    time.sleep(1)
    while any("sleep\x0063.1" in line for line in children(own=False)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not [line for line in children(own=False) if "63.1" in line]


def test_it_ends_with_the_process_that_started_it(tmp_path):
    code = """
        from edge.runtimes.act import program
        from edge.runtimes.act.manifest import Paths
        program.run(["/bin/sleep", "61.7"], paths=Paths(), network=False, timeout_s=60, memory_bytes=1 << 30,
                    output_bytes=10)
    """
    ours = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    ends = time.monotonic() + 20
    while not any("sleep\x0061.7" in line for line in children()) and time.monotonic() < ends:
        time.sleep(0.05)
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    while any("sleep\x0061.7" in line for line in children()) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not [line for line in children() if "sleep\x0061.7" in line]
