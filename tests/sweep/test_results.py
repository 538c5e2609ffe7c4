"""Lines are whole or not there, the last of a cell counts, and one sweep writes at a time."""

from __future__ import annotations

import os

import pytest

from edge.errors import InputError, UsageError
from edge.sweep.results import Results, lines


def test_the_last_line_of_a_cell_counts(tmp_path):
    results = Results(tmp_path / "sweep")
    results.add({"key": "a", "status": "failed"})
    assert not results.done("a")
    for n, status in enumerate(("passed", "refused", "impossible")):
        results.add({"key": f"a{n}", "status": status})
        assert results.done(f"a{n}")
    results.add({"key": "a", "status": "passed"})
    results.close()
    again = Results(tmp_path / "sweep")
    assert again.done("a")
    assert again.get("a") == {"schema_version": 1, "key": "a", "status": "passed"}
    assert again.get("b") is None
    assert len(again.path.read_text().splitlines()) == 5
    again.close()


def test_half_a_line_is_taken_away(tmp_path):
    results = Results(tmp_path)
    results.add({"key": "a", "status": "passed"})
    results.close()
    with results.path.open("a") as file:
        file.write('{"schema_version": 1, "key": "b", "sta')
    assert set(lines(results.path)) == {"a"}
    again = Results(tmp_path)
    again.add({"key": "c", "status": "passed"})
    again.close()
    assert set(lines(results.path)) == {"a", "c"}


def test_two_sweeps_do_not_write_to_one_place(tmp_path):
    first = Results(tmp_path)
    with pytest.raises(UsageError, match=r"another sweep writes to(.|\n)*another place with -o"):
        Results(tmp_path)
    first.close()
    Results(tmp_path).close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json\n", "line 1: this is no line of a sweep"),
        ('{"schema_version": 1, "key": "a"}\n[]\n', "line 2: this is no line of a sweep"),
        ('{"schema_version": 9, "key": "a"}\n', "line 1: schema 9, this edge writes 1"),
    ],
)
def test_lines_that_are_none_are_not_lost_but_said(tmp_path, text, words):
    (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        Results(tmp_path)
    assert (tmp_path / "results.jsonl").read_text() == text
    (tmp_path / "results.jsonl").unlink()
    Results(tmp_path).close()  # the lock did not stay


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    results = Results(tmp_path)
    monkeypatch.setattr(os, "write", lambda handle, data: 3)
    with pytest.raises(OSError, match="No space left"):
        results.add({"key": "a", "status": "passed"})
    results.close()
