"""What people fill in: names, places, sentences, times. Every fourth word is kept for held-out cases.

Long texts are put together from short ones, so that a model has to copy what stands in the
request and cannot know it by heart.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    """Kinds at the beginning of a line, their words indented below, set apart by commas."""
    found: dict[str, str] = {}
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[kind] += f" {line.strip()}"
        else:
            kind = line.strip()
            found[kind] = ""
    return {kind: tuple(word.strip() for word in words.split(",") if word.strip()) for kind, words in found.items()}


_WORDS = _read(Path(__file__).with_name("words.txt"))
_PROPER = ("first", "last", "city", "artist", "restaurant", "song", "book", "movie", "pet", "station", "course")
_PLAIN = (
    "room", "door", "window", "garden", "camera", "scene", "label", "topic", "list", "item", "gadget", "shop", "dish",
    "word", "project", "package", "event_word", "noun", "database", "medicine", "valve", "color", "place", "language",
)  # fmt: skip
_ANYTHING = ("made_thing", "made_thing", "made_thing", "noun", "item", "dish", "gadget", "animal", "garden", "word")
IMPERATIVE = frozenset(_WORDS.pop("imperative"))  # a request that begins with one of these can follow "please"


class Values:
    """Draws values of every kind from one random generator; `held_out` draws the words kept back."""

    def __init__(self, rng: random.Random, *, held_out: bool = False, words: Sequence[str] = ()) -> None:
        """`words` are many more than ours, any of which may be a value in training."""
        self.rng = rng
        self.held_out = held_out
        self.words = words

    def draw(self, kind: str) -> str:
        """One value of a kind that `tools/*.txt` names after `@`."""
        if kind in _MADE:
            return _MADE[kind](self)
        return self.word(kind)

    def word(self, kind: str) -> str:
        if not self.held_out and kind in _PROPER + _PLAIN and self.rng.random() < (0.5 if self.words else 0.3):
            return self._foreign(kind)
        return self.rng.choice(halves(_WORDS[kind])[self.held_out])

    def _foreign(self, kind: str) -> str:
        """A word that nobody would expect there: what stands in the request has to be copied, not guessed."""
        if self.words and self.rng.random() < 0.8:
            return _strange(self, proper=kind in _PROPER)
        drawn = self.rng.random()
        if drawn < 0.25:
            text = _nonsense(self)
        else:
            text = self.rng.choice(halves(_WORDS[self.rng.choice(_ANYTHING)])[0])
            if drawn > 0.85:
                text = f"{self.rng.choice(halves(_WORDS['adjective'])[0])} {text}"
        return text.title() if kind in _PROPER else text

    def digits(self, n: int) -> str:
        return "".join(self.rng.choice(string.digits) for _ in range(n))


def halves(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What training draws from, and every fourth word, which only held-out cases draw from.

    >>> halves(["a", "b", "c", "d", "e"])
    (['a', 'b', 'c', 'e'], ['d'])
    """
    return [w for i, w in enumerate(words) if i % 4 != 3], [w for i, w in enumerate(words) if i % 4 == 3] or words


def kept_back() -> frozenset[str]:
    """Every word of the values that only held-out cases use, in small letters."""
    return frozenset(part for words in _WORDS.values() for w in halves(words)[1] for part in w.lower().split())


def kinds() -> frozenset[str]:
    """Every kind that can be drawn."""
    return frozenset(_WORDS) | frozenset(_MADE)


_LINKS = ("of", "to", "in", "for", "the", "with", "from", "on")


def _strange(v: Values, *, proper: bool) -> str:
    """One to four of `v.words`, as names of things are written: small or large letters, linked, numbered."""
    rng = v.rng
    parts = [rng.choice(v.words) for _ in range(rng.choices((1, 2, 3), (60, 30, 10))[0])]
    if len(parts) > 1 and rng.random() < 0.2:
        parts.insert(1, rng.choice(_LINKS))
    drawn = rng.random()
    if drawn < 0.06:
        return rng.choice("-_.").join(parts) + rng.choice(("", v.digits(rng.randrange(1, 4))))
    if drawn < 0.12:
        return f"{' '.join(parts)} {rng.randrange(1, 300)}"
    if drawn < 0.16:
        return "".join(p.capitalize() for p in parts)
    if drawn < 0.18:
        return " ".join(parts).upper()
    if proper != (drawn > 0.92):
        parts = [p if p in _LINKS else p.capitalize() for p in parts]
    return " ".join(parts)


def _name(v: Values) -> str:
    return v.rng.choice([v.word("first"), v.word("first"), f"{v.word('first')} {v.word('last')}", v.word("kin")])


def _time(v: Values) -> str:
    hour, minute = v.rng.randrange(24), v.rng.choice([0, 5, 10, 15, 20, 25, 30, 40, 45, 50, 55])
    return v.rng.choice([
        f"{hour}:{minute:02}", f"{hour:02}:{minute:02}", f"{hour % 12 + 1} {v.rng.choice(['am', 'pm'])}",
        f"{hour % 12 + 1}:{minute:02} {v.rng.choice(['am', 'pm'])}", f"half past {v.rng.choice(_HOURS)}",
        f"{v.rng.choice(_HOURS)} o'clock", v.rng.choice(["noon", "midnight", f"quarter to {v.rng.choice(_HOURS)}"]),
    ])  # fmt: skip


_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _date(v: Values) -> str:
    day, month, weekday = v.rng.randrange(1, 29), v.word("month"), v.word("weekday")
    return v.rng.choice([
        "tomorrow", "today", weekday, f"next {weekday}", f"{day} {month}", f"{month} {day}",
        f"{v.rng.randrange(2024, 2031)}-{v.rng.randrange(1, 13):02}-{day:02}",
        f"next {v.rng.choice(['week', 'month'])}",
        f"the {day}th of {month}" if 3 < day < 21 else f"{day} {month}",
    ])  # fmt: skip


def _when(v: Values) -> str:
    return v.rng.choice([
        f"tomorrow at {_time(v)}", f"{v.word('weekday')} at {_time(v)}", "tonight", "tomorrow morning",
        f"in {v.rng.randrange(2, 50)} minutes", f"in {v.rng.randrange(2, 9)} hours", f"next {v.word('weekday')}",
        f"{v.word('weekday')} evening",
    ])  # fmt: skip


def _sentence(v: Values) -> str:
    if v.words and v.rng.random() < 0.3:
        return _told(v)
    kind = v.rng.randrange(7)
    if kind == 0:
        return v.word("sentence_whole")
    if kind == 4:
        return f"{v.word('first')} {v.word('state')} {v.word('adverb')}"
    if kind == 5:
        return f"{v.word('subject')} {v.word('state')} because {v.word('subject')} {v.word('state')}"
    if kind == 6:
        return f"{v.word('verb')} {v.rng.randrange(2, 99)} {v.word('item')} {v.word('adverb')}"
    if kind == 1:
        return f"{v.word('subject')} {v.word('state')}"
    if kind == 2:
        return f"{v.word('verb')} {v.word('thing')} {v.word('adverb')}"
    return f"{v.word('subject')} {v.word('state')} and {v.word('subject')} {v.word('state')}"


def _told(v: Values) -> str:
    """A sentence with words that nobody expects."""
    one, two = (_strange(v, proper=False) for _ in range(2))
    return v.rng.choice([
        f"the {one} {v.word('state')}", f"{v.word('verb')} the {one} {v.word('adverb')}", f"{one} and {two}",
        f"{v.word('subject')} {v.word('state')} because of the {one}", f"no {one} without {two}", f"{one}, {two}",
        f"my {one} {v.word('state')}", f"{v.word('verb')} {v.rng.randrange(2, 99)} {one} for {two}",
        f"{one.upper()} {two}",
    ])  # fmt: skip


def _filename(v: Values) -> str:
    stem = v.rng.choice([
        v.word("noun"), f"{v.word('adjective')}_{v.word('noun')}", f"{v.word('noun')}-{v.rng.randrange(1, 99)}",
        f"{v.word('noun')}{v.rng.randrange(2019, 2027)}",
    ])  # fmt: skip
    return f"{stem.replace(' ', '_')}.{v.word('extension')}"


def _path(v: Values) -> str:
    return v.rng.choice([_filename(v), f"{v.word('folder')}/{_filename(v)}", _filename(v)])


def _items(v: Values) -> str:
    return ", ".join(dict.fromkeys(v.word("item") for _ in range(v.rng.randrange(1, 4))))


def _names(v: Values) -> str:
    return ", ".join(dict.fromkeys(v.word("first") for _ in range(v.rng.randrange(1, 4))))


def _expression(v: Values) -> str:
    a, b, c = (v.rng.randrange(2, 400) for _ in range(3))
    op, other = v.rng.choice("+-*/"), v.rng.choice("+-*/")
    return v.rng.choice([f"{a} {op} {b}", f"{a}{op}{b}", f"({a} {op} {b}) {other} {c}", f"{a} {op} {b} {other} {c}"])


def _code(v: Values) -> str:
    letters = "".join(v.rng.choice(string.ascii_uppercase) for _ in range(2))
    return v.rng.choice([f"{letters}{v.digits(6)}", f"{letters}-{v.digits(4)}", v.digits(8), f"#{v.digits(5)}"])


def _email(v: Values) -> str:
    name = f"{v.word('first').lower()}{v.rng.choice(['', '.' + v.word('last').lower()])}"
    return f"{name.replace(' ', '.')}@{v.word('domain')}"


def _phone(v: Values) -> str:
    return v.rng.choice([f"0{v.digits(9)}", f"+{v.digits(2)} {v.digits(3)} {v.digits(6)}", f"555-{v.digits(4)}"])


def _nonsense(v: Values) -> str:
    return "".join(v.rng.choice("bdfgklmnprstvz") + v.rng.choice("aeiou") for _ in range(v.rng.randrange(2, 4)))


_MADE: dict[str, Callable[[Values], str]] = {
    "name": _name,
    "names": _names,
    "time": _time,
    "date": _date,
    "when": _when,
    "sentence": _sentence,
    "filename": _filename,
    "path": _path,
    "items": _items,
    "expression": _expression,
    "code": _code,
    "email": _email,
    "phone": _phone,
    "nonsense": _nonsense,
    "digits4": lambda v: v.digits(4),
    "task": lambda v: f"{v.word('verb')} {v.word('thing')}",
    "event": lambda v: v.word("event_word"),
    "title": lambda v: v.rng.choice([f"{v.word('adjective')} {v.word('noun')}", v.word("noun"), v.word("topic")]),
    "url": lambda v: v.rng.choice(["https://", ""]) + f"{v.word('domain')}/{v.word('noun').replace(' ', '-')}",
    "ssid": lambda v: v.rng.choice([
        f"{v.word('adjective')}-{v.word('noun').replace(' ', '-')}", f"{_nonsense(v)}{v.digits(2)}",
        f"FRITZ-{v.digits(4)}",
    ]),
    "secret": lambda v: f"{_nonsense(v)}{v.digits(3)}",
}  # fmt: skip
