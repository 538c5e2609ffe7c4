"""Power that goes between two steps, or in the middle of one: nothing is lost, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from edge.errors import InputError
from edge.runtimes.act import manifest
from edge.runtimes.act.audit import Audit
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.policy import Policy
from edge.runtimes.tool_calls import ToolCall

STEPS = [
    Planned("append_file", {"path": "log.txt", "text": "one"}),
    Planned("slow", {}),
    Planned("append_file", {"path": "log.txt", "text": "three"}),
]


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def tools(home, *, idempotent=False):
    """The files of a folder, and a tool that notes that it began and then takes its time."""
    script = "import sys, time; open('began', 'a').write('x'); time.sleep(float(sys.argv[1]))"
    slow = {
        "description": "x", "risk": "execute", "idempotent": idempotent,
        "command": [sys.executable, "-c", script, (home / "wait").read_text() if (home / "wait").exists() else "60"],
        "paths": {"write": [str(home)], "read": [sys.prefix, sys.base_prefix]},
    }  # fmt: skip
    data = {"toolsets": {"files": {"folder": str(home)}}, "tools": {"slow": slow}}
    return manifest.parse(data, folder=home, where="x")


def begin(home, tmp_path):
    """A process that plans three steps, does the first, and is killed in the middle of the second."""
    code = f"""
        from pathlib import Path
        from tests.runtimes.act.test_power import STEPS, tools
        from edge.runtimes.act.hands import Hands
        from edge.runtimes.tool_calls import ToolCall
        home, state = Path({str(home)!r}), Path({str(tmp_path / "state")!r})
        with Hands(tools(home), ask=lambda q: True, state=state, run="r") as h:
            h.plan(STEPS, request="write it down")
            for step in STEPS:
                h.perform(ToolCall(step.tool, step.arguments), origin="user")
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    ends = time.monotonic() + 30
    while not ((home / "began").exists() and (home / "began").read_text()) and time.monotonic() < ends:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def again(home, tmp_path, *, ask=lambda q: True, idempotent=False):
    return Hands(tools(home, idempotent=idempotent), ask=ask, state=tmp_path / "state", run="r")


def calls():
    return [ToolCall(step.tool, step.arguments) for step in STEPS]


def test_afterwards_it_is_known_what_was_done_and_what_was_not(home, tmp_path):
    begin(home, tmp_path)
    with again(home, tmp_path) as hands:
        assert hands.journal.unfinished() == ["r"]
        assert hands.journal.request("r") == "write it down"
        assert [step.state for step in hands.before()] == ["done", "unknown", "planned"]
    assert (home / "log.txt").read_text() == "one\n"


def test_what_was_done_is_not_repeated_and_what_is_unknown_only_on_a_yes(home, tmp_path):
    begin(home, tmp_path)
    asked = []

    def ask(question):
        asked.append(question)
        return "before the interruption" not in question.reason

    with again(home, tmp_path, ask=ask) as hands:
        hands.plan(STEPS, request="write it down")
        first, second, third = [hands.perform(call, origin="user") for call in calls()]
        assert (first.status, first.reason) == ("done", "it was done before the interruption")
        assert second.status == "unknown"
        assert "may have been done already" in second.text
        assert third.status == "done"
        assert [step.state for step in hands.journal.steps("r")] == ["done", "unknown", "done"]
        assert hands.journal.unfinished() == []
    assert (home / "log.txt").read_text() == "one\nthree\n"
    assert (home / "began").read_text() == "x"
    assert [q.tool.name for q in asked] == ["slow", "append_file"]


def test_with_nobody_there_what_is_unknown_stays_so(home, tmp_path):
    begin(home, tmp_path)
    with again(home, tmp_path, ask=None) as hands:
        assert hands.perform(calls()[1], origin="user").status == "unknown"
        assert hands.journal.unfinished() == ["r"]
    assert (home / "began").read_text() == "x"


def test_a_yes_does_it_again(home, tmp_path):
    begin(home, tmp_path)
    (home / "wait").write_text("0")
    with again(home, tmp_path) as hands:
        # The command is another one now, but the call is the same.
        assert hands.perform(calls()[1], origin="user").status == "done"
    assert (home / "began").read_text() == "xx"


def test_a_step_that_can_be_done_twice_is(home, tmp_path):
    begin(home, tmp_path)
    (home / "wait").write_text("0")
    with again(home, tmp_path, idempotent=True) as hands:
        assert hands.perform(calls()[1], origin="user").status == "done"


def test_the_log_goes_on_after_a_line_that_was_cut_off(tmp_path):
    log = Audit(tmp_path / "audit.jsonl")
    log.add("allow", tool="a")
    log.add("done", tool="a")
    whole = log.path.read_bytes()
    for cut in range(1, len(whole.split(b"\n")[1]) + 1):
        log.path.write_bytes(whole[: -1 - cut] if cut else whole)
        log.add("allow", tool="b")
        records = log.read()
        assert records[0]["tool"] == "a"
        assert records[-1]["tool"] == "b"


def test_a_log_that_was_changed_shows_it(tmp_path):
    log = Audit(tmp_path / "audit.jsonl")
    for name in "abc":
        log.add("allow", tool=name)
    assert [r["tool"] for r in log.read()] == ["a", "b", "c"]
    assert json.loads(log.path.read_text().splitlines()[0])["event"] == "allow"
    lines = log.path.read_bytes().split(b"\n")
    for changed in (lines[1:], [lines[0], *lines[2:]], [lines[0].replace(b"allow", b"deny "), *lines[1:]]):
        log.path.write_bytes(b"\n".join(changed))
        with pytest.raises(InputError, match=r"was changed: line \d does not follow the one before it"):
            log.read()


def test_the_first_line_is_on_the_disk_with_the_name_of_its_file(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), real(handle)))
    log = Audit(tmp_path / "state/audit.jsonl")
    log.add("allow", tool="a")
    log.add("done", tool="a")
    file, folder = log.path.stat().st_ino, log.path.parent.stat().st_ino
    assert synced == [file, folder, file]


def test_a_log_that_is_not_there_yet_is_empty(tmp_path):
    assert Audit(tmp_path / "audit.jsonl").read() == []


def test_a_line_can_be_long(tmp_path):
    log = Audit(tmp_path / "audit.jsonl")
    for n in range(3):
        log.add("plan", steps=["x" * 300_000 * n])
    assert len(log.read()) == 3


def test_two_processes_add_to_one_log(tmp_path):
    code = "import sys; from pathlib import Path; from edge.runtimes.act.audit import Audit\n"
    code += "for n in range(50): Audit(Path(sys.argv[1])).add('x', n=n)"
    path = tmp_path / "audit.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(Audit(path).read()) == 150
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_reading_is_repeated_rather_than_remembered_wrongly(home, tmp_path):
    (home / "a.txt").write_text("old")
    call = ToolCall("read_file", {"path": "a.txt"})
    rules = Policy(frozenset({"read"}))
    with Hands(tools(home), rules, state=tmp_path / "state", run="q") as hands:
        assert hands.perform(call, origin="user").text == "old"
    (home / "a.txt").write_text("new")
    with Hands(tools(home), rules, state=tmp_path / "state", run="q") as hands:
        outcome = hands.perform(call, origin="user")
        assert (outcome.text, hands.origin) == ("new", "tool")
