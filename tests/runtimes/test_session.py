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
    with pytest.raises(UsageError, match="no embeddings"):
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


def test_sampling_follows_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    r = rng()
    counts = np.bincount([pick(np.log(p).astype(np.float32), Sampling(temperature=1), [], r) for _ in range(4000)])
    assert np.abs(counts / 4000 - p).max() < 0.03


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
