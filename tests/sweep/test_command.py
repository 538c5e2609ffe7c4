"""`edge sweep` from the command line, with a crew that pretends to work."""

from __future__ import annotations

import json
import sys

import pytest

from edge.cli import main
from edge.errors import UsageError
from edge.export.artifact import Need
from edge.export.checkpoint import Checkpoint
from edge.sweep import local, prepare
from edge.sweep.prepare import Task, Unfit
from tests.sweep.lines import outcome
from tests.sweep.test_run import Pretend

TOML = 'models = ["good", "bad"]\nquantizations = ["8bit", "q4_k_m", "q8_0"]\ndevices = ["pi4"]\n'


@pytest.fixture
def edge(tmp_path, monkeypatch, capsys):
    """`edge("--json")`: the exit code, what it prints, and what it complains about. There is one model, `good`."""

    def open_source(name, progress=None):
        if name != "good":
            raise UsageError(f"there is no {name}")
        return Checkpoint(tmp_path, name, "slm", {}, {}, {"w": "0" * 64})

    class Crew(Pretend):
        def __init__(self, jobs):
            super().__init__({}, jobs or 2)

        def wait(self, timeout_s):
            task = self.at_work.pop(0)
            made = outcome(size=5 * 10**7, kld=0.1) if task.cell.quantization == "q4_k_m" else outcome()
            return [(task, edge.says.get(task.cell.quantization, made))]

    def edge(*options):
        code = main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "out"), *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    edge.says = {}
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "open_source", open_source)
    monkeypatch.setattr(prepare, "_need", lambda *_: Need(10**9, 10**8, 60.0))
    monkeypatch.setattr(prepare, "edition", lambda: "e")
    monkeypatch.setattr(local, "Local", Crew)
    (tmp_path / "sweep.toml").write_text(TOML)
    return edge


def test_it_ends_with_lines_and_says_what_failed(edge, tmp_path):
    code, out, err = edge()
    place = tmp_path / "out" / "results.jsonl"
    assert code == 1
    assert out == f"{place}\n"
    # 8bit and q8_0 are one quantization of GGUF; a model that cannot be opened fails as often as it is named.
    assert [json.loads(x)["status"] for x in place.read_text().splitlines()] == ["failed"] * 3 + ["passed"] * 2
    assert "3 of 5 cells failed" in err
    assert err.count("bad (3 cells): there is no bad") == 1
    assert "run it again" in err
    assert "unproven: nobody has measured this bundle there" in err


def test_json_has_cells_with_their_fronts(edge, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML.replace(', "bad"', ""))
    code, out, _ = edge("--json", "--plot", str(tmp_path / "page.html"))
    found = json.loads(out)
    assert code == 0
    assert [(c["label"], c["front"]) for c in found["cells"]] == [
        ("gguf q8_0", ["size", "pi4"]),
        ("gguf q4_k_m", ["size", "pi4"]),
    ]
    assert found["results"].endswith("results.jsonl")
    assert (tmp_path / "page.html").read_text().count("<svg") == 2


def test_a_terminal_sees_a_table(edge, tmp_path, monkeypatch):
    (tmp_path / "sweep.toml").write_text(TOML.replace(', "bad"', ""))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = edge("-q")
    assert code == 0
    assert "mean KLD" in out
    assert "100.0 MB*" in out
    assert "nothing of the same model" in out


def test_a_dry_run_shows_what_is_to_do_and_does_nothing(edge, tmp_path):
    code, out, err = edge("--dry-run")
    assert code == 0
    assert not (tmp_path / "out").exists()
    rows = out.splitlines()
    assert rows[0].startswith("to do ")
    assert rows[0].endswith("edge export good --format gguf --quant q8_0")
    assert "1.0 GB memory" in rows[0]
    assert "there is no bad" in rows[-1]
    assert "5 cells" in err
    edge()
    states = [c["state"] for c in json.loads(edge("--dry-run", "--json")[1])["cells"]]
    assert states == ["passed", "passed", "failed", "failed", "failed"]


def test_ctrl_c_says_how_far_it_came(edge, tmp_path, monkeypatch):
    (tmp_path / "sweep.toml").write_text(TOML.replace(', "bad"', ""))
    crew = local.Local

    class Interrupted(crew):
        def wait(self, timeout_s):
            if self.at_work[0].cell.quantization == "q4_k_m":
                raise KeyboardInterrupt
            return super().wait(timeout_s)

    monkeypatch.setattr(local, "Local", Interrupted)
    code, _, err = edge()
    assert code == 130
    assert "1 of 2 cells are in" in err
    assert "run it again to go on" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--jobs", "0"), "--jobs must be 1 or more"),
        (("--jobs", "2", "--cluster", "tcp://127.0.0.1:1"), "--jobs is for this machine"),
        (("--cluster", "127.0.0.1"), "'127.0.0.1' is no address of a scheduler\n  write it like this: tcp://"),
        (("--cluster", "http://127.0.0.1:80"), "is no address of a scheduler"),
        (("--cluster", "127.0.0.1:99999"), "is no address of a scheduler"),
        (("--dry-run", "--plot", "x.html"), "--plot is for what was measured"),
    ],
)
def test_what_makes_no_sense_is_refused(edge, options, words):
    code, _, err = edge(*options)
    assert code == 2
    assert words in err


def test_the_key_is_of_contents_and_settings(edge, tmp_path, monkeypatch):
    from edge.progress import Silent
    from edge.sweep.cell import Cell

    text = tmp_path / "c.txt"
    text.write_text("one")

    def key(**more):
        [made] = prepare.prepare([Cell("good", "gguf", **{"quantization": "8bit", **more})], Silent())
        assert isinstance(made, Task)
        return made.key

    first, calibrated = key(), key(calibration=str(text))
    assert key() == key(quantization="q8_0") == first
    assert (
        len({first, calibrated, key(context=64), key(quantization="4bit"), key(calibrate=False), key(distill="half")})
        == 6
    )
    text.rename(tmp_path / "moved.txt")
    assert key(calibration=str(tmp_path / "moved.txt")) == calibrated
    (tmp_path / "moved.txt").write_text("another")
    assert key(calibration=str(tmp_path / "moved.txt")) != calibrated
    monkeypatch.setattr(prepare, "edition", lambda: "another")
    assert key() != first


def test_stages_that_cells_share(edge):
    from edge.progress import Silent
    from edge.sweep.cell import Cell

    def shares(*args, **more):
        [made] = prepare.prepare([Cell("good", *args, **more)], Silent())
        assert not isinstance(made, Unfit)
        return {s[0] for s in made.shares}, set(made.shares)

    plain, whole = shares("gguf", "8bit")
    assert plain == {"source", "replies", "full", "quantized"}
    assert "activations" in shares("gguf", "4bit")[0]
    assert "activations" not in shares("gguf", "4bit", calibrate=False)[0]
    assert "student" in shares("gguf", "8bit", distill="half")[0]
    assert {s for s in whole & shares("onnx", "8bit")[1]} == {s for s in whole if s[0] in ("source", "replies")}
    assert whole & shares("gguf", "8bit", kv="8bit")[1] == whole
