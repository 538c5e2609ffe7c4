"""Questions: what counts as right, as kept, as lost and as undecided."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge.export.gate.answers import Question, Reply, compare, questions
from edge.runtimes.tokenizer import Tokenizer
from tests.tiny_bundle import tiny_bundle

WORDS = ("Paris", "Rome", "four", "fourteen")
TOKENIZER = SimpleNamespace(decode=lambda ids, skip_special: " ".join(WORDS[i] for i in ids))


def asked(n: int = 8, answer: str = "Paris") -> list[Question]:
    return [Question(f"question {i}", (i,), (answer,)) for i in range(n)]


def replies(*ids: int, margin: float = 3.0) -> list[Reply]:
    return [Reply((i,), (margin, margin)) for i in ids]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It is four.", True),
        ("FOUR!", True),
        ("fourteen", False),
        ("twenty-four", True),
        ("", False),
        ("x_four", False),
    ],
)
def test_an_answer_is_a_whole_word(reply, right):
    assert Question("2 + 2?", (1,), ("four", "4")).accepts(reply) == right


def test_only_what_the_source_answers_rightly_is_judged():
    found = compare(asked(10), replies(*[0] * 9, 1), iter([(0,)] * 8 + [(1,)] * 2), TOKENIZER)
    assert (found["questions"], found["source_right"], found["kept"]) == (10, 9, 8)
    assert found["share_kept"] == pytest.approx(8 / 9)
    assert found["lost"] == [{"question": "question 8", "reply": "Rome"}]
    assert found["identical_replies"] == 9


def test_a_loss_where_the_source_was_undecided_is_a_near_tie():
    source = replies(*[0] * 8) + replies(0, margin=0.05)
    found = compare(asked(9), source, iter([(0,)] * 8 + [(1,)]), TOKENIZER)
    assert found["share_kept"] == 1
    assert found["near_ties"] == [{"question": "question 8", "reply": "Rome"}]


def test_a_source_that_knows_little_is_not_judged():
    found = compare(asked(9), replies(*[0] * 7, 1, 1), iter([(1,)] * 9), TOKENIZER)
    assert found["share_kept"] is None


def test_the_questions_that_ship_are_many_distinct_and_answered(tmp_path):
    tiny_bundle(tmp_path)
    found = questions(Tokenizer.load(tmp_path), None)
    assert len({q.text for q in found}) == len(found) >= 40
    assert all(q.answers and all(q.accepts(f"It is {a}.") for a in q.answers) for q in found)
