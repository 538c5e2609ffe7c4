import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, UsageError
from edge.runtimes.engines.echo import EchoSession
from edge.runtimes.session import ContextFull, Sampling, Session, generate, pick


def rng():
    return np.random.default_rng(0)


def test_echo_says_the_prompt_back_and_stops():
    assert [t.id for t in generate(EchoSession(), [9, 8, 7], stop_ids=[0])] == [9, 8, 7]
    assert isinstance(EchoSession(), Session)


@given(st.lists(st.integers(1, 255), min_size=2, max_size=20), st.data())
def test_rewind_gives_the_same_continuation(prompt, data):
    keep = data.draw(st.integers(0, len(prompt)))
    session = EchoSession()
    first = session.feed_all(prompt)
    session.rewind(0)
    assert np.array_equal(session.feed_all(prompt), first)
    session.rewind(keep)
    assert session.position == keep


def test_a_full_context_changes_nothing():
    session = EchoSession(context_length=4)
    session.feed([1, 2, 3])
    with pytest.raises(ContextFull, match="3 tokens held, 2 more wanted, 4 fit"):
        session.feed([4, 5])
    assert session.position == 3
    with pytest.raises(UsageError, match="cannot rewind to 9"):
        session.rewind(9)
    with pytest.raises(UsageError, match=r"embeddings of shape \(n, 1\), found \(1, 4\)"):
        session.feed_embeddings(np.zeros((1, 4), np.float32))


def test_generation_ends_at_the_context_and_at_max_tokens():
    assert len(list(generate(EchoSession(context_length=5), [1, 2, 3]))) == 3
    assert len(list(generate(EchoSession(), [1, 2, 3], Sampling(max_tokens=2)))) == 2
    assert list(generate(EchoSession(), [1], Sampling(max_tokens=0))) == []
    with pytest.raises(UsageError, match="prompt is empty"):
        list(generate(EchoSession(), []))


def test_greedy_takes_the_lowest_of_equal_logits():
    assert pick(np.float32([0, 5, 5, 1]), Sampling(), [], rng()) == 1


def test_filters_narrow_the_choice():
    logits = np.log(np.float32([0.5, 0.3, 0.15, 0.05]))
    drawn = lambda **kw: {pick(logits, Sampling(temperature=1.0, **kw), [], r) for r in [rng()] for _ in range(200)}  # noqa: E731
    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_p=0.6) == {0, 1}
    assert drawn(min_p=0.25) == {0, 1, 2}


def test_what_is_forbidden_is_not_drawn_however_few_are_left():
    logits = np.full(500, -np.inf, np.float32)
    logits[[7, 400]] = 1.0, 0.5
    for narrow in ({"top_k": 40}, {"top_k": 1}, {"top_k": 40, "top_p": 0.9}, {"top_k": 40, "min_p": 0.1}):
        r = rng()
        drawn = {pick(logits, Sampling(temperature=1.0, **narrow), [], r) for _ in range(200)}
        assert drawn == ({7} if narrow["top_k"] == 1 else {7, 400})


def test_a_mask_may_draw_the_token_itself():
    tokens = generate(EchoSession(), [5, 6, 7], Sampling(max_tokens=3), mask=lambda logits, out: 9 + len(out))
    assert [t.id for t in tokens] == [9, 10, 11]


def test_sampling_follows_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    r = rng()
    counts = np.bincount([pick(np.log(p).astype(np.float32), Sampling(temperature=1), [], r) for _ in range(4000)])
    assert np.abs(counts / 4000 - p).max() < 0.03


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.floats(0.1, 3),
    st.integers(0, 45),
    st.sampled_from([1.0, 0.95, 0.6, 0.1]),
    st.sampled_from([0.0, 0.05, 0.5]),
)
def test_shortcuts_keep_what_the_filters_mean(values, temperature, top_k, top_p, min_p):
    """The support of the draw is that of the plain definition: sort all, then filter one by one."""
    logits = np.float32(values)
    scaled = (logits - logits.max()).astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")[: top_k or None]
    p = np.exp(scaled[order])
    p /= p.sum()
    if top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(p), top_p)) + 1]
    kept = [int(i) for i, x in zip(order, p, strict=False) if x >= min_p * p[0]]

    class Dice:
        def __init__(self, x):
            self.x = x

        def random(self):
            return self.x

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    drawn = {pick(logits, sampling, [], Dice(x)) for x in np.linspace(0, 1, 97, endpoint=False)}
    # Weights in float32 may put an id that lies on a filter's very edge on its other side.
    edge = 1e-5
    near = {i for i, x in zip(order, p, strict=False) if abs(x - min_p * p[0]) < edge}
    assert drawn <= set(kept) | near | set(order[len(kept) : len(kept) + 1].tolist())
    assert {i for i, x in zip(order, p, strict=False) if i in kept and x > 0.05} <= drawn | near | {kept[-1]}


def test_the_end_says_why():
    def end(*args, **kw):
        tokens = generate(*args, **kw)
        while True:
            try:
                next(tokens)
            except StopIteration as done:
                return done.value

    assert end(EchoSession(), [1, 2], stop_ids=[0]) == "end"
    assert end(EchoSession(), [1, 2, 3], Sampling(max_tokens=2)) == "length"
    assert end(EchoSession(), [1, 2], Sampling(max_tokens=0)) == "length"
    assert end(EchoSession(context_length=3), [1, 2, 3]) == "context"


def test_repeat_penalty_lowers_what_was_said():
    assert pick(np.float32([2.0, 1.9]), Sampling(repeat_penalty=1.3), [0], rng()) == 1
    assert pick(np.float32([-1.0, -1.1]), Sampling(repeat_penalty=1.3), [0], rng()) == 1


def test_logits_that_are_not_numbers_are_an_error():
    with pytest.raises(EdgeError, match="not numbers"):
        pick(np.float32([np.nan, 1]), Sampling(), [], rng())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 1}, "min_p"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
def test_impossible_sampling_is_refused(values, words):
    with pytest.raises(UsageError, match=words):
        Sampling(**values)
