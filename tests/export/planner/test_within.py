"""A tiny checkpoint exported within a budget, in each format: what was asked for is held by the real file."""

from __future__ import annotations

import json

import pytest

import edge
from edge.devices.predict import expected
from edge.devices.preflight import SCRATCH_BYTES
from edge.errors import BudgetError
from edge.export import within as within_module
from edge.export.formats import tflite
from edge.export.planner import sensitivity
from edge.export.planner.budget import Budget
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.find import load, names
from tests import parity, tiny_vlm
from tests.checkpoints import smollm2

pytestmark = pytest.mark.runtime


def expect(bundle, read):
    return expected(bundle, read, None, context_length=bundle.context_length, depth=32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    smollm2.make(folder)
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return tiny_vlm.llava(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(open_source(checkpoint))


def fronts(checkpoint, out, format_name, **budget):
    plans = []
    make = within_module.within(Budget(**budget), expect, dry_run=True, show=plans.append)
    assert edge.export(checkpoint, out, formats=[format_name], context_length=128, gate=False, make=make) == ()
    return plans[0]


@pytest.mark.parametrize("format_name", names("edge.export.planner.formats"))
def test_a_budget_is_held_by_the_file(checkpoint, model, tmp_path, monkeypatch, format_name):
    monkeypatch.setattr(tflite, "PREFILLS", (16,))
    monkeypatch.setattr(sensitivity, "_WINDOWS", 4)
    sizes = [c.size_bytes for c in fronts(checkpoint, tmp_path, format_name, max_size_bytes=10**9).front]
    assert len(sizes) > 3
    bound = (min(sizes) + max(sizes)) // 2
    make = within_module.within(Budget(max_size_bytes=bound), expect)
    [done] = edge.export(checkpoint, tmp_path, formats=[format_name], context_length=128, gate=False, make=make)
    assert sum(f.stat().st_size for f in done.folder.rglob("*") if f.name != "edge.json") <= bound
    assert done.plan.chosen.size_bytes == pytest.approx(done.bundle.size_bytes, rel=0.02)
    manifest = json.loads((done.folder / "edge.json").read_text())
    assert manifest["plan"]["budget"]["budget"] == {"max_size_bytes": bound}
    planned = manifest["plan"]["planned"]
    assert manifest["quantization"] == planned["name"]
    kinds = set(planned["types"].values())
    assert len(kinds) > 1
    stored = load("edge.export.formats", format_name).inspect(done.folder / done.bundle.model_file)
    assert stored
    assert parity.logits_nmse(model, done.folder, 128) < 0.3


def test_experts_are_planned_too(tiny_moe, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "_WINDOWS", 2)
    folder = tiny_moe("mixtral").folder
    sizes = [c.size_bytes for c in fronts(folder, tmp_path, "gguf", max_size_bytes=10**9).front]
    bound = sum(sizes) // len(sizes)
    make = within_module.within(Budget(max_size_bytes=bound), expect)
    [done] = edge.export(folder, tmp_path, formats=["gguf"], context_length=128, gate=False, make=make)
    assert done.bundle.size_bytes <= bound
    assert done.plan.chosen.size_bytes == pytest.approx(done.bundle.size_bytes, rel=0.01)
    assert any("_exps" in name for name in done.bundle.plan["planned"]["types"])


@pytest.mark.parametrize("format_name", ["gguf", "onnx"])
def test_a_cache_of_8_bits_counts_in_the_memory(checkpoint, tmp_path, monkeypatch, format_name):
    monkeypatch.setattr(sensitivity, "_WINDOWS", 4)
    plans = []
    for kv in (None, "8bit"):
        make = within_module.within(Budget(max_size_bytes=10**9), expect, dry_run=True, show=plans.append)
        edge.export(checkpoint, tmp_path, formats=[format_name], context_length=512, gate=False, kv=kv, make=make)
    wide, narrow = ({c.mix.name: c.memory_bytes for c in plan.front} for plan in plans)
    assert all(narrow[name] < wide[name] for name in wide)
    assert any("keys and values" in note for note in plans[1].notes)
    bound = (min(narrow.values()) + max(narrow.values())) // 2
    make = within_module.within(Budget(max_memory_bytes=bound), expect)
    [done] = edge.export(
        checkpoint, tmp_path, formats=[format_name], context_length=512, gate=False, kv="8bit", make=make
    )
    memory = done.bundle.memory
    assert memory["weights_bytes"] + memory["kv_bytes_at_context"] + SCRATCH_BYTES <= bound
    assert done.bundle.plan["kv_cache"]["element_bytes"] < 2
    assert done.bundle.name.endswith("-kv8")


@pytest.mark.parametrize("format_name", ["gguf", "onnx"])  # LiteRT's takes as long as both
def test_the_vision_part_counts_and_the_rest_is_planned(seeing, tmp_path, monkeypatch, format_name):
    monkeypatch.setattr(sensitivity, "_WINDOWS", 4)
    sizes = [c.size_bytes for c in fronts(seeing, tmp_path, format_name, max_size_bytes=10**9).front]
    bound = (min(sizes) + 2 * max(sizes)) // 3
    make = within_module.within(Budget(max_size_bytes=bound), expect)
    [done] = edge.export(seeing, tmp_path, formats=[format_name], context_length=128, gate=False, make=make)
    assert done.bundle.size_bytes <= bound
    assert done.plan.chosen.size_bytes == pytest.approx(done.bundle.size_bytes, rel=0.02)
    assert len(set(done.bundle.plan["planned"]["types"].values())) > 1
    assert "vision" in done.bundle.parts
    assert any("vision part keeps 16 bits" in note for note in done.plan.notes)
    assert done.bundle.plan["calibrated_with"]["pictures"] > 0
    source = open_source(seeing)
    assert parity.nmse_seeing(source, load_model(source), done.folder) < 0.1


def test_what_cannot_be_is_said_with_what_comes_closest(checkpoint, tmp_path):
    with pytest.raises(BudgetError, match=r"impossible: none of \d+ plans(.|\n)*closest is gguf (.|\n)*--max-size 1"):
        fronts(checkpoint, tmp_path, "gguf", max_size_bytes=1000, min_agreement=0.5)
    assert not list(tmp_path.iterdir())
