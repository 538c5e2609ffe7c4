"""What a sweep asks for: lists become cells, and what makes no sense is refused with the nearest that does."""

from __future__ import annotations

import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest

from edge.cli import parser
from edge.errors import InputError, UsageError
from edge.find import load
from edge.sweep import recipe
from edge.sweep.cell import Cell, from_record


def parse(folder, **data):
    return recipe.parse({"models": ["smollm2"], **data}, folder)


def test_every_combination_is_a_cell(tmp_path):
    found = parse(
        tmp_path, models=["smollm2", "a/b"], formats=["gguf", "onnx"], quantizations=["8bit", "4bit"],
        devices=["pi4", "this"], distill=["none", "half"], context=512,
    )  # fmt: skip
    assert len(found.cells) == 2 * 2 * 2 * 2
    assert {c.context for c in found.cells} == {512}
    assert list(found.devices) == ["pi4", "this"]
    assert found.devices["this"] is None
    assert found.devices["pi4"].name == "pi4"


def test_one_model_and_nothing_else_is_enough(tmp_path):
    assert parse(tmp_path, models="smollm2").cells == (Cell("smollm2", "gguf", "4bit"),)


def test_a_formats_own_quantization_is_asked_of_that_format_alone(tmp_path):
    found = parse(tmp_path, formats=["gguf", "onnx"], quantizations=["8bit", "q4_k_m"]).cells
    assert [(c.format, c.quantization) for c in found] == [("gguf", "8bit"), ("gguf", "q4_k_m"), ("onnx", "8bit")]


def test_budgets_are_planned_for_each_device(tmp_path):
    found = parse(tmp_path, devices=["pi4", "pi5"], budget=[{"max-size": "90MB"}, {"min-agreement": 0.97}]).cells
    assert [(c.bounds, c.device) for c in found] == [
        ((("max-size", "90MB"),), "pi4"), ((("max-size", "90MB"),), "pi5"),
        ((("min-agreement", 0.97),), "pi4"), ((("min-agreement", 0.97),), "pi5"),
    ]  # fmt: skip
    assert all(c.planned for c in found)
    [alone] = parse(tmp_path, formats=["auto"], budget={"max-size": "90MB"}).cells
    assert (alone.format, alone.device) == ("auto", None)


def test_paths_are_below_the_files_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "chats.txt").write_text("hello")
    (tmp_path / "sweep.toml").write_text('models = ["./mine", "smollm2"]\ncalibration = "chats.txt"\n')
    mine, named = recipe.read(tmp_path / "sweep.toml").cells
    assert mine.model == str(tmp_path / "mine")
    assert named.model == "smollm2"
    assert named.calibration == str(tmp_path / "chats.txt")


def test_the_guides_sweep_and_the_helps_are_ones(tmp_path):
    guide = Path(__file__).parents[2] / "docs/guides/sweep.md"
    in_guide = guide.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    in_help = load("edge.commands", "sweep").__doc__.partition("device:\n\n")[2].partition("\nEach cell")[0]
    for text in (in_guide, textwrap.dedent(in_help), recipe.__doc__.partition("\n")[2]):
        assert len(recipe.parse(tomllib.loads(text), tmp_path).cells) > 8


def test_what_makes_no_sense_together_is_left_out_and_said(tmp_path):
    found = parse(
        tmp_path, formats=["gguf", "tflite"], kv=["none", "8bit"], distill=["none", "half"], experts=[3, "none"]
    )
    assert all(c.kv is None for c in found.cells if c.format == "tflite")
    assert not [c for c in found.cells if c.experts and c.distill]
    assert any("tflite has no KV cache of 8 bits" in line for line in found.left_out)
    assert any("both make another model" in line for line in found.left_out)
    planned = parse(tmp_path, formats=["auto", "tflite"], kv=["none", "8bit"], budget={"max-size": "9MB"})
    assert [(c.format, c.kv) for c in planned.cells] == [("auto", None), ("auto", "8bit"), ("tflite", None)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"model": ["x"]}, r"unknown key 'model' in the sweep\n  did you mean 'models'\?"),
        ({"models": []}, "the sweep names no model"),
        ({"models": [3]}, "models: wanted names, found 3"),
        ({"quantizations": ["4bti"]}, r"no format of this sweep has a quantization '4bti'\n  did you mean '4bit'\?"),
        ({"formats": ["guff"]}, "unknown format 'guff'"),
        ({"formats": ["auto"]}, 'formats = "auto" is for a budget'),
        ({"devices": ["pi44"]}, "there is no profile of a device 'pi44'"),
        ({"distill": ["hlaf"]}, "there is no recipe 'hlaf'"),
        ({"experts": ["three"]}, "experts: wanted whole numbers"),
        ({"kv": ["4bit"]}, "there is no KV cache of '4bit'"),
        ({"context": "long"}, "context: wanted a whole number"),
        ({"exporter": 3}, "exporter: wanted a name"),
        ({"calibration": 3}, "calibration: wanted the name of a text file"),
        ({"held-out": "gone.txt"}, "held-out: there is no file"),
        ({"budget": 3}, "budget: wanted a table"),
        ({"budget": {}}, r"\[\[budget\]\] has no bound"),
        ({"budget": {"max-siez": "9MB"}}, r"unknown key 'max-siez' in \[\[budget\]\]\n  did you mean 'max-size'"),
        ({"budget": {"max-size": True}}, r"max-size: wanted a number or a text"),
        ({"budget": {"max-size": "big"}}, "'big' is no size"),
        ({"budget": {"min-tokens-per-second": "9"}}, "min-tokens-per-second: wanted a number"),
        ({"formats": ["tflite"], "kv": ["8bit"]}, "no cell of this sweep makes sense"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, data, words):
    with pytest.raises(UsageError, match=words):
        parse(tmp_path, **data)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        recipe.read(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("models = [")
    with pytest.raises(InputError, match="is not sound TOML"):
        recipe.read(tmp_path / "bad.toml")
    (tmp_path / "big.toml").write_text("#" * (2 << 20))
    with pytest.raises(InputError, match="which no sweep is"):
        recipe.read(tmp_path / "big.toml")


CELLS = [
    Cell("smollm2", "gguf", "q4_k_m"),
    Cell("/a path/my model", "onnx", "8bit", distill="half", kv="8bit", context=256, exporter="optimum"),
    Cell("a/b", "auto", bounds=(("max-size", "90MB"), ("min-tokens-per-second", 10.5)), device="pi4", calibrate=False),
    Cell("a/b", "gguf", "4bit", experts=3, calibration="/c.txt", held_out="/h.txt"),
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.label)
def test_a_cell_is_the_command_that_it_gives(cell):
    args = parser().parse_args(shlex.split(cell.command)[1:])
    assert (args.source, args.format, args.quant, args.device) == (
        cell.model,
        cell.format,
        cell.quantization,
        cell.device,
    )
    assert (args.distill, args.experts, args.kv, args.context) == (cell.distill, cell.experts, cell.kv, cell.context)
    assert (args.exporter, args.no_calibration) == (cell.exporter, not cell.calibrate)
    assert (str(args.calibration), str(args.held_out)) == (str(cell.calibration), str(cell.held_out))
    assert (args.max_size, args.min_tokens_per_second) == tuple(
        dict(cell.bounds).get(name) for name in ("max-size", "min-tokens-per-second")
    )
    assert from_record(cell.record()) == cell
