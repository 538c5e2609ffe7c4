"""What nothing beats, as marks, as a table, as a page."""

from __future__ import annotations

import pytest

from edge.report import sweep_page
from edge.sweep import front
from tests.sweep.lines import line


def fronts(lines):
    return {x["label"]: x["front"] for x in front.marked(lines, ["d"])}


def test_the_front_of_size_and_of_speed():
    found = fronts(
        [
            line("small", size=50, kld=0.1, speed=30),
            line("wide", size=100, kld=0.01, speed=10),
            line("beaten", size=101, kld=0.02, speed=9),
            line("fast", size=120, kld=0.05, speed=20),
        ]
    )
    assert found == {"small": ["size", "d"], "wide": ["size", "d"], "beaten": [], "fast": ["d"]}


def test_only_what_passed_and_runs_there_is_on_a_front():
    found = fronts(
        [
            line("refused", size=1, kld=0.001, speed=99, status="refused"),
            line("large", size=2, kld=0.01, speed=50, against=["it needs more memory"]),
            line("unknown", size=3, kld=0.005, speed=None),
            line("plain", size=4, kld=0.001, speed=5),
        ]
    )
    assert found == {"refused": [], "large": ["size"], "unknown": ["size"], "plain": ["size", "d"]}


def test_models_are_not_compared_with_each_other():
    found = front.marked([line("a", size=9, kld=0.9, model="x"), line("a", size=1, kld=0.1, model="y")], ["d"])
    assert all(x["front"] == ["size", "d"] for x in found)


def test_equals_stand_beside_each_other():
    assert fronts([line("a"), line("b")]) == {"a": ["size", "d"], "b": ["size", "d"]}


def test_a_student_is_as_far_as_both_steps():
    student = line("student", size=50, kld=0.01, made_kld=0.4)
    assert front.divergence(student) == pytest.approx(0.41)
    assert fronts([student, line("plain", size=60, kld=0.02)])["student"] == ["size"]
    assert fronts([student, line("plain", size=40, kld=0.02)])["student"] == []


FAILED = {
    "key": "f", "model": "/long/way/m", "label": "onnx 4bit", "cell": {"format": "onnx"}, "command": "edge export m",
    "size_bytes": None, "status": "failed", "why": "it <broke>", "predictions": {},
}  # fmt: skip


def test_the_table_has_every_cell():
    found = front.marked([line("gguf q8_0"), line("big", against=["no memory"], made_kld=0.1), FAILED], ["d"])
    text = front.table(found, ["d"])
    rows = text.splitlines()
    assert len(rows) == 4
    assert "100.0 MB*" in rows[1]
    assert "10 tok/s (5 to 20), 100 MB*" in rows[1]
    assert "too large" in rows[2]
    assert "about 0.11" in rows[2]
    assert rows[3].startswith("m ")
    refused = line("q4", status="refused", gate={"failures": ["word " * 20]})
    assert front.table(front.marked([refused], []), []).endswith("word…")
    assert rows[3].endswith("it <broke>")


def test_the_page_is_whole_and_escapes_what_it_shows():
    lines = front.marked([line("<q8>", size=10**8), line("q4", size=5 * 10**7, kld=0.1), FAILED], ["d"])
    text = sweep_page.page(lines, ["d"])
    assert text.count("<svg") == 2
    assert "tokens a second on d" in text
    assert "it &lt;broke&gt;" in text
    assert "<q8>" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "a note" in text
