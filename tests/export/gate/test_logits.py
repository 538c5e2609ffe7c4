"""Comparing logits: numbers that can be worked out by hand, and what is no number at all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.export.gate.logits import compare

VOCABULARY = 4
WINDOWS = [[0, 1, 2, 3], [0, 1, 3, 3], [0, 2, 1, 1, 2]]


def source(window):
    rows = np.zeros((len(window), VOCABULARY), np.float32)
    rows[np.arange(len(window)), window] = 2.0
    return rows


def against(export, windows=WINDOWS, at_least=100):
    return compare(source, export, windows, vocab_size=VOCABULARY, at_least=at_least)


def test_the_same_logits_are_the_same():
    found = against(source)
    assert (found.nmse, found.mean_kld, found.max_kld, found.same_top1) == (0, 0, 0, 1)
    assert found.perplexity_source == found.perplexity_export
    assert found.finite
    assert not found.flat


def test_a_beginning_that_windows_share_counts_once():
    assert against(source).positions == 4 + 2 + 4
    assert against(source, at_least=5).positions == 6
    assert against(source, [WINDOWS[0], WINDOWS[0]]).positions == 4


def test_the_divergence_is_that_of_the_definition():
    p = np.exp([2, 0, 0, 0]) / np.exp([2, 0, 0, 0]).sum()
    by_hand = float((p * np.log(p / 0.25)).sum())
    found = against(lambda w: np.tile(np.arange(4, dtype=np.float32) * 1e-9, (len(w), 1)))
    assert found.mean_kld == pytest.approx(by_hand, rel=1e-6)
    assert found.nmse == pytest.approx(1)
    assert found.perplexity_export == pytest.approx(4)
    assert found.kld_low <= found.mean_kld <= found.kld_high


def test_a_shift_of_all_logits_changes_no_probability():
    found = against(lambda w: source(w) + 5)
    assert found.mean_kld == pytest.approx(0, abs=1e-12)
    assert found.same_top1 == 1
    assert found.nmse > 1


def test_changed_top_tokens_and_near_ties_are_apart():
    def undecided(window):
        rows = source(window)
        rows[:, 0] = 2 - 0.05  # almost as likely as the first choice
        return rows

    def other(window):
        rows = undecided(window)
        rows[:, 0] = 2.05
        return rows

    found = compare(undecided, other, [[1, 2, 3, 1]], vocab_size=VOCABULARY, at_least=4)
    assert (found.same_top1, found.near_ties) == (0, 1)
    found = compare(source, other, [[1, 2, 3, 1]], vocab_size=VOCABULARY, at_least=4)
    assert (found.same_top1, found.near_ties) == (0, 0)


def test_empty_and_impossible_outputs():
    assert against(lambda w: np.zeros((len(w), VOCABULARY), np.float32)).flat
    assert against(lambda w: np.full((len(w), VOCABULARY), 3.0, np.float32)).flat
    bad = source([0, 1, 2, 3])
    bad[2, 1] = math.nan
    found = against(lambda w: bad[: len(w)])
    assert not found.finite
    assert not against(lambda w: source(w) * np.float32(math.inf)).finite
    assert not against(source, []).finite


def test_padding_behind_the_vocabulary_is_left_out():
    padded = against(lambda w: np.pad(source(w), ((0, 0), (0, 3)), constant_values=99))
    assert padded.mean_kld == 0
