"""Days and times as people and small models write them: `2026-11-26 09:30`, `tomorrow at nine`, `in half an hour`."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

from edge.runtimes.act import amounts
from edge.runtimes.act.ran import ToolError

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NEAR = {"today": 0, "tonight": 0, "tomorrow": 1, "yesterday": -1}
_UNITS_S = {"second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "m": 60, "hour": 3600, "h": 3600, "day": 86400}
_UNITS_S["week"] = 7 * 86400
_SPAN = re.compile(r"(\d{1,6}(?:\.\d+)?|an?)\s*([a-z]+)")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d{2}))?\s*(am|pm|o'clock)?")
_FORMS = "write it like '2026-11-26 09:30', 'tomorrow 9:30', 'friday' or 'in 20 minutes'"


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` means; a time without a day is the next one to come. Raises `ToolError` for no time.

    >>> str(moment("tomorrow at 9:30", datetime(2026, 11, 25, 21, 0)))
    '2026-11-26 09:30:00'
    """
    words = _plain(text)
    if words.startswith("in "):
        return now + timedelta(seconds=span_s(words[3:]))
    on, rest = _day(words, now.date())
    at = _clock(rest.removeprefix("at ").strip()) if rest else None
    if at is None and (rest or on is None):
        raise ToolError(f"{text!r} is no time", hint=_FORMS)
    assert on is not None or at is not None
    if on is None:
        assert at is not None
        found = datetime.combine(now.date(), at)
        return found if found > now else found + timedelta(days=1)
    return datetime.combine(on, at or time(0))


def day(text: str, now: datetime) -> date:
    """The day that `text` means. Raises `ToolError` for none."""
    found, _ = _day(_plain(text) or "today", now.date())
    if found is None:
        raise ToolError(f"{text!r} is no day", hint=_FORMS)
    return found


def with_day(value: str, said: str) -> str:
    """A time of day with the day that stands beside it in what was said; other values as they are.

    >>> with_day("11:45", "reserve the hall for friday 11:45")
    'friday 11:45'
    """
    if _clock(_plain(value).removeprefix("at ").strip()) is None:
        return value
    days, bare = rf"(?:(?:next|this) )?(?:{'|'.join((*_DAYS, *_NEAR))})", re.escape(value)
    if before := re.search(rf"\b{days},?(?: at)? {bare}(?!\w)", said, re.IGNORECASE):
        return before[0]
    behind = re.search(rf"(?<!\w){bare},?(?: on)? ({days})\b", said, re.IGNORECASE)
    return f"{behind[1]} {value}" if behind else value


def span_s(text: str) -> int:
    """How long `text` is, in seconds: `90`, `20 minutes`, `1 hour 30 minutes`. Raises `ToolError` for none.

    >>> span_s("1 hour and 30 minutes")
    5400
    """
    words = _plain(text).replace(" and ", " ")
    if words.isdigit():
        return _checked(int(words), text)
    total, at = 0.0, 0
    for found in _SPAN.finditer(words):
        unit = _UNITS_S.get(found[2], _UNITS_S.get(found[2].removesuffix("s")))
        if unit is None or words[at : found.start()].strip():
            raise ToolError(f"{text!r} is no length of time", hint="write it like '20 minutes' or '1 hour 30 minutes'")
        total += (float(found[1]) if found[1][0].isdigit() else 1) * unit
        at = found.end()
    if total < 1 or words[at:].strip():
        raise ToolError(f"{text!r} is no length of time", hint="write it like '20 minutes' or '1 hour 30 minutes'")
    return _checked(round(total), text)


def _checked(seconds: int, text: str) -> int:
    if not 0 < seconds <= 366 * 86400:
        raise ToolError(f"{text!r} is not between a second and a year")
    return seconds


def _plain(text: str) -> str:
    plain = re.sub(r"['’]s\b", "", amounts.in_digits(text))  # "tomorrow's meetings"
    return " ".join(plain.split()).removeprefix("on ").rstrip(".")


def _day(words: str, today: date) -> tuple[date | None, str]:
    """The day that `words` begin with, and the rest; the next such day for the name of one."""
    first, _, rest = words.partition(" ")
    stamp, mark, clock = first.partition("t")
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", stamp):
        try:
            return date.fromisoformat(stamp), (clock if mark else rest)
        except ValueError as err:
            raise ToolError(f"{stamp!r} is no day of the calendar", hint=_FORMS) from err
    if first in _NEAR:
        return today + timedelta(days=_NEAR[first]), rest
    name = rest.partition(" ")[0] if first in ("next", "this") else first
    if name in _DAYS:
        ahead = (_DAYS.index(name) - today.weekday() - 1) % 7 + 1
        return today + timedelta(days=ahead), (rest.partition(" ")[2] if first in ("next", "this") else rest)
    return None, words


def _clock(words: str) -> time | None:
    if re.fullmatch(r"\w+(?: minutes?)? (?:past|to) \d+", words) and (named := amounts.times_of_day(words)):
        return time(*named[0]) if 0 <= named[0][1] < 60 else None
    found = _CLOCK.match(words)
    if not found or words[found.end() :].removeprefix(":00").strip():
        return None
    hour, minute, half = int(found[1]), int(found[2] or 0), found[3]
    if half in ("am", "pm"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    return time(hour, minute) if hour < 24 and minute < 60 else None
