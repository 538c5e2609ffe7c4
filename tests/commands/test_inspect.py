"""What `edge inspect` says about one checkpoint of each family and a bundle, held to golden files.

`EDGE_WRITE_GOLDEN=1 pytest tests/commands/test_inspect.py` writes them anew.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from edge import cli
from tests.tiny_bundle import IMAGE, TEMPLATE, tiny_bundle, tiny_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
ATTENTION = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
ENDS = {"model.embed_tokens.weight": (300, 64), "model.norm.weight": (64,), "lm_head.weight": (300, 64)}
LAYER = {
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    **{f"model.layers.0.self_attn.{n}.weight": shape for n, shape in ATTENTION.items()},
}
MLP = {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}
DENSE = {**ENDS, **LAYER, **{f"model.layers.0.mlp.{n}.weight": shape for n, shape in MLP.items()}}
EXPERTS = {
    "model.layers.0.block_sparse_moe.gate.weight": (4, 64),
    **{
        f"model.layers.0.block_sparse_moe.experts.{e}.{n}.weight": shape
        for e in range(4)
        for n, shape in {"w1": (128, 64), "w2": (64, 128), "w3": (128, 64)}.items()
    },
}
TOWER = {
    "vision_tower.vision_model.embeddings.patch_embedding.weight": (32, 3, 14, 14),
    "multi_modal_projector.linear_1.weight": (64, 32),
    "multi_modal_projector.linear_2.weight": (64, 64),
}
CHECKPOINTS = {
    "dense": ({"model_type": "mistral", "sliding_window": 1024, **TEXT}, DENSE),
    "moe": (
        {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, **TEXT},
        {**ENDS, **LAYER, **EXPERTS},
    ),
    "vlm": (
        {
            "model_type": "llava",
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"num_hidden_layers": 2, "hidden_size": 32, "image_size": 224, "patch_size": 14},
        },
        {**{f"language_model.{n}": shape for n, shape in DENSE.items()}, **TOWER},
    ),
}


def write_checkpoint(folder, config, shapes):
    """Headers and a file of zeros as long as they say."""
    folder.mkdir()
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tiny_tokenizer())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def said(capsys, *argv):
    assert cli.main(["inspect", *map(str, argv)]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


def held(name, text):
    path = GOLDEN / f"inspect-{name}.txt"
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_checkpoint_of_each_family(tmp_path, capsys, family):
    write_checkpoint(tmp_path / family, *CHECKPOINTS[family])
    text = said(capsys, tmp_path / family, "--context", 1000)
    held(family, text.replace(str(tmp_path), "…"))


def test_a_bundle(tmp_path, capsys):
    tiny_bundle(tmp_path / "bundle")
    held("bundle", said(capsys, tmp_path / "bundle", "--context", 100))


def test_a_bundle_that_sees_says_what_it_makes_of_a_picture(tmp_path, capsys):
    tiny_bundle(tmp_path / "sees", image=IMAGE)
    facts = json.loads(said(capsys, tmp_path / "sees", "--json"))
    assert facts["pictures"] == {"kind": "whole", "n_tokens": 2, "height": 4, "width": 4}
    tiny_bundle(tmp_path / "reads")
    assert json.loads(said(capsys, tmp_path / "reads", "--json"))["pictures"] is None


def test_json_has_the_same_facts_as_numbers(tmp_path, capsys):
    write_checkpoint(tmp_path / "moe", *CHECKPOINTS["moe"])
    facts = json.loads(said(capsys, tmp_path / "moe", "--json"))
    expert = 3 * 128 * 64
    assert facts["parameters"] - facts["active_parameters"] == 2 * expert
    assert (facts["experts"], facts["experts_per_token"]) == (4, 2)
    row = facts["memory with 2,048 tokens, estimated"]["gguf"]["q8_0"]
    assert row["cache_bytes"] == 2048 * 2 * 1 * 2 * 16 * 2  # tokens, keys and values, layers, heads, width, bytes
    assert row["total_bytes"] == row["weights_bytes"] + row["cache_bytes"] + row["working_bytes"]


@pytest.mark.parametrize("kind", ["dense", "bundle"])
def test_a_context_that_does_not_fit_is_refused(tmp_path, capsys, kind):
    if kind == "bundle":
        tiny_bundle(tmp_path / kind)
    else:
        write_checkpoint(tmp_path / kind, *CHECKPOINTS[kind])
    assert cli.main(["inspect", str(tmp_path / kind), "--context", "999999"]) == 2
    assert "a context of 999999 tokens was asked for" in capsys.readouterr().err
