"""The drawn pictures follow from their seeds, and what is held out is never shown in training."""

from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np
import pytest

from edge.errors import MissingError
from edge.export.corpus import pictures
from edge.export.corpus.picture_questions import KINDS, Question, at, held_out, questions
from edge.export.corpus.pictures import COLOURS, PLACES, SIZE, THINGS, UNSEEN, draw, picture

N = 2000


def test_a_seed_gives_the_same_picture_each_time():
    scenes = [picture(seed) for seed in range(20)]
    assert scenes == [picture(seed) for seed in range(20)]
    assert all(draw(s).tobytes() == draw(s).tobytes() for s in scenes)
    assert len({draw(s).tobytes() for s in scenes}) == 20
    assert draw(scenes[0]).size == (SIZE, SIZE)
    assert draw(scenes[0]).mode == "RGB"


def test_nothing_held_out_is_ever_in_a_training_picture():
    for seed in range(N):
        assert all(t.colour != UNSEEN[t.name] for t in picture(seed).things)
        assert any(t.colour == UNSEEN[t.name] for t in picture(seed, held_out=True).things)


def test_training_shows_everything_else():
    seen = {(t.colour, t.name) for seed in range(N) for t in picture(seed).things}
    assert seen == {(c, n) for c in COLOURS for n in THINGS if UNSEEN[n] != c}
    assert {t.place for seed in range(200) for t in picture(seed).things} == set(PLACES)
    assert {len(picture(seed).things) for seed in range(50)} == {1, 2, 3}


def test_things_lie_where_they_are_said_to_and_stand_out_from_what_is_behind():
    for seed in range(40):
        scene = picture(seed, held_out=seed % 2 == 0)
        pixels = np.asarray(draw(scene)).astype(int)
        for thing in scene.things:
            row, column = divmod(PLACES.index(thing.place), 3)
            assert (int(thing.y) * 3 // SIZE, int(thing.x) * 3 // SIZE) == (row, column)
            near = np.abs(pixels - np.array(thing.rgb)).sum(-1) < 70
            y, x, r = round(thing.y), round(thing.x), round(thing.radius)
            assert near[max(y - r, 0) : y + r, max(x - r, 0) : x + r].mean() > 0.12


def test_without_pillow_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="drawing pictures needs the Python package 'PIL'"):
        pictures.draw(picture(0))


def test_every_question_is_answered_by_its_picture_alone():
    for seed in range(300):
        scene = picture(seed)
        facts = {(t.colour, t.name, at(t.place)) for t in scene.things}
        for q in questions(scene, random.Random(seed)):
            answer = q.answers[0]
            said = set(
                re.findall(r"an? (\w+) (\w+) ((?:at|on|in) the (?:top|bottom)?(?: ?left| ?right|middle)?)", answer)
            )
            if q.kind == "describe":
                assert said == facts
            elif answer.startswith("Yes"):
                assert said < facts or said == facts
            elif answer.startswith("No,"):
                colour, name = re.findall(r"no (\w+) (\w+)", answer)[0]
                assert not any((c, n) == (colour, name) for c, n, _ in facts)
            elif q.kind in ("colour", "name"):
                name, colour = re.findall(r"The (\w+) is (\w+)", answer)[0]
                assert [(c, n) for c, n, _ in facts if (c if q.kind == "name" else n) in q.text.split("?")[0].split()]
                assert any((c, n) == (colour, name) for c, n, _ in facts)
            elif q.kind == "where":
                assert any(answer == f"The {c} {n} is {place}." for c, n, place in facts)


def test_held_out_questions_are_of_every_kind_and_half_of_yes_or_no_is_no():
    asked = [q for _, qs in held_out() for q in qs]
    assert set(KINDS) == {q.kind for q in asked}
    yes_or_no = Counter(q.answers[0].startswith("Yes") for q in asked if q.kind == "exists")
    assert 0.4 < yes_or_no[True] / yes_or_no.total() < 0.6
    assert held_out() == held_out()
    few = Counter(q.kind for _, qs in held_out(each=2) for q in qs)
    assert set(few) == set(KINDS)
    assert few.total() == 128


def test_an_answer_is_right_when_it_is_an_accepted_one_and_nothing_else():
    question = Question("count", "How many objects are there?", ("There are two objects.", "Two."))
    assert question.is_right("there are two objects")
    assert question.is_right(" Two.\n")
    assert not question.is_right("There are two objects. And more.")
    assert not question.is_right("There are three objects.")
    assert not question.is_right("")
