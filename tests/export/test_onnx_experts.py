"""MoE and QMoE against NumPy, with experts that differ: layouts, weights of the chosen, zeros that are added."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export import onnx_experts
from edge.export.checkpoint import Checkpoint
from edge.export.onnx_graph import Graph
from tests.tiny_moe import headers

pytestmark = pytest.mark.runtime
FRONT = "model.layers.0.mlp.experts"
N, USED, TOKENS = 5, 2, 40


def graph_of(hidden: int, inner: int, *, normalized: bool) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph with nothing but one MoE, and the experts in it: gate, up and down by name."""
    import onnx

    draw = np.random.default_rng(0)
    own = {
        "gate": draw.normal(0, 0.3, (N, inner, hidden)).astype(np.float32),
        "up": draw.normal(0, 0.3, (N, inner, hidden)).astype(np.float32),
        "down": draw.normal(0, 0.3, (N, hidden, inner)).astype(np.float32),
    }
    fc1 = np.stack([own["gate"], own["up"]], 2).reshape(N, 2 * inner, hidden)
    node = onnx.helper.make_node(
        "MoE",
        ["x", "router", f"{FRONT}.gate_up", "", f"{FRONT}.down"],
        ["y"],
        name=FRONT,
        domain="com.microsoft",
        k=USED,
        normalize_routing_weights=int(normalized),
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
    )
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", 1, [TOKENS, hidden]), value("router", 1, [TOKENS, N])], [value("y", 1, [TOKENS, hidden])]
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "one", *ends), opset_imports=opsets, ir_version=10)
    return Graph(model, {f"{FRONT}.gate_up": fc1, f"{FRONT}.down": own["down"]}), own


def run(graph: Graph, x: np.ndarray, router: np.ndarray) -> np.ndarray:
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in graph.weights.items())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x, "router": router})[0]


def reference(own: dict[str, np.ndarray], x: np.ndarray, router: np.ndarray, *, normalized: bool) -> np.ndarray:
    p = np.exp(router - router.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    out = np.zeros_like(x)
    for t, row in enumerate(p):
        chosen = np.argsort(-row)[:USED]
        weights = row[chosen] / (row[chosen].sum() if normalized else 1)
        for e, w in zip(chosen, weights, strict=True):
            gate, up = own["gate"][e] @ x[t], own["up"][e] @ x[t]
            out[t] += w * (own["down"][e] @ (gate / (1 + np.exp(-gate)) * up))
    return out


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def inputs(hidden: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return draw.normal(0, 1, (TOKENS, hidden)).astype(np.float32), draw.normal(0, 1, (TOKENS, N)).astype(np.float32)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_sparse_operator_computes_the_chosen_experts(normalized):
    graph, own = graph_of(64, 96, normalized=normalized)
    x, router = inputs(64)
    assert error(run(graph, x, router), reference(own, x, router, normalized=normalized)) < 1e-5
    other = reference(own, x, router[:, ::-1].copy(), normalized=normalized)
    assert error(run(graph, x, router), other) > 0.5  # the wrong experts would be seen


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("hidden", "inner"), [(64, 96), (64, 72), (40, 96), (56, 88)])
def test_blocks_compute_what_they_hold(bits, normalized, hidden, inner):
    """Against experts dequantized from the very blocks: what is left is the rounding of activations to 8 bits."""
    graph, own = graph_of(hidden, inner, normalized=normalized)
    onnx_experts.quantize(graph, graph.nodes[0], bits=bits, block_size=32, method="rtn", hessians=[(None, None)] * N)
    assert [n.op_type for n in graph.nodes].count("QMoE") == 1
    held = [onnx_experts.stored(graph, 0, e, (inner, hidden)) for e in range(N)]
    stored = {name: np.stack([h[i] for h in held]) for i, name in enumerate(("gate", "up", "down"))}
    worst = max(error(stored[name], own[name]) for name in own)
    assert worst < (0.12 if bits == 4 else 0.01)
    x, router = inputs(hidden)
    found = run(graph, x, router)
    assert found.shape == x.shape
    assert error(found, reference(stored, x, router, normalized=normalized)) < 0.03
    assert error(found, reference(stored, x, router, normalized=not normalized)) > 0.1


def test_hessians_of_every_expert_are_waited_for():
    checkpoint: Checkpoint = headers("mixtral", 5)
    graph, _ = graph_of(64, 96, normalized=True)
    waiting = onnx_experts.Waiting(graph, checkpoint, bits=4, block_size=32, method="gptq")
    keys = [key for e in range(N) for key in waiting_keys(checkpoint, e)]
    assert not waiting.take("model.embed_tokens.weight", None)
    for key in keys[:-1]:
        size = 96 if key.endswith("w2.weight") else 64
        assert waiting.take(key, np.eye(size, dtype=np.float32))
        assert waiting.done == 0
    assert waiting.take(keys[-1], np.eye(96, dtype=np.float32))
    assert waiting.done == 1
    assert graph.nodes[0].op_type == "QMoE"


def waiting_keys(checkpoint: Checkpoint, e: int) -> tuple[str, ...]:
    from edge.export.experts import layers

    return layers(checkpoint)[0].keys(e)


def test_a_head_that_copies_the_embedding_reads_it():
    import onnx

    from edge.export.onnx_graph import tie_head

    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    node = onnx.helper.make_node("MatMul", ["x", "lm_head.weight_t"], ["logits"], name="head")

    def graph(head: np.ndarray) -> Graph:
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "one", [], []))
        return Graph(model, {"model.embed_tokens.weight": embedding, "lm_head.weight_t": head})

    tied, other = graph(embedding.T.copy()), graph(embedding.T + 1)
    tie_head(tied)
    tie_head(other)
    assert [n.op_type for n in tied.nodes] == ["Transpose", "MatMul"]
    assert set(tied.weights) == {"model.embed_tokens.weight"}
    assert [n.op_type for n in other.nodes] == ["MatMul"]
