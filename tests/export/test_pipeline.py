"""The order of the steps, on a format that copies bytes and a gate that says what it is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge import bundle
from edge.errors import GateError, UsageError
from edge.export import order, pack, pipeline, stages
from edge.export import verify as gate
from edge.export.artifact import Artifact, Entry, Need, Quantization
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint, TensorInfo
from edge.export.texts import Texts

CONFIG = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
}


@dataclass
class CopyFormat:
    """A format whose weights are one small file; counts how often it was asked to work."""

    __name__ = "edge.errors"
    PORTABLE = {"8bit": "eight", "4bit": "four"}
    QUANTIZATIONS = {
        "eight": Quantization("eight", 8, 8.5),
        "six": Quantization("six", 6, 6.5),
        "four": Quantization("four", 4, 4.5, calibrated=True),
    }
    made: list[str] = field(default_factory=list)
    ram_bytes: int = 1

    def estimate(self, checkpoint, quantization, *, calibrated=True):
        return Need(self.ram_bytes, 1, 90.0)

    def kv_element_bytes(self, quantization):
        return 2

    def convert(self, checkpoint, folder, *, context_length, progress):
        self.made.append("convert")
        (folder / "model.bin").write_bytes(b"full")
        entry = Entry(("w",), ("w",), "F32", 4, 16)
        return Artifact("gguf", "full", folder, "model.bin", ("model.bin",), (entry,), context_length)

    def quantize(self, artifact, checkpoint, quantization, folder, *, calibration, progress):
        self.made.append(quantization)
        (folder / "model.bin").write_bytes(quantization.encode())
        return replace(artifact, folder=folder, quantization=quantization)


def test_a_family_may_have_its_own_quantization_for_a_portable_name():
    for family, own in (("moe", "int8-weights"), ("slm", "int8"), (None, "int8")):
        assert order.job_of("tflite", "8bit", family).quantization == own
    assert order.job_of("tflite", "int8", "moe").quantization == "int8"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A checkpoint, a format and a gate without any weights; `world.passing` is what passes."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    info = TensorInfo("w", "F32", (2, 2), "model.safetensors")
    checkpoint = Checkpoint(folder, "tiny", "slm", CONFIG, {"w": info}, {"model.safetensors": "0" * 64})
    made = CopyFormat()
    passing = {"eight", "six"}
    windows = Calibration(windows=((1, 2, 3),), sha256="c" * 64, source="test")

    def verify(checkpoint, folder, draft, artifact, *, held_out, progress):
        good = artifact.quantization in passing
        return gate.Verdict(
            passed=good,
            record={"passed": good},
            failures=() if good else ("mean KLD 0.4, at most 0.1",),
            suggestions=() if good else ("six", "eight"),
            selftest={"prompt": [1], "tokens": [2]},
        )

    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "open_source", lambda source, progress=None: checkpoint)
    packing = SimpleNamespace(FORMAT="tflite")
    monkeypatch.setattr(order, "load", lambda package, name: packing if package.endswith("packings") else made)
    monkeypatch.setattr(pipeline, "texts_for", lambda *_: Texts(windows, windows))
    monkeypatch.setattr(pack, "stop_ids", lambda folder: (2,))
    monkeypatch.setattr(gate, "verify", verify)
    return SimpleNamespace(format=made, checkpoint=checkpoint, passing=passing, out=tmp_path / "out")


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_a_proven_bundle_is_published_whole(world):
    [done] = pipeline.export("tiny", world.out, quantization="8bit")
    assert done.folder == world.out / "tiny-gguf-eight"
    found = bundle.check(done.folder)
    assert found.proven
    assert found.selftest == {"prompt": [1], "tokens": [2]}
    assert found.stop_ids == (2,)
    assert (done.folder / "config.json").is_file()
    assert hidden(world.out) == []


def test_the_manifest_says_what_was_calibrated_with(world, monkeypatch):
    world.passing.add("four")
    [done] = pipeline.export("tiny", world.out, quantization="4bit")
    assert done.bundle.plan["calibrated_with"] == {
        "source": "test", "sha256": "c" * 64, "windows": 1, "pictures": 0, "tokens": 3, "picture_tokens": 0,
    }  # fmt: skip
    [eight] = pipeline.export("tiny", world.out, quantization="8bit")
    assert "calibrated_with" not in eight.bundle.plan
    monkeypatch.setattr(pipeline, "texts_for", lambda *_: Texts(None, Calibration((), "", "")))
    [without] = pipeline.export("tiny", world.out, quantization="4bit", calibrate=False, replace_existing=True)
    assert "calibrated_with" not in without.bundle.plan


def test_the_manifest_is_the_same_bytes_every_time(world, tmp_path):
    [first] = pipeline.export("tiny", world.out, quantization="8bit")
    [second] = pipeline.export("tiny", tmp_path / "other", quantization="8bit")
    assert (first.folder / "edge.json").read_bytes() == (second.folder / "edge.json").read_bytes()


def test_finished_stages_are_not_made_again(world):
    pipeline.export("tiny", world.out, quantization="8bit")
    pipeline.export("tiny", world.out, quantization="8bit", replace_existing=True)
    assert world.format.made == ["convert", "eight"]


def test_a_stage_cut_short_in_the_cache_is_made_again(world, tmp_path):
    pipeline.export("tiny", world.out, quantization="8bit")
    for path in (tmp_path / "cache").rglob("model.bin"):
        path.write_bytes(b"")
    pipeline.export("tiny", world.out, quantization="8bit", replace_existing=True)
    assert world.format.made == ["convert", "eight", "convert", "eight"]


def test_an_export_that_was_stopped_goes_on_where_it_was(world, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CopyFormat, "quantize", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.export("tiny", world.out, quantization="8bit")
    pipeline.export("tiny", world.out, quantization="8bit")
    assert world.format.made == ["convert", "eight"]


def test_a_failed_gate_publishes_nothing_and_says_what_passes(world):
    with pytest.raises(GateError, match=r"gguf four does not behave like its source: mean KLD 0\.4") as failure:
        pipeline.export("tiny", world.out, quantization="4bit")
    assert "--quant six, --quant eight" in str(failure.value)
    assert list(world.out.iterdir()) == []


def test_or_better_goes_up_until_the_gate_is_met(world):
    [done] = pipeline.export("tiny", world.out, quantization="4bit", or_better=True)
    assert done.bundle.quantization == "six"
    assert [p.name for p in world.out.iterdir()] == ["tiny-gguf-six"]


def test_without_gate_the_bundle_says_so(world):
    [done] = pipeline.export("tiny", world.out, quantization="4bit", gate=False)
    assert not done.bundle.proven
    assert done.bundle.quality is None


def test_what_is_strange_about_a_text_stands_in_the_manifest(world, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "foreign_warning", lambda *_: "tiny hardly understands it")
    [done] = pipeline.export("tiny", world.out, quantization="8bit", calibration=tmp_path / "text.txt")
    assert bundle.read(done.folder).quality["warning"] == "tiny hardly understands it"


def test_an_old_bundle_is_kept_unless_replaced(world, tmp_path):
    pipeline.export("tiny", world.out, quantization="8bit")
    before = (world.out / "tiny-gguf-eight" / "edge.json").read_bytes()
    with pytest.raises(UsageError, match="already there"):
        pipeline.export("tiny", world.out, quantization="8bit")
    world.passing.clear()
    shutil.rmtree(tmp_path / "cache" / "verdicts")
    with pytest.raises(GateError):
        pipeline.export("tiny", world.out, quantization="8bit", replace_existing=True)
    assert (world.out / "tiny-gguf-eight" / "edge.json").read_bytes() == before


def test_what_a_killed_export_left_is_removed_by_the_next(world):
    world.out.mkdir()
    (world.out / ".edge-999999999-x").mkdir()
    (world.out / ".edge-notes").mkdir()
    pipeline.export("tiny", world.out, quantization="8bit")
    assert hidden(world.out) == [".edge-notes"]


def test_the_preflight_refuses_before_anything_is_made(world):
    world.format.ram_bytes = 1 << 60
    with pytest.raises(pipeline.EdgeError, match="not enough memory"):
        pipeline.export("tiny", world.out, quantization="8bit")
    assert world.format.made == []
    assert not world.out.exists()


def test_requests_that_make_no_sense(world):
    cases = [
        ({"quantization": "7bit"}, "no quantization '7bit'"),
        ({"formats": ()}, "no format was asked for"),
        ({"context_length": 65}, "a context of 65 tokens was asked for; tiny was made for 1 to 64"),
        ({"name": "../x"}, "cannot be the name of a bundle"),
        ({"also": ("litertlm",)}, "litertlm is made from tflite, which was not asked for"),
    ]
    for arguments, words in cases:
        with pytest.raises(UsageError, match=words):
            pipeline.export("tiny", world.out, **{"quantization": "8bit", **arguments})
    assert not world.out.exists()


def test_other_programs_files_are_listed_and_judged_with_the_bundle(world, monkeypatch):
    def write(folder, draft, config):
        assert config["model_type"] == "llama"
        (folder / "model.other").write_bytes(b"packed")

    packing = SimpleNamespace(FORMAT="gguf", write=write)
    monkeypatch.setattr(order, "load", lambda package, name: packing if "packings" in package else world.format)
    [done] = pipeline.export("tiny", world.out, quantization="8bit", also=("other",))
    assert "model.other" in {f.path for f in bundle.check(done.folder).files}


def test_a_stage_that_vanishes_is_said(world, monkeypatch):
    monkeypatch.setattr(stages.artifacts, "restore", lambda folder: None)
    with pytest.raises(pipeline.EdgeError, match="vanished from the cache"):
        pipeline.export("tiny", world.out, quantization="8bit")
