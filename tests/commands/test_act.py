"""`edge act`, as a person runs it; the model says what it is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from edge import cli
from edge.chat import acting
from edge.errors import UsageError
from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.memory import Memory, obey
from tests.runtimes.act.test_mind import SHOWS, told
from tests.runtimes.test_sight import PARTS
from tests.tiny_bundle import IMAGE, tiny_bundle

READ = told("read_file", path="todo.txt")
DELETE = told("delete_file", path="todo.txt")


@pytest.fixture
def act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `edge act`; gives exit code, standard output and standard error."""
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "state"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "todo.txt").write_text("milk\n")
    tiny_bundle(tmp_path / "bundle", template=SHOWS)

    def run(*words: str, piped: str = "", tools: bool = True) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(piped))
        more = ["--tools", f"files:{tmp_path / 'home'}"] if tools else []
        code = cli.main(["act", *words, *more])
        out, err = capsys.readouterr()
        return code, out, err

    run.bundle = str(tmp_path / "bundle")  # type: ignore[attr-defined]
    run.home = tmp_path / "home"  # type: ignore[attr-defined]
    return run


def test_reading_that_was_allowed(act: Any) -> None:
    code, out, err = act(act.bundle, READ, "--yes-to", "read")
    assert (code, out) == (0, "milk\n")
    assert "1. read_file  path = todo.txt" in err


def test_the_request_may_stand_behind_options(act: Any) -> None:
    assert act(act.bundle, "--yes-to", "read", "--threads", "1", READ)[:2] == (0, "milk\n")
    with pytest.raises(SystemExit):
        act(act.bundle, "--threads", "1", READ, "and another")


def test_nobody_there_means_no(act: Any) -> None:
    code, out, _ = act(act.bundle, DELETE)
    assert code == 1
    assert "nobody is there to be asked" in out
    assert (act.home / "todo.txt").exists()


def test_a_dry_run_says_exactly_what_would_happen(act: Any) -> None:
    code, _, err = act(act.bundle, DELETE, "--dry-run")
    assert code == 0
    assert f'would: files.delete_file {{"path":"todo.txt"}} in {act.home}' in err
    assert (act.home / "todo.txt").exists()


def test_everything_as_json(act: Any) -> None:
    code, out, _ = act(act.bundle, READ, "--yes-to", "read", "--json")
    record = json.loads(out)
    assert (code, record["whole"], record["answer"]) == (0, True, "milk")
    assert record["steps"][0]["arguments"] == {"path": "todo.txt"}
    assert record["tokens"] > 10


def test_piped_lines_are_requests(act: Any) -> None:
    code, out, _ = act(act.bundle, "--yes-to", "read", piped=f"{READ}\n/tools\nhello\n/memory\n/quit\n")
    assert code == 1  # nothing can be done about "hello"
    assert out.startswith("milk\nNone of these tools can do that.\n")
    assert "did read_file" in out


def test_a_session_says_what_is_wrong_and_goes_on(act: Any) -> None:
    code, out, err = act(act.bundle, "--yes-to", "read", piped=f"/dance\n/forget x\n{READ}\n")
    assert "there is no command /dance" in err
    assert "cannot do 'forget x' with what is remembered" in err
    assert (code, out) == (1, "milk\n")
    _, _, err = act(act.bundle, "--no-memory", piped="/memory\n/help\n")
    assert "nothing is remembered" in err
    assert "/tools lists" in err


def test_memory_is_listed_edited_and_forgotten(act: Any, tmp_path: Path) -> None:
    assert act(act.bundle, "remember that the key is under the stone")[1] == "I will remember that.\n"
    assert "the key is under the stone" in act("--memory", "list", tools=False)[1]
    assert act("--memory", "edit", "1", "the key is gone", tools=False)[0] == 0
    assert "you said): the key is gone" in act(act.bundle, "where is the key?")[1]
    assert act("--memory", "forget", "all", tools=False)[0] == 0
    assert act("--memory", "list", tools=False)[1] == ""


def test_a_run_that_was_interrupted_goes_on_and_repeats_nothing(act: Any, tmp_path: Path) -> None:
    tools = manifest.read(f"files:{act.home}")
    with Hands(tools, state=tmp_path / "state" / "act") as hands:
        hands.plan([Planned("read_file", {"path": "todo.txt"})], request=READ)
        run = hands.run
    assert run in act(act.bundle, READ, "--dry-run")[2]
    code, out, err = act(act.bundle, "--resume", run, "--yes-to", "read")
    assert "1. read_file planned" in err
    assert (code, out) == (0, "milk\n")
    assert "interrupted" not in act(act.bundle, READ, "--dry-run")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["BUNDLE", "x", "--memory", "list"], "--memory stands alone"),
        ([], "which bundle"),
        (["BUNDLE", " "], "the request is empty"),
        (["BUNDLE", "x", "--resume", "abc"], "--resume goes on with the request of that run"),
        (["BUNDLE", "--resume", "abc"], "there is no run abc"),
        (["BUNDLE", "--json"], "--json is for one request"),
        (["BUNDLE", "x", "--max-tokens", "0"], "--max-tokens must be above 0"),
        (["BUNDLE", "x", "--yes-to", "write"], "only reading can be allowed beforehand"),
        (["BUNDLE", "x", "--file", "/no/such.txt"], "there is no file /no/such.txt"),
        (["BUNDLE", "x", "--image", "/no/such.png"], "there is no file /no/such.png"),
        (["BUNDLE", "x", "--image", __file__], "does not see pictures"),
        (["BUNDLE", "x", "--image", __file__, "--seen-by", "BUNDLE"], "let one that does look at it"),
        (["BUNDLE", "x", "--seen-by", "BUNDLE"], "--seen-by looks at pictures, and none was given"),
    ],
)
def test_what_makes_no_sense(act: Any, words: list[str], said: str) -> None:
    code, _, err = act(*[act.bundle if w == "BUNDLE" else w for w in words])
    assert code == 2
    assert said in err


def test_another_bundle_looks_at_a_picture(act: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 4), "red").save(tmp_path / "door.png")
    (tmp_path / "bad.png").write_text("no picture")
    tiny_bundle(tmp_path / "seeing", template=PARTS, image=IMAGE, name="eye", proven=False)
    append = told("append_file", path="todo.txt", text="it")
    words = [act.bundle, append, "--seen-by", str(tmp_path / "seeing"), "--dry-run", "--image"]
    code, _, err = act(*words, str(tmp_path / "door.png"))
    assert code == 0
    assert "edge: eye is unproven" in err
    seen = err.partition("seen in door.png: ")[2].splitlines()[0]
    assert seen.endswith("say what it says.")  # the tiny bundle says what it is told
    assert "text = (what was given)" in err
    assert seen[-20:] in err.partition("would: ")[2]
    code, _, err = act(*words, str(tmp_path / "bad.png"))
    assert code == 1
    assert "bad.png is no picture that can be read" in err


def test_tools_are_needed(act: Any) -> None:
    assert "it has no tools" in act(act.bundle, "x", tools=False)[2]


def test_ctrl_c_is_no_at_a_question_and_counted_elsewhere(tmp_path: Path) -> None:
    stop = acting.Stop()
    asked = stop.around(lambda question: stop._pressed(2, None) or True)
    assert asked is not None
    assert asked(None) is False  # type: ignore[arg-type]
    assert stop()
    assert stop.around(None) is None
    with stop.watching():
        assert not stop()
        stop._pressed(2, None)
        assert stop()
        stop._pressed(2, None)
        with pytest.raises(KeyboardInterrupt):
            stop._pressed(2, None)

    def nobody(question: str) -> str:
        raise EOFError

    assert stop.line(nobody)("which room?") is None
    with pytest.raises(UsageError, match="cannot do 'sing' with what is remembered"):
        obey(Memory(tmp_path / "m.db"), ["sing"])
