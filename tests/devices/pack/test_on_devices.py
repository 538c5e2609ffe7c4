"""The runtime pack at work: bundles flashed to bare arm64 phones and a Raspberry Pi, and asked there.

Under qemu-user, so what it takes says nothing about a device; that the tokens are the same says something.
"""

from __future__ import annotations

import json
import re

import pytest

from edge import bundle as bundles
from edge import measurement
from edge.cli import main
from edge.devices import install, installed, runner
from edge.devices.pack import build, levels, wheels
from edge.devices.store import Store
from edge.errors import DeviceError
from edge.report import render
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from edge.runtimes.sight import Prompt
from tests.cells import N_NEW, compare, worker
from tests.rigs import machines
from tests.runtimes.act.test_mind import SHOWS, told
from tests.tiny_bundle import IMAGE, tiny_bundle

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]
PROMPT = list(range(40, 52))
# A measurement in miniature, whoever else is at work.
FEW = ["--repeats", "1", "--prompt-tokens", "8", "--depths", "8", "--new-tokens", "4", "--force"]


@pytest.fixture(scope="module")
def old_phone(tmp_path_factory, adb):
    """One whose processor has no dot products, as a Raspberry Pi 4's."""
    if reason := machines.missing("android"):
        pytest.skip(reason)
    with machines.phone(tmp_path_factory.mktemp("android"), "cortex-a72") as device:
        yield device


@pytest.fixture(scope="module")
def trixie(tmp_path_factory):
    """A Raspberry Pi 5 with the newer Debian, whose user has an environment of his own with onnxruntime in it."""
    if reason := machines.missing("pi"):
        pytest.skip(reason)
    names = ("numpy", "tokenizers", "jinja2", "markupsafe", "onnxruntime")
    wanted = [f"{name}=={wheels.version_of(name, extra=None)}" for name in names]
    with machines.pi(tmp_path_factory.mktemp("pi"), release="trixie") as device:
        venv = device.tree.root / "home/pi/venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python3").symlink_to("/usr/bin/python3")
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        for wheel in wheels.download(wanted, "3.13", venv / "wheels"):
            wheels.unpack(wheel, venv / "lib/python3.13/site-packages")
        yield device


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Format -> the bundle of a tiny random checkpoint, of one that sees if asked."""
    from tests import parity

    work = tmp_path_factory.mktemp("tiny")
    made = {}

    def get(format_name, maker="smollm2"):
        if (key := (format_name, maker)) not in made:
            checkpoint = work / maker if (work / maker).exists() else parity.make(maker, work)
            made[key] = parity._export(checkpoint, format_name, "8bit", 64, work / "out", gate=False).folder
        return made[key]

    return get


def assert_it_says_the_same(device, folder, prompt=None, pictures=()):
    """Token by token, but where two are so near that rounding decides (`tests.cells.compare`)."""
    with open_bundle(folder, threads=1, check=False) as model, worker(device, folder) as ask:
        prompt = model.prompt(prompt) if prompt else Prompt(PROMPT, ())
        same, ties, compared = compare(model, prompt, ask, pictures)
    assert (same + ties, compared) == (N_NEW, N_NEW)
    assert same > ties


def assert_it_talks_by_itself(device, folder):
    """`edge-chat` at the device, with nothing of this machine but the link: it begins with the words said here."""
    with open_bundle(folder, threads=1, check=False) as model:
        pieces = model.generate("hello", Sampling(max_tokens=N_NEW))
        wanted = "".join(c for piece in pieces for c in piece.text if c.isprintable() or c in "\n\t")
    done = device.run([f"{device.root}/bin/edge-chat", "hello"], timeout_s=600)
    assert done.code == 0, done.reason
    assert wanted
    # Its last character may go on with the token after.
    assert done.text.startswith(wanted[:-1])


def assert_it_says_where_its_time_goes(device, capsys):
    """By the instruments of each runtime, which are in the pack as they are here."""
    capsys.readouterr()
    few = ["--prompt-tokens", "8", "--new-tokens", "4"]
    assert main(["profile", "--on", device.address, *few, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["emulated"]
    told = found["recording"]
    assert {step["phase"] for step in told["steps"]} == {"prefill", "decode"}
    products = [e for e in told["events"] if re.search("(?i)mul_?mat|matmul|fully.connected", e["operator"])]
    assert len(products) > len(told["steps"])
    assert all(e["us"] > 0 for e in products)


@pytest.mark.parametrize("format_name", ["gguf", "onnx", "tflite"])
def test_a_phone_says_what_this_machine_says(phone, tiny, format_name, capsys):
    folder = tiny(format_name)
    done = install.flash(folder, phone)
    assert (done.changed, done.how) == (True, "the runtime pack for armv8.2")
    assert done.facts.emulated
    assert_it_says_the_same(phone, folder)
    assert_it_talks_by_itself(phone, folder)
    assert_it_says_where_its_time_goes(phone, capsys)
    assert Store(phone).fsck() == ()
    # onnxruntime's telemetry keeps a database where it is not told to be silent.
    assert phone.run(["find", "/data", "/sdcard", "-name", "*onnxruntime.db*", "-o", "-name", "deviceid"]).out == b""


def test_llama_cpp_alone_says_the_same_and_goes_back(phone, tiny, capfd):
    folder = tiny("gguf")
    install.flash(folder, phone)
    installed.remove(phone, [])  # what other tests left there needs the pack
    done = install.flash(folder, phone, install.Wishes(runner=runner.ALONE))
    assert (done.changed, done.how) == (True, "llama.cpp alone for armv8.2")
    there = Store(phone).inventory()
    assert [name.partition("-")[0] for name in there.packs] == ["alone"]  # what no bundle needs is gone
    assert_it_says_the_same(phone, folder)
    assert_it_talks_by_itself(phone, folder)
    assert main(["chat", "--on", phone.address, "-p", "hello", "--max-tokens", "4"]) == 0
    assert main(["bench", "--on", phone.address, *FEW]) == 1
    assert "llama.cpp alone does not measure itself\n  flash the bundle without --runner" in capfd.readouterr().err
    start = f"{phone.root}/refs/{done.bundle.id}.start"
    long = phone.run(["sh", start, "serve"], b'{"do":"open"}\n{"do":"generate","ids":[%s7]}\n' % (b"5," * 999))
    assert "64 fit" in json.loads(long.text.splitlines()[-1])["error"]
    assert Store(phone).fsck() == ()
    assert install.flash(folder, phone).how == "the runtime pack for armv8.2"


def test_a_processor_without_dot_products_gets_a_pack_without_them(old_phone, tiny):
    folder = tiny("gguf")
    done = install.flash(folder, old_phone)
    assert done.how == "the runtime pack for armv8.0"
    assert_it_says_the_same(old_phone, folder)


def test_the_wrong_pack_fails_its_self_test_and_what_ran_stays(old_phone, tiny, monkeypatch):
    right = tiny("gguf")
    install.flash(right, old_phone)
    monkeypatch.setattr(levels, "best", lambda features: levels.named("armv8.2"))
    with pytest.raises(DeviceError, match="lacks an instruction that the runtime uses"):
        install.flash(right, old_phone)
    monkeypatch.undo()
    assert Store(old_phone).inventory().current == bundles.read(right).id
    assert_it_says_the_same(old_phone, right)


def test_a_raspberry_pi_runs_the_same_pack_beside_its_own_python(pi, tiny):
    folder = tiny("gguf")
    done = install.flash(folder, pi)
    assert done.how == "the runtime pack for armv8.0"
    assert (done.facts.system[:6], done.facts.emulated) == ("Debian", True)
    assert done.facts.profile.cpu == "Raspberry Pi 4 Model B Rev 1.4"
    assert done.facts.python_version[:2] == (3, 11)
    assert_it_says_the_same(pi, folder)
    assert_it_talks_by_itself(pi, folder)


def test_the_newer_debian_runs_it_with_its_own_python_or_with_the_pack(trixie, tiny):
    folder = tiny("onnx")
    done = install.flash(folder, trixie, install.Wishes(python="/home/pi/venv/bin/python3"))
    assert done.how.startswith("its own Python 3.13.")
    assert done.facts.system.startswith("Debian GNU/Linux 13")
    assert_it_says_the_same(trixie, folder)
    done = install.flash(folder, trixie)
    assert (done.changed, done.how) == (True, "the runtime pack for armv8.2")
    assert_it_says_the_same(trixie, folder)


def test_a_raspberry_pi_is_measured_there_and_says_how_it_is(pi, tiny, tmp_path):
    install.flash(tiny("gguf"), pi)
    out = tmp_path / "run.json"
    assert main(["bench", "--on", pi.address, *FEW, "-o", str(out)]) == 0
    run = measurement.read(out)
    [result] = run.results
    assert result.emulated
    assert run.machine["read_bandwidth_bytes_per_s"] > 0
    assert result.median("held_weights") > 0
    assert result.traffic["weights_bytes"] > 0
    assert (run.device["model"], run.device["governor"]) == ("Raspberry Pi 4 Model B Rev 1.4", "schedutil")
    for state in (result.before, *result.during, result.after):
        assert (state["temperature_c"], state["frequency_mhz"], state["governor"]) == (41.7, 1800.0, "schedutil")
        assert state["available_bytes"] > 0
        assert state["throttled"] is state["battery_percent"] is None
    page = render([run])
    assert "Emulated: speeds say nothing about a real device" in page
    rows = dict(re.findall(r'<tr><td class="whole">([^<]+)</td>(.*)</tr>', page))
    assert re.findall(r">([^<]+)</td>", rows["temperature"]) == ["42 °C"] * 3
    assert re.findall(r">([^<]+)</td>", rows["throttling"]) == ["not measured"] * 3


def test_a_phone_is_measured_there_and_says_how_it_is(phone, tiny, tmp_path):
    install.flash(tiny("gguf"), phone)
    out = tmp_path / "run.json"
    assert main(["bench", "--on", phone.address, *FEW, "-o", str(out)]) == 0
    [result] = measurement.read(out).results
    assert result.emulated
    assert len(result.measurements["inter_token"].samples) > 0
    for state in (result.before, *result.during, result.after):
        assert (state["battery_percent"], state["thermal_status"]) == (84, 0)


def test_a_phone_sees_what_this_machine_sees(phone, tiny, tmp_path):
    from PIL import Image

    folder = tiny("gguf", "llava")
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((50, 40)).convert("RGB").save(path)
    words = [{"role": "user", "content": [{"type": "image", "path": str(path)}, {"type": "text", "text": "what?"}]}]
    install.flash(folder, phone)
    assert_it_says_the_same(phone, folder, words, [path.read_bytes()])


def test_packs_hold_what_their_bundles_need_and_no_more(phone):
    made = build.build(["echo"], "armv8.2", vision=True)
    names = {file.path.partition("/")[2].partition("/")[0] for file in made.files if file.path.startswith("site/")}
    assert {"PIL", "numpy", "tokenizers", "edge"} <= names
    assert not {"onnxruntime", "llama_cpp", "ai_edge_litert"} & names
    assert build.build(["echo"], "armv8.2", vision=True) == made
    assert all((made.folder / file.path).stat().st_size == file.size_bytes for file in made.files)


BELL = """
[toolsets]
files = {{ folder = "notes" }}
[tools.ring]
description = "Ring a bell."
risk = "execute"
timeout_s = 120
command = ["{shell}", "-c", "echo rang"]
"""


@pytest.mark.parametrize(("kind", "shell"), [("phone", "/system/bin/sh"), ("pi", "/bin/sh")])
def test_what_is_asked_for_here_is_done_there(request, tmp_path, monkeypatch, capsys, kind, shell):
    """A model that says what it is told, under its grammar; the same pack as below."""
    device = request.getfixturevalue(kind)
    tiny_bundle(tmp_path / "acts", name="acts", template=SHOWS, image=IMAGE)
    (tmp_path / "bell.toml").write_text(BELL.format(shell=shell))
    home = f"{device.root}/home" if kind == "phone" else "."
    device.run(["mkdir", "-p", f"{home}/notes"])
    install.flash(tmp_path / "acts", device)
    asked = []
    monkeypatch.setattr("edge.runtimes.act.person.at_terminal", lambda: lambda question: asked.append(question) or True)
    wish = f"{told('append_file', path='a', text='b')} and then {told('ring')}"
    code = main(["act", "acts", wish, "--tools", str(tmp_path / "bell.toml"), "--on", device.address, "--json"])
    said = capsys.readouterr()
    assert code == 0, said
    record = json.loads(said.out)
    assert [(step["tool"], step["status"], step["text"]) for step in record["steps"]] == [
        ("append_file", "done", "added 2 bytes to a"), ("ring", "done", "rang"),
    ]  # fmt: skip
    assert device.run(["cat", f"{home}/notes/a"]).text == "b\n"
    assert [question.tool.risk for question in asked] == ["write", "execute"]
    assert '"event":"done"' in device.run(["cat", f"{device.root}/state/act/audit.jsonl"]).text
    alone = device.run([f"{device.root}/bin/edge-act", "--memory", "list"], timeout_s=600)
    assert alone.code == 0, alone.reason
    assert "did ring {} for: " in alone.text
