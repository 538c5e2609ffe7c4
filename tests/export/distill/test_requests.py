"""What users ask, read from a list: the teacher answers it for half of the text that a student learns from."""

from __future__ import annotations

import dataclasses

import pytest

from edge.errors import InputError, UsageError
from edge.export import calibrate
from edge.export.corpus import prompts
from edge.export.distill import recipe as recipes
from edge.export.distill import requests


class Letters:
    """Token ids are characters."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def judged(*texts):
    windows = tuple(tuple(map(ord, text)) for text in texts)
    return calibrate.Calibration(windows, "", "held out")


def test_a_list_has_a_request_on_each_line(tmp_path):
    (tmp_path / "mine.txt").write_text("How do I mend a net?\n\n  When is high tide? \nHow do I mend a net?\n")
    assert requests.read("mine.txt", tmp_path) == ("How do I mend a net?", "When is high tide?")


def test_a_list_ships_and_shares_nothing_with_the_text_that_students_are_judged_by(tmp_path):
    shipped = requests.read("english_chat", tmp_path)
    assert len(shipped) > 200
    assert not {r.lower() for r in shipped} & {q.lower() for q in prompts.HELD_OUT}


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there are no requests 'mine'") as err:
        requests.read("mine", tmp_path)
    assert "english_chat" in err.value.hint
    with pytest.raises(UsageError, match="there are no requests"):
        requests.read("../corpus/english_chat", tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"empty\.txt holds no request"):
        requests.read("empty.txt", tmp_path)
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"odd\.txt is no text in UTF-8"):
        requests.read("odd.txt", tmp_path)


def test_a_list_that_is_far_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "_MOST_BYTES", 4)
    (tmp_path / "long.txt").write_text("How do I mend a net?")
    with pytest.raises(InputError, match="which no list of requests is"):
        requests.read("long.txt", tmp_path)


def test_requests_that_are_judged_by_are_left_out():
    held = judged("Q: When is high tide? A: At noon.", "Q: Who are you? A: A boat.")
    assert requests.not_judged_by(("When is high tide?", "Where?"), held, Letters()) == ("Where?",)
    with pytest.raises(UsageError, match="all requests are in the text that the student is judged by"):
        requests.not_judged_by(("Who are you?",), held, Letters())


def test_requests_and_files_exclude_each_other():
    with pytest.raises(UsageError, match="files, which are learned from as they are, and requests"):
        recipes.parse({"student": {"depth": {"layers": 2}}, "text": {"files": ["a.txt"], "requests": "b.txt"}})


def test_a_missing_list_is_said_before_any_work(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from edge.export.distill import run

    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    made = recipes.parse({"student": {"depth": {"layers": 2}}, "text": {"requests": "none.txt"}, "train": {}})
    with pytest.raises(UsageError, match=r"there are no requests 'none\.txt'"):
        run._made(SimpleNamespace(id="x"), dataclasses.replace(made, folder=tmp_path), None)
    assert not (tmp_path / "cache").exists()
