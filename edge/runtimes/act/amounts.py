"""Numbers that a person said: in digits and in words, and as a time in the unit that an argument has.

What is not found here was not said: a required number is asked for then, so that a model makes none up. English only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edge.runtimes.act import clauses

_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SMALL += " seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(_SMALL.split())}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
_LARGE = {"hundred": 100, "thousand": 1000}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_PLACES = {word: n for n, word in enumerate(_ORDINALS.split(), 1)}
_UNITS_S = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800}
_PARTS_OF_ONE = "half quarter quarters dozen couple twice past noon midnight am pm full fully max maximum minimum"
# All that can be a part of a number, or of a length of time.
SPELLING = frozenset(
    {*_WORDS, *_LARGE, *_PLACES, *_PARTS_OF_ONE.split()} | {u + s for u in _UNITS_S for s in ("", "s")}
)

_UNIT = "|".join(sorted(_UNITS_S, key=len, reverse=True))
_RUN = re.compile(
    rf"\b(?:{'|'.join(_WORDS)})\b(?:(?:-|\s+|\s+and\s+)(?:{'|'.join((*_WORDS, *_LARGE))})\b)*", re.IGNORECASE
)
_N = r"\d+(?:\.\d+)?"
_NUMBER = re.compile(rf"(?<![\w.])-?{_N}|(?<=\.){_N}")
_SPAN = re.compile(rf"(?<![\w.])({_N})\s*({_UNIT}|h|s)s?\b")
_JOINED = re.compile(r"\s*(?:,|and)?\s*")
_CLOCK = re.compile(
    r"(?<![\w.:])(?:(?P<h>\d{1,2})[:.](?P<m>\d{2})(?:\s*(?P<half>[ap])\.?m\b)?"
    r"|(?P<h2>\d{1,2})\s*(?:(?P<half2>[ap])\.?m\b|o'clock)|\bat (?P<h3>\d{1,2})(?![\w:.%]))"
)
# In this order: what one line makes is what the next one finds.
_PARTS: tuple[tuple[str, str], ...] = (
    (rf"({_N}) and a half\b", r"\1.5"),
    (rf"\b(?:an?|1) ({_UNIT}) and a half\b", r"1.5 \1"),
    (rf"\bhalf an? ({_UNIT}|dozen)\b|\bhalf ({_UNIT})\b", r"0.5 \1\2"),
    (rf"\b(?:a )?quarter (?:of an? )?({_UNIT})\b", r"0.25 \1"),
    (rf"\b3 quarters of an? ({_UNIT})\b", r"0.75 \1"),
    (r"\ba (?:dozen)\b", "12"),
    (r"\ba (?:couple|pair)(?: of)?\b|\btwice\b", "2"),
    (r"\bnoon\b", "12:00"),
    (r"\bmidnight\b", "0:00"),
)


def values(text: str, name: str, about: Mapping[str, Any]) -> list[int | float]:
    """What `text` says that an argument called `name` can be; `about` is its schema, of type integer or number.

    >>> values("water the roses for half an hour", "minutes", {"type": "integer"})
    [30]
    >>> values("order twenty-five pens", "amount", {"type": "integer"})
    [25]
    >>> values("order pens", "amount", {"type": "integer"})
    []
    """
    low, high = about.get("minimum", -math.inf), about.get("maximum", math.inf)
    found = [n for n in _meant(text, name, about) if low <= n <= high]
    return [int(n) if n == int(n) else n for n in found if about.get("type") == "number" or n == int(n)]


def said(text: str) -> list[float]:
    """Numbers in a text, each once; those in quotation marks only where there are no others."""
    if (outside := clauses.QUOTED.sub("", text)) != text and (found := said(outside)):
        return found
    plain = in_digits(text)
    found = [float(n) for n in _NUMBER.findall(plain)]
    found += [float(n) * 12 for n in re.findall(rf"({_N}) dozens?\b", plain)]
    # In small letters: "The Third Man" is a name.
    found += [float(_PLACES[word]) for word in re.findall(rf"\b(?:the|my|this|that) ({'|'.join(_PLACES)})\b", text)]
    return list(dict.fromkeys(found))


def times_of_day(plain: str) -> list[tuple[int, int]]:
    """Times of day in a text `in_digits`, as hour and minute."""
    found = []
    for to, quarter, hour in re.findall(r"\b(half|quarter|\d{1,2})(?: minutes?)? (past|to) (1[0-2]|\d)\b", plain):
        minutes = {"half": 30, "quarter": 15}.get(to) or int(to)
        found.append((int(hour), minutes) if quarter == "past" else ((int(hour) - 1) % 24, 60 - minutes))
    for at in [] if found else _CLOCK.finditer(plain):
        hour, half = int(at["h"] or at["h2"] or at["h3"]), at["half"] or at["half2"]
        found.append((hour % 12 + (12 if half == "p" else 0) if half else hour, int(at["m"] or 0)))
    return found


def in_digits(text: str) -> str:
    """A text with its numbers in digits.

    >>> in_digits("Two hundred and five pens in half an hour")
    '205 pens in 0.5 hour'
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.lower())
    plain = _RUN.sub(_counted, re.sub(r"\ban? (hundred|thousand)\b", r"one \1", plain))
    for pattern, instead in _PARTS:
        plain = re.sub(pattern, instead, plain)
    return plain


def number(about: Any) -> dict[str, Any] | None:
    """The schema of a number in the schema of an argument; None when it can be something else. It may be nothing too.

    >>> number({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    {'type': 'integer', 'minimum': 1}
    """
    if not isinstance(about, Mapping):
        return None
    kinds = about.get("type")
    if isinstance(kinds, list) and (bare := [kind for kind in kinds if kind != "null"]):
        kinds = "number" if set(bare) == {"integer", "number"} else bare[0] if len(bare) == 1 else None
    if kinds in ("integer", "number"):
        return {**about, "type": kinds}
    options = [one for one in about.get("anyOf", about.get("oneOf", ())) if one != {"type": "null"}]
    if len(options) != 1 or "type" in about or (found := number(options[0])) is None:
        return None
    rest = {key: value for key, value in about.items() if key not in ("anyOf", "oneOf")}
    return {**found, **rest}


def settled(about: Mapping[str, Any]) -> list[int | float | None]:
    """What needs not to be said: a default, the only number that a schema leaves, or None where it may be nothing."""
    if isinstance(default := about.get("default"), (int, float)) and not isinstance(default, bool):
        return [default]
    low, high = about.get("minimum"), about.get("maximum")
    if low is not None and low == high:
        return [low]
    options = about.get("type"), *about.get("anyOf", ()), *about.get("oneOf", ())
    return [None] if {"type": "null"} in options or "null" in (options[0] or ()) else []


def _meant(text: str, name: str, about: Mapping[str, Any]) -> list[float]:
    """All numbers of a text, unless some of them are times of the argument's own kind."""
    outside = clauses.QUOTED.sub("", text)
    plain = in_digits(outside)
    if name in ("hour", "minute") and (times := times_of_day(plain)):
        return list(dict.fromkeys(float(time[name == "minute"]) for time in times))
    called = f"{name} {about.get('title', '')} {about.get('description', '')}".lower().replace("_", " ")
    unit = re.search(rf"\b({_UNIT})s?\b", called)
    if unit and (spans := _spans_s(plain)):
        return [span / _UNITS_S[unit[1]] for span in spans]
    found = said(text)
    if found and found != [0.5]:
        return found
    high = about.get("maximum", 100 if re.search(r"percent|%", called) else None)
    if high is not None and re.search(r"\b(?:full|fully|max|maximum)\b", plain):
        return [high]
    if high == 100 and re.search(r"\bhalf\b", plain):
        return [50]
    if "minimum" in about and re.search(r"\b(?:min|minimum)\b", plain):
        return [about["minimum"]]
    return found


def _spans_s(plain: str) -> list[float]:
    """Lengths of time in seconds; "1 hour 30 minutes" is one."""
    found: list[float] = []
    end = -1
    for span in _SPAN.finditer(re.sub(rf"\ban? ({_UNIT})\b", r"1 \1", plain)):
        unit = {"h": "hour", "s": "second"}.get(span[2], span[2])
        seconds = float(span[1]) * _UNITS_S[unit]
        if end >= 0 and _JOINED.fullmatch(span.string, end, span.start()):
            found[-1] += seconds
        else:
            found.append(seconds)
        end = span.end()
    return found


def _counted(run: re.Match[str]) -> str:
    """Words that follow one another as the numbers that they are: "twenty five" is one, "five six" are two."""
    made: list[int] = []
    room, joined = 1, False  # what comes next is added when it is below `room`
    for word in re.findall(r"[a-z]+", run[0]):
        if word == "and":
            joined = True
            continue
        if word in _LARGE:
            base = made[-1] % _LARGE[word] if made else 1
            made[-1:] = [(made[-1] - base if made else 0) + base * _LARGE[word]]
            room = _LARGE[word]
        else:
            n = _WORDS[word]
            if n and n < room and (room >= 100 or not joined):
                made[-1] += n
            else:
                made.append(n)
            room = 10 if n >= 20 else 1
        joined = False
    return " ".join(map(str, made))
