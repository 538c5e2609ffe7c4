"""Guesses ahead: they change no answer, and stop where they do not pay."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from edge.runtimes import ahead as module
from edge.runtimes.ahead import Ahead, Known, Way
from edge.runtimes.session import Sampling, generate

VOCABULARY, CONTEXT = 40, 400


class Clock:
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes when a session computes, and as much as it says."""
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: Clock.now))


class Fake:
    """A model that copies: what followed the last two tokens last time is likely again, unless it thinks of something.

    It says what it says from the tokens that it holds alone, whether they were fed or taken. Those of `sizes` that are
    in `rounding` give a little more, and a call takes as long as `cost` says of it.
    """

    context_length, vocab_size = CONTEXT, VOCABULARY

    def __init__(self, *, wild=0.0, sizes=(2, 4, 8), cost=lambda n: 1 + 0.15 * n, rounding=()):
        self.held, self.waiting, self.peeked, self.fed = [], [], [], 0
        self.wild, self.sizes, self.cost, self.rounding = wild, sizes, cost, rounding

    @property
    def position(self):
        return len(self.held)

    @property
    def ways(self):
        return [Way(n, f"{n} rows") for n in self.sizes if n <= CONTEXT - len(self.held)]

    def feed(self, tokens):
        self.waiting = []
        self.held += tokens
        self.fed += 1
        Clock.now += 1
        return self.say(self.held)

    def peek(self, tokens):
        assert len(tokens) in [way.size for way in self.ways]
        self.peeked.append(len(tokens))
        Clock.now += self.cost(len(tokens))
        self.waiting = list(tokens)
        rows = np.stack([self.say([*self.held, *tokens[: i + 1]]) for i in range(len(tokens))])
        return rows + np.float32(1e-6 * (len(tokens) in self.rounding))

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


def answer(session, prompt, sampling, *, looks, stop_ids=(), mask=None, known=None):
    ahead = Ahead(session, known=known)
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


TRUSTED = {"same": {f"{n} rows": 99 for n in (2, 4, 8)}}


def test_what_is_copied_takes_a_fraction_of_the_calls():
    prompt = [*range(1, 39), 1, 2, 3]
    session = Fake()
    found, _, ahead = answer(session, prompt, Sampling(max_tokens=150), looks=True, known=Known.of(TRUSTED))
    assert found[:30] == list(range(4, 34))
    assert session.fed + len(session.peeked) < len(found) / 3
    assert ahead.accepted > len(found) / 2


def test_as_many_tokens_are_looked_at_as_pay():
    prompt = [*range(1, 39), 1, 2, 3]
    for cost, wanted in ((lambda n: 1 + 0.1 * n, 8), (lambda n: 1.3 if n < 8 else 6.0, 4)):
        session = Fake(cost=cost)
        answer(session, prompt, Sampling(max_tokens=200), looks=True, known=Known.of(TRUSTED))
        assert max(set(session.peeked), key=session.peeked.count) == wanted


@pytest.mark.parametrize("rounding", [(8,), (2, 4, 8)])
def test_a_way_that_rounds_otherwise_is_tried_and_not_used(rounding, monkeypatch):
    monkeypatch.setattr(module, "_SHARE", 0.2)  # one answer is short
    prompt = [*range(1, 39), 1, 2, 3]
    plain, session = Fake(), Fake(rounding=rounding, cost=lambda n: 1 + 0.05 * n)
    wanted = answer(plain, prompt, Sampling(max_tokens=300), looks=False)
    known = Known()
    found = answer(session, prompt, Sampling(max_tokens=300), looks=True, known=known)
    assert found[:2] == wanted[:2]
    assert known.told()["other"] == [f"{n} rows" for n in rounding]
    for n in rounding:
        assert session.peeked.count(n) == 1  # one row was enough
    assert bool(found[2].accepted) is (len(rounding) == 1)


def test_trying_takes_a_small_share_of_the_time_and_no_way_is_used_before():
    session, known, began = Fake(wild=0.3), Known(), Clock.now
    ahead = Ahead(session, known=known)
    prompt = [*range(1, 12)] * 3
    ahead.begin(prompt)
    session.held = list(prompt)
    token, used = 1, {}
    for _ in range(340):
        before = session.peeked[:]
        token = int(ahead.feed(token).argmax())
        for n in session.peeked[len(before) :]:
            used[n] = used.get(n, 0) + 1
        assert ahead._tried_s <= 0.05 * (Clock.now - began)
        assert known.told()["same"] or not ahead.accepted
    assert used
    assert known.news
    assert ahead.accepted


def test_what_is_known_outlives_the_process():
    known = Known()
    for _ in range(8):
        known.note(Way(4, "4 rows"), same=True)
    known.note(Way(8, "8 rows"), same=False)
    for cost in (1.5, 1.6, 1.7, 1.6, 1.6):
        known.took(Way(4, "4 rows"), cost)
    again = Known.of(known.told())
    assert [again.trusted(Way(n, f"{n} rows")) for n in (2, 4, 8)] == [False, True, False]
    assert [again.refused(Way(n, f"{n} rows")) for n in (2, 4, 8)] == [False, False, True]
    assert again.cost(Way(4, "4 rows")) == pytest.approx(1.6)
    assert (known.news, again.news) == (True, False)


@pytest.mark.parametrize("told", [{}, {"same": 3}, {"same": {"x": "y"}}, {"other": 5}, {"costs": {"4 rows": []}}])
def test_what_cannot_be_read_is_found_out_again(told):
    assert Known.of(told).told() == Known().told()


def test_guesses_that_seldom_come_true_are_not_made_for_long():
    # Words that were tossed: any eight of them stood there before, and what followed then says nothing.
    session, made, began = Fake(cost=lambda n: 3.0), random.Random(5), Clock.now
    ahead = Ahead(session, known=Known.of(TRUSTED))
    ahead.begin([])
    for _ in range(5):
        session.held = []
        for _ in range(CONTEXT // 2):
            ahead.feed(made.choice((1, 2)))
    assert session.peeked
    assert Clock.now - began < 1.03 * 5 * (CONTEXT // 2)


def test_nothing_is_guessed_where_several_tokens_cost_more_than_they_save():
    prompt = [*range(1, 39), 1, 2, 3]
    session = Fake(cost=lambda n: 9.0)
    answer(session, prompt, Sampling(max_tokens=200), looks=True, known=Known.of(TRUSTED))
    assert all(session.peeked.count(n) <= module._COST_COUNTS + 1 for n in (2, 4, 8))


def test_a_session_that_takes_nothing_ahead_is_fed_single_tokens():
    session = Fake(sizes=())
    answer(session, [*range(1, 39), 1, 2, 3], Sampling(max_tokens=50), looks=True)
    assert (session.peeked, session.fed) == ([], 50)
