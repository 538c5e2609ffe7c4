"""A cell in its process: what it asks of the pipeline, and what it makes of the answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.bundle import Bundle, File
from edge.errors import BudgetError, UsageError
from edge.export import pipeline, within
from edge.export import source as sources
from edge.find import names
from edge.progress import Silent
from edge.runtimes import traffic
from edge.runtimes.traffic import Traffic
from edge.sweep import cell_worker
from edge.sweep.cell import Cell

DRAFT = Bundle(
    name="m", family="slm", format="gguf", quantization="q8_0", model_file="m", context_length=64, vocab_size=9,
    stop_ids=(), source={"parameters": 7, "facts": {}, "files": ["x"]}, files=(File("m", 100, ""),), proven=False,
    memory={"kv_bytes_per_token": 3},
)  # fmt: skip
LOGITS = {"logits": {"mean_kld": 0.01, "same_top1": 0.96}}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """`world(cell)`: the outcome. `world.verdict` is what the gate says, `world.asked` what the pipeline was told."""

    def export(source, output, make, **asked):
        go.asked = {"source": source, **asked}
        go.output = Path(output)
        assert go.output.is_dir()
        make(["job"], "order", None)

    def attempt(job, order, progress, look):
        look(tmp_path, DRAFT)
        return SimpleNamespace(verdict=go.verdict)

    def go(cell, source="id", **more):
        request = {"cell": cell.record(), "source": source, "device": None, "here": {}, **more}
        return cell_worker._outcome(request, Silent())

    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "open_source", lambda name, progress=None: SimpleNamespace(id="id"))
    monkeypatch.setattr(pipeline, "export", export)
    monkeypatch.setattr(pipeline, "attempt", attempt)
    monkeypatch.setattr(traffic, "of", lambda folder, bundle: Traffic(90, 3, {"Q8_0": 90}, {}))
    go.verdict = SimpleNamespace(passed=True, record=LOGITS, failures=())
    return go


def test_a_cell_that_passed(world):
    found = world(Cell("m", "gguf", "8bit", context=64, calibrate=False, kv="8bit"))
    assert (found["status"], found["mean_kld"], found["agreement"]) == ("passed", 0.01, 0.96)
    assert (found["bundle"]["size_bytes"], found["traffic"]["weights_bytes"]) == (100, 90)
    assert found["bundle"]["source"] == {"parameters": 7, "facts": {}}
    asked = {k: world.asked[k] for k in ("formats", "quantization", "context_length", "calibrate", "kv")}
    assert asked == {
        "formats": ("gguf",), "quantization": "8bit", "context_length": 64, "calibrate": False, "kv": "8bit",
    }  # fmt: skip
    assert not world.output.exists()


def test_a_cell_that_the_gate_refuses_is_measured_all_the_same(world):
    world.verdict = SimpleNamespace(passed=False, record=LOGITS, failures=("too far",))
    found = world(Cell("m", "gguf", "8bit"))
    assert (found["status"], found["gate"]) == ("refused", {"passed": False, "failures": ["too far"]})
    world.verdict = SimpleNamespace(passed=False, record={"logits": "not compared"}, failures=("wrong tokens",))
    assert world(Cell("m", "gguf", "8bit"))["mean_kld"] is None


@pytest.mark.parametrize(
    "made",
    [{"distilled": {"distance": {"mean_kld": 0.4}}}, {"experts_kept": {"mean_kld": 0.4}}],
    ids=["student", "experts"],
)
def test_what_was_made_first_is_counted_too(world, made):
    world.verdict = SimpleNamespace(passed=True, record={**LOGITS, **made}, failures=())
    assert world(Cell("m", "gguf", "8bit", distill="half"))["made_kld"] == 0.4


def test_a_budget_is_planned_for_the_device_that_was_sent(world, tmp_path, monkeypatch):
    plan = SimpleNamespace(record=lambda: {"chosen": {"plan": "mixed"}, "why": "it fits", "front": []})
    heard = {}

    def planned(budget, expect, *, across, show):
        heard.update(budget=budget, across=across, made=expect(DRAFT, Traffic(90, 3, {}, {})))

        def make(jobs, order, progress):
            show(plan)
            return (
                SimpleNamespace(
                    folder=tmp_path, bundle=SimpleNamespace(**vars(DRAFT) | {"quality": LOGITS, "size_bytes": 100})
                ),
            )

        return make

    monkeypatch.setattr(within, "within", planned)
    device = {
        "name": "d", "model": "a board", "ram_bytes": 10**9, "system_bytes": 0, "cores": 1, "reached_low": 1e8,
        "reached_high": 2e8, "published": False, "source": "x",
    }  # fmt: skip
    cell = Cell("m", "auto", bounds=(("max-size", "90MB"),), device="/far/away.toml")
    found = world(cell, device=device)
    assert (found["status"], found["plan"]) == ("passed", {"chosen": {"plan": "mixed"}, "why": "it fits"})
    assert heard["budget"].max_size_bytes == 90_000_000
    assert heard["across"]
    assert heard["made"].device == "a board"
    assert world.asked["formats"] == names("edge.export.formats")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BudgetError("impossible: none", hint="ask for more"), "impossible", "impossible: none"),
        (UsageError("no such thing"), "failed", "no such thing"),
        (MemoryError(), "failed", "out of memory"),
        (OSError(28, "No space left on device", "/x"), "failed", "No space left on device: /x"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_happens_is_an_outcome(world, monkeypatch, error, status, words):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr(pipeline, "export", fail)
    found = world(Cell("m", "gguf", "8bit"))
    assert (found["status"], found["why"]) == (status, words)


def test_another_model_under_the_same_path_is_refused(world):
    found = world(Cell("/models/m", "gguf", "8bit"), source="other")
    assert found["status"] == "failed"
    assert "/models/m is another model here than where the sweep began (id, not other)" in found["why"]
    assert "same files" in found["hint"]
