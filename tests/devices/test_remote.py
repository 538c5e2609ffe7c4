"""A bundle that runs elsewhere, asked from here: a worker of the echo runtime, whose every answer is known."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import install, installed
from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.remote import open_remote
from edge.errors import DeviceError, EdgeError, UsageError
from edge.runtimes.session import ContextFull, Sampling
from tests.tiny_bundle import IMAGE, tiny_bundle


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A device with `tiny` on it."""
    folder = tmp_path_factory.mktemp("far")
    tiny_bundle(folder / "tiny")
    device = connect(f"local:{folder / 'store'}")
    install.flash(folder / "tiny", device)
    device.folder = folder / "tiny"
    return device


@pytest.fixture
def model(far):
    with open_remote(far) as model:
        yield model


def said(model, text, **options):
    return "".join(piece.text for piece in model.generate(text, Sampling(**options)))


def test_it_answers_what_it_answers_here(model):
    assert "hello" in said(model, "hello", max_tokens=60)
    assert model.stats.new_tokens == model.session.position - model.stats.prompt_tokens
    again = said(model, "hello", max_tokens=60)
    assert model.stats.reused_tokens > 0
    assert "hello" in again


def test_an_answer_that_is_not_wanted_is_stopped(model):
    answer = model.generate("hello " * 40, Sampling(max_tokens=400))
    next(answer)
    answer.close()
    assert "short" in said(model, "short", max_tokens=60)


def test_long_prompts_say_how_far_they_are(model):
    seen = []
    list(model.generate("a" * 900, Sampling(max_tokens=1), reading=lambda done, total: seen.append((done, total))))
    assert seen
    assert seen[0][0] < seen[0][1]


def test_what_does_not_fit_is_said_before_it_is_sent(model):
    with pytest.raises(ContextFull):
        list(model.generate_ids(list(range(10)) * 200))


def test_what_only_a_model_here_can_do(model):
    with pytest.raises(UsageError, match="cannot be masked from here"):
        list(model.generate_ids([5], mask=lambda logits, ids: logits))
    with pytest.raises(UsageError, match="logits of a model on a device stay there"):
        model.session.feed([1])


def test_pictures_go_along(tmp_path):
    from PIL import Image

    folder = tmp_path / "seeing"
    tiny_bundle(folder, image=IMAGE)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    device = connect("memory:")
    words = [
        {
            "role": "user",
            "content": [{"type": "image", "path": str(tmp_path / "red.png")}, {"type": "text", "text": "x"}],
        }
    ]
    try:
        install.flash(folder, device)
        with open_remote(device) as model:
            list(model.generate(words, Sampling(max_tokens=5)))
            assert model.stats.pictures == 1
            data = (tmp_path / "red.png").read_bytes()
            words[0]["content"][0] = {"type": "image", "data": data}
            list(model.generate(words, Sampling(max_tokens=5)))
    finally:
        device.close()


def test_what_the_worker_refuses_is_said_in_its_words(far):
    with pytest.raises(UsageError, match=r"local:.*a context of 99999 tokens"):
        open_remote(far, context_length=99_999)


def test_a_worker_that_dies_is_no_broken_link(model):
    told = json.dumps({"do": "open"}).encode() + b"\n"
    model._stream.write(told)
    os.kill(json.loads(model._stream.readline(20))["pid"], signal.SIGKILL)
    with pytest.raises(EdgeError, match=r"killed there, most likely for want of memory|ended there"):
        said(model, "hello")


def test_an_answer_that_is_none(far, monkeypatch):
    real = far.open
    monkeypatch.setattr(
        far, "open", lambda argv: real(["sh", "-c", "echo welcome; cat"]) if "serve" in argv else real(argv)
    )
    with pytest.raises(DeviceError, match="which is no answer"):
        open_remote(far)


def test_nothing_is_installed():
    device = connect("memory:")
    with pytest.raises(DeviceError, match="nothing is installed"):
        open_remote(device)
    device.close()


def test_chat_with_a_device(far, capsys):
    assert main(["chat", "--on", far.address, "-p", "hello", "--max-tokens", "60", "--temperature", "0"]) == 0
    assert "hello" in capsys.readouterr().out
    for bundle in (str(far.folder), "tiny", bundles.read(far.folder).id):
        assert main(["chat", bundle, "--on", far.address, "-p", "hello", "--json", "--max-tokens", "9"]) == 0
        assert json.loads(capsys.readouterr().out)["bundle"]["name"] == "tiny"
    assert main(["chat", "other", "--on", far.address, "-p", "hello"]) == 2
    assert "has no bundle 'other'" in capsys.readouterr().err


def test_chat_wants_a_bundle_or_a_device(capsys):
    assert main(["chat", "-p", "hello"]) == 2
    assert "which bundle?" in capsys.readouterr().err


def test_a_conversation_goes_on_after_its_link_broke(model):
    from edge.runtimes.conversation import Conversation

    talk = Conversation(model)
    first = "".join(p.text for p in talk.say("hello", Sampling(max_tokens=60)))
    model._stream.kill()
    with pytest.raises(LinkLost, match="the link was let go"):
        list(talk.say("lost", Sampling(max_tokens=60)))
    assert [m["content"] for m in talk.messages] == ["hello", first]
    assert "again" in "".join(p.text for p in talk.say("again", Sampling(max_tokens=60)))


@pytest.mark.runtime  # many processes, one after another
def test_bench_on_a_device(far, tmp_path, capsys):
    out = tmp_path / "run.json"
    argv = ["--on", far.address, "--repeats", "1", "--prompt-tokens", "8", "--new-tokens", "4", "-o", str(out)]
    argv += ["--depths", "8", "--force"]
    assert main(["bench", *argv]) == 0
    run = json.loads(out.read_text())
    [result] = run["results"]
    assert result["bundle"]["name"] == "tiny"
    assert result["runtime"] == {"echo": "1"}
    for state in (result["before"], *result["during"], result["after"]):
        assert {"load_average", "temperature_c", "throttled", "thermal_status", "battery_percent"} <= set(state)
    assert len(result["during"]) == 1
    assert not [note for note in result["notes"] if "cannot forget" in note]
    assert run["device"]["model"]
    assert "tiny" in capsys.readouterr().out
    assert main(["bench", "--on", far.address, "other"]) == 2
    assert main(["bench"]) == 2
    assert "which bundle?" in capsys.readouterr().err


def test_profile_on_a_device(far, tmp_path, capsys):
    few = ["--on", far.address, "--prompt-tokens", "8", "--new-tokens", "4"]
    assert main(["profile", *few, "--json", "-o", str(tmp_path / "p.html"), "--trace", str(tmp_path / "t.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bundle"]["name"], found["emulated"], found["runtime"]) == ("tiny", False, {"echo": "1"})
    assert [part["tokens"] for part in found["phases"]] == [8, 4]
    assert found["device"]["model"] in (tmp_path / "p.html").read_text()
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert main(["profile", "other", *few]) == 2
    assert "has no bundle 'other'" in capsys.readouterr().err
    assert main(["profile", "tiny", *few, "--new-tokens", "9999"]) == 2
    assert "do not fit the context" in capsys.readouterr().err
    assert main(["profile"]) == 2
    assert "which bundle?" in capsys.readouterr().err


def test_a_device_that_cannot_be_profiled_says_why(far, tmp_path, capsys, monkeypatch):
    few = ["profile", "--on", far.address, "--prompt-tokens", "8", "--new-tokens", "4"]
    run = type(far).run
    told = {"error": "the worker knows no 'profile'", "hint": None, "code": 2}

    def older(self, argv, *args, **more):
        if "profile" in argv:
            argv = ["echo", json.dumps(told)]
        return run(self, argv, *args, **more)

    monkeypatch.setattr(type(far), "run", older)
    assert main(few) == 1
    said = capsys.readouterr().err
    assert "cannot be profiled: the worker knows no 'profile'" in said
    assert "flash the bundle again" in said
    told |= {"error": "llama.cpp alone does not know 'profile'", "hint": "flash the bundle without --runner"}
    assert main(few) == 1
    assert "flash the bundle without --runner" in capsys.readouterr().err


def test_a_profile_of_an_emulated_device_says_so(far, tmp_path, capsys, monkeypatch):
    from edge.commands._places import There

    begin = There.__init__

    def emulated(self, *args):
        begin(self, *args)
        self.emulated = True

    monkeypatch.setattr(There, "__init__", emulated)
    page = tmp_path / "p.html"
    assert main(["profile", "--on", far.address, "--prompt-tokens", "8", "--new-tokens", "4", "-o", str(page)]) == 0
    assert "emulated: speeds say nothing about a real device" in capsys.readouterr().err
    assert "speeds say nothing about a real device" in page.read_text()


@pytest.mark.rig
def test_a_gguf_bundle_is_profiled_there_as_here(ssh_rig, tmp_path, capsys):
    """What sshd starts has this Python, so the same operators run, and nothing is emulated."""
    from tests import parity

    made = parity._export(parity.make("smollm2", tmp_path), "gguf", "8bit", 64, tmp_path / "out", gate=False)
    address = f"{ssh_rig.address}{tmp_path / 'store'}"
    device = connect(address)
    install.flash(made.folder, device, install.Wishes(python=sys.executable))
    device.close()
    asked = ["--prompt-tokens", "24", "--new-tokens", "4", "--threads", "1", "--json"]
    found = {}
    for where, words in {"there": ["--on", address], "here": [str(made.folder)]}.items():
        assert main(["profile", *words, *asked]) == 0
        found[where] = json.loads(capsys.readouterr().out)
    there, here = found["there"], found["here"]
    assert set(there) == set(here)
    assert there["recording"]["instrument"] == "llama.cpp's evaluation callback"
    counted = [[(o["operator"], o["calls"]) for p in f["phases"] for o in p["operators"]] for f in (there, here)]
    assert sorted(counted[0]) == sorted(counted[1])
    assert (there["emulated"], there["device"]["system"] != "") == (False, True)
    assert [part["tokens"] for part in there["phases"]] == [24, 4]


@pytest.mark.runtime  # many processes, one after another
def test_what_was_measured_before_the_device_was_lost_is_kept(far, tmp_path, capsys, monkeypatch):
    from edge.commands._places import There

    answered, ask, look = [], There.measure, There.conditions

    def measure(self, request):
        if len(answered) == 2:
            raise LinkLost("the cable is out")
        answered.extend([request] if request["do"] == "answer" else [])
        return ask(self, request)

    def conditions(self):
        if len(answered) == 2 and lost:
            raise LinkLost("the cable is out")
        lost.extend(answered[1:])
        return look(self)

    lost = []
    monkeypatch.setattr(There, "measure", measure)
    monkeypatch.setattr(There, "conditions", conditions)
    out = tmp_path / "run.json"
    few = ["--repeats", "5", "--prompt-tokens", "8", "--new-tokens", "4", "--force", "-o", str(out)]
    assert main(["bench", "--on", far.address, *few]) == 4
    [result] = json.loads(out.read_text())["results"]
    assert len(result["during"]) == 2
    assert result["after"] == result["during"][-1]
    assert any(note.startswith("cut short: ") and "the cable is out" in note for note in result["notes"])
    said = capsys.readouterr()
    assert "the cable is out" in said.err
    assert "tiny" in said.out


@pytest.mark.runtime  # many processes, one after another
def test_who_sits_at_the_device_talks_to_what_is_current(tmp_path):
    device = connect(f"local:{tmp_path / 'store'}")
    command = f"{device.root}/bin/edge-chat"
    for name in ("old", "new"):
        tiny_bundle(tmp_path / name, name=name)
        assert install.flash(tmp_path / name, device).root == device.root
    assert "two words" in device.run([command, "two words"]).text
    assert "a line" in device.run([command], stdin=b"a line\n").text
    link = tmp_path / "edge-chat"
    link.symlink_to(command)
    asked = ["sh", "-c", f"printf 'x\n' | script -qec {link} /dev/null"]
    assert "new; Ctrl-C stops an answer" in device.run(asked).text
    assert main(["rollback", device.address]) == 0
    assert "old; Ctrl-C stops an answer" in device.run(asked).text
    installed.remove(device, [], current=True)
    done = device.run([command, "x"])
    assert (done.code, done.reason) == (4, f"edge: nothing is installed in {device.root}")


def test_the_verbs(far, capsys):
    assert main(["devices", far.address, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["devices"]
    assert [b["name"] for b in found["bundles"]] == ["tiny"]
    assert found["facts"]["ram_bytes"]
    assert main(["devices", far.address]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["flash", str(far.folder), far.address, "-q"]) == 0
    assert "runs there already" in capsys.readouterr().out
    assert main(["rollback", far.address]) == 4
    assert "has nothing to go back to" in capsys.readouterr().err
    assert main(["remove", far.address]) == 0
    assert "removed nothing" in capsys.readouterr().out
    assert main(["flash", str(far.folder), far.address, "pigeon:x", "--json"]) == 2
    both = json.loads(capsys.readouterr().out)["devices"]
    assert [b.get("code", 0) for b in both] == [0, 2]
