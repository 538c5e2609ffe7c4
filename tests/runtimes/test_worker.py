"""The worker's protocol, without a device between."""

import io
import json

import pytest

from edge import bundle as bundles
from edge.errors import InputError
from edge.runtimes import worker
from edge.runtimes.model import Piece
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def folder(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def asked(folder, *requests):
    lines = b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in requests)
    out = io.BytesIO()
    assert worker.serve(folder, io.BytesIO(lines), out) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_open_then_ask(folder):
    opened, *said = asked(folder, {"do": "open"}, {"do": "generate", "ids": [5, 6, 7], "sampling": {"max_tokens": 3}})
    assert opened["protocol"] == worker.PROTOCOL
    assert opened["bundle"] == bundles.read(folder).id
    assert said[-1]["stats"]["prompt_tokens"] == 3
    # The end of the requests came before the answer: it may be cut short, never wrong.
    assert [s["id"] for s in said[:-1]] == [5, 6, 7][: len(said) - 1]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"do": "generate", "ids": [1]}, "nothing is open"),
        ({"do": "dance"}, "knows no request 'dance'"),
        (b"no json\n", "knows no request None"),
        (b"[]\n", "knows no request None"),
    ],
)
def test_requests_that_make_no_sense(folder, request_, words):
    [said] = asked(folder, request_)
    assert words in said["error"]
    assert said["code"] == 2


@pytest.mark.parametrize("bad", [{"ids": None}, {"ids": ["x"]}, {"ids": [1], "sampling": {"colour": 1}}, {}])
def test_questions_that_make_no_sense(folder, bad):
    said = asked(folder, {"do": "open"}, {"do": "generate", **bad})[1]
    assert "the request makes no sense" in said["error"]


def test_a_picture_that_is_none(folder):
    said = asked(folder, {"do": "open"}, {"do": "generate", "ids": [1], "pictures": ["%"]})[1]
    assert "did not arrive whole" in said["error"]


def test_the_self_test_compares(folder, monkeypatch):
    assert worker.selftest(folder)["compared"] == 0
    bundle = bundles.read(folder)
    prompt = [5, 6, 7]
    for tokens, good in (([5, 6, 7], True), ([5, 6, 8], False)):
        data = json.loads((folder / "edge.json").read_text())
        data["selftest"] = {"prompt": prompt, "tokens": tokens}
        (folder / "edge.json").write_text(json.dumps(data))
        if good:
            assert worker.selftest(folder)["compared"] == 3
        else:
            with pytest.raises(InputError, match=rf"{bundle.name} says .* here, and said"):
                worker.selftest(folder)


def test_the_program(folder, capsys, monkeypatch):
    assert worker.main([str(folder), "selftest"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 0
    assert worker.main([str(folder), "dance"]) == 2
    assert "knows no 'dance'" in capsys.readouterr().out
    assert worker.main([]) == 2
    assert "wanted: python -m" in capsys.readouterr().out


def test_somebody_at_the_device(folder, capsys):
    worker.ask(folder, [], io.StringIO("hello\n\nagain\n"))
    said = capsys.readouterr()
    assert said.out.index("hello") < said.out.index("again")
    assert said.err == ""
    worker.ask(folder, ["two", "words"], io.StringIO("unread"))
    said = capsys.readouterr().out
    assert "two words" in said
    assert "unread" not in said


def test_a_terminal_is_asked(folder, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def readline(self):
            if not (line := super().readline()):
                return line
            if line == "interrupt\n":
                raise KeyboardInterrupt
            return line

    worker.ask(folder, [], Terminal("interrupt\nhello\n"))
    said = capsys.readouterr()
    assert said.out.startswith("> \n> ")
    assert "hello" in said.out
    assert "tiny; Ctrl-C stops an answer" in said.err


def test_an_answer_that_is_interrupted_ends_its_line(folder, capsys, monkeypatch):
    from edge.runtimes.conversation import Conversation

    def say(self, text, sampling, images):
        yield Piece("he", 5, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "say", say)
    worker.ask(folder, [], io.StringIO("hello\nhello\n"))
    assert capsys.readouterr().out == "he\nhe\n"


def test_what_cannot_be_shown_is_said(folder, capsys):
    assert worker.main([str(folder), "ask", "--image"]) == 2
    assert "edge: --image wants a file" in capsys.readouterr().err
    assert worker.main([str(folder), "ask", "--image", "none.png", "what?"]) == 2
    assert "there is no picture" in capsys.readouterr().err
    worker.ask(folder, ["--image", "none.png"], io.StringIO("what?\n"))
    assert "edge: " in capsys.readouterr().err
