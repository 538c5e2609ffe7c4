"""A tiny checkpoint exported within a budget, in each format: what was asked for is held by the real file."""

from __future__ import annotations

import json

import pytest

import edge
from edge.devices.predict import expected
from edge.errors import BudgetError
from edge.export import within as within_module
from edge.export.formats import tflite
from edge.export.planner import sensitivity
from edge.export.planner.budget import Budget
from edge.find import load, names
from tests import parity
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
def model(checkpoint):
    from edge.export.reference import load_model
    from edge.export.source import open_source

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


def test_what_cannot_be_is_said_with_what_comes_closest(checkpoint, tmp_path):
    with pytest.raises(BudgetError, match=r"impossible: none of \d+ plans(.|\n)*closest is gguf (.|\n)*--max-size 1"):
        fronts(checkpoint, tmp_path, "gguf", max_size_bytes=1000, min_agreement=0.5)
    assert not list(tmp_path.iterdir())
