"""What speaks against measuring a machine, in words."""

import pytest

from edge.fitness import judge

QUIET = {"others_share": 0.01, "stolen_share": 0.0, "swapped_pages": 0}


@pytest.mark.parametrize(
    ("state", "seen", "words"),
    [
        ({}, QUIET, None),
        ({}, {**QUIET, "others_share": 0.4}, "other programs use 40 % of the processors"),
        ({}, {**QUIET, "stolen_share": 0.3}, "the hypervisor takes 30 % of the processors' time"),
        ({}, {**QUIET, "swapped_pages": 12}, "the machine is swapping"),
        ({"load_average": 1.0}, {"others_share": None}, None),
        ({"load_average": 3.0}, {"others_share": None}, "the machine is busy (load 3.0 on 4 cores)"),
        ({"load_average": 9.0}, QUIET, None),  # a minute ago; now nobody is at work
        ({"throttled": "throttled before"}, QUIET, None),
        (
            {"throttled": "too little voltage now, throttled before"},
            QUIET,
            "the machine is slowed down: too little voltage now",
        ),
        ({"thermal_status": 3}, QUIET, "Android's thermal status is severe"),
        ({"available_bytes": 200e6}, QUIET, "200 MB of memory are free and 300 MB are needed"),
    ],
)
def test_what_speaks_against_it(state, seen, words):
    assert judge(state, seen, cores=4, needs_bytes=300_000_000).against == ((words,) if words else ())


def test_only_what_may_pass_is_waited_for():
    found = judge({"available_bytes": 1}, {"others_share": 0.9}, cores=2, needs_bytes=10)
    assert len(found.against) == 2
    assert found.passing == ("other programs use 90 % of the processors",)


def test_what_is_only_to_be_known():
    state = {"governor": "powersave", "battery_status": "Discharging", "battery_percent": 12}
    found = judge(state, {**QUIET, "others_share": 0.1}, cores=2, needs_bytes=None)
    assert found.against == ()
    [others, governor, battery] = found.notes
    assert others == "other programs use 10 % of the processors"
    assert governor.startswith("the governor is powersave")
    assert "battery (12 %)" in battery
    assert judge({"governor": "performance"}, QUIET, cores=2, needs_bytes=None).notes == ()
