"""What stands beside a checkpoint that was made to give vectors."""

import json

import pytest

from edge.errors import EdgeError
from edge.export import pooling


def written(folder, modules, config):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(modules if isinstance(modules, str) else json.dumps(modules))


def listed(*kinds):
    return [{"type": f"sentence_transformers.models.{k}", "path": f"{i}_{k}"} for i, k in enumerate(kinds)]


def test_the_files_that_say_how_are_found(tmp_path):
    assert pooling.files(tmp_path) == []
    written(tmp_path, listed("Transformer", "Pooling", "Normalize"), {"pooling_mode_lasttoken": True})
    assert pooling.files(tmp_path) == ["modules.json", "1_Pooling/config.json"]
    pooling.check(tmp_path, "it")


@pytest.mark.parametrize(
    ("modules", "config", "words"),
    [
        (listed("Transformer", "Pooling", "Dense"), {}, "it puts its states through Dense"),
        (listed("Transformer", "Pooling"), {"pooling_mode_cls_token": True, "pooling_mode_lasttoken": True}, "joins"),
        ({}, {}, "is no list of modules"),
        ([{"type": "a.Pooling", "path": "../secret"}], {}, "names a file outside its folder"),
        ("{", {}, "is not sound JSON"),
        (" " * (1 << 20) + "[]", {}, "no such file is"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(tmp_path, modules, config, words):
    written(tmp_path, modules, config)
    with pytest.raises(EdgeError, match=words):
        pooling.check(tmp_path, "it")
