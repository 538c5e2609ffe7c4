"""Rows of a picture that see each other, in a TFLite session: which positions its mask lets each row see."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import UsageError
from edge.runtimes.engines.tflite import TfliteSession
from edge.runtimes.session import ContextFull

CACHE, HIDDEN, PREFILL = 12, 3, 4


class Runner:
    """Keeps what it was given; row i of `seen` are the positions that the row at position i saw last."""

    def __init__(self):
        self.seen = {}
        self.runs = []

    def run(self, signature, given, positions, mask):
        self.runs.append((signature, positions.tolist()))
        for position, row in zip(positions, mask[0, 0], strict=True):
            self.seen[int(position)] = set(np.flatnonzero(row == 0).tolist())
        return np.zeros(5, np.float32) if signature == "decode" else None

    def close(self):
        pass


def session(**options):
    def shape(*sizes):
        return SimpleNamespace(shape=sizes)

    def signature(n):
        return SimpleNamespace(
            inputs={"embeddings": shape(1, n, HIDDEN), "mask": shape(1, 1, n, CACHE)}, outputs={"logits": shape(1, 5)}
        )

    signatures = {"decode": signature(1), f"prefill_{PREFILL}": signature(PREFILL)}

    def embedder(token_ids):
        return {"embeddings": np.zeros((1, 1, HIDDEN), np.float32)}

    made = TfliteSession(Runner(), signatures, context_length=CACHE, embedder=embedder, **options)
    return made, made._runner


def rows(n):
    return np.ones((n, HIDDEN), np.float32)


def test_each_row_of_a_picture_sees_all_of_them_and_what_came_before():
    ours, runner = session(bidirectional=True)
    ours.feed([1, 2])
    ours.feed_embeddings(rows(3))
    assert ours.position == 5
    assert [runner.seen[i] for i in (2, 3, 4)] == [{0, 1, 2, 3, 4}] * 3
    assert runner.runs[-2:] == [("prefill_4", [2, 3, 4, 5]), ("decode", [4])]
    ours.feed([3])
    assert runner.seen[5] == {0, 1, 2, 3, 4, 5}


def test_otherwise_a_row_sees_those_before_it():
    ours, runner = session()
    ours.feed_embeddings(rows(3))
    assert [runner.seen[i] for i in range(3)] == [{0}, {0, 1}, {0, 1, 2}]


def test_a_picture_that_no_prefill_takes_at_once_is_refused():
    ours, runner = session(bidirectional=True)
    with pytest.raises(UsageError, match="5 rows of a picture see each other, at most 4 at once can"):
        ours.feed_embeddings(rows(5))
    ours.feed([1] * 9)
    before = len(runner.runs)
    with pytest.raises(ContextFull, match="9 tokens held, 4 more wanted, 12 fit"):
        ours.feed_embeddings(rows(3))
    assert (ours.position, len(runner.runs)) == (9, before)
