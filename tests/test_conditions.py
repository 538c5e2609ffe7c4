"""What a machine was like, in words, and what of it speaks against a measurement."""

import pytest

from edge import conditions, profile
from edge.devices import facts


def test_every_quantity_of_a_record_is_shown():
    shown = {key for _, key, _ in conditions._ROWS}
    assert set(facts.parse_state({}).record()) <= shown | {"clock_s"}
    assert set(profile.conditions().record()) <= shown


def test_what_was_not_told_is_not_measured():
    for _, *said in conditions.rows({}, [], {"temperature_c": None}):
        assert said == ["not measured"] * 3


def test_words_and_numbers_over_several_repetitions():
    during = [
        {"governor": "ondemand", "thermal_status": 0, "available_bytes": 2e9, "battery_percent": 80},
        {"governor": "performance", "thermal_status": 1, "available_bytes": 3e9, "battery_percent": 79},
        {"governor": "ondemand"},
    ]
    found = {name: said for name, _, said, _ in conditions.rows({}, during, {})}
    assert found["governor"] == "ondemand; performance"
    assert found["Android's thermal status"] == "none; light"
    assert found["free memory"] == "2.00 GB to 3.00 GB"
    assert found["battery"] == "79 % to 80 %"


@pytest.mark.parametrize(
    ("before", "later", "words"),
    [
        ({}, [{}], None),
        ({"throttled": "no"}, [{"throttled": "no"}, {"thermal_status": 0}], None),
        ({"throttled": "throttled before"}, [{"throttled": "throttled before"}], None),
        ({"throttled": "no"}, [{"throttled": "no"}, {"throttled": "throttled before"}], "throttled"),
        ({}, [{"throttled": "too little voltage now, throttled now"}], "too little voltage, throttled"),
        ({}, [{"thermal_status": 0}, {"thermal_status": 3}], "Android's thermal status is severe"),
        ({}, [{"others_share": 0.04, "stolen_share": None}], None),
    ],
)
def test_whoever_was_slowed_down_measured_that(before, later, words):
    assert conditions.remarks(before, later) == ([f"the device was slowed down meanwhile: {words}"] if words else [])


def test_who_else_was_at_work_meanwhile_is_remarked_upon():
    said = conditions.remarks({}, [{"others_share": 0.01}, {"others_share": 0.31, "stolen_share": 0.2}])
    assert said == [
        "other programs took up to 31 % of the processors meanwhile",
        "the hypervisor took up to 20 % of the processors meanwhile",
    ]
