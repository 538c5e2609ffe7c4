"""Questions about drawn pictures, each with the answers that count as right.

The task of the built-in model smollm2-vision, and how any export of it is scored:

- describe: every thing with its colour and place, and nothing else
- count, colour, name, where, what, digit: one fact in a sentence
- exists: yes or no; half of the answers are no, most of these with the colour and the thing both there, apart
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from edge.export.corpus.pictures import COLOURS, DIGITS, PLACES, THINGS, Picture, Thing, picture

_NUMBERS = ("no objects", "one object", "two objects", "three objects")
_ASKED = {
    "describe": (
        "What is in the picture?",
        "Describe the picture.",
        "What do you see?",
        "What can you see in this image?",
        "Describe this image.",
    ),
    "count": ("How many objects are there?", "How many things do you see?", "How many objects are in the picture?"),
    "colour": ("What colour is the {name}?", "What color is the {name}?", "Which colour does the {name} have?"),
    "name": ("What is {colour}?", "Which object is {colour}?", "What is the {colour} object?"),
    "where": ("Where is the {colour} {name}?", "Where do you see the {colour} {name}?"),
    "what": ("What is {at}?", "What do you see {at}?"),
    "digit": ("Which digit is shown?", "Which digit do you see?", "Which number is in the picture?"),
    "exists": ("Is there {a} {colour} {name}?", "Do you see {a} {colour} {name}?", "Can you see {a} {colour} {name}?"),
}
KINDS = tuple(_ASKED)
_CALIBRATION = 2 * 10**9  # the first seed; trainings stay below, and what they are watched by


@dataclass(frozen=True)
class Question:
    """What is asked of a picture; `answers` are the accepted ones, the first is the one that is taught."""

    kind: str
    text: str
    answers: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the whole answer is an accepted one; case and the last full stop do not matter.

        >>> Question("count", "How many?", ("There are two objects.",)).is_right("there are two objects")
        True
        """
        return _plain(answer) in {_plain(a) for a in self.answers}


def held_out(n: int = 64, each: int = len(KINDS)) -> list[tuple[Picture, tuple[Question, ...]]]:
    """`n` pictures with something no training picture shows, and `each` questions about it, of each kind in turn.

    >>> len(held_out(64, each=2)), sum(len(asked) for _, asked in held_out(64, each=2))
    (64, 128)
    """
    result = []
    for seed in range(n):
        scene = picture(seed, held_out=True)
        asked = questions(scene, random.Random(f"held out {seed}"))
        turned = [asked[(seed * each + i) % len(asked)] for i in range(min(each, len(asked)))]
        result.append((scene, tuple(sorted(turned, key=lambda q: KINDS.index(q.kind)))))
    return result


def calibration(n: int = 48) -> list[tuple[Picture, tuple[Question, ...]]]:
    """`n` training pictures that nothing was trained on, with every question that each can answer.

    >>> [len(calibration(2)), calibration(1)[0][1][0].kind]
    [2, 'describe']
    """
    scenes = [picture(_CALIBRATION + i) for i in range(n)]
    return [(scene, questions(scene, random.Random(f"calibration {scene.seed}"))) for scene in scenes]


def questions(scene: Picture, rng: random.Random) -> tuple[Question, ...]:
    """One question of each kind that this picture can answer in one way only."""
    asked = [_ask(kind, scene, rng) for kind in KINDS]
    return tuple(q for q in asked if q is not None)


def _ask(kind: str, scene: Picture, rng: random.Random) -> Question | None:
    things = scene.things
    words: dict[str, str] = {}
    match kind:
        case "describe":
            answers = tuple(f"There is {_listed(order)}." for order in itertools.permutations(map(_placed, things)))
        case "count":
            answers = (f"There {'is' if len(things) == 1 else 'are'} {_NUMBERS[len(things)]}.",)
        case "colour":
            thing = _only(things, "name", rng)
            if thing is None:
                return None
            words, answers = {"name": thing.name}, (f"The {thing.name} is {thing.colour}.",)
        case "name":
            thing = _only(things, "colour", rng)
            if thing is None:
                return None
            words, answers = {"colour": thing.colour}, (f"The {thing.name} is {thing.colour}.",)
        case "where":
            thing = rng.choice(things)
            words = {"colour": thing.colour, "name": thing.name}
            answers = (f"The {thing.colour} {thing.name} is {at(thing.place)}.",)
        case "what":
            place = rng.choice([t.place for t in things] if rng.random() < 0.75 else PLACES)
            found = [t for t in things if t.place == place]
            words = {"at": at(place)}
            answers = (f"There is {_named(found[0]) if found else 'nothing'} {at(place)}.",)
        case "digit":
            digits = [t.name for t in things if t.name in DIGITS]
            if len(digits) != 1:
                return None
            answers = (f"The digit is {digits[0]}.",)
        case _:
            colour, name = _sought(things, rng)
            match_ = [t for t in things if (t.colour, t.name) == (colour, name)]
            words = {"a": _article(colour), "colour": colour, "name": name}
            answers = (f"Yes, there is {_placed(match_[0])}." if match_ else f"No, there is no {colour} {name}.",)
    return Question(kind, rng.choice(_ASKED[kind]).format(**words), answers)


def _sought(things: tuple[Thing, ...], rng: random.Random) -> tuple[str, str]:
    """A coloured thing that is there, every other time; else a near miss, or any other."""
    there = {(t.colour, t.name) for t in things}
    if rng.random() < 0.5:
        return rng.choice(sorted(there))
    colours, names = sorted({c for c, _ in there}), sorted({n for _, n in there})
    apart = [(c, n) for c in colours for n in names if (c, n) not in there]
    if apart and rng.random() < 0.6:
        return rng.choice(apart)
    half = [(c, n) for c in colours for n in THINGS] + [(c, n) for c in COLOURS for n in names]
    return rng.choice([pair for pair in half if pair not in there])


def _only(things: tuple[Thing, ...], field: str, rng: random.Random) -> Thing | None:
    """One of the things whose `field` no other has."""
    values = [getattr(t, field) for t in things]
    alone = [t for t in things if values.count(getattr(t, field)) == 1]
    return rng.choice(alone) if alone else None


def at(place: str) -> str:
    """`top left` -> `at the top left`."""
    if place == "middle":
        return "in the middle"
    return f"{'on' if place in ('left', 'right') else 'at'} the {place}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _named(thing: Thing) -> str:
    return f"{_article(thing.colour)} {thing.colour} {thing.name}"


def _placed(thing: Thing) -> str:
    return f"{_named(thing)} {at(thing.place)}"


def _listed(parts: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
