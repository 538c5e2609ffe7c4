"""What can be had, and the choice from it: numbers alone, any numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.export.planner.budget import Budget, missed, share, size
from edge.export.planner.front import (
    Candidate,
    Law,
    Mix,
    Option,
    Part,
    choose,
    corrected,
    front,
    hull,
    law,
    lesson,
    mixes,
    nearest,
    path,
)  # fmt: skip

options = st.lists(
    st.builds(Option, st.just("x"), st.integers(1, 1000), st.floats(0, 10)), min_size=1, max_size=6
).map(tuple)  # fmt: skip
parts = st.lists(st.builds(Part, st.just("p"), st.integers(1, 100), options), min_size=1, max_size=5)
candidates = st.lists(
    st.builds(
        Candidate,
        format=st.sampled_from(["gguf", "onnx"]),
        mix=st.builds(Mix, st.text("ab", max_size=3), st.just(())),
        size_bytes=st.integers(1, 50),
        memory_bytes=st.integers(1, 50),
        kld=st.floats(0, 1),
        agreement=st.floats(0, 1),
        speed=st.none() | st.floats(0.1, 50).map(lambda v: (v / 2, v, 2 * v)),
    ),
    min_size=1,
    max_size=20,
)
budgets = st.builds(
    Budget,
    st.none() | st.integers(1, 60),
    st.none() | st.integers(1, 60),
    st.none() | st.floats(0.1, 60),
    st.none() | st.floats(0.01, 1),
)


def beats(a, b):
    pairs = [
        (a.size_bytes, b.size_bytes), (a.memory_bytes, b.memory_bytes), (a.kld, b.kld),
        (-(a.speed or (0, 0))[1], -(b.speed or (0, 0))[1]),
    ]  # fmt: skip
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


@given(candidates)
def test_nothing_on_the_front_is_beaten_and_everything_else_is(found):
    on = front(found)
    assert not any(beats(a, b) for a, b in itertools.permutations(on, 2))
    for other in found:
        assert any(c == other or beats(c, other) or not (beats(other, c) or beats(c, other)) for c in on)
        if not any(beats(c, other) for c in found):
            assert any(c.has() == other.has() or c == other or _alike(c, other) for c in on)


def _alike(a, b):
    return (a.size_bytes, a.memory_bytes, a.kld) == (b.size_bytes, b.memory_bytes, b.kld)


@given(candidates, st.randoms(use_true_random=False), budgets)
def test_the_choice_does_not_depend_on_the_order(found, random, budget):
    mixed = list(found)
    random.shuffle(mixed)
    assert choose(mixed, budget) == choose(found, budget)
    assert front(mixed) == front(found)


@given(candidates, budgets)
def test_what_is_chosen_is_within_and_what_is_not_chosen_errs_as_much(found, budget):
    chosen = choose(found, budget)
    within = [c for c in found if not missed(budget, c.has())]
    assert (chosen is None) == (not within)
    if chosen is None:
        assert nearest(found, budget) in found
    elif budget.record().keys() != {"min_agreement"}:
        assert chosen in within
        assert chosen.kld == min(c.kld for c in within)
    else:
        assert chosen.size_bytes == min(c.size_bytes for c in within)


@given(candidates, st.integers(1, 60), st.integers(0, 30))
def test_more_bytes_never_make_it_worse(found, bound, more):
    small, large = choose(found, Budget(max_size_bytes=bound)), choose(found, Budget(max_size_bytes=bound + more))
    assert small is None or (large is not None and large.kld <= small.kld)


@given(parts)
def test_mixtures_grow_and_err_less_with_every_step(given):
    made = mixes(given)
    for a, b in itertools.pairwise(made):
        assert b.n_bytes > a.n_bytes
        assert b.damage < a.damage
    sizes = {sum(o.n_bytes for o in chosen): chosen for chosen in path([hull(p.options) for p in given])}
    for n_bytes, chosen in sizes.items():  # what the hull has is never lost to what is between
        assert min(m.damage for m in made if m.n_bytes <= n_bytes) <= math.fsum(o.damage for o in chosen)
    assert made[0].n_bytes == sum(min(o.n_bytes for o in p.options) for p in given)
    assert math.isclose(made[-1].damage, sum(min(o.damage for o in p.options) for p in given), abs_tol=1e-9)


@given(parts)
def test_each_mixture_is_the_best_of_its_size(given):
    """Along the hull no mixture of as many bytes errs less: tried against all of them."""
    every = [Mix("", combined) for combined in itertools.product(*(p.options for p in given))]
    for mix in (Mix("", chosen) for chosen in path([hull(p.options) for p in given])):
        assert mix.damage <= min(m.damage for m in every if m.n_bytes <= mix.n_bytes) + 1e-6


def test_what_a_large_step_leaves_of_a_budget_goes_to_the_others():
    table = Part("table", 100, (Option("4", 50, 1.0), Option("8", 100, 0.0)))
    small = Part("small", 10, (Option("4", 5, 0.02), Option("8", 10, 0.0)))
    assert [m.n_bytes for m in mixes([table, small])] == [55, 60, 105, 110]


def test_an_option_between_two_better_ones_is_left_out():
    cheap, poor, good = Option("4", 10, 1.0), Option("5", 14, 0.9), Option("8", 20, 0.0)
    assert hull([poor, good, cheap, Option("4", 10, 2.0)]) == (cheap, good)


def test_laws_go_through_what_was_measured():
    assert law([], exponent=1.0) == Law(1.0, 1.0)
    assert law([(2.0, 8.0)], exponent=1.0)(1.0) == pytest.approx(4.0)
    found = law([(1.0, 2.0), (4.0, 8.0)], exponent=1.0)
    assert found(2.0) == pytest.approx(4.0)
    assert law([(1.0, 1.0), (2.0, 64.0)], exponent=1.0).exponent == 1.5
    assert found(0.0) == 0.0


def test_what_was_measured_of_one_corrects_its_neighbours():
    one = Candidate("gguf", Mix("a", ()), 100, 10, kld=0.1, agreement=0.9)
    learnt = lesson(one, 110, 0.2, 0.8)
    assert learnt(one) == replace(one, size_bytes=110, kld=pytest.approx(0.2), agreement=pytest.approx(0.8))
    other = replace(one, format="onnx")
    assert corrected([one, other], {"gguf": learnt})[1] == other
    assert lesson(one, 100, None, None)(one) == replace(one, agreement=pytest.approx(0.9))


@pytest.mark.parametrize(("text", "n"), [("600MB", 600_000_000), ("1.5gib", 3 << 29), (" 7 kB ", 7000), ("12", 12)])
def test_sizes(text, n):
    assert size(text) == n


@pytest.mark.parametrize("text", ["600 parsecs", "", "MB", "-3MB", "1e3MB", "1,5GB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"is no size(.|\n)*600MB, 1\.5GB, 512MiB"):
        size(text)


def test_what_is_no_share():
    with pytest.raises(UsageError, match=r"'most' is no share(.|\n)*0\.97 or 97%"):
        share("most")


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(max_size_bytes=0), "--max-size leaves no byte"),
        (Budget(max_memory_bytes=0), "--max-memory leaves no byte"),
        (Budget(min_tokens_per_s=-1), "--min-tokens-per-second must be above 0, found -1"),
        (Budget(min_tokens_per_s=math.nan), "--min-tokens-per-second must be above 0, found nan"),
        (Budget(min_agreement=97), "--min-agreement is a share between 0 and 1, found 97"),
    ],
)
def test_budgets_that_make_no_sense(budget, words):
    with pytest.raises(UsageError, match=words):
        budget.check()


def test_a_speed_that_is_not_known_does_not_hold_a_budget():
    assert missed(Budget(min_tokens_per_s=1), {"min_tokens_per_s": None}) == {"min_tokens_per_s": math.inf}
    assert not missed(Budget(min_tokens_per_s=1), {})
    assert not Budget()
    assert Budget(max_size_bytes=1)
