"""Windows and rotations: what a format cannot do as the source does it is refused or put right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.errors import EdgeError, UsageError
from edge.export import attention, onnx_rotary
from edge.export.checkpoint import Checkpoint, TensorInfo
from edge.export.formats import gguf
from edge.export.onnx_graph import Graph


def checkpoint(**config):
    return Checkpoint(Path("nowhere"), "tiny", "slm", {"model_type": "mistral", **config}, {}, {})


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 64}},
        {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 64},
    ],
)
def test_frequencies_that_change_in_the_middle_of_a_text_are_refused(config):
    attention.check_frequencies(checkpoint(**config), 64)
    with pytest.raises(UsageError, match=r"changes its rotary frequencies after 64 tokens") as refusal:
        attention.check_frequencies(checkpoint(**config), 65)
    assert "--context 64" in str(refusal.value)


@pytest.mark.parametrize("config", [{}, {"rope_scaling": None}, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}])
def test_other_frequencies_are_the_same_everywhere(config):
    attention.check_frequencies(checkpoint(**config), 1 << 20)


def test_windows_that_llama_cpp_does_not_know_are_refused(monkeypatch):
    monkeypatch.setattr(attention, "windows", lambda _: [48, None])
    gguf._refuse_windows(checkpoint(), 48)
    gguf._refuse_windows(checkpoint(model_type="gemma3_text"), 49)
    with pytest.raises(
        UsageError, match=r"layers of tiny see 48 tokens, and llama\.cpp shows them everything"
    ) as refusal:
        gguf._refuse_windows(checkpoint(), 49)
    assert "--context 48" in str(refusal.value)


def graph_of(*tables):
    """One attention node for each pair of tables; same arrays, same weights."""
    import onnx

    nodes, weights = [], {}
    for cos, sin in tables:
        names = [f"t{id(cos)}", f"t{id(sin)}"]
        weights |= dict(zip(names, (cos, sin), strict=True))
        inputs = ["q", "k", "v", "pk", "pv", "a", "b", *names]
        nodes.append(onnx.helper.make_node("GroupQueryAttention", inputs, ["y"], domain="com.microsoft"))
    return Graph(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [])), weights)


def tables(base, n=16):
    angles = np.arange(n, dtype=np.float32)[:, None] * np.float32(base)
    return np.cos(angles), np.sin(angles)


def test_each_layer_gets_the_rotary_tables_of_its_source(monkeypatch):
    near, far = tables(1.0), tables(0.1)
    own = [tuple(t[:8] for t in near), tuple(t[:8] for t in far), tuple(t[:8] for t in near)]
    own[2] = own[0]
    monkeypatch.setattr(onnx_rotary, "rotary_tables", lambda *_: own)
    graph = graph_of(near, near, near)
    onnx_rotary.restore(graph, checkpoint(), 8)
    read = [[graph.weights[name] for name in node.input[7:9]] for node in graph.nodes]
    for found, wanted in zip(read, own, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert [node.input[7] for node in graph.nodes][0::2] == [graph.nodes[0].input[7]] * 2
    assert graph.nodes[1].input[7] == "rotary_of_layer_1.cos"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ([tables(1.0)], "tiny has 1 layers, its ONNX graph 2 attention nodes"),
        ([(np.ones((8, 2)), np.ones((8, 2)))] * 2, "layer 0 of tiny turns 4 values of each head, in its ONNX graph 2"),
    ],
)
def test_graphs_of_another_shape_are_refused(monkeypatch, own, words):
    monkeypatch.setattr(onnx_rotary, "rotary_tables", lambda *_: own)
    with pytest.raises(EdgeError, match=words):
        onnx_rotary.restore(graph_of(tables(1.0), tables(1.0)), checkpoint(), 8)


@pytest.mark.parametrize(("kept", "dtype"), [("bf16", "BF16"), ("f32", "F32")])
def test_large_checkpoints_of_bfloat16_stay_so_until_they_are_quantized(monkeypatch, kept, dtype):
    monkeypatch.setattr(gguf, "_LARGE_PARAMETERS", 5)
    info = TensorInfo("w", dtype, (2, 4), "model.safetensors")
    assert gguf._full_type(replace(checkpoint(), tensors={"w": info})) == kept
    monkeypatch.setattr(gguf, "_LARGE_PARAMETERS", 8)
    assert gguf._full_type(replace(checkpoint(), tensors={"w": info})) == "f32"
