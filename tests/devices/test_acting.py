"""`edge act --on`: a worker that carries out what it is told to, and a person at this end of the link."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import acting, install
from edge.devices.acting import Acting
from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.kinds.local import Local
from edge.errors import DeviceError, EdgeError, UsageError
from edge.runtimes.act import linked, manifest
from edge.runtimes.act.audit import Audit
from edge.runtimes.act.executors import builtin
from edge.runtimes.act.journal import Journal
from tests.runtimes.act.test_mind import SHOWS, told
from tests.runtimes.test_sight import PARTS
from tests.tiny_bundle import IMAGE, tiny_bundle

READ = told("read_file", path="todo.txt")
DELETE = told("delete_file", path="todo.txt")
APPEND = told("append_file", path="log.txt", text="once")


class Wire:
    """The way to a worker, which runs in a thread: when the way is cut, it lives on, as behind a network."""

    def __init__(self, folder):
        inputs, self._in = os.pipe()
        self._out, outputs = os.pipe()
        self.thread = threading.Thread(target=self._serve, args=(folder, inputs, outputs), daemon=True)
        self.thread.start()

    def _serve(self, folder, inputs, outputs):
        with open(inputs, "rb") as heard, open(outputs, "wb") as said:
            linked.serve(folder, heard, said)

    def write(self, data, timeout_s=0):
        if self._in is None:
            raise LinkLost("the cable is out")
        os.write(self._in, data)

    def readline(self, timeout_s=None):
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(self._out, 1)):
            line += byte
        return line

    def finish(self, timeout_s=0):
        raise LinkLost("the cable is out")

    def kill(self):
        if self._in is not None:
            self._in = os.close(self._in)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A device with a bundle that acts on it."""
    folder = tmp_path_factory.mktemp("far")
    tiny_bundle(folder / "tiny", template=SHOWS)
    device = connect(f"local:{folder / 'store'}")
    install.flash(folder / "tiny", device)
    device.folder = folder / "tiny"
    return device


@pytest.fixture
def far(store, tmp_path, monkeypatch):
    """The same with a home of its own, in which something is to do; nobody sits at this end."""
    home = tmp_path / "home"
    (home / "notes").mkdir(parents=True)
    (home / "notes/todo.txt").write_text("milk\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "state"))  # a fresh one for each test, as on a fresh device
    store.notes, store.state = home / "notes", tmp_path / "state/act"
    return store


@pytest.fixture
def wires(far, monkeypatch):
    """The ways to workers that were opened; what is no worker is a process as ever."""
    opened, open_ = [], Local.open

    def through(self, argv):
        if argv[-1] != "act":
            return open_(self, argv)
        opened.append(Wire(far.folder))
        return opened[-1]

    monkeypatch.setattr(Local, "open", through)
    yield opened
    for wire in opened:
        wire.kill()
        wire.thread.join(5)
        assert not wire.thread.is_alive()


@pytest.fixture
def act(far, wires, capsys):
    """Runs `edge act --on`; gives exit code, standard output and standard error."""

    def run(*words, tools=("files:notes",)):
        more = [word for one in tools for word in ("--tools", one)]
        code = main(["act", *words, *more, "--on", far.address])
        return code, *capsys.readouterr()

    return run


def sits(monkeypatch, answer):
    """Somebody at this end who is shown questions, which are given."""
    asked = []
    monkeypatch.setattr(
        "edge.runtimes.act.person.at_terminal", lambda: lambda question: asked.append(question) or answer(question)
    )
    return asked


def test_it_reads_there_and_answers_here(far, act):
    code, out, err = act("tiny", READ, "--yes-to", "read")
    assert (code, out) == (0, "milk\n")
    assert "1. read_file  path = todo.txt" in err
    events = [record["event"] for record in Audit(far.state / "audit.jsonl").read()]
    assert events == ["plan", "allow", "done"]


def test_the_record_is_that_of_this_machine(far, act):
    code, out, _ = act(str(far.folder), READ, "--yes-to", "read", "--json")
    there = json.loads(out)
    main(["act", str(far.folder), READ, "--yes-to", "read", "--json", "--tools", f"files:{far.notes}"])
    assert code == 0
    assert there["bundle"]["id"] == bundles.read(far.folder).id
    assert (there["steps"][0]["status"], there["steps"][0]["text"]) == ("done", "milk")


def test_without_a_terminal_here_a_write_there_is_refused(far, act):
    code, out, _ = act("tiny", DELETE)
    assert code == 1
    assert "nobody is there to be asked" in out
    assert (far.notes / "todo.txt").exists()


def test_a_write_is_asked_for_here_and_done_there(far, act, monkeypatch):
    asked = sits(monkeypatch, lambda question: True)
    assert act("tiny", DELETE)[0] == 0
    assert not (far.notes / "todo.txt").exists()
    [question] = asked
    assert (question.tool.name, question.tool.risk, question.arguments) == (
        "delete_file", "write", {"path": "todo.txt"},
    )  # fmt: skip
    assert question.would == f'on {far.address}: files.delete_file {{"path":"todo.txt"}} in {far.notes}'
    decided = [r for r in Audit(far.state / "audit.jsonl").read() if r["event"] == "allow"]
    assert "the person said yes" in decided[0]["reason"]


def test_a_no_is_no(far, act, monkeypatch):
    sits(monkeypatch, lambda question: False)
    code, out, _ = act("tiny", DELETE)
    assert (code, (far.notes / "todo.txt").exists()) == (1, True)
    assert "the person said no" in out


def test_a_dry_run_says_what_would_happen_there(far, act):
    code, _, err = act("tiny", DELETE, "--dry-run")
    assert code == 0
    assert f'would: files.delete_file {{"path":"todo.txt"}} in {far.notes}' in err
    assert (far.notes / "todo.txt").exists()


def test_a_manifest_goes_along_and_files_are_read_here(far, act, tmp_path):
    (tmp_path / "home.toml").write_text('[toolsets]\nfiles = { folder = "notes" }\n')
    (tmp_path / "letter.txt").write_text("dear all")
    code, out, _ = act("tiny", READ, "--yes-to", "read", tools=(str(tmp_path / "home.toml"),))
    assert (code, out) == (0, "milk\n")
    assert "there is no file" in act("tiny", READ, "--file", str(tmp_path / "no.txt"))[2]
    assert "there is no file" in act("tiny", READ, "--image", str(tmp_path / "no.png"))[2]
    (tmp_path / "a.png").write_bytes(b"x")
    assert "does not see pictures" in act("tiny", READ, "--image", str(tmp_path / "a.png"))[2]


def test_a_picture_can_be_looked_at_here(far, act, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 4), "red").save(tmp_path / "door.png")
    tiny_bundle(tmp_path / "eye", template=PARTS, image=IMAGE)
    append = told("append_file", path="todo.txt", text="it")
    code, _, err = act(
        "tiny", append, "--dry-run", "--image", str(tmp_path / "door.png"), "--seen-by", str(tmp_path / "eye")
    )
    assert code == 0
    assert "seen in door.png: " in err
    assert "say what it says." in err.partition("would: ")[2]  # the tiny bundle says what it is told


def test_a_wrong_manifest_is_refused_before_the_device_is_reached(act, tmp_path, monkeypatch):
    monkeypatch.setattr(Local, "run", None)
    monkeypatch.setattr(Local, "open", None)
    (tmp_path / "home.toml").write_text('[tools.x]\nrisk = "huge"\ndescription = "x"\n')
    code, _, err = act("tiny", READ, tools=(str(tmp_path / "home.toml"),))
    assert code == 1
    assert "risk must be one of" in err
    assert act("tiny", READ, tools=("nothing",))[0] == 2
    assert "only reading can be allowed beforehand" in act("tiny", READ, "--yes-to", "write")[2]


def test_the_device_reads_the_manifest_itself(far, wires):
    with Acting(far, None, [manifest.find("files:notes")]) as there:
        there._worker.say(do="open", tools=[])
        with pytest.raises(UsageError, match="'open' cannot be done now"):
            there._until("opened", 20)
        there._worker.say(do="act")
        with pytest.raises(UsageError, match=r"local:.*the request makes no sense: KeyError"):
            there._until("report", 20)
    with acting._Worker(far, None) as worker:
        worker.say(do="open", tools=[{"name": "x.json", "text": '{"tools": {"x": {}}}'}])
        with pytest.raises(EdgeError, match="tool 'x'"):
            while True:
                worker.hear(20)


def test_a_session_over_the_link(far, act, monkeypatch):
    lines = iter([READ, "/tools", "remember that the key is under the stone", "/memory", "/dance", "/quit"])
    monkeypatch.setattr("edge.chat.line.reader", lambda *_: (lambda prompt: next(lines), None))
    code, out, err = act("tiny", "--yes-to", "read")
    assert code == 1
    assert out.startswith("milk\nI will remember that.\n")
    assert "the key is under the stone" in out
    assert "delete_file (write)" in err
    assert "there is no command /dance" in err


def test_what_is_remembered_there(far, act, capsys):
    act("tiny", "remember that the key is under the stone")
    assert main(["act", "--memory", "list", "--on", far.address]) == 0
    assert "the key is under the stone" in capsys.readouterr().out
    assert main(["act", "--memory", "sing", "--on", far.address]) == 2
    assert "cannot do 'sing' with what is remembered" in capsys.readouterr().err


def test_words_are_a_request_to_what_is_current_and_a_word_is_a_bundle(act):
    assert "None of these tools can do that." in act("please dance for me")[1]
    code, _, err = act("other", READ)
    assert code == 2
    assert "has no bundle 'other'" in err


def test_an_unknown_device(capsys):
    assert main(["act", "do it", "--tools", "system", "--on", "pigeon:x"]) == 2
    assert "pigeon" in capsys.readouterr().err
    empty = connect("memory:")
    with pytest.raises(DeviceError, match="nothing is installed"):
        Acting(empty, None, [manifest.find("system")])
    empty.close()


def test_a_model_that_cannot_act_is_refused_by_a_process_of_its_own(tmp_path):
    tiny_bundle(tmp_path / "mute", name="mute")
    device = connect("memory:")
    install.flash(tmp_path / "mute", device)
    with pytest.raises(UsageError, match="memory:: mute cannot act"):
        Acting(device, None, [manifest.find("system")])
    device.close()


def test_a_link_that_breaks_at_a_question_repeats_nothing_when_it_goes_on(far, act, monkeypatch, wires):
    def answer(question):
        if question.tool.name == "delete_file":
            wires[-1].kill()
        return True

    asked = sits(monkeypatch, answer)
    code, _, err = act("tiny", f"{APPEND} and then {DELETE}")
    assert code == 4
    assert "what was done until then is written down there" in err
    run = err.split("--resume ")[1].split()[0]
    assert (far.notes / "log.txt").read_text().strip() == "once"
    assert (far.notes / "todo.txt").exists()
    sits(monkeypatch, lambda question: asked.append(question) or True)
    code, _, err = act("tiny", "--resume", run)
    assert "1. append_file done" in err
    assert "2. delete_file planned" in err
    assert code == 0
    assert (far.notes / "log.txt").read_text().strip() == "once"
    assert not (far.notes / "todo.txt").exists()
    assert [question.tool.name for question in asked] == ["append_file", "delete_file", "delete_file"]
    assert "there is no run nope" in act("tiny", "--resume", "nope")[2]


def test_a_link_that_breaks_while_a_step_runs_lets_it_end_and_begins_no_other(far, act, monkeypatch, wires):
    real = builtin.run

    def cut(tool, arguments, place):
        wires[-1].kill()
        time.sleep(0.2)  # until it is known there
        return real(tool, arguments, place)

    monkeypatch.setattr(builtin, "run", cut)
    sits(monkeypatch, lambda question: True)
    code, _, err = act("tiny", f"{APPEND} and then {DELETE}")
    assert code == 4
    assert "the cable is out; what was done until then is written down there" in err
    wires[-1].thread.join(5)
    journal = Journal(far.state / "journal.db")
    [run] = journal.unfinished()
    assert [(s.tool, s.state) for s in journal.steps(run)] == [("append_file", "done"), ("delete_file", "planned")]
    journal.close()
    assert f"--resume {run}" in err


def test_whoever_is_not_heard_is_gone(monkeypatch):
    ours, theirs = os.pipe()
    monkeypatch.setattr(linked, "SILENCE_S", 0.1)
    said = io.BytesIO()
    link = linked.Link(os.fdopen(ours, "rb"), said)
    with pytest.raises(linked.Gone):
        link.hear()
    with pytest.raises(linked.Gone):
        link.stopped()
    os.close(theirs)
    said.close()
    with pytest.raises(linked.Gone):
        link.say(beat=True)


def test_two_at_once_take_turns(far, tmp_path, monkeypatch):
    class Nobody:
        stopped = staticmethod(lambda: False)
        told = []

        def say(self, **what):
            self.told.append(what)

    monkeypatch.setattr(linked, "_TURN_S", 0.0)
    with (
        linked._turn(tmp_path, Nobody()),
        pytest.raises(DeviceError, match="another request is being carried out there"),
        linked._turn(tmp_path, Nobody()),
    ):
        pass
    with linked._turn(tmp_path, Nobody()):
        pass


def test_a_stop_goes_over_the_link(far, wires):
    pressed = []

    def ask(question):
        pressed.append(question)
        return True

    with Acting(far, None, [manifest.find("files:notes")], ask=ask, stopped=lambda: bool(pressed)) as there:
        report = there.act(f"{APPEND} and then {DELETE}")
    assert [step["status"] for step in report["steps"]] == ["done", "skipped"]
    assert report["steps"][1]["reason"] == "stopped"
    assert len(pressed) == 1


def test_a_tool_that_was_not_sent_is_not_asked_for(far, wires):
    sources = [manifest.find("files:notes")]
    with (
        Acting(far, None, sources, ask=lambda question: True) as there,
        pytest.raises(DeviceError, match="asks for what it was not given"),
    ):
        there._allowed({"tool": "sudo"})


def test_a_worker_that_says_something_else(far, monkeypatch):
    """An older one, and one that says what nobody understands."""
    open_, answers = Local.open, ['{"error": "the worker knows no \'act\'", "code": 2}', '{"x": 1}']

    def answered(self, argv):
        return open_(self, ["sh", "-c", 'read line; echo "$0"', answers.pop(0)] if argv[-1] == "act" else argv)

    monkeypatch.setattr(Local, "open", answered)
    with pytest.raises(DeviceError, match=r"flashed by an edge that does not act there\n  flash it again"):
        Acting(far, None, [manifest.find("files:notes")])
    with pytest.raises(DeviceError, match=r"the worker says \['x'\], which is no answer"):
        Acting(far, None, [manifest.find("files:notes")])


def test_a_picture_that_is_too_large_or_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(acting, "_PICTURE_BYTES", 3)
    (tmp_path / "a.png").write_bytes(b"1234")
    with pytest.raises(UsageError, match="more than a picture may have"):
        acting._encoded(tmp_path / "a.png")
    with pytest.raises(UsageError, match="there is no file"):
        acting._encoded(tmp_path / "b.png")


def test_who_sits_at_the_device_lets_it_act(far):
    def edge_act(*words):
        return far.run(["sh", "-c", 'cd && "$@"', "sh", f"{far.root}/bin/edge-act", *words])

    done = edge_act(READ, "--tools", "files:notes", "--yes-to", "read")
    assert (done.code, done.text) == (0, "milk\n"), done.err
    assert "did read_file" in edge_act("--memory", "list").text


@pytest.mark.rig
def test_an_ssh_that_breaks_is_noticed_there_and_gone_on_with(ssh_rig, tmp_path):
    """A real sshd; what it starts has this Python."""
    device = connect(f"{ssh_rig.address}{tmp_path / 'store'}")
    tiny_bundle(tmp_path / "tiny", template=SHOWS)
    install.flash(tmp_path / "tiny", device, install.Wishes(python=sys.executable))
    notes, state = tmp_path / "notes", tmp_path / "store/state/act"
    notes.mkdir()
    (notes / "todo.txt").write_text("milk\n")
    sources = [manifest.find(f"files:{notes}")]

    def ask(question):
        if question.tool.name == "delete_file":
            there._worker._stream.kill()
        return True

    there = Acting(device, None, sources, ask=ask)
    with there, pytest.raises(LinkLost, match="written down there"):
        there.act(f"{APPEND} and then {DELETE}")
    wishes = acting.Wishes(resume=there.run)
    with Acting(device, None, sources, wishes, ask=lambda question: True) as again:  # waits until the other has ended
        assert [state for _, _, state in again.opened["before"]] == ["done", "planned"]
        report = again.act(again.opened["request"])
    assert [step["status"] for step in report["steps"]] == ["done", "done"]
    assert report["steps"][0]["reason"] == "it was done before the interruption"
    assert (notes / "log.txt").read_text() == "once\n"
    assert [record["event"] for record in Audit(state / "audit.jsonl").read()].count("done") == 2
    device.close()
