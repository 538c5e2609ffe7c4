"""A smaller model guesses for a larger one: in its words, as far as it pays, and never what is said."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgeError, UsageError
from edge.runtimes import ahead, draft
from edge.runtimes.ahead import Ahead, Known, Way
from edge.runtimes.draft import Draft, Tried, trial
from edge.runtimes.session import Sampling, generate

VOCABULARY, CONTEXT = 40, 300


class Clock:
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes when a session computes, and as much as it says."""
    for module in (ahead, draft):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: Clock.now))


class Fake:
    """What it says depends on its last words; one of another `mind` says something else in so many of ten cases."""

    vocab_size = VOCABULARY

    def __init__(self, *, takes=1.0, mind=0.0, context_length=CONTEXT, cuts=True):
        self.held, self.read = [], []
        self.takes, self.mind, self.context_length, self.cuts = takes, mind, context_length, cuts

    @property
    def position(self):
        return len(self.held)

    def rewind(self, n):
        if n and not self.cuts:
            raise EdgeError("it can only be emptied")
        del self.held[n:]

    def feed(self, tokens):
        self.held += tokens
        self.read.append(len(tokens))
        Clock.now += self.takes * (1 + 0.1 * (len(tokens) - 1))
        return self.say(self.held)

    def say(self, held):
        made = random.Random(str(held[-6:]))
        logits = np.array([made.random() for _ in range(VOCABULARY)], np.float32)
        if made.random() < self.mind:
            logits[made.randrange(VOCABULARY)] += 2
        return logits


class Peeking(Fake):
    def __init__(self, *, sizes=(2, 4), call=1.2, rounding=(), **others):
        super().__init__(**others)
        self.sizes, self.call, self.rounding, self.waiting, self.peeked = sizes, call, rounding, [], 0

    @property
    def ways(self):
        return [Way(n, f"{n} rows") for n in self.sizes if n <= self.context_length - len(self.held)]

    def peek(self, tokens):
        Clock.now += self.call
        self.waiting, self.peeked = list(tokens), self.peeked + 1
        rows = np.stack([self.say([*self.held, *tokens[: i + 1]]) for i in range(len(tokens))])
        return rows + np.float32(1e-6 * (len(tokens) in self.rounding))

    def take(self):
        self.held.append(self.waiting.pop(0))


def same_words(session, *, lacks=()):
    """A draft whose tokens are those of the other model plus 100, but for some that it has to spell."""
    return Draft(
        session,
        lambda word: (word,) if word not in lacks else (1, 2),
        {token: token for token in range(VOCABULARY) if token not in lacks},
    )


PROMPT = random.Random(0).choices(range(VOCABULARY), k=30)
SURE = Tried(chances=tuple(0.9**k for k in range(1, 8)), cost=0.05, reading=0.01)
TRUSTED = {"same": {"2 rows": 99, "4 rows": 99}, "costs": {"2 rows": 1.2, "4 rows": 1.2}}


def answer(session, *, prompt=PROMPT, given=None, tried=SURE, sampling=None, known=TRUSTED):
    """What it says, what feeds it, and how long that took."""
    looks = Ahead(session, known=Known.of(known), draft=given, tried=tried)
    looks.begin(prompt)
    began = Clock.now
    sampling = sampling or Sampling(max_tokens=200)
    said = [token.id for token in generate(session, list(prompt), sampling, feed=looks.feed)]
    return said, looks, Clock.now - began


@pytest.mark.parametrize("mind", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lacks", [(), (3, 4, 5, 6)])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_tokens=200), Sampling(max_tokens=150, temperature=0.8, seed=1), Sampling(max_tokens=CONTEXT)],
    ids=["greedy", "by chance", "to the end of the context"],
)
def test_an_answer_is_the_same_with_a_draft_and_without(mind, lacks, sampling):
    plain, _, _ = answer(Peeking(), sampling=sampling)
    given = same_words(Fake(takes=0.05, mind=mind), lacks=lacks)
    said, looks, _ = answer(Peeking(), given=given, sampling=sampling)
    assert said == plain
    assert looks.guessed >= looks.accepted
    assert looks.accepted or mind == 1.0 or sampling.temperature


def test_a_draft_that_knows_the_answer_takes_a_fraction_of_the_time():
    plain = answer(Peeking())
    drafted = answer(Peeking(), given=same_words(Fake(takes=0.05)))
    assert drafted[0] == plain[0]
    assert drafted[2] < plain[2] / 2
    assert drafted[1].accepted > 100


def test_a_draft_that_is_mostly_wrong_is_left_alone():
    plain = answer(Peeking())
    session = Peeking()
    drafted = answer(session, given=same_words(Fake(takes=0.05, mind=1.0)))
    assert drafted[0] == plain[0]
    # What a trial promised is found untrue within a few guesses.
    assert session.peeked < 30
    assert drafted[2] < 1.08 * plain[2]


def test_a_long_conversation_is_not_read_for_a_short_answer():
    reads_slowly = Tried(SURE.chances, cost=0.05, reading=0.2)
    prompt = random.Random(1).choices(range(VOCABULARY), k=200)
    for most, drafts in ((60, False), (200, True)):
        given = same_words(Fake(takes=0.05, context_length=500))
        session = Peeking(context_length=500)
        answer(session, prompt=prompt, given=given, tried=reads_slowly, sampling=Sampling(max_tokens=most))
        assert bool(given.session.read) is drafts


def test_it_reads_only_what_is_new():
    given = same_words(Fake())
    given.begin([1, 2, 3, 4])
    assert given.behind == 4
    first = given.guess(3)
    assert given.session.read == [4, 1, 1]
    for word in (*first[:2], 39):  # two came true, the third did not
        given.add(word)
    assert given.behind == 1
    given.session.read.clear()
    given.guess(1)
    assert given.session.read == [1]
    assert given.session.held == [1, 2, 3, 4, *first[:2], 39]
    given.begin([1, 2, 3, 7])
    given.session.read.clear()
    given.guess(1)
    assert given.session.read == [1]
    # Nothing new: the last token is read again, for its logits.
    assert given.guess(1) == given.guess(1)


def test_a_memory_that_can_only_be_emptied_is():
    can, cannot = same_words(Fake()), same_words(Fake(cuts=False))
    for given in (can, cannot):
        given.begin([1, 2, 3])
        given.guess(4)
        given.add(39)
    assert can.guess(2) == cannot.guess(2)
    assert cannot.session.held[:4] == [1, 2, 3, 39]


def test_without_room_nothing_is_guessed():
    given = same_words(Fake(context_length=10))
    given.begin(range(8))
    assert given.guess(2)
    assert given.guess(3) == []
    given.begin([])
    assert given.guess(1) == []
    assert given.session.position <= 10


def test_pictures_are_skipped_and_words_that_it_lacks_are_spelled():
    given = same_words(Fake(), lacks=(9,))
    given.begin([4, -7, -8, 9, 5])
    given.guess(1)
    assert given.session.held == [4, 1, 2, 5]


def test_a_trial_tells_how_often_guesses_come_true_and_what_they_cost():
    known = Known()
    session, given = Peeking(call=1.5, rounding=(4,)), same_words(Fake(takes=0.1, mind=0.2))
    prompts = [random.Random(seed).choices(range(VOCABULARY), k=20) for seed in range(4)]
    tried = trial(session, given, prompts, known)
    assert 0.5 < tried.chances[0] < 0.95
    assert list(tried.chances) == sorted(tried.chances, reverse=True)
    assert tried.cost == pytest.approx(0.1, rel=0.2)
    assert known.cost(Way(2, "2 rows")) == pytest.approx(1.5)
    assert known.trusted(Way(2, "2 rows"))
    assert known.refused(Way(4, "4 rows"))
    assert session.position == 0
    assert Tried.of(tried.told()) == tried
    assert Tried.of({"chances": 3}) is None


def test_a_trial_in_which_nothing_is_said_tells_nothing():
    class Done(Peeking):
        def say(self, held):
            return np.eye(VOCABULARY, dtype=np.float32)[7]

    with pytest.raises(EdgeError, match="answers of the larger model to the questions of the trial are too short"):
        trial(Done(), same_words(Fake()), [PROMPT], Known(), stop_ids=(7,))


class Words:
    def __init__(self, *words):
        self.words = words

    def vocabulary(self):
        return {word: i for i, word in enumerate(self.words)}

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def encode(self, text):
        return [self.words.index(letter) for letter in text]


def test_words_are_matched_by_how_they_are_spelled():
    given = Draft.between(Fake(), Words("b", "a"), Words("a", "b", "ab", "c"))
    given.begin([0, 2, 1])
    given.guess(1)
    assert given.session.held == [1, 1, 0, 0]
    with pytest.raises(UsageError, match="only 50% of its words are words of the model that it should guess for"):
        Draft.between(Fake(), Words("a", "x"), Words("a", "b"))
