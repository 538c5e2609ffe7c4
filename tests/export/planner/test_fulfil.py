"""Choose, build, look, choose again: with hand-made matrices, and builds that say what they are told."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import pytest

from edge import cli
from edge.bundle import Bundle
from edge.commands import _budget
from edge.devices import profiles
from edge.devices.predict import expected
from edge.errors import BudgetError, EdgeError, UsageError
from edge.export import order
from edge.export import within as within_module
from edge.export.planner import run, say, sensitivity
from edge.export.planner.budget import Budget
from edge.export.planner.front import Law, Option, Part
from edge.export.planner.run import Built, Planner, Subject, fulfil
from edge.export.planner.sensitivity import Sensitivity
from edge.export.planner.variety import Variety, from_json, to_json
from edge.export.within import within
from edge.progress import Silent

MB = 10**6
BITS = {"q8": 8, "q4": 4, "q2": 2}


def matrix(name: str, megabytes: int, damage: float) -> Part:
    sizes = {"q8": megabytes, "q4": megabytes / 2, "q2": megabytes / 4}
    hurt = {"q8": damage / 256, "q4": damage, "q2": 16 * damage}
    return Part(name, megabytes * MB, tuple(Option(t, int(s * MB), hurt[t]) for t, s in sizes.items()))


VARIETY = Variety(
    parts=(matrix("layers.0.down_proj.weight", 40, 0.02), matrix("layers.0.q_proj.weight", 40, 0.001)),
    named={"int8": ("q8", "q8"), "int4": ("q4", "q4")},
    bits=BITS,
    rest_bytes=MB,
    notes=("a note of the format",),
)


@pytest.fixture
def planner(monkeypatch):
    monkeypatch.setattr(run, "_variety", lambda *_: VARIETY)
    laws = Sensitivity({}, {}, Law(1.0, 1.0), Law(0.4, 0.5))
    monkeypatch.setattr(run.sensitivities, "measure", lambda *_: laws)
    draft = Bundle(
        "tiny", "slm", "onnx", "planned", "", 1024, 0, (), {"parameters": 8e7}, (), False,
        memory={"kv_bytes_per_token": 1000},
    )  # fmt: skip
    pi4 = profiles.read("pi4")

    def expect(bundle, read):
        return expected(bundle, read, pi4, context_length=1024, depth=128)

    subject = Subject(None, None, None, 1024, None, lambda _: 2 * MB, lambda _: draft)
    return Planner(subject, ["onnx"], expect, Silent())


def test_the_matrix_that_matters_keeps_more_bits(planner):
    plan = planner.plan(Budget(max_size_bytes=64 * MB))
    planned = planner.planned(plan.chosen)
    assert planned.types == {"layers.0.down_proj.weight": "q8", "layers.0.q_proj.weight": "q4"}
    assert (planned.kind.name, planned.kind.bits) == ("mixed-6.00", 4)
    assert plan.chosen.size_bytes == 63 * MB
    assert plan.chosen.memory_bytes == 61 * MB + 1024 * 1000 + 150_000_000
    low, middle, high = plan.chosen.speed
    assert low < middle < high
    assert "a note of the format" in plan.notes
    assert any("unproven" in note for note in plan.notes)


def test_a_format_s_own_quantization_is_known_by_its_name(planner):
    plan = planner.plan(Budget(max_size_bytes=100 * MB))
    assert plan.chosen.mix.name == "int8"
    assert planner.planned(plan.chosen) is None
    assert "no mixture does better than the format's own int8" in plan.sentences[1]


def test_agreement_alone_takes_the_smallest_that_keeps_it(planner):
    chosen = planner.plan(Budget(min_agreement=0.95)).chosen
    assert chosen.size_bytes == min(c.size_bytes for c in planner.candidates if c.agreement >= 0.95)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(max_size_bytes=5 * MB), r"closest is onnx mixed-0 .*23\.0 MB, --max-size asks for 5\.0 MB"),
        (Budget(max_memory_bytes=100 * MB), "--max-memory asks for 100 MB"),
        (Budget(min_tokens_per_s=1000), "--min-tokens-per-second asks for 1,000 tok/s"),
        (Budget(max_size_bytes=30 * MB, min_agreement=0.999), "closest is"),
    ],
)
def test_nothing_fits(planner, budget, words):
    with pytest.raises(BudgetError, match=rf"impossible: none of \d+ plans is within the budget; .*{words}") as failure:
        planner.plan(budget)
    assert failure.value.exit_code == 3
    assert "ask for --m" in failure.value.hint
    record = failure.value.plan.record()
    assert record["fits"] is False
    assert "chosen" not in record
    assert record["closest"] in record["front"]


def test_what_comes_closest_is_shown_with_its_front(planner, tmp_path, capsys):
    with pytest.raises(run.Impossible) as failure:
        planner.plan(Budget(max_size_bytes=5 * MB))
    page = tmp_path / "front.html"
    _budget.show(argparse.Namespace(plot=page, json=False, dry_run=True), [failure.value.plan])
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines() if line.startswith("~>")] == [
        ["~>", "onnx", "mixed-0"]
    ]
    assert "closest is onnx mixed-0" in page.read_text()
    _budget.show(argparse.Namespace(plot=None, json=True, dry_run=False), [failure.value.plan])
    [record] = json.loads(capsys.readouterr().out)["plans"]
    assert record["why"].startswith("impossible: none of ")


def test_what_turned_out_larger_is_chosen_again_smaller(planner):
    asked = []

    def build(candidate, planned, plan):
        asked.append(candidate.mix)
        actual = round((candidate.mix.n_bytes + 3 * MB) * 1.3)
        wrong = run.unheld(budget, actual, None)
        return Built(actual, None, None, tuple(wrong), None if wrong else "published")

    budget = Budget(max_size_bytes=64 * MB)
    plan, built = fulfil(planner, budget, build, Silent())
    assert built.published == "published"
    assert len(asked) == 2
    assert built.size_bytes <= 64 * MB
    assert plan.chosen.size_bytes == built.size_bytes


def test_what_errs_more_than_expected_is_given_up_in_words(planner):
    def build(candidate, planned, plan):
        lost = min(1.0, 4 * (1 - candidate.agreement) + 0.05)
        return Built(candidate.size_bytes, 0.3, 1 - lost, tuple(run.unheld(budget, 1, 1 - lost)))

    budget = Budget(max_size_bytes=64 * MB, min_agreement=0.9)
    with pytest.raises(BudgetError, match=r"impossible: what was built(.|\n)*of top tokens kept") as failure:
        fulfil(planner, budget, build, Silent())
    assert "--min-agreement asks for 90.0%" in str(failure.value)


def test_after_a_few_builds_it_is_said(planner):
    def build(candidate, planned, plan):
        return Built(candidate.size_bytes, None, None, ("the gate is not met",))

    with pytest.raises(BudgetError, match=r"impossible: what was built(.|\n)*the gate is not met"):
        fulfil(planner, Budget(max_size_bytes=64 * MB), build, Silent())


def test_when_every_plan_was_tried(planner):
    with pytest.raises(BudgetError, match="impossible: every plan was tried"):
        planner.plan(Budget(max_size_bytes=64 * MB), without=planner.candidates)


def test_a_device_that_is_too_small_takes_none(planner):
    tiny = SimpleNamespace(tokens_per_s=None, memory={"total_bytes": 1}, against=("it needs more",), notes=())
    planner.expect = lambda bundle, read: tiny
    planner.candidates = [planner._candidate("onnx", m, VARIETY) for m in VARIETY.mixes()]
    with pytest.raises(BudgetError, match=r"it needs more(.|\n)*choose a larger device"):
        planner.plan(Budget())


def test_the_gate_s_class_is_what_a_tenth_of_the_weights_have():
    small = Part("x", 1, (Option("q2", 1, 0.0),))
    large = matrix("y", 40, 0.1)
    variety = Variety((small, large), {"own": ("q2", "q8"), "few": ("q2", "q2")}, BITS, 0)
    own, few = variety.mixes()[:2]
    assert (variety.class_bits(own), variety.class_bits(few)) == (8, 2)
    assert from_json(to_json(variety)) == variety


def test_the_same_plan_every_time(planner):
    budget = Budget(max_size_bytes=50 * MB)
    assert planner.plan(budget).record() == planner.plan(budget).record()


def test_a_plan_is_shown_as_table_json_and_page(planner, tmp_path, capsys):
    plan = planner.plan(Budget(max_size_bytes=64 * MB))
    args = argparse.Namespace(plot=tmp_path / "front.html", json=False, dry_run=True)
    _budget.show(args, [plan])
    shown = capsys.readouterr()
    [line] = [line for line in shown.out.splitlines() if line.startswith("->")]
    assert plan.chosen.name in line
    assert "misses --max-size" in shown.out
    assert "onnx int8" in shown.out
    assert "bits per weight" in shown.out
    assert "edge: a note of the format" in shown.err
    page = args.plot.read_text()
    assert "<svg" in page
    assert plan.chosen.name in page
    _budget.show(argparse.Namespace(plot=None, json=True, dry_run=True), [plan])
    [record] = json.loads(capsys.readouterr().out)["plans"]
    assert record["chosen"] in record["front"]
    assert record["budget"] == {"max_size_bytes": 64 * MB}
    assert say.expected(plan.chosen).startswith("63.0 MB")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("--max-size 600parsecs", 2, "'600parsecs' is no size"),
        ("--max-size 90MB --quant 4bit", 2, "--max-size chooses the quantization, and --quant 4bit names one"),
        ("--format auto --quant 4bit", 2, "--format auto is for a budget"),
        ("--plot x.html", 2, "--plot is for a budget"),
        ("--max-size 90MB --or-better", 2, "--or-better cannot go with a budget"),
        ("--max-size 90MB --plot no-such-folder/x.html", 2, "--plot: there is no folder"),
        ("--device toaster", 2, "there is no profile of a device 'toaster'"),
        ("--min-agreement 2", 2, "--min-agreement is a share between 0 and 1"),
        ("--min-agreement most", 2, "'most' is no share"),
    ],
)
def test_budgets_that_make_no_sense_are_refused_before_anything_is_opened(capsys, line, code, words):
    assert cli.main(["export", "no-such-model", *line.split()]) == code
    assert words in capsys.readouterr().err


def test_a_source_that_cannot_be_held_is_planned_for_in_the_memory_of_a_layer(monkeypatch):
    layers = {f"model.layers.{i}.w": SimpleNamespace(shape=(70_000_000,)) for i in range(100)}
    source = SimpleNamespace(name="large", n_parameters=7_000_000_000, tensors=layers, family="llm")
    monkeypatch.setattr(sensitivity.preflight, "holds_source", lambda checkpoint: False)
    need = sensitivity.preflight.planning_need(source)
    assert 2e9 < need.ram_bytes < 5e9
    assert need.time_s > 600


def test_formats_that_cannot_do_what_was_asked_are_left_out_or_refused():
    jobs = [order.job_of(name, "8bit") for name in ("gguf", "tflite")]

    def check(job):
        order.check_asked(job, None, "8bit")

    assert order.able(jobs, check, True, Silent()) == jobs[:1]
    for some, leave_out in ((jobs, False), (jobs[1:], True)):
        with pytest.raises(UsageError, match="tflite has no KV cache of 8 bits"):
            order.able(some, check, leave_out, Silent())


def test_formats_that_cannot_be_made_are_left_out(monkeypatch):
    def fails(job, order, progress):
        raise EdgeError(f"no {job.format} here")

    monkeypatch.setattr(within_module.stages, "full", fails)
    monkeypatch.setattr(within_module, "measured_on", lambda order: None)
    order = SimpleNamespace(
        sight=None, kv=None, text=None, context_length=1, texts=SimpleNamespace(calibration=None),
        checkpoint=SimpleNamespace(name="tiny"),
    )  # fmt: skip
    with pytest.raises(EdgeError, match="tiny can be converted to no format here"):
        within(Budget(max_size_bytes=1), expect=None, across=True)([SimpleNamespace(format="gguf")], order, Silent())


def test_second_order_is_as_good_as_its_trials(monkeypatch):
    import numpy as np

    found = Sensitivity({"w": np.array([1.0, 3.0])}, {"w": np.array([1.0, 1.0])}, Law(1, 1), Law(1, 1))
    errors = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert found.damage("w", errors).tolist() == [0.5, 1.5]
    assert found.damage("w", errors[1:], np.array([1])).tolist() == [1.5]
    matrix = np.array([[0.1, -0.7, 0.35]], np.float32)
    assert np.allclose(sensitivity.nearest(matrix, 4, 32), [[0.1, -0.7, 0.4]])
    assert sensitivity.some([(1,), (2,), (3,), (4,)], 2) == [(1,), (3,)]
