"""A graph gives every position's logits to who knows no better, and one's to who asks for one."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edge.export import onnx_graph


def graph(cap=True):
    """x -> a norm's place -> head -> a cap on logits."""
    import onnx

    node = onnx.helper.make_node
    nodes = [node("Neg", ["x"], ["hidden"]), node("MatMul", ["hidden", "w"], ["raw" if cap else "logits"])]
    nodes += [node("Tanh", ["raw"], ["logits"])] if cap else []
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(nodes, "one", [info("x", 1, [1, "n", 4])], [info("logits", 1, [1, "m", 9])])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return onnx_graph.Graph(model, {"w": np.random.default_rng(1).standard_normal((4, 9)).astype(np.float32)})


@pytest.mark.runtime
@pytest.mark.parametrize("cap", [True, False])
def test_rows_are_left_out_when_asked_and_not_otherwise(cap, tmp_path):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    def session(g, name):
        path, _ = onnx_graph.save(g, tmp_path / name / "model.onnx")
        return onnxruntime.InferenceSession(str(path))

    x = {"x": np.random.default_rng(2).standard_normal((1, 5, 4)).astype(np.float32)}
    wanted = session(graph(cap), "whole").run(None, x)[0]
    g = graph(cap)
    onnx_graph.choose_rows(g)
    chosen = session(g, "chosen")
    assert [i.name for i in chosen.get_inputs()] == ["x"]  # what other programs see
    np.testing.assert_array_equal(chosen.run(None, x)[0], wanted)
    for start in (-1, 2, 0):
        found = chosen.run(None, x | {"logits_from": np.array([start])})[0]
        np.testing.assert_allclose(found, wanted[:, start:], rtol=1e-6)


@pytest.mark.runtime
def test_a_graph_whose_head_cannot_be_told_stays_as_it_is():
    g = graph()
    g.nodes[1].op_type = "Conv"
    before = g.model.SerializeToString()
    onnx_graph.choose_rows(g)
    assert g.model.SerializeToString() == before
    assert list(g.weights) == ["w"]
