"""edge bench, on the bundle without weights: what it keeps, what it refuses, what it says."""

import json

import pytest

from edge import measurement
from edge.cli import main
from edge.commands import _places, bench
from edge.errors import EdgeError
from tests.tiny_bundle import tiny_bundle

SMALL = ["--prompt-tokens", "8,16", "--depths", "16", "--new-tokens", "4", "--repeats", "2", "--threads", "1"]


@pytest.fixture
def folder(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.fixture
def answers(monkeypatch):
    """A worker in this process: what it answers can be changed."""
    from edge.runtimes import bench_worker, meter

    changes = {"probe": {"seen": {"others_share": 0.0, "stolen_share": 0.0, "swapped_pages": 0}}}
    monkeypatch.setattr(meter, "_PROBE_BYTES", 1 << 20)
    monkeypatch.setattr(meter, "_PROBE_S", 0.01)
    monkeypatch.setattr(bench_worker, "_LOOK_S", 0.0)

    def measure(place, request):
        change = changes.get(request["do"], {})
        if callable(change):
            change = change()
        return {**bench_worker.run({**request, "bundle": place.name}), **change}

    monkeypatch.setattr(_places.Here, "measure", measure)
    return changes


def taken(path):
    run = measurement.read(path)
    [result] = run.results
    return run, result


@pytest.mark.runtime
def test_the_whole_of_it_in_processes_of_its_own(folder, tmp_path, capsys):
    out = tmp_path / "run.json"
    assert main(["bench", folder, *SMALL, "--repeats", "1", "--sustain", "1", "--force", "-o", str(out)]) == 0
    run, result = taken(out)
    assert run.schema_version == 2
    assert run.complete
    assert run.machine["read_bandwidth_bytes_per_s"] > 1e8
    assert {"load_cold", "load_warm", "first_word_cold", "ttft_8", "prefill_16", "decode", "decode_at_16"} <= set(
        result.measurements
    )
    assert len(result.measurements["inter_token"].samples) == 4
    assert result.measurements["inter_token"].repeats == (4,)
    assert len(result.measurements["warm_up"].samples) == 8
    assert result.sustained[-1]["at_s"] >= 1
    assert result.energy["source"]
    assert result.settings["depths"] == [8, 16]
    parts = [result.median(f"held_{k}") for k in ("weights", "libraries", "private")]
    assert sum(parts) == result.median("held_rss")
    said = capsys.readouterr()
    for words in ("p50/p90/p95/p99", "answer after 8", "answer after 16", "PSS", "sustained", "energy"):
        assert words in said.out
    assert "\x1b" not in said.err  # nothing is drawn when nobody looks


def test_an_unfit_machine_is_refused_and_measured_when_told(folder, tmp_path, answers, capsys, monkeypatch):
    monkeypatch.setattr(bench, "_PATIENCE_S", 0)
    answers["probe"] = {"seen": {"others_share": 0.5, "stolen_share": 0.0, "swapped_pages": 0}}
    out = tmp_path / "run.json"
    assert main(["bench", folder, *SMALL, "-o", str(out)]) == 4
    said = capsys.readouterr().err
    assert "the machine is unfit to be measured: other programs use 50 % of the processors" in said
    assert "--force" in said
    assert not out.exists()
    assert main(["bench", folder, *SMALL, "-o", str(out), "--force"]) == 0
    _, result = taken(out)
    assert result.fitness["forced"]
    assert "measured although the machine was unfit: other programs use 50 % of the processors" in result.notes


def test_a_machine_that_becomes_quiet_is_waited_for(folder, answers, capsys):
    looks = iter([0.9, 0.9, 0.0, 0.0])
    answers["probe"] = lambda: {"seen": {"others_share": next(looks), "stolen_share": 0.0, "swapped_pages": 0}}
    assert main(["bench", folder, *SMALL]) == 0
    assert "unfit" not in capsys.readouterr().err


def test_a_run_cut_short_keeps_what_it_has(folder, tmp_path, answers, capsys):
    out = tmp_path / "run.json"
    turns = iter(range(9))

    def fails_at_the_second():
        if next(turns) == 1:
            raise EdgeError("the link broke")
        return {}

    answers["answer"] = fails_at_the_second
    assert main(["bench", folder, *SMALL, "-o", str(out)]) == 1
    run, result = taken(out)
    assert not run.complete
    assert len(result.measurements["decode"].samples) == 1
    assert "cut short: the link broke" in result.notes
    assert "the link broke" in capsys.readouterr().err


def test_stopped_before_anything_was_measured(folder, tmp_path, answers, capsys):
    def stop():
        raise KeyboardInterrupt

    answers["load"] = stop
    assert main(["bench", folder, *SMALL, "-o", str(tmp_path / "run.json")]) == 130
    assert not (tmp_path / "run.json").exists()
    assert "edge: stopped" in capsys.readouterr().err


def rates(monkeypatch, answers, values):
    turn = iter(values)

    def answered():
        ms = 1e3 / next(turn)
        return {"answers": {n: {"first_s": 0.1, "gaps_ms": [ms] * 4, "total_s": 1.0} for n in ("8", "16")}}

    answers["answer"] = answered


def test_until_stable_stops_when_it_is(folder, tmp_path, answers, monkeypatch):
    out = tmp_path / "run.json"
    rates(monkeypatch, answers, [100, 50, 100, 100, 100, 100, 100, 100, 100, 100])
    assert main(["bench", folder, *SMALL, "--until-stable", "2", "--most", "10", "-o", str(out)]) == 0
    _, result = taken(out)
    n = len(result.measurements["decode"].samples)
    assert 3 < n < 10
    assert f"stable within 2 % after {n} repetitions" in result.notes


def test_until_stable_has_a_bound(folder, tmp_path, answers, monkeypatch):
    out = tmp_path / "run.json"
    rates(monkeypatch, answers, [100, 50] * 4)
    assert main(["bench", folder, *SMALL, "--until-stable", "2", "--most", "6", "-o", str(out)]) == 0
    _, result = taken(out)
    assert "not stable within 2 % after 6 repetitions" in result.notes


def test_few_repetitions_and_what_does_not_fit_are_said(folder, tmp_path, answers, capsys):
    out = tmp_path / "run.json"
    assert main(["bench", folder, *SMALL, "--repeats", "1", "--depths", "16,5000", "-o", str(out)]) == 0
    _, result = taken(out)
    assert "fewer than 5 repetitions: its intervals say less than 95 %" in result.notes
    assert "left out, for they do not fit the context of 1024 tokens: 5000" in result.notes
    shown = capsys.readouterr().out
    assert "/ - / - / - ms" in shown
    [line] = [line for line in shown.splitlines() if line.startswith("answer after 16")]
    assert "(" not in line


def test_notes_of_two_bundles_alike_have_their_names(folder, tmp_path, answers, capsys):
    tiny_bundle(tmp_path / "other", name="other")
    turns = iter([3, 0, 0, 0])
    seen = {"others_share": 0, "stolen_share": 0, "clock_jumped_s": 0.0, "asleep_s": 0.0}
    answers["answer"] = lambda: {"seen": {**seen, "swapped_pages": next(turns)}}
    assert main(["bench", folder, str(tmp_path / "other"), *SMALL]) == 0
    assert "edge: tiny echo none: the machine swapped meanwhile" in capsys.readouterr().err


def test_a_repetition_that_does_not_end_is_an_error_and_lasting_work_has_its_time(folder, monkeypatch, capsys):
    assert _places._timeout_s({"seconds": 7200.0}) == 7200 + _places._timeout_s({})
    monkeypatch.setattr(_places, "_TIMEOUT_S", 0.01)
    assert main(["bench", folder, *SMALL, "--force"]) == 1
    assert "cannot be measured: no end after 0.01 s" in capsys.readouterr().err
    from edge.commands import profile

    monkeypatch.setattr(profile, "_TIMEOUT_S", 0.01)
    assert main(["profile", folder]) == 1
    assert "cannot be profiled: no end after 0.01 s" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "words"), [("0,4", "a prompt has one token or more"), ("a", "is no list of numbers")])
def test_lengths_that_are_none(folder, text, words, capsys):
    with pytest.raises(SystemExit):
        main(["bench", folder, "--prompt-tokens", text])
    assert words in capsys.readouterr().err


def test_energy_is_of_every_token_that_was_made(monkeypatch):
    """A token that was computed while the machine was looked at has no time, and took energy as the others did."""
    from types import SimpleNamespace

    from edge.runtimes import meter
    from edge.runtimes.session import Token

    now_s, made = [0.0], []

    def generate(session, ids, sampling):
        for i in range(sampling.max_tokens):
            now_s[0] += 0.4
            made.append(i)
            yield Token(i, round(1e9 * now_s[0]))

    monkeypatch.setattr(meter, "generate", generate)
    monkeypatch.setattr(meter, "prompt_ids", lambda model, n: [1] * n)
    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    model = SimpleNamespace(session=SimpleNamespace(rewind=lambda n: None), context_length=24)
    points = list(meter.sustain(model, 20.0, dict))
    assert sum(point["made"] for point in points) == len(made)
    assert sum(point["tokens"] for point in points) < len(made)
    assert {round(point["tokens_per_s"], 3) for point in points} == {2.5}


def test_a_clock_that_jumped_and_a_swap_are_said(folder, tmp_path, answers):
    out = tmp_path / "run.json"
    seen = {"others_share": 0, "stolen_share": 0, "swapped_pages": 3, "clock_jumped_s": -7.0, "asleep_s": 60.0}
    answers["answer"] = {"seen": seen}
    assert main(["bench", folder, *SMALL, "-o", str(out)]) == 0
    _, result = taken(out)
    for words in ("the machine's clock jumped by -14.0 s", "slept for 120 s", "the machine swapped meanwhile"):
        assert [note for note in result.notes if words in note], words


def test_a_device_that_cools_itself_by_being_slow(folder, tmp_path, answers):
    out = tmp_path / "run.json"
    points = [{"at_s": float(i), "tokens": 9, "tokens_per_s": v} for i, v in enumerate((100.0, 99.0, 80.0, 60.0))]
    answers["sustain"] = {"sustained": points, "energy": {"source": "not measured"}}
    assert main(["bench", folder, *SMALL, "--sustain", "0.1", "-o", str(out)]) == 0
    _, result = taken(out)
    assert "it slowed down under lasting work: from 100.0 to 60.0 tok/s" in result.notes


def test_lasting_work_that_was_slow_from_the_beginning(folder, tmp_path, answers):
    out = tmp_path / "run.json"
    points = [{"at_s": float(i), "tokens": 9, "tokens_per_s": 0.5} for i in range(4)]
    answers["sustain"] = {"sustained": points, "energy": {"source": "not measured"}}
    assert main(["bench", folder, *SMALL, "--sustain", "0.1", "-o", str(out)]) == 0
    _, result = taken(out)
    assert [
        note for note in result.notes if note.startswith("lasting work began at 0.5 tok/s, where single answers had")
    ]


def test_a_worker_of_an_older_edge(folder, answers, capsys):
    answers["probe"] = {"version": None}
    assert main(["bench", folder, *SMALL]) == 1
    assert "was put there by an edge that measures less than this one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--threads", "0"], "--threads must be 1 or more"),
        (["--sustain", "0"], "--sustain must be more than 0"),
        (["--until-stable", "nan"], "--until-stable must be more than 0"),
        (["--until-stable", "1", "--most", "1"], "--most 1 is less than --repeats 2"),
        (["--new-tokens", "5000"], "5000 new tokens after 8 do not fit the context of 1024 tokens"),
        (["--prompt-tokens", "5000"], "fits the context of 1024 tokens"),
        (["-o", "."], "is a folder"),
    ],
)
def test_what_makes_no_sense(folder, argv, words, capsys):
    assert main(["bench", folder, *SMALL, *argv]) == 2
    assert words in capsys.readouterr().err


def test_full_asks_for_more_than_the_default(folder, tmp_path, answers):
    out = tmp_path / "run.json"
    argv = ["--full", "--repeats", "1", "--new-tokens", "2", "--sustain", "0.05", "-o", str(out)]
    assert main(["bench", folder, *argv]) == 0
    _, result = taken(out)
    assert result.settings["prompt_tokens"] == [16, 128, 512, 1024]
    assert result.settings["depths"] == [16, 512]  # what the context of 1,024 has room for


def test_json_is_the_run(folder, answers, capsys):
    assert main(["bench", folder, *SMALL, "--json"]) == 0
    run = measurement.parse(json.loads(capsys.readouterr().out), "stdout")
    assert run.results[0].bundle["name"] == "tiny"


def test_weights_that_a_store_links_to_are_weights(folder, tmp_path):
    """Where a system has no hard links, a mapping has the name of what the link leads to."""
    from pathlib import Path

    from edge.runtimes import bench_worker

    (Path(folder) / "model.bin").rename(tmp_path / "sha256-1")
    (Path(folder) / "model.bin").symlink_to(tmp_path / "sha256-1")
    assert str(tmp_path / "sha256-1") in bench_worker._weights(Path(folder))


def test_the_worker_knows_what_it_can_do(tmp_path):
    from edge.runtimes import bench_worker

    with pytest.raises(EdgeError, match="the bench worker knows no 'dance'"):
        bench_worker.run({"do": "dance"})


def test_what_acting_takes_stage_by_stage(tmp_path, capsys, answers, monkeypatch):
    from edge.runtimes.act import measured
    from tests.runtimes.act.test_mind import SHOWS, told

    tiny_bundle(tmp_path / "acts", template=SHOWS)
    wishes = (
        measured.Wanted(told("read_file", path="todo.txt")),
        measured.Wanted(told("delete_file", path="draft.txt"), letter="x"),
        measured.Wanted("sing"),
    )
    monkeypatch.setattr(measured, "run", lambda model, real=measured.run: real(model, wishes))
    out = tmp_path / "run.json"
    assert main(["bench", str(tmp_path / "acts"), "--act", "--repeats", "2", "--force", "-o", str(out)]) == 0
    _, result = taken(out)
    assert result.settings["act"] == [wanted.request for wanted in wishes]
    assert {f"act_{stage}" for stage in measured.STAGES} <= set(result.measurements)
    assert result.measurements["act_request"].repeats == (3, 3)
    assert result.measurements["act_actions"].samples == (1, 1, 0, 1, 1, 0)
    assert result.measurements["act_action"].repeats == (2, 2)
    stages = sum(result.measurements[f"act_{stage}"].samples[0] for stage in measured.STAGES)
    assert 0 < stages <= result.measurements["act_request"].samples[0]
    said = capsys.readouterr().out
    assert "p50" in said
    assert "execution" in said
    assert "2 of 3 requests led to 2 actions" in said
    assert main(["report", str(out), "-o", str(tmp_path / "page.html")]) == 0
    assert "execution: tools do it" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["report", str(out), "--format", "csv"]) == 0
    assert "act_execution" in capsys.readouterr().out
    assert main(["report", "diff", str(out), str(out)]) == 0
    assert main(["bench", str(tmp_path / "acts"), "--act", "--full"]) == 2
    assert "--act has requests of its own" in capsys.readouterr().err


def test_a_model_that_cannot_act_is_not_measured_so(folder, answers, capsys):
    assert main(["bench", folder, "--act", "--force"]) == 2
    assert "tiny cannot act" in capsys.readouterr().err
