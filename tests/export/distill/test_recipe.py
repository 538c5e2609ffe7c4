"""Recipes: what they say, what they cannot say, and what the errors name."""

from __future__ import annotations

import dataclasses

import pytest

from edge.errors import InputError, UsageError
from edge.export.distill import recipe as recipes
from edge.find import load, names

DEPTH = {"student": {"depth": {"layers": 2}}}


@pytest.mark.parametrize("path", sorted(recipes.SHIPPED.glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_one(path):
    found = recipes.read(path.stem)
    assert found.name == path.stem
    assert found.steps


def test_tables_become_steps_in_their_order(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[student.vocabulary]\ntokens = 4096\n[student.depth]\nlayers = 12\n"
        "[loss.jsd]\nbeta = 0.9\nweight = 2\n[loss.hidden]\n[train]\nrate = 1e-3\n"
    )
    found = recipes.read(path)
    assert [step.kind for step in found.steps] == ["vocabulary", "depth"]
    assert found.steps[1].options.layers == 12
    assert [(one.kind, one.weight) for one in found.losses] == [("jsd", 2.0), ("hidden", 1.0)]
    assert found.losses[0].options.beta == 0.9
    assert found.train is not None
    assert found.train.rate == 1e-3
    assert (found.name, found.folder) == ("mine", tmp_path)


def test_training_without_a_loss_takes_the_forward_divergence():
    assert [one.kind for one in recipes.parse({**DEPTH, "train": {}}).losses] == ["forward-kl"]


def test_a_recipe_is_frozen_and_known_by_what_it_says():
    one, same = recipes.parse(DEPTH), recipes.parse(DEPTH)
    other = recipes.parse({"student": {"depth": {"layers": 3}}})
    assert one.id == same.id == dataclasses.replace(one, name="other").id != other.id
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "x"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"students": {}}, r"the recipe has no 'students'[\s\S]*did you mean 'student'"),
        ({"student": {"deph": {}}}, r"\[student\] has no 'deph'[\s\S]*did you mean 'depth'"),
        ({"student": {"depth": {"layer": 3}}}, r"\[student.depth\] has no 'layer'[\s\S]*did you mean 'layers'"),
        ({**DEPTH, "train": {"rte": 1}}, r"\[train\] has no 'rte'[\s\S]*did you mean 'rate'"),
        ({**DEPTH, "loss": {"forward_kl": {}}, "train": {}}, r"\[loss\] has no 'forward_kl'[\s\S]*'forward-kl'"),
        ({"student": {"depth": {}}}, r"\[student.depth\] lacks layers"),
        ({"student": {"depth": {"layers": "two"}}}, r"layers: wanted a whole number above 0, found 'two'"),
        ({"student": {"depth": {"layers": True}}}, r"layers: wanted a whole number above 0, found True"),
        ({"student": {"depth": {"layers": 0}}}, r"layers: wanted a whole number above 0, found 0"),
        ({**DEPTH, "train": {"rate": -1}}, r"rate: wanted a number above 0, found -1"),
        ({**DEPTH, "text": {"files": "chats.txt"}}, r"files: wanted a list, found 'chats.txt'"),
        ({**DEPTH, "text": {"held_out": 3}}, r"held_out: wanted text, found 3"),
        ({**DEPTH, "text": 3}, r"\[text\]: wanted a table, found 3"),
        ({"student": 3}, r"\[student\]: wanted tables \[student.KIND\], of checkpoint, depth"),
        ({}, r"the recipe makes no student[\s\S]*\[student.KIND\]"),
        ({**DEPTH, "loss": {"jsd": {}}}, r"has a loss and no \[train\]"),
        ({**DEPTH, "loss": {"jsd": {"weight": 0}}, "train": {}}, r"\[loss.jsd\] weight: wanted a number above 0"),
        (
            {**DEPTH, "loss": {"jsd": {"weight": float("nan")}}, "train": {}},
            "weight: wanted a number above 0, found nan",
        ),
        ({**DEPTH, "train": {"rate": float("inf")}}, r"\[train\] rate: wanted a number above 0, found inf"),
        ({**DEPTH, "train": {"warmup": 100}}, r"\[train\] warmup: wanted a share of the training, below 1, found 100"),
        ({**DEPTH, "loss": {"jsd": {"beta": 1.5}}, "train": {}}, r"\[loss.jsd\] beta: wanted a number between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_named(data, words):
    with pytest.raises(UsageError, match=words):
        recipes.parse(data)


def test_a_recipe_that_is_not_there_names_those_that_ship():
    with pytest.raises(UsageError, match=r"there is no recipe 'nothing'[\s\S]*english-chat, english-chat-small, half"):
        recipes.read("nothing")


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[student")
    with pytest.raises(InputError, match="is not sound TOML"):
        recipes.read(path)
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="larger than 1 MiB, which no recipe is"):
        recipes.read(path)


@pytest.mark.parametrize("kind", names(recipes.STUDENTS))
def test_every_kind_of_student_keeps_the_contract(kind):
    module = load(recipes.STUDENTS, kind)
    assert dataclasses.is_dataclass(module.Options)
    assert module.Options.__dataclass_params__.frozen
    assert isinstance(module.LEARNS, bool)
    assert callable(module.make)
    assert f"[student.{kind}]" in module.__doc__


@pytest.mark.parametrize("kind", names(recipes.LOSSES))
def test_every_kind_of_loss_keeps_the_contract(kind):
    module = load(recipes.LOSSES, kind)
    assert module.Options.__dataclass_params__.frozen
    assert module.WANTS in ("answers", "hidden")
    assert f"[loss.{kind}]" in module.__doc__
    assert "arXiv:" in module.__doc__
