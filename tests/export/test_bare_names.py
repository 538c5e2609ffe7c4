"""A checkpoint that was saved without its head, as those that give vectors are: its names lack `model.` in front."""

from types import SimpleNamespace

import pytest

from edge.errors import EdgeError
from edge.export import streamed
from edge.export.checkpoint import Checkpoint, TensorInfo
from edge.export.planner import sensitivity

NAMES = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight")


def checkpoint(names):
    tensors = {name: TensorInfo(name, "F32", (4, 4), "model.safetensors") for name in names}
    config = {"model_type": "qwen3", "tie_word_embeddings": True}
    return Checkpoint("", "it", "slm", config, tensors, {})


class Model:
    def named_parameters(self, remove_duplicate=True):
        names = NAMES if remove_duplicate else (*NAMES, "lm_head.weight")
        return [(name, SimpleNamespace(shape=(4, 4), dim=lambda: 2)) for name in names]

    def named_modules(self):
        return []


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_every_parameter_is_found_under_its_stored_name(prefix):
    wanted = [prefix + name.removeprefix("model.") for name in NAMES]
    ours = checkpoint(wanted)
    assert [ours.stored_name(name) for name in NAMES] == wanted
    assert [name for name, _ in sensitivity._matrices(Model(), ours)] == wanted
    assert list(streamed._stored_names(Model(), ours).values()) == [*wanted, wanted[0]]


def test_what_is_not_there_is_not_found():
    ours = checkpoint(["embed_tokens.weight"])
    assert ours.stored_name(NAMES[1]) == NAMES[1]
    with pytest.raises(EdgeError, match="is no tensor of the checkpoint"):
        streamed._stored_names(Model(), ours)
