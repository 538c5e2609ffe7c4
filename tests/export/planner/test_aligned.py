"""Errors that agree with one another are found out; those that do not stay what they were expected to be."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export import calibrate
from edge.export.planner import aligned, sensitivity
from edge.export.planner.front import Law, Option, Part
from edge.export.source import open_source
from edge.progress import Silent
from edge.runtimes.tokenizer import Tokenizer
from tests import parity


def part(name, damages, n=1000):
    """Types of 4, 5, 6 and 8 bits with these damages."""
    bits = {"four": 4, "five": 5, "six": 6, "eight": 8}
    return Part(name, n, tuple(Option(k, n * b // 8, d) for (k, b), d in zip(bits.items(), damages, strict=True)))


USUAL = (4.0**-4, 4.0**-5, 4.0**-6, 4.0**-8)


def test_a_type_is_suspected_that_errs_less_than_its_bits_allow():
    assert aligned.suspects([part("a", USUAL)]) == ()
    assert aligned.suspects([part("a", (1e-6, *USUAL[1:]))]) == ("four",)
    assert aligned.suspects([part("a", (0.0, *USUAL[1:]))]) == ("four",)


def test_one_matrix_that_a_type_suits_does_not_make_it_suspect():
    some = [part(name, USUAL) for name in "abc"]
    assert aligned.suspects([*some, part("d", (1e-6, *USUAL[1:]))]) == ()


def test_what_stores_weights_as_they_are_is_no_measure():
    whole = Part("a", 1000, (*part("a", USUAL).options, Option("sixteen", 2000, 0.0)))
    assert aligned.suspects([whole]) == ()


def test_a_law_is_turned_round():
    law = Law(3.0, 0.7)
    assert law(law.inverse(0.2)) == pytest.approx(0.2)
    assert law.inverse(0.0) == 0.0


def test_a_source_that_does_not_fit_in_memory_is_not_tried_and_that_is_said(monkeypatch):
    monkeypatch.setattr(aligned, "running", lambda *_: object())
    monkeypatch.setattr(aligned.streamed, "is_streamed", lambda _: True)
    parts = (part("a", (0.0, *USUAL[1:])),)
    made, notes = aligned.corrected(parts, None, None, None, None, Silent())
    assert made == parts
    assert notes == ("types that suit these weights too well were not tried: the source does not fit in memory",)


@pytest.mark.runtime
def test_errors_in_one_direction_cost_more_than_was_expected(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(sensitivity, "_WINDOWS", 4)
    checkpoint = open_source(parity.make("smollm2", tmp_path))
    text = calibrate.default_calibration(Tokenizer.load(checkpoint.folder), None)
    known = sensitivity.measure(checkpoint, text, Silent())
    model = calibrate.running(checkpoint, text)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # What training would do: every matrix moves a little so that one token becomes likelier everywhere.
    for p in model.parameters():
        p.requires_grad_(True)
    torch.log_softmax(model(input_ids=torch.tensor([text.passages[0][:64]])).logits, -1)[..., 7].sum().backward()
    moves = {checkpoint.stored_name(n): p.grad for n, p in model.named_parameters() if p.dim() == 2}
    moves = {name: (g * 2e-3 * before[name].norm() / (g.norm() + 1e-30)).numpy() for name, g in moves.items()
             if name in before}  # fmt: skip
    signs = np.random.default_rng(0)
    directions = {
        "learned": lambda name, rows: rows + moves.get(name, 0.0),
        "by chance": lambda name, rows: rows + moves.get(name, 0.0) * signs.choice([-1.0, 1.0], rows.shape),
    }
    costs = {}
    for kind, rounded in directions.items():
        guess, found = sensitivity.tried(
            model, checkpoint, text, known, lambda name, rows, how=rounded: how(name, rows).astype(np.float32)
        )
        costs[kind] = (guess, found)
    assert costs["learned"][0] == pytest.approx(costs["by chance"][0], rel=1e-3)  # second order sees no difference
    assert costs["learned"][1] > 10 * costs["by chance"][1]
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())  # put back as it was

    def one_part(kinds):
        return Part("all", 1000, tuple(Option(kind, b, d) for kind, b, d in kinds))

    parts = [one_part([("learned", 500, 1e-9), ("five", 625, 4.0**-5), ("six", 750, 4.0**-6), ("seven", 875, 4.0**-7)])]
    made, notes = aligned.corrected(
        parts, checkpoint, text, known, lambda name, rows, _: directions["learned"](name, rows).astype(np.float32),
        Silent(),
    )  # fmt: skip
    assert made[0].option("learned").damage > 3e-9
    assert made[0].option("six") == parts[0].option("six")
    assert "learned suits these weights, but undoes what they were trained for" in notes[0]
