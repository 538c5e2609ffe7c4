"""Two products of one input as one: the same values, the same account."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edge.export import onnx_join
from edge.export.artifact import Entry

GATE, UP = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"
DOWN, JOINED = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"


def entry(name):
    return Entry((name,), (name,), "float32", 8, 32)


@pytest.mark.parametrize("order", [(GATE, UP), (UP, GATE)])
def test_the_account_has_both_sources_once_the_gate_first(order):
    before = (entry(DOWN), *(entry(n) for n in order))
    after = onnx_join.entries(before, {GATE: JOINED, UP: JOINED})
    assert after == (entry(DOWN), Entry((GATE, UP), (JOINED,), "float32", 16, 32, "pack"))


def graph(bits=(4, 4)):
    """x -> gate, up of other random blocks -> gate * up."""
    import onnx

    from edge.export import blocks
    from edge.export.onnx_graph import Graph

    rng = np.random.default_rng(1)
    weights, nodes = {}, []
    for name, out, b in ((UP, "u", bits[1]), (GATE, "g", bits[0])):
        made = blocks.quantize(rng.standard_normal((24, 64)).astype(np.float32), b, 32, "rtn")
        for part, array in ((".blocks", made.data), (".scales", made.scales), (".zero_points", made.zero_points)):
            weights[name + part] = array
        parts = [name + p for p in (".blocks", ".scales", ".zero_points")]
        nodes.append(
            onnx.helper.make_node(
                "MatMulNBits", ["x", *parts], [out], name=out, domain="com.microsoft", K=64, N=24, bits=b, block_size=32
            )
        )
    # Not symmetric, so that an exchange of the two would show.
    nodes += [onnx.helper.make_node("Sigmoid", ["g"], ["s"]), onnx.helper.make_node("Mul", ["s", "u"], ["y"])]
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(nodes, "one", [info("x", 1, [1, 3, 64])], [info("y", 1, [1, 3, 24])])
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    return Graph(onnx.helper.make_model(made, opset_imports=opsets, ir_version=10), weights)


def computed(g, folder):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    from edge.export import onnx_graph

    path, _ = onnx_graph.save(g, folder / "model.onnx")
    x = np.random.default_rng(2).standard_normal((1, 3, 64)).astype(np.float32)
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


@pytest.mark.runtime
def test_the_joined_product_computes_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wanted = computed(graph(), tmp_path / "a")
    g = graph()
    assert onnx_join.join(g) == {GATE: JOINED, UP: JOINED}
    assert [n.op_type for n in g.nodes].count("MatMulNBits") == 1
    np.testing.assert_array_equal(computed(g, tmp_path / "b"), wanted)


@pytest.mark.runtime
def test_products_of_different_bits_stay_apart():
    g = graph(bits=(4, 8))
    assert onnx_join.join(g) == {}
    assert [n.op_type for n in g.nodes].count("MatMulNBits") == 2
