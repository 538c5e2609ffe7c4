"""What starts next: nothing twice at once, no more than memory holds, cores shared among what can start."""

from __future__ import annotations

from edge.export.artifact import Need
from edge.sweep.cell import Cell
from edge.sweep.order import Place, Running, next_start
from edge.sweep.prepare import Task

HERE = Place("here", "cache", (0, 1, 2, 3), seats=4, ram_bytes=100)


def task(name: str, *shares: str, ram: int = 10) -> Task:
    return Task(Cell(name, "gguf", "8bit"), name, "id", Need(ram, 0, 0), tuple((s,) for s in shares))


def started(waiting, places=(HERE,), running=(), made=None):
    """All that start now, as (name, place, cores)."""
    waiting, running, found = list(waiting), list(running), []
    while start := next_start(waiting, running, places, made or {}):
        waiting.remove(start.task)
        running.append(start)
        found.append((start.task.key, start.place.name, start.cores))
    return found


def test_what_shares_a_stage_waits_until_it_is_there():
    both = [task("a", "x"), task("b", "x"), task("c", "y")]
    assert [name for name, *_ in started(both)] == ["a", "c"]
    assert [name for name, *_ in started(both, made={"cache": {("x",)}})] == ["a", "b", "c"]


def test_no_more_than_memory_holds():
    assert [n for n, *_ in started([task("a", ram=60), task("b", ram=60), task("c", ram=40)])] == ["a", "c"]


def test_what_needs_more_than_there_is_runs_alone():
    """Its own preflight refuses it, in words that say what is lacking."""
    assert [n for n, *_ in started([task("large", ram=500)])] == ["large"]
    assert [n for n, *_ in started([task("a"), task("large", ram=500)])] == ["a"]


def test_what_is_too_large_for_one_place_goes_to_another():
    places = [Place("small", "s", (0,), 1, 50), Place("wide", "w", (0,), 1, 200)]
    assert started([task("large", ram=150)], places) == [("large", "wide", (0,))]


def test_free_cores_are_shared_among_what_can_start():
    assert started([task("a")]) == [("a", "here", (0, 1, 2, 3))]
    assert started([task("a"), task("b")]) == [("a", "here", (0, 1)), ("b", "here", (2, 3))]
    assert [c for *_, c in started([task(n) for n in "abc"])] == [(0,), (1,), (2, 3)]
    waits = [task("a", "x"), task("b", "x")]
    assert started(waits) == [("a", "here", (0, 1, 2, 3))]
    busy = Running(task("z"), HERE, (0, 1, 2))
    assert started([task("a")], running=[busy]) == [("a", "here", (3,))]


def test_more_jobs_than_cores_share_them():
    place = Place("here", "cache", (5,), seats=2)
    assert started([task("a"), task("b")], [place]) == [("a", "here", (5,)), ("b", "here", (5,))]


def test_a_cache_that_has_the_stages_is_preferred():
    places = [Place("one", "c1", (0,), 1), Place("two", "c2", (1,), 1)]
    waiting = [task("a", "x"), task("b", "y")]
    assert started(waiting, places, made={"c1": {("y",)}}) == [("b", "one", (0,)), ("a", "two", (1,))]


def test_what_is_being_made_elsewhere_goes_last_but_goes():
    places = [Place("one", "c1", (0,), 1), Place("two", "c2", (1,), 1)]
    assert [n for n, *_ in started([task("a", "x"), task("b", "x"), task("c", "y")], places)] == ["a", "c"]
    assert [n for n, *_ in started([task("a", "x"), task("b", "x")], places)] == ["a", "b"]


def test_workers_with_one_cache_make_nothing_twice():
    places = [Place("one", "same", (0,), 1), Place("two", "same", (1,), 1)]
    assert [n for n, *_ in started([task("a", "x"), task("b", "x")], places)] == ["a"]
