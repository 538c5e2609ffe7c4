"""Asking at a terminal: a real one, that a test types at."""

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from edge.runtimes.act import person, words
from edge.runtimes.act.hands import Question
from edge.runtimes.act.manifest import Tool

ASKS = """
import time
from edge.runtimes.act.person import at_terminal
from edge.runtimes.act.hands import Question
from edge.runtimes.act.manifest import Tool
time.sleep(0.3)  # while this goes on, somebody types
tool = Tool("unlock", "Unlock.", {}, "execute", "command", None)
question = Question(tool, {"door": "front"}, "run unlock front", "it may execute", "user", "landlock")
print("answer:", at_terminal()(question))
"""


def typed(before, after):
    """What the question comes to when this is typed before it is shown, and after."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", ASKS], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, before.encode())
    shown, ends = "", time.monotonic() + 30
    while "[y/N]" not in shown and time.monotonic() < ends:
        if select.select([ours], [], [], 1)[0]:
            shown += os.read(ours, 4096).decode()
    os.write(ours, after)
    answer = process.communicate(timeout=30)[0].decode()
    os.close(ours)
    return shown, answer.strip()


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [("", b"YES\n", "True"), ("", b"\n", "False"), ("", b"yep\n", "False"), ("", b"\x04", "False"),
     ("y\ny\ny\n", b"n\n", "False")],
)  # fmt: skip
def test_only_a_yes_after_the_question_is_one(before, after, answer):
    shown, said = typed(before, after)
    assert said == f"answer: {answer}"
    assert "unlock (execute)" in shown
    assert 'door = "front"' in shown
    assert "would: run unlock front" in shown


def test_without_a_terminal_nobody_is_there(monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert person.at_terminal() is None


def test_a_question_shows_what_has_no_shape():
    tool = Tool("write_file", "Write.", {}, "write", "builtin", None)
    arguments = {"path": "a\u202etxt.exe", "text": "x\n\x1b[2Jy"}
    text = person.shown(Question(tool, arguments, "would", "it may write", "file", ""))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "a\\u202etxt.exe" in text
    assert "words of a file were in sight" in text


def test_a_question_says_what_the_words_of_others_may_have_touched():
    tool = Tool("write_file", "Write.", {}, "write", "builtin", None)

    def asked(filled: tuple[str, ...]) -> str:
        return person.shown(Question(tool, {"path": "a", "text": "b"}, "would", "it may write", "tool", "", filled))

    assert "in sight" not in asked(())
    assert "planned from your words; those of a tool may be in text" in asked(("text",))


@pytest.mark.parametrize(
    "marker",
    ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<tool_call>", "</tool_call>", "<tool_response>", "</s>",
     "<start_of_turn>",
     "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "<|python_tag|>", "<image>", "<THINK>", "<|User|>"],
)  # fmt: skip
def test_words_forge_no_markers(marker):
    assert marker not in words.for_model(f"a {marker} b")
    assert words.for_model("a < b and [x] | c > d <b>bold</b>") == "a < b and [x] | c > d <b>bold</b>"


def test_words_are_cut_and_stripped_of_control():
    assert words.for_model("x" * 5000).endswith("… and 1000 characters more")
    assert words.for_model("a\x1b[31mb\tc\nd\r\ne") == "a\\u001b[31mb\tc\nd\ne"
    assert words.for_person("a\nb\u200bc") == "a\\u000ab\\u200bc"
    assert words.for_model("Grüße, 日本, 👍") == "Grüße, 日本, 👍"
    assert words.decoded(b"\xff") is None
    assert words.decoded(b"a\0") is None


@pytest.mark.parametrize(
    "hollow", ["\u3164", "\u115f", "\u2800", "\u034f", "a\ufe0f", "\U000e0041", "\U000e0101", "\r\n"]
)
def test_what_nobody_sees_is_shown_to_a_person(hollow):
    shown = words.for_person(f"a{hollow}b")
    assert hollow not in shown
    assert shown.count("\\u") == (2 if hollow == "\r\n" else 1)
    assert words.for_person("schön ❤\ufe0f") == "schön ❤\ufe0f"


def test_json_that_shows_everything_means_the_same():
    text = json.dumps({"é": "a\u202e\U000e0041\u3164b\x9b"}, indent=2, ensure_ascii=False)
    assert json.loads(words.for_json(text)) == json.loads(text)
    assert all(c == "é" or c == "\n" or " " <= c <= "~" for c in words.for_json(text))


def test_a_cut_leaves_no_half_of_a_character():
    for most in range(12):
        whole = "aé日👍".encode()
        assert whole.startswith(words.cut(whole, most))
        assert most - 4 < len(words.cut(whole, most)) <= most
        assert words.decoded(words.cut(whole, most)) is not None
    assert words.cut(b"\x80" * 9, 8) == b"\x80" * 4  # what is no text is cut somewhere
