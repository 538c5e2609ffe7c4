"""Numbers that were said, and those that were not."""

from __future__ import annotations

from typing import Any

import pytest

from edge.runtimes.act import amounts

WHOLE = {"type": "integer"}
ANY = {"type": "number"}
PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ten pens", [10]),
        ("twenty-five pens and thirty five stamps", [25, 35]),
        ("a hundred and twenty", [120]),
        ("two thousand three hundred and four", [2304]),
        ("one and two, five six", [1, 2, 5, 6]),
        ("1,000 pens", [1000]),
        ("-5.5 degrees, 30% and #7", [-5.5, 30, 7]),
        ("from 10-12", [10, 12]),
        ("a dozen", [12]),
        ("half a dozen eggs", [0.5, 6]),
        ("a couple of eggs", [2]),
        ("the second note", [2]),
        ("a note on mp3, a4 and list2.txt", []),
        ("The Third Man", []),
        ("pens, many, a few", []),
        ('note 2 to "gate 9"', [2]),
        ('set it to "21"', [21]),
    ],
)
def test_numbers_in_digits_and_in_words(text: str, found: list[float]) -> None:
    assert amounts.said(text) == found


@pytest.mark.parametrize(
    ("text", "name", "about", "found"),
    [
        ("for an hour", "minutes", WHOLE, [60]),
        ("for half an hour", "minutes", WHOLE, [30]),
        ("for three quarters of an hour", "minutes", WHOLE, [45]),
        ("for 1 hour and 30 minutes", "minutes", WHOLE, [90]),
        ("for two and a half hours", "minutes", WHOLE, [150]),
        ("for an hour and a half", "hours", ANY, [1.5]),
        ("for 2h", "time_s", {**WHOLE, "description": "in seconds"}, [7200]),
        ("bed 3 for ten minutes", "minutes", WHOLE, [10]),
        ("for a week", "days", WHOLE, [7]),
        ("for 90 seconds", "minutes", WHOLE, []),
        ("for half an hour", "duration", WHOLE, []),
        ("an alarm at 7", "hour", WHOLE, [7]),
        ("an alarm at seven", "minute", WHOLE, [0]),
        ("an alarm at half past seven", "minute", WHOLE, [30]),
        ("an alarm at quarter to eight", "hour", WHOLE, [7]),
        ("an alarm at 7:05 pm", "hour", WHOLE, [19]),
        ("an alarm at noon", "hour", WHOLE, [12]),
        ("charge it fully", "percent", WHOLE, [100]),
        ("volume to the maximum", "level", {**WHOLE, "maximum": 11}, [11]),
        ("light to the minimum", "level", PERCENT, [0]),
        ("blinds down half", "level", PERCENT, [50]),
        ("level 300", "level", PERCENT, []),
        ("at 2.5", "level", PERCENT, []),
        ("set a timer", "minutes", WHOLE, []),
    ],
)
def test_what_an_argument_can_be(text: str, name: str, about: dict[str, Any], found: list[float]) -> None:
    assert amounts.values(text, name, about) == found


def test_what_needs_not_to_be_said() -> None:
    assert amounts.settled({"type": "integer", "default": 3}) == [3]
    assert amounts.settled({"type": "integer", "minimum": 4, "maximum": 4}) == [4]
    assert amounts.settled({"type": "integer", "minimum": 1, "maximum": 4}) == []
    assert amounts.settled({"type": ["integer", "null"]}) == [None]


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"type": ["integer", "null"], "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"type": ["integer", "number"]}, {"type": "number"}),
        ({"oneOf": [{"type": "null"}, {"type": "number"}], "title": "N"}, {"type": "number", "title": "N"}),
        ({"type": ["integer", "string"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, None),
        ({"type": "string"}, None),
        ({}, None),
        (True, None),
    ],
)
def test_which_arguments_are_numbers(about: Any, found: dict[str, Any] | None) -> None:
    assert amounts.number(about) == found
