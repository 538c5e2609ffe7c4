"""edge report: pages, tables, and comparisons that CI can stand on."""

import csv
import dataclasses
import io
import json

import pytest

from edge.cli import main
from edge.measurement import Measurement, to_json
from edge.report.limits import parse
from tests.fixed_run import HOSTILE, acting_run, fixed_run


def only_first(run, **measurements):
    [first, *_] = run.results
    taken = {**first.measurements, **{name: m for name, m in measurements.items()}}
    return dataclasses.replace(run, results=(dataclasses.replace(first, measurements=taken),))


@pytest.fixture
def write(tmp_path):
    def written(run, name):
        path = tmp_path / name
        path.write_text(to_json(run))
        return str(path)

    return written


@pytest.fixture
def pair(write):
    """A run, and one in which answers came at nine tenths of the speed."""
    first = only_first(fixed_run(), decode=Measurement("decode", "tok/s", (100.0, 101.0, 99.0, 100.5, 99.5)))
    second = only_first(fixed_run(), decode=Measurement("decode", "tok/s", (90.0, 91.0, 89.0, 90.5, 89.5)))
    return [write(first, "a.json"), write(second, "b.json")]


def test_a_page(write, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", write(fixed_run(), "a.json"), "-o", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out.strip() == str(out)


def test_markdown_is_a_table_that_nobody_can_break(write, capsys):
    assert main(["report", write(fixed_run(), "a.json"), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.replace("\\|", "").count("|") for row in rows} == {12}
    assert HOSTILE not in text
    assert "145.0 (140.0 to 150.0) tok/s" in text
    assert "50 mJ a token" in text


def test_markdown_says_why_sections_are_not_compared(write, capsys):
    run = fixed_run()
    other = dataclasses.replace(run, device={**run.device, "cpu": "Raspberry Pi 4"})
    assert main(["report", write(run, "a.json"), write(other, "b.json"), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "## Section 2 of 2" in text
    assert "Not compared with the first: cpu Raspberry Pi 5 and Raspberry Pi 4." in text


def test_csv_has_a_line_for_each_measurement(write, capsys):
    run = fixed_run()
    assert main(["report", write(run, "a.json"), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == sum(len(r.measurements) for r in run.results)
    [decode] = [r for r in rows if r["measurement"] == "decode" and r["format"] == "gguf"]
    assert (decode["median"], decode["unit"], decode["samples"], decode["group"]) == ("145", "tok/s", "3", "1")


def test_a_spreadsheet_does_not_compute_names(write, capsys):
    run = only_first(fixed_run())
    [result] = run.results
    named = dataclasses.replace(result, bundle={**result.bundle, "name": "=cmd()"})
    assert main(["report", write(dataclasses.replace(run, results=(named,)), "a.json"), "--format", "csv"]) == 0
    assert {r["bundle"] for r in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {"'=cmd()"}


def test_text_goes_into_a_file_too(write, tmp_path):
    out = tmp_path / "run.csv"
    assert main(["report", write(fixed_run(), "a.json"), "--format", "csv", "-o", str(out)]) == 0
    assert out.read_text().startswith("group,taken_at")


def test_a_comparison(pair, capsys):
    assert main(["report", "diff", *pair]) == 0
    [decode] = [line for line in capsys.readouterr().out.splitlines() if " decode " in line]
    assert "x0.900" in decode
    assert decode.endswith("differs")
    assert main(["report", "diff", *pair, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["decode"]["differs"]
    assert not rows["load_cold"]["differs"]


@pytest.mark.parametrize(
    ("conditions", "code", "words"),
    [
        ("decode<0.95", 3, "decode<0.95 for gguf q8_0: 0.900 (0.8"),
        ("decode<0.85", 0, ""),
        ("decode<95%", 3, "decode<95%"),
        ("peak_rss>1.1, decode<0.95", 3, "1 of what must not be came to be"),
        ("inter_token.p99>1.2", 0, ""),
        ("inter_token.p99>0.9", 3, "inter_token.p99>0.9"),
    ],
)
def test_a_gate_for_ci(pair, conditions, code, words, capsys):
    assert main(["report", "diff", *pair, "--fail-if", conditions]) == code
    assert words in capsys.readouterr().err


def test_a_gate_says_when_it_may_be_noise(write, capsys):
    runs = [
        write(only_first(fixed_run(), decode=Measurement("decode", "tok/s", samples)), name)
        for samples, name in (
            ((100.0, 60.0, 140.0, 120.0, 80.0), "a.json"),
            ((90.0, 130.0, 50.0, 110.0, 70.0), "b.json"),
        )
    ]
    assert main(["report", "diff", *runs, "--fail-if", "decode<0.95"]) == 3
    assert "within the noise" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["decode", "decode=1", "decode<", "<0.9", "decode<-1", "decode.p100<1"])
def test_what_is_no_condition(pair, text, capsys):
    assert main(["report", "diff", *pair, "--fail-if", text]) == 2
    assert "is no condition" in capsys.readouterr().err


def test_a_condition_on_what_was_never_measured_passes_no_gate(pair, capsys):
    assert main(["report", "diff", *pair, "--fail-if", "decoed<0.95"]) == 2
    assert "neither run measured 'decoed'" in capsys.readouterr().err
    assert [c.text for c in parse("a<1,b>2")] == ["a<1", "b>2"]


def test_few_repetitions_tell_no_difference(write, capsys):
    files = [
        write(only_first(fixed_run(), decode=Measurement("decode", "tok/s", (speed,))), f"{speed}.json")
        for speed in (100.0, 90.0)
    ]
    assert main(["report", "diff", *files]) == 0
    said = capsys.readouterr()
    assert "differs" not in said.out
    assert "fewer than 5 repetitions: what differs cannot be told" in said.err
    assert main(["report", "diff", *files, "--fail-if", "decode<0.95"]) == 3
    assert "0.900 (0.900 to 0.900, from fewer than 5 repetitions)" in capsys.readouterr().err


def test_a_gate_on_a_percentile_says_when_there_are_too_few_samples(write, capsys):
    slow = Measurement("inter_token", "ms", tuple(range(1, 21)), repeats=(4,) * 5)
    fast = dataclasses.replace(slow, samples=tuple(x / 2 for x in slow.samples))
    files = [write(only_first(fixed_run(), inter_token=m), f"{i}.json") for i, m in enumerate((fast, slow))]
    assert main(["report", "diff", *files, "--fail-if", "inter_token.p99>1.3"]) == 3
    assert "from too few samples for p99" in capsys.readouterr().err


def test_each_model_of_a_run_is_compared_with_itself(write, capsys):
    run = fixed_run()
    first = run.results[0]
    other = dataclasses.replace(first, bundle={**first.bundle, "name": "Another"})
    both = dataclasses.replace(run, results=(first, other))
    assert main(["report", "diff", write(both, "a.json"), write(both, "b.json"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows} == {"SmolLM2-135M-Instruct", "Another"}
    assert all(row["ratio"] == 1 for row in rows)
    assert main(["report", "diff", write(both, "a.json"), write(both, "b.json")]) == 0
    assert "Another gguf q8_0" in capsys.readouterr().out


def test_a_name_that_looks_like_a_line_of_a_table_is_none(write, capsys):
    run = only_first(fixed_run())
    [result] = run.results
    named = dataclasses.replace(result, bundle={**result.bundle, "name": "---|<b>|"})
    made = dataclasses.replace(run, results=(named,), command=("edge", "bench", "a\n\n# b"))
    assert main(["report", write(made, "a.json"), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "<b>" not in text
    assert "\n# b" not in text
    assert "| --- | ---: |" in text


def test_runs_of_different_models_are_not_compared(write, capsys):
    run = only_first(fixed_run())
    [result] = run.results
    other = dataclasses.replace(result, bundle={**result.bundle, "name": "Another"})
    files = [write(run, "a.json"), write(dataclasses.replace(run, results=(other,)), "b.json")]
    assert main(["report", "diff", *files]) == 2
    said = capsys.readouterr().err
    assert "the runs of gguf q8_0 cannot be compared: models SmolLM2-135M-Instruct and Another" in said
    assert main(["report", "diff", *files, "--force"]) == 0
    assert "cannot be compared" in capsys.readouterr().err


def test_runs_with_different_settings_are_not_compared(write, capsys):
    run = only_first(fixed_run())
    [result] = run.results
    other = dataclasses.replace(result, settings={**result.settings, "threads": 1})
    files = [write(run, "a.json"), write(dataclasses.replace(run, results=(other,)), "b.json")]
    assert main(["report", "diff", *files]) == 2
    assert "cannot be compared: threads 2 and 1" in capsys.readouterr().err


def test_an_unfit_or_unfinished_run_is_compared_with_a_word(write, capsys):
    run = only_first(fixed_run())
    [result] = run.results
    unfit = dataclasses.replace(run, results=(dataclasses.replace(result, fitness={"forced": True}),))
    files = [write(dataclasses.replace(run, complete=False), "a.json"), write(unfit, "b.json")]
    assert main(["report", "diff", *files]) == 0
    said = capsys.readouterr().err
    assert "the first run of gguf q8_0 was cut short" in said
    assert "the second run of gguf q8_0 was taken on an unfit machine" in said


def test_nothing_in_common(write, capsys):
    run = fixed_run()
    files = [write(dataclasses.replace(run, results=run.results[i : i + 1]), f"{i}.json") for i in (0, 1)]
    assert main(["report", "diff", *files]) == 2
    assert "no bundle of the same format and quantization in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["diff", "a.json"], "diff compares two runs"),
        (["diff", "a.json", "b.json", "-o", "x"], "diff prints a table"),
        (["diff", "a.json", "b.json", "--format", "csv"], "diff prints a table"),
        (["a.json", "--fail-if", "decode<1"], "go with diff"),
        (["none.json"], "there is no run at none.json"),
    ],
)
def test_what_makes_no_sense(argv, words, capsys):
    assert main(["report", *argv]) == 2
    assert words in capsys.readouterr().err


def test_acting_is_compared_by_stage(write, capsys):
    run = acting_run()
    slow = dataclasses.replace(run.results[0].measurements["act_intent"])
    slow = dataclasses.replace(slow, samples=tuple(2 * x for x in slow.samples))
    pair = [write(run, "a.json"), write(only_first(run, act_intent=slow), "b.json")]
    assert main(["report", "diff", *pair, "--json"]) == 0
    printed = capsys.readouterr()
    rows = {(row["bundle"], row["name"]): row for row in json.loads(printed.out)}
    assert rows["gguf q4_k_m", "act_intent"]["ratio"] == pytest.approx(2)
    assert rows["gguf q4_k_m", "act_intent"]["differs"]
    assert not rows["gguf q4_k_m", "act_execution"]["differs"]
    assert "fewer than" not in printed.err
    assert main(["report", "diff", *pair, "--fail-if", "act_intent>1.1"]) == 3
    assert "act_intent>1.1 for gguf q4_k_m: 2.000" in capsys.readouterr().err
    assert main(["report", "diff", *pair, "--fail-if", "decode<0.9"]) == 2
    assert "neither run measured 'decode'" in capsys.readouterr().err


def test_too_few_repetitions_of_acting_tell_no_difference(write, capsys):
    run = acting_run()
    few = dataclasses.replace(run.results[0].measurements["act_request"], samples=(1.0, 2.0, 3.0), repeats=(3,))
    path = write(only_first(run, act_request=few), "a.json")
    assert main(["report", "diff", path, path]) == 0
    assert "fewer than 5 repetitions" in capsys.readouterr().err


def test_acting_and_answering_are_not_compared(write, capsys):
    acted = acting_run().results[0]
    answered = fixed_run()
    alike = dataclasses.replace(answered.results[0], bundle=acted.bundle)
    pair = [
        write(dataclasses.replace(answered, results=(alike,)), "a.json"),
        write(dataclasses.replace(answered, results=(acted,)), "b.json"),
    ]
    assert main(["report", "diff", *pair]) == 2
    assert "cannot be compared: one measured answering, the other acting" in capsys.readouterr().err
    assert main(["report", *pair, "--format", "markdown"]) == 0
    assert "Not compared with the first: one measured answering, the other acting." in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["sing", [], [1], None])
def test_requests_that_are_none_are_damage(write, capsys, asked):
    path = write(acting_run(), "a.json")
    with open(path) as file:
        data = json.load(file)
    data["results"][0]["settings"]["act"] = asked
    with open(path, "w") as file:
        json.dump(data, file)
    assert main(["report", path]) == 1
    assert "which are no requests" in capsys.readouterr().err
