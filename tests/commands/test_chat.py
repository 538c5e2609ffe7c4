"""`edge chat` as people and programs use it, on the echo runtime: it answers with what it is told."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from edge import cli
from edge.chat import interrupt, line
from edge.runtimes.engines.echo import EchoSession
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def edge(capsys, *args, stdin=None, monkeypatch=None):
    """Exit code, stdout, stderr."""
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    code = cli.main(["chat", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- once


def test_the_answer_alone_is_on_stdout(folder, capsys):
    assert edge(capsys, folder, "-p", "héllo 🎉") == (0, "héllo 🎉\n", "")


@pytest.mark.parametrize("args", [(), ("-p", "-")])
def test_a_question_can_be_piped_in(folder, capsys, monkeypatch, args):
    out = edge(capsys, folder, *args, stdin=b"two\nlines\xff\n", monkeypatch=monkeypatch)
    assert out == (0, "two\nlines\ufffd\n", "")


def test_with_p_stdin_is_left_alone(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert edge(capsys, folder, "-p", "hi") == (0, "hi\n", "")


def test_escape_sequences_become_visible(folder, capsys):
    assert edge(capsys, folder, "-p", "\x1b[2Jx\x9b1m\r\u202e")[1] == "␛[2Jx\ufffd1m\ufffd\n"


def test_json_has_answer_tokens_and_times(folder, capsys):
    code, out, err = edge(capsys, folder, "-p", "\x1bé", "--json", "--seed", "7", "--system", "be kind")
    record = json.loads(out)
    assert (code, err, record["answer"]) == (0, "", "\x1bé")
    assert len(record["tokens"]) == len(record["times_ms"]) == record["stats"]["new_tokens"] == 3
    assert record["times_ms"] == sorted(record["times_ms"])
    assert record["stats"]["stopped_by"] == "end"
    assert record["sampling"]["seed"] == 7
    assert record["bundle"]["name"] == "tiny"
    assert "\x1b" not in out


def test_json_lines_stream_and_end_with_the_whole(folder, capsys):
    _, out, _ = edge(capsys, folder, "-p", "é!", "--json", "--stream")
    *pieces, last = map(json.loads, out.splitlines())
    assert [p["text"] for p in pieces] == ["", "é", "!"]
    assert [p["token"] for p in pieces] == last["tokens"]
    assert last["answer"] == "é!"


def test_unproven_bundles_warn_in_one_line(tmp_path, capsys):
    tiny_bundle(tmp_path / "raw", proven=False)
    code, out, err = edge(capsys, tmp_path / "raw", "-p", "hi")
    assert (code, out) == (0, "hi\n")
    assert err == "edge: this bundle is unproven: it was never compared with its source\n"


def test_conversations_are_saved_and_go_on(folder, tmp_path, capsys):
    talk = tmp_path / "talk.json"
    edge(capsys, folder, "-p", "one", "--save", talk, "--system", "be kind")
    _, out, _ = edge(capsys, folder, "-p", "two", "--resume", talk, "--save", talk, "--json")
    assert json.loads(out)["answer"] == "two"
    roles = [m["role"] for m in json.loads(talk.read_text())["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    tiny_bundle(tmp_path / "other", name="other")
    code, out, err = edge(capsys, tmp_path / "other", "-p", "x", "--resume", talk)
    assert (code, out) == (2, "")
    assert "held with another bundle" in err
    assert edge(capsys, tmp_path / "other", "-p", "x", "--resume", talk, "--any-bundle")[:2] == (0, "x\n")


def test_dropped_turns_are_counted_in_json(tmp_path, capsys):
    tiny_bundle(tmp_path / "small", context_length=64)
    talk = tmp_path / "talk.json"
    for word in ("aaaaaaaa", "bbbbbbbb"):
        edge(capsys, tmp_path / "small", "-p", word, "--resume" if talk.exists() else "--save", talk, "--save", talk)
    _, out, _ = edge(capsys, tmp_path / "small", "-p", "cccccccc", "--resume", talk, "--json")
    assert json.loads(out)["dropped_turns"] > 0
    assert json.loads(out)["answer"] == "cccccccc"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-p", " "), 2, "question is empty"),
        (("-p", "x", "--stream"), 2, "--stream goes with --json"),
        (("-p", "x", "--markdown", "--json"), 2, "exclude each other"),
        (("-p", "x", "--draft", "small", "--no-lookup"), 2, "--draft and --no-lookup exclude each other"),
        (("-p", "x", "--draft", "small", "--on", "adb:"), 2, "--draft and --on exclude each other"),
        (("-p", "x", "--draft", "/no/such"), 2, "/no/such"),
        (("-p", "x", "--temperature", "-1"), 2, "temperature must be"),
        (("-p", "x", "--max-tokens", "-1"), 2, "max_tokens must be"),
        (("-p", "x", "--context", "5000"), 2, "takes 1 to 1024"),
        (("-p", "x", "--threads", "0"), 2, "0 threads"),
        (
            (
                "-p",
                "x" * 2000,
            ),
            1,
            "context is full",
        ),
        (("-p", "x", "--resume", "/no/such"), 2, "no saved conversation"),
        (("-p", "x", "--save", "/no/such/talk.json"), 1, "No such file"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(folder, capsys, args, code, words):
    found, _, err = edge(capsys, folder, *args)
    assert found == code
    assert err.startswith("edge: ")
    assert words in err
    assert "Traceback" not in err


def test_a_folder_that_is_no_bundle_and_stdin_that_is_too_long(tmp_path, folder, capsys, monkeypatch):
    assert edge(capsys, tmp_path, "-p", "x")[0] == 2
    code, _, err = edge(capsys, folder, stdin=bytes(5 << 20), monkeypatch=monkeypatch)
    assert code == 2
    assert "more than 4 MiB" in err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = edge(capsys, folder, "--json")
    assert code == 2
    assert "--json answers once" in err


@pytest.mark.parametrize(
    ("config", "args", "expected"),
    [
        (None, (), {"temperature": 0.7, "top_p": 0.95, "repeat_penalty": 1.1, "top_k": 0}),
        (None, ("--temperature", "0"), {"temperature": 0, "top_p": 1, "repeat_penalty": 1}),
        ({"temperature": 0.2, "top_k": 5, "repetition_penalty": 1.3}, (), {"temperature": 0.2, "top_k": 5}),
        ({"temperature": 0.2, "top_k": 5}, ("--top-k", "9"), {"temperature": 0.2, "top_k": 9, "top_p": 0.95}),
        ({"temperature": -1, "top_k": "5", "top_p": 1e999, "min_p": True}, (), {"temperature": 0.7, "top_k": 0}),
    ],
)
def test_options_go_over_the_models_wishes_and_those_over_ours(tmp_path, capsys, config, args, expected):
    tiny_bundle(tmp_path / "tiny", generation_config=config)
    sampling = json.loads(edge(capsys, tmp_path / "tiny", "-p", "x", "--json", *args)[1])["sampling"]
    assert {k: sampling[k] for k in expected} == expected
    assert isinstance(sampling["seed"], int)


def test_the_same_seed_draws_the_same_answer(folder, capsys, monkeypatch):
    noisy = EchoSession._logits

    def logits(self, end):
        return noisy(self, end) * 0 + [float(i % 7) for i in range(self.vocab_size)]

    monkeypatch.setattr(EchoSession, "_logits", logits)
    ask = lambda seed: json.loads(edge(capsys, folder, "-p", "x", "--json", "--seed", seed)[1])["tokens"]  # noqa: E731
    assert ask(1) == ask(1) != ask(2)


def test_markdown_is_rendered(folder, capsys):
    code, out, _ = edge(capsys, folder, "-p", "**bold** [x](http://e.org)", "--markdown")
    assert code == 0
    assert "**" not in out
    assert "http://e.org" in out


# --- in a terminal


class Terminal:
    """`edge chat` behind a real pseudo-terminal."""

    def __init__(self, *args, prelude="", **environment):
        # prompt-toolkit draws its prompt in pieces, and switches bracketed paste on when it listens.
        self._ready = "> " if prelude == PLAIN or "dup2" in prelude else LISTENS
        self.master, slave = os.openpty()
        # Ctrl-C reaches whoever the terminal belongs to.
        own = "import fcntl, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        code = f"{own}\n{prelude}\nfrom edge.cli import main\nsys.exit(main(sys.argv[1:]))"
        env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "chat", *map(str, args)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = ""
        self._from = 0

    def expect(self, pattern, timeout_s=20):
        """Wait for `pattern` after what was expected last; the match."""
        end = time.monotonic() + timeout_s
        while True:
            if match := re.compile(pattern).search(self.raw, self._from):
                self._from = match.end()
                return match
            if time.monotonic() > end or not self._read(end):
                raise AssertionError(f"wanted {pattern!r}, found {self.raw[self._from :]!r}")

    def _read(self, end):
        ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text):
        os.write(self.master, text.encode())

    def line(self, text):
        self.expect(self._ready)
        self.type(text + "\r")

    def end(self):
        end = time.monotonic() + 20
        while self._read(end):
            pass
        return self.process.wait(20)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal():
    opened = []

    def start(*args, **kw):
        opened.append(Terminal(*args, **kw))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


# A model that answers forever, a token each hundredth of a second.
LISTENS = r"\x1b\[\?2004h"
ANSWER = r"(?:\x1b\[\?2004l\r?|\n)"
SLOW = """
import time
from edge.runtimes.engines import echo
def following(self, end):
    time.sleep(0.01)
    return self._tokens[3]
echo.EchoSession._next = following
"""
PLAIN = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "prompt_toolkit" else find(name, *a)
"""


@pytest.mark.parametrize("prelude", ["", PLAIN], ids=["prompt-toolkit", "plain"])
def test_a_whole_conversation(folder, tmp_path, terminal, prelude):
    chat = terminal(folder, "--save", tmp_path / "auto.json", "--system", "be kind", prelude=prelude)
    if prelude:
        chat.expect(re.escape(line.HINT))
    chat.expect("tiny, offline")
    chat.line("/stats")
    chat.expect("nothing was answered yet")
    chat.line("hello")
    chat.expect(ANSWER + "hello")
    chat.line("/stats")
    chat.expect(r"\d+ tokens in .*\r\n1 turn; 28 of 1024 tokens held")
    chat.expect("temperature 0.7")
    chat.line("two \\")
    chat.expect(r"\.( |\x08)")
    chat.type("lines\r")
    chat.expect(ANSWER + r"two \r\nlines")
    chat.line("/system")
    chat.expect("be kind")
    chat.line("/system be brief")
    chat.expect("holds from the next question on")
    chat.line(f"/save {tmp_path}/kept.json")
    chat.expect("kept in")
    chat.line("/reset")
    chat.expect("forgotten")
    chat.line(f"/load {tmp_path}/kept.json")
    chat.expect("going on after 2 turns")
    chat.line("/load")
    chat.expect("needs the name of a file")
    chat.line("/load /no/such")
    chat.expect("no saved conversation")
    chat.line("/wat")
    chat.expect(r"no command /wat")
    chat.line(" /wat")
    chat.expect(ANSWER + " /wat")
    chat.line("x" * 1100)
    chat.expect("the context is full")
    chat.line("/help")
    chat.expect(r"/quit\s+leave")
    chat.line("/quit")
    assert chat.end() == 0
    messages = json.loads((tmp_path / "auto.json").read_text())["messages"]
    assert messages[0] == {"role": "system", "content": "be brief"}
    assert [m["content"] for m in messages[1::2]][-1] == " /wat"
    assert "Traceback" not in chat.raw


def test_ctrl_c_stops_the_answer_and_not_the_program(folder, terminal):
    chat = terminal(folder, prelude=SLOW)
    chat.line("ab")
    chat.expect("aaaa")
    chat.type("\x03")
    chat.expect(r"\(stopped\)")
    chat.expect(LISTENS)
    chat.type("\x03")
    chat.expect(r"to leave: /quit or Ctrl-D")
    chat.line("/stats")
    chat.expect(r"\d+ tokens in")
    chat.expect(LISTENS)
    chat.type("\x04")
    assert chat.end() == 0
    assert "Traceback" not in chat.raw


def test_what_is_typed_during_an_answer_waits_for_the_next_line(folder, terminal):
    chat = terminal(folder, prelude=SLOW.replace("return self._tokens[3]", "return said(self, end)").replace(
        "def following", "said = echo.EchoSession._next\ndef following"))  # fmt: skip
    chat.line("abcdefghijklmnopqrstuvwxyz" * 2)
    chat.expect(ANSWER + "abc")
    chat.type("next\r")
    chat.expect("defghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\r\n")
    chat.expect(ANSWER + "next")
    chat.expect(LISTENS)
    chat.type("\x04")
    assert chat.end() == 0


def test_ctrl_c_ends_a_single_answer_with_the_usual_code(folder, terminal):
    chat = terminal(folder, "-p", "ab", prelude=SLOW)
    chat.expect("aaaa")
    chat.type("\x03")
    chat.expect("edge: stopped")
    assert chat.end() == 128 + signal.SIGINT


def test_cut_answers_and_dropped_turns_are_said(tmp_path, terminal):
    tiny_bundle(tmp_path / "small", context_length=64)
    chat = terminal(tmp_path / "small", "--max-tokens", "9")
    chat.line("aaaaaaaaaaaa")
    chat.expect(r"aaaaaaaaa\r\n.*cut at 9 tokens")
    chat.line("bbbb")
    chat.line("cccc")
    chat.expect("dropped 1 turn, oldest first")
    chat.line("/quit")
    assert chat.end() == 0


def test_history_is_kept_and_private(folder, tmp_path, terminal):
    chat = terminal(folder)
    chat.line("remember me")
    chat.line("/quit")
    assert chat.end() == 0
    history = tmp_path / "state" / "edge" / "chat-history"
    assert "remember me" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    again = terminal(folder)
    again.expect(LISTENS)
    again.type("\x1b[A\x1b[A\r")
    again.expect(ANSWER + "remember me")
    again.expect(LISTENS)
    again.type("\x04")
    assert again.end() == 0


def test_a_piped_stdout_gets_answers_alone(folder, tmp_path, terminal):
    out = tmp_path / "out.txt"
    chat = terminal(folder, prelude=f"import os; os.dup2(os.open({str(out)!r}, os.O_CREAT | os.O_WRONLY), 1)")
    chat.line("hello")
    chat.line("/quit")
    assert chat.end() == 0
    assert out.read_text() == "hello\n"


def test_the_third_ctrl_c_gets_out_whatever_happens():
    with interrupt.Interrupt() as pressed:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(interrupt.Stopped):
            pressed.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_home_that_cannot_be_written_to_keeps_history_for_this_chat(tmp_path):
    (tmp_path / "file").write_text("")
    assert type(line._history(tmp_path / "file" / "below")).__name__ == "InMemoryHistory"
