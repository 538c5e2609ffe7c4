"""Graphs that see only the first rows of the cache, in a TFLite session: the nearest that sees enough runs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import InputError, UsageError
from edge.runtimes import litert
from edge.runtimes.ahead import Way
from edge.runtimes.engines import tflite
from edge.runtimes.session import ContextFull

VOCABULARY, CACHE = 5, 32


class Runner:
    """Keeps which signature ran, at which positions, and how many rows of the cache its mask covered."""

    def __init__(self):
        self.runs = []

    def run(self, signature, given, positions, mask):
        assert given.shape[1] == len(positions) == mask.shape[2]
        self.runs.append((signature, int(positions[0]), mask.shape[-1]))
        if "prefill" in signature:
            return None
        # Of a token and its place alone.
        made = np.stack([np.arange(VOCABULARY) * t + p for t, p in zip(given[0], positions, strict=True)])
        return made.astype(np.float32).reshape(-1)

    def close(self):
        pass


def signature(size, window, *, gives=("kv_cache_k_0",), cache=CACHE):
    def tensor(*shape):
        return SimpleNamespace(shape=shape, type="float32")

    inputs = {
        "tokens": tensor(1, size),
        "input_pos": tensor(size),
        "mask": tensor(1, 1, size, window),
        "kv_cache_k_0": tensor(1, 1, cache, 2),
    }
    return SimpleNamespace(inputs=inputs, outputs={name: tensor(1, VOCABULARY) for name in gives})


def signatures(**others):
    both = ("kv_cache_k_0", "logits")
    return {
        "decode": signature(1, CACHE, gives=both),
        "prefill_8": signature(8, CACHE),
        "near_12_decode": signature(1, 12, gives=both),
        "near_12_prefill_2": signature(2, 12),
        "near_12_prefill_8": signature(8, 12),
        **others,
    }


def session():
    made = tflite.TfliteSession(Runner(), signatures(), context_length=CACHE)
    return made, made._runner.runs


def test_what_fits_a_near_graph_runs_there_and_the_rest_where_everything_is_seen():
    ours, runs = session()
    ours.feed([1] * 9)
    assert runs == [("near_12_prefill_8", 0, 12), ("near_12_decode", 8, 12)]
    for _ in range(4):
        ours.feed([1])
    assert runs[2:] == [("near_12_decode", i, 12) for i in (9, 10, 11)] + [("decode", 12, CACHE)]


def test_a_prefill_that_would_fill_rows_behind_the_window_sees_everything():
    ours, runs = session()
    ours.feed([1] * 6)
    del runs[:]
    ours.feed([1] * 9)
    assert runs == [("prefill_8", 6, CACHE), ("decode", 14, CACHE)]


def test_a_size_that_only_near_graphs_have_is_not_looked_for_behind_them():
    ours, runs = session()
    ours.feed([1] * 14)
    del runs[:]
    ours.feed([1] * 2)
    assert runs == [("decode", 14, CACHE), ("decode", 15, CACHE)]


def test_going_back_makes_graphs_near_again():
    ours, runs = session()
    ours.feed([1] * 20)
    ours.rewind(3)
    del runs[:]
    ours.feed([1])
    assert runs == [("near_12_decode", 3, 12)]


def test_the_context_is_full_where_the_cache_ends():
    ours, _ = session()
    ours.feed([1] * CACHE)
    with pytest.raises(ContextFull, match="32 tokens held, 1 more wanted, 32 fit"):
        ours.feed([1])


@pytest.mark.parametrize(
    ("name", "made", "reason"),
    [
        ("near_12_decode", signature(1, 12), "near_12_decode gives kv_cache_k_0"),
        ("near_12_prefill_4", signature(2, 12), "near_12_prefill_4 is no prefill of 2 tokens"),
        ("near_16_prefill_2", signature(2, 12), "near_16_prefill_2 and decode have caches of different sizes"),
        ("near_64_prefill_2", signature(2, 64), "near_64_prefill_2 and decode have caches of different sizes"),
        ("ahead_2", signature(2, CACHE), "ahead_2 gives kv_cache_k_0"),
        ("ahead_2", signature(2, CACHE, gives=("kv_cache_k_0", "logits")), "ahead_2 gives no logits after each token"),
        ("near_12_prefill_2", signature(2, 12, cache=12), "near_12_prefill_2 and decode have caches of different"),
        ("near_0_prefill_2", signature(2, CACHE), "near_0_prefill_2 is no prefill of 2 tokens"),
    ],
)
def test_a_near_graph_that_is_none_is_refused(name, made, reason):
    with pytest.raises(InputError, match=f"no decoder with a KV cache as edge writes it: {reason}"):
        tflite._refuse_others("model.tflite", SimpleNamespace(signatures=signatures(**{name: made})))


def test_a_file_with_near_graphs_is_taken():
    tflite._refuse_others("model.tflite", SimpleNamespace(signatures=signatures()))


def test_names_say_how_far_a_graph_sees():
    assert litert.near_of(litert.near_key(512, "prefill_16")) == (512, "prefill_16")
    assert litert.near_of("decode") is None
    assert litert.near_of("near_decode") is None


def ahead_session():
    both = ("kv_cache_k_0", "logits")
    ahead = signature(4, CACHE, gives=both)
    ahead.outputs["logits"].shape = (1, 4, VOCABULARY)
    made = tflite.TfliteSession(Runner(), signatures(ahead_4=ahead), context_length=30)
    return made, made._runner.runs


def test_each_window_looks_ahead_for_itself():
    both = ("kv_cache_k_0", "logits")
    near, far = signature(4, 12, gives=both), signature(4, CACHE, gives=both)
    for made in (near, far):
        made.outputs["logits"].shape = (1, 4, VOCABULARY)
    ours = tflite.TfliteSession(Runner(), signatures(near_12_ahead_4=near, ahead_4=far), context_length=CACHE)
    runs = ours._runner.runs
    ours.feed([1] * 10)
    assert ours.ways == (Way(2, "near_12_ahead_4"),)  # the window ends; what is written behind it is hidden
    del runs[:]
    assert np.array_equal(ours.peek([1, 2]), [[i * (k + 1) + 10 + k for i in range(VOCABULARY)] for k in range(2)])
    assert runs == [("near_12_ahead_4", 10, 12)]
    ours.take()
    ours.take()
    assert ours.ways == (Way(4, "ahead_4"),)
    del runs[:]
    ours.peek([1, 2, 3, 4])
    assert runs == [("ahead_4", 12, CACHE)]


def test_what_is_looked_at_ahead_is_held_when_it_is_taken():
    ours, runs = ahead_session()
    ours.feed([1, 2])
    found = ours.peek([1, 2, 3, 4])
    assert ours.position == 2
    assert found.tolist() == [[i * (k + 1) + 2 + k for i in range(VOCABULARY)] for k in range(4)]
    ours.take()
    ours.take()
    assert ours.position == 4
    del runs[:]
    ours.peek([1, 2, 3])
    assert runs == [("ahead_4", 4, CACHE)]
    assert (ours._seen[0, 0, 0] == 0).sum() == 4
    ours.feed([1])
    with pytest.raises(UsageError, match="nothing was looked at ahead, or something else was fed since"):
        ours.take()


def test_no_more_is_looked_at_than_fits():
    ours, _ = ahead_session()
    assert ours.ways == (Way(4, "ahead_4"),)
    with pytest.raises(UsageError, match="cannot look 5 tokens ahead: 4 at most"):
        ours.peek([1] * 5)
    ours.feed([1] * 27)
    assert ours.ways == (Way(3, "ahead_4"),)  # three of the context are left, five of the cache
    ours.feed([1, 1])
    assert ours.ways == ()  # a graph writes all of its rows: there must be four
    with pytest.raises(UsageError, match="cannot look 1 tokens ahead: 0 at most"):
        ours.peek([1])
