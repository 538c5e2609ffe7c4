"""The order of a sweep with nobody at work: lines, resumption, losses, failures."""

from __future__ import annotations

import pytest

from edge.devices import profiles
from edge.errors import UsageError
from edge.export.artifact import Need
from edge.progress import Silent
from edge.sweep import run as runs
from edge.sweep.cell import Cell
from edge.sweep.order import Place
from edge.sweep.prepare import Task, Unfit
from edge.sweep.results import Results
from tests.sweep.lines import outcome

PI = {"pi4": profiles.read("pi4")}


def task(name: str, *shares: str, **cell) -> Task:
    return Task(Cell(name, "gguf", "8bit", **cell), name, f"{name}-id", Need(1, 0, 0), tuple((s,) for s in shares))


class Pretend:
    """A crew whose cells come out as `says` has it, one after the other; an exception is raised."""

    def __init__(self, says, seats=2):
        self.says = {name: list(found) for name, found in says.items()}
        self.seats, self.at_work, self.started, self.closed = seats, [], [], False

    def places(self):
        return [Place("here", "cache", (0, 1), self.seats)]

    def start(self, running, request):
        self.at_work.append(running.task)
        self.started.append((running.task.key, len(self.at_work), request))

    def wait(self, timeout_s):
        done = self.at_work.pop(0)
        found = self.says[done.key].pop(0)
        if isinstance(found, BaseException):
            raise found
        return [(done, found)]

    def close(self):
        self.closed = True


@pytest.fixture
def sweep(tmp_path):
    """`sweep(tasks, says)`: the crew, and the lines by key."""

    def go(tasks, says, devices=PI):
        crew, results = Pretend(says), Results(tmp_path)
        try:
            runs.run(tasks, results, crew, devices, {}, Silent())
        finally:
            results.close()
            assert crew.closed
            go.lines = {t.key: results.get(t.key) for t in tasks if results.get(t.key)}
        return crew, go.lines

    return go


def test_a_line_says_all_about_its_cell(sweep):
    _, lines = sweep([task("a")], {"a": [outcome()]})
    line = lines["a"]
    assert (line["model"], line["label"], line["command"]) == (
        "a",
        "gguf 8bit",
        "edge export a --format gguf --quant 8bit",
    )
    assert (line["status"], line["size_bytes"], line["mean_kld"], line["where"]) == ("passed", 10**8, 0.01, "here")
    made = line["predictions"]["pi4"]
    assert made["tokens_per_s"]["low"] < made["tokens_per_s"]["expected"] < made["tokens_per_s"]["high"]
    assert made["memory_bytes"] > 10**8
    assert made["against"] == []
    assert any("unproven" in note for note in made["notes"])


def test_what_fails_stops_nothing(sweep):
    unfit = Unfit(Cell("gone", "gguf", "8bit"), "gone", UsageError("no such model", hint="look"))
    says = {"a": [{"status": "failed", "why": "it broke"}], "b": [outcome()], "c": [outcome(status="refused")]}
    _, lines = sweep([unfit, task("a"), task("b"), task("c")], says)
    assert {k: v["status"] for k, v in lines.items()} == {
        "gone": "failed",
        "a": "failed",
        "b": "passed",
        "c": "refused",
    }
    assert lines["gone"]["why"] == "no such model"
    assert lines["a"]["predictions"] == {}


def test_what_is_there_is_not_done_again_and_what_failed_is(sweep):
    tasks = [task("a"), task("b"), task("c")]
    sweep(
        tasks, {"a": [outcome()], "b": [{"status": "failed", "why": "x"}], "c": [{"status": "impossible", "why": "y"}]}
    )
    crew, lines = sweep(tasks, {"b": [outcome()]})
    assert [name for name, *_ in crew.started] == ["b"]
    assert lines["b"]["status"] == "passed"


def test_a_new_device_needs_no_export(sweep):
    sweep([task("a")], {"a": [outcome()]})
    crew, lines = sweep([task("a")], {}, {**PI, "pi5": profiles.read("pi5")})
    assert not crew.started
    assert set(lines["a"]["predictions"]) == {"pi4", "pi5"}


def test_a_device_that_is_known_better_is_predicted_anew(sweep):
    from dataclasses import replace

    _, lines = sweep([task("a")], {"a": [outcome()]})
    before = lines["a"]["predictions"]["pi4"]
    _, lines = sweep([task("a")], {}, {"pi4": replace(PI["pi4"], ram_bytes=10**8, system_bytes=0)})
    assert not before["against"]
    assert lines["a"]["predictions"]["pi4"]["against"]


def test_a_sweep_that_is_stopped_keeps_its_lines_and_goes_on(sweep):
    tasks = [task("a"), task("b")]
    with pytest.raises(KeyboardInterrupt):
        sweep(tasks, {"a": [outcome()], "b": [KeyboardInterrupt()]})
    assert set(sweep.lines) == {"a"}
    crew, lines = sweep(tasks, {"b": [outcome()]})
    assert [name for name, *_ in crew.started] == ["b"]
    assert set(lines) == {"a", "b"}


def test_what_shares_a_stage_starts_after_it(sweep):
    says = {name: [outcome()] for name in "abc"}
    crew, _ = sweep([task("a", "x"), task("b", "x"), task("c", "x")], says)
    assert [(name, n) for name, n, _ in crew.started] == [("a", 1), ("b", 1), ("c", 2)]


def test_a_stage_whose_cell_failed_is_made_by_the_next(sweep):
    says = {"a": [{"status": "failed", "why": "x"}], "b": [outcome()], "c": [outcome()]}
    crew, _ = sweep([task("a", "x"), task("b", "x"), task("c", "x")], says)
    assert [(name, n) for name, n, _ in crew.started] == [("a", 1), ("b", 1), ("c", 1)]


def test_a_cell_whose_place_is_lost_is_done_again_but_not_for_ever(sweep):
    crew, lines = sweep([task("a"), task("b")], {"a": [None, outcome()], "b": [None, None, None]})
    assert [name for name, *_ in crew.started].count("a") == 2
    assert lines["a"]["status"] == "passed"
    assert lines["b"]["status"] == "failed"
    assert "3 workers were lost" in lines["b"]["why"]


def test_a_device_goes_to_the_cell_as_what_is_known_of_it(sweep):
    planned = Task(Cell("a", "gguf", bounds=(("max-size", "9MB"),), device="pi4"), "a", "id", Need(1, 0, 0))
    crew, _ = sweep([planned], {"a": [outcome()]})
    [(_, _, request)] = crew.started
    assert request["device"]["ram_bytes"] == PI["pi4"].ram_bytes
    assert request["here"] == {}
    assert request["source"] == "id"
