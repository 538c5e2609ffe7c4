"""The runtime pack at work: bundles flashed to bare arm64 phones and a Raspberry Pi, and asked there.

Under qemu-user, so what it takes says nothing about a device; that the tokens are the same says something.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
from contextlib import contextmanager

import pytest

from edge import bundle as bundles
from edge.devices import install
from edge.devices.address import connect
from edge.devices.pack import build, levels, llama
from edge.devices.store import Store
from edge.errors import DeviceError, EdgeError
from edge.runtimes import worker
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from tests.rigs import raspberry
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]
N_NEW = 6
PROMPT = list(range(40, 52))


@pytest.fixture(scope="module")
def adb(tmp_path_factory):
    if reason := tree.missing("arm64") or client.missing():
        pytest.skip(reason)
    try:
        llama.key()
    except EdgeError as err:
        pytest.skip(str(err))
    with pytest.MonkeyPatch.context() as patch, Adb(tmp_path_factory.mktemp("adb")) as adb:
        for name, value in adb.environment.items():
            patch.setenv(name, value)
        yield adb


@contextmanager
def a_phone(folder, cpu):
    with Device(tree.Tree(folder / "tree", "arm64", cpu)) as phone:
        yield connect(f"adb:{phone.serial}")
    shutil.rmtree(folder / "tree")  # hundreds of megabytes, which pytest would keep for three runs


@pytest.fixture(scope="module")
def phone(adb, tmp_path_factory):
    with a_phone(tmp_path_factory.mktemp("phone"), "cortex-a76") as device:
        yield device


@pytest.fixture(scope="module")
def old_phone(adb, tmp_path_factory):
    """One whose processor has no dot products, as a Raspberry Pi 4's."""
    with a_phone(tmp_path_factory.mktemp("old"), "cortex-a72") as device:
        yield device


@pytest.fixture(scope="module")
def pi(adb, tmp_path_factory):
    """A Raspberry Pi 4, whose Python has no numpy."""
    if reason := raspberry.missing():
        pytest.skip(reason)
    rig = raspberry.Rig(tmp_path_factory.mktemp("pi"), "cortex-a72")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SSH_CONFIG", str(rig.config))
        device = connect(rig.address)
        yield device
        device.close()
    rig.stop()
    shutil.rmtree(rig.tree.root)


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


def said_here(folder, prompt=PROMPT):
    with open_bundle(folder, threads=1, check=False) as model:
        prompt = prompt if isinstance(prompt, list) else model.prompt(prompt)
        return [piece.token_id for piece in model.generate_ids(prompt, Sampling(max_tokens=N_NEW))]


def said_there(device, folder, ids=PROMPT, pictures=()):
    """The tokens of the worker of what was flashed."""
    stream = device.open(["sh", f"{device.root}/refs/{bundles.read(folder).id}.start", "serve"])

    def ask(**request):
        stream.write(json.dumps(request).encode() + b"\n")
        return json.loads(stream.readline(timeout_s=600))

    assert ask(do="open", threads=1).get("bundle") == bundles.read(folder).id
    shown = [base64.b64encode(picture).decode() for picture in pictures]
    answer = [ask(do="generate", ids=ids, pictures=shown, sampling={"max_tokens": N_NEW})]
    while "id" in answer[-1] or "read" in answer[-1]:
        answer.append(json.loads(stream.readline(timeout_s=600)))
    assert "stats" in answer[-1], answer[-1]
    stream.finish(60)
    return [line["id"] for line in answer if "id" in line]


def told_here(folder):
    """What somebody reads who sits at this machine."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        worker.ask(folder, ["hello"], io.StringIO())
    return out.getvalue()


def told_there(device):
    """The same at the device, with nothing of this machine but the link."""
    done = device.run([f"{device.root}/bin/edge-chat", "hello"], timeout_s=600)
    assert done.code == 0, done.reason
    return done.text


@pytest.mark.parametrize("format_name", ["gguf", "onnx", "tflite"])
def test_a_phone_says_what_this_machine_says(phone, tiny, format_name):
    folder = tiny(format_name)
    done = install.flash(folder, phone)
    assert (done.changed, done.how) == (True, "the runtime pack for armv8.2")
    assert done.facts.emulated
    assert said_there(phone, folder) == said_here(folder)
    assert told_there(phone) == told_here(folder)
    assert Store(phone).fsck() == ()
    # onnxruntime's telemetry keeps a database where it is not told to be silent.
    assert phone.run(["find", "/data", "/sdcard", "-name", "*onnxruntime.db*", "-o", "-name", "deviceid"]).out == b""


def test_a_processor_without_dot_products_gets_a_pack_without_them(old_phone, tiny):
    folder = tiny("gguf")
    done = install.flash(folder, old_phone)
    assert done.how == "the runtime pack for armv8.0"
    assert said_there(old_phone, folder) == said_here(folder)


def test_the_wrong_pack_fails_its_self_test_and_what_ran_stays(old_phone, tiny, monkeypatch):
    right = tiny("gguf")
    install.flash(right, old_phone)
    monkeypatch.setattr(levels, "best", lambda features: levels.named("armv8.2"))
    with pytest.raises(DeviceError, match="lacks an instruction that the runtime uses"):
        install.flash(right, old_phone)
    monkeypatch.undo()
    assert Store(old_phone).inventory().current == bundles.read(right).id
    assert said_there(old_phone, right) == said_here(right)


def test_a_raspberry_pi_runs_the_same_pack_beside_its_own_python(pi, tiny):
    folder = tiny("gguf")
    done = install.flash(folder, pi)
    assert done.how == "the runtime pack for armv8.0"
    assert (done.facts.system[:6], done.facts.emulated) == ("Debian", True)
    assert done.facts.profile.cpu == "Raspberry Pi 4 Model B Rev 1.4"
    assert done.facts.python_version[:2] == (3, 11)
    assert said_there(pi, folder) == said_here(folder)
    assert told_there(pi) == told_here(folder)


def test_a_phone_sees_what_this_machine_sees(phone, tiny, tmp_path):
    from PIL import Image

    folder = tiny("gguf", "llava")
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((50, 40)).convert("RGB").save(path)
    words = [{"role": "user", "content": [{"type": "image", "path": str(path)}, {"type": "text", "text": "what?"}]}]
    with open_bundle(folder, threads=1, check=False) as model:
        ids = list(model.prompt(words))
    install.flash(folder, phone)
    assert said_there(phone, folder, ids, [path.read_bytes()]) == said_here(folder, tuple(words))


def test_packs_hold_what_their_bundles_need_and_no_more(adb):
    made = build.build(["echo"], "armv8.2", vision=True)
    names = {file.path.partition("/")[2].partition("/")[0] for file in made.files if file.path.startswith("site/")}
    assert {"PIL", "numpy", "tokenizers", "edge"} <= names
    assert not {"onnxruntime", "llama_cpp", "ai_edge_litert"} & names
    assert build.build(["echo"], "armv8.2", vision=True) == made
    assert all((made.folder / file.path).stat().st_size == file.size_bytes for file in made.files)
