"""Guesses by prompt lookup: they change no answer, and stop where they do not pay."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from edge.runtimes import lookup
from edge.runtimes.lookup import Lookup
from edge.runtimes.session import Sampling, generate

VOCABULARY, CONTEXT, ROWS = 40, 400, 8


class Clock:
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes when a session computes, and as much as it says."""
    monkeypatch.setattr(lookup, "time", SimpleNamespace(perf_counter=lambda: Clock.now))


class Fake:
    """A model that copies: what followed the last two tokens last time is likely again, unless it thinks of something.

    It says what it says from the tokens that it holds alone, whether they were fed or taken.
    """

    context_length, vocab_size = CONTEXT, VOCABULARY

    def __init__(self, *, wild=0.0, rows=ROWS, cost=2.0):
        self.held, self.waiting, self.peeked, self.fed = [], [], 0, 0
        self.wild, self.rows, self.cost = wild, rows, cost

    @property
    def position(self):
        return len(self.held)

    @property
    def peeks(self):
        return min(self.rows, CONTEXT - len(self.held))

    def feed(self, tokens):
        self.waiting = []
        self.held += tokens
        self.fed += 1
        Clock.now += 1
        return self.say(self.held)

    def peek(self, tokens):
        assert len(tokens) <= self.peeks
        self.peeked += 1
        Clock.now += self.cost
        self.waiting = list(tokens)
        return np.stack([self.say([*self.held, *tokens[: i + 1]]) for i in range(len(tokens))])

    def take(self):
        self.held.append(self.waiting.pop(0))

    def say(self, held):
        made = random.Random(str(held[-12:]))
        logits = np.array([made.random() for _ in range(VOCABULARY)], np.float32)
        if made.random() >= self.wild:
            for i in range(len(held) - 3, 0, -1):
                if held[i - 1 : i + 1] == held[-2:]:
                    logits[held[i + 1]] += 3
                    break
        return logits


def answer(session, prompt, sampling, *, looks, stop_ids=(), mask=None):
    ahead = Lookup(session)
    ahead.begin(prompt)
    made = generate(session, prompt, sampling, stop_ids=stop_ids, mask=mask, feed=ahead.feed if looks else None)
    found = []
    while True:
        try:
            token = next(made)
        except StopIteration as end:
            return found, end.value, ahead
        # Between two tokens, the session holds what it would hold without guesses: all but the last token.
        found.append(token.id)
        assert session.held == [*prompt, *found[:-1]]


@pytest.mark.parametrize("wild", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=200),
        Sampling(max_tokens=120, temperature=0.7, seed=3, top_k=9),
        Sampling(max_tokens=120, repeat_penalty=1.1),
        Sampling(max_tokens=CONTEXT),
    ],
    ids=["greedy", "by chance", "penalty", "to the end of the context"],
)
def test_an_answer_is_the_same_with_guesses_and_without(wild, sampling):
    def grammar(logits, out):
        changed = logits.copy()
        changed[len(out) % 7] = -np.inf
        return changed

    accepted = 0
    for seed in range(3):
        prompt = random.Random(seed).choices(range(1, 12), k=60)
        for mask in (None, grammar):
            plain = answer(Fake(wild=wild), list(prompt), sampling, looks=False, stop_ids=(0,), mask=mask)
            looked = answer(Fake(wild=wild), list(prompt), sampling, looks=True, stop_ids=(0,), mask=mask)
            assert looked[:2] == plain[:2]
            accepted += looked[2].accepted
            assert looked[2].accepted <= looked[2].guessed
    assert accepted or wild > 0.1


def test_what_is_copied_takes_a_fraction_of_the_calls():
    prompt = [*range(1, 39), 1, 2, 3]
    session = Fake()
    found, _, ahead = answer(session, prompt, Sampling(max_tokens=150), looks=True)
    assert found[:30] == list(range(4, 34))
    assert session.fed + session.peeked < len(found) / 3
    assert ahead.accepted > len(found) / 2


def test_guesses_that_seldom_come_true_are_not_made_for_long():
    # Words that were tossed: any eight of them stood there before, and what followed then says nothing.
    session, made, began = Fake(cost=3.0), random.Random(5), Clock.now
    ahead = Lookup(session)
    ahead.begin([])
    for _ in range(5):
        session.held = []
        for _ in range(CONTEXT // 2):
            ahead.feed(made.choice((1, 2)))
    assert session.peeked
    assert Clock.now - began < 1.02 * 5 * (CONTEXT // 2)


def test_nothing_is_guessed_where_several_tokens_cost_more_than_they_save():
    prompt = [*range(1, 39), 1, 2, 3]
    session = Fake(cost=9.0)
    answer(session, prompt, Sampling(max_tokens=200), looks=True)
    assert session.peeked <= lookup._COST_COUNTS + 2


def test_a_session_that_takes_nothing_ahead_is_fed_single_tokens():
    session = Fake(rows=0)
    answer(session, [*range(1, 39), 1, 2, 3], Sampling(max_tokens=50), looks=True)
    assert (session.peeked, session.fed) == (0, 50)
