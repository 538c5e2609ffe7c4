"""Raw samples, and the statistics that are computed when they are read."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import measurement
from edge.errors import InputError, UsageError
from edge.measurement import Measurement, parse, ratio, read, to_json
from tests.fixed_run import fixed_run

numbers = st.floats(min_value=1e-6, max_value=1e9)


@given(st.lists(numbers, min_size=1, max_size=50))
def test_percentiles_lie_between_the_samples_and_rise(samples):
    taken = Measurement("x", "ms", tuple(samples))
    found = [taken.percentile(p) for p in (0, 5, 50, 95, 100)]
    assert found == sorted(found)
    assert found[0] == min(samples)
    assert found[-1] == max(samples)
    assert found[2] == pytest.approx(taken.median)


@given(st.lists(numbers, min_size=1, max_size=30))
def test_the_interval_holds_the_median_and_is_always_the_same(samples):
    taken = Measurement("x", "ms", tuple(samples))
    low, high = taken.interval()
    assert min(samples) <= low <= high <= max(samples)
    assert taken.interval() == (low, high)


def test_a_ratio_of_something_to_itself_is_one():
    taken = Measurement("decode", "tok/s", (100.0, 101.0, 99.0, 100.5))
    found, low, high = ratio(taken, taken)
    assert found == 1
    assert low <= 1 <= high
    assert ratio(Measurement("x", "s", (0.0,)), taken)[0] == float("inf")
    nothing = Measurement("held_swapped", "bytes", (0.0, 0.0))
    assert ratio(nothing, nothing) == (1.0, 1.0, 1.0)


def test_a_percentile_of_too_few_samples_is_none():
    taken = Measurement("x", "ms", tuple(map(float, range(99))))
    assert taken.tail(99) is None
    assert taken.tail(95) == taken.percentile(95)
    assert Measurement("x", "ms", (*taken.samples, 99.0)).tail(99) == pytest.approx(98.01)
    assert Measurement("x", "ms", (3.0,)).tail(50) == 3.0


def test_a_run_survives_being_written_and_read(tmp_path):
    run = fixed_run()
    path = tmp_path / "run.json"
    path.write_text(to_json(run))
    assert read(path) == run


def test_results_that_depend_on_other_things_are_in_other_groups():
    run = fixed_run()
    [first, *_] = run.results
    key = run.group_of(first)
    other_threads = dataclasses.replace(first, settings={**first.settings, "threads": 1})
    assert run.group_of(other_threads) != key
    assert run.group_of(dataclasses.replace(first, emulated=True)) != key
    other_machine = dataclasses.replace(run, device={**run.device, "cpu": "another"})
    assert other_machine.group_of(first) != key
    assert run.group_of(dataclasses.replace(first, after={"load_average": 9.0})) == key


def test_samples_of_one_repetition_are_drawn_together():
    """Ten alike samples of each of three repetitions are three samples and not thirty."""
    samples = tuple(x for x in (5.0, 6.0, 9.0) for _ in range(10))
    together = Measurement("inter_token", "ms", samples, repeats=(10, 10, 10))
    assert together.interval() == (5.0, 9.0)
    low, high = Measurement("inter_token", "ms", samples).interval()
    assert high - low < 4.0
    assert together.interval(99)[1] == 9.0
    assert Measurement("x", "ms", (1.0, 2.0, 3.0), repeats=(3,)).interval(99) == pytest.approx((2.98, 2.98))


def test_a_run_of_the_first_schema_is_read():
    run = read(Path(__file__).parent / "golden" / "run-schema-1.json")
    [result] = run.results
    assert result.median("decode") == 145.0
    assert (result.sustained, dict(result.traffic), result.energy_words) == ((), {}, "not measured")
    assert result.depths() == [(0, "decode", "inter_token")]
    assert result.roofline(30e9) is None
    assert run.complete


def test_repetitions_that_do_not_add_up_are_damage(tmp_path):
    data = json.loads(to_json(fixed_run()))
    data["results"][0]["measurements"]["inter_token"]["repeats"] = [1, 1]
    with pytest.raises(InputError, match="is damaged"):
        parse(data, "run.json")


def test_the_roofline_counts_what_a_token_reads():
    [first, *_] = fixed_run().results
    result = dataclasses.replace(
        first,
        settings={**first.settings, "depths": [100], "new_tokens": 0},
        traffic={"weights_bytes": 100e6, "kv_bytes_per_token": 10e3},
    )
    assert result.roofline(30e9) == pytest.approx(145 * 101e6 / 30e9)
    assert result.roofline(None) is None


def test_energy_has_a_source_or_was_not_measured():
    [first, *_] = fixed_run().results
    energy = {"source": "RAPL package-0", "joules": 5.0, "tokens": 100}
    assert dataclasses.replace(first, energy=energy).energy_words == "50 mJ a token (RAPL package-0)"
    assert dataclasses.replace(first, energy={"source": "not measured"}).energy_words == "not measured"


def test_a_missing_run(tmp_path):
    with pytest.raises(UsageError, match="there is no run at"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "is no run of edge bench"),
        ('{"results": [], "schema_version": 7}', "has run schema 7, this edge reads 1 to 2"),
        ('{"results": []}', "has run schema None, this edge reads 1 to 2"),
        ('{"results": [{}], "schema_version": 1}', "is damaged"),
        ('{"results": [{}], "schema_version": 2}', "is damaged"),
        ('{"results": 3, "schema_version": 1}', "is damaged"),
    ],
)
def test_damaged_runs(tmp_path, text, words):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_run_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "_LIMIT_BYTES", 10)
    path = tmp_path / "run.json"
    path.write_text(to_json(fixed_run()))
    with pytest.raises(InputError, match="larger than a run can be"):
        read(path)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("machine", "read_bandwidth_bytes_per_s"), "fast", "read_bandwidth_bytes_per_s is 'fast', which is no number"),
        (("device", "features"), 5, "features are no list"),
        (("results", 0, "bundle", "size_bytes"), "x", "size_bytes is 'x'"),
        (("results", 0, "bundle", "memory"), 5, "5 is no table"),
        (("results", 0, "bundle", "quality"), {"logits": {"mean_kld": float("nan")}}, "mean_kld is nan"),
        (("results", 0, "settings", "depths"), [None], "depths is .* which are no lengths"),
        (("results", 0, "settings", "prompt_tokens"), [], "prompt_tokens is .* which are no lengths"),
        (("results", 0, "traffic", "by_type"), 5, "5 is no table"),
        (("results", 0, "energy", "joules"), "x", "joules is 'x'"),
        (("results", 0, "sustained"), [{}], "a point of lasting work has no time"),
        (("results", 0, "during"), [{"others_share": "x"}], "others_share is 'x'"),
    ],
)
def test_a_run_of_odd_types_is_damaged(place, value, words):
    data = json.loads(to_json(fixed_run()))
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(InputError, match=f"is damaged: .*{words}"):
        parse(data, "run.json")


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], ["fast"], [10**400]])
def test_samples_that_are_no_numbers(samples):
    data = json.loads(to_json(fixed_run()))
    data["results"][0]["measurements"]["decode"]["samples"] = samples
    with pytest.raises(InputError, match="is damaged"):
        parse(data, "run.json")
