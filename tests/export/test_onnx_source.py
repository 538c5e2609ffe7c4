"""Weights that stay in the checkpoint: the same file comes out as when mobius writes them all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.export import blocks, onnx_source, preflight
from edge.export.formats import onnx as onnx_format
from edge.export.onnx_graph import Graph, load
from edge.export.source import open_source
from tests import parity


@pytest.mark.runtime
@pytest.mark.parametrize("maker", ["mistral", "qwen2_5", "phi_3", "gemma_3"])
def test_a_large_model_is_quantized_from_its_source_to_the_same_bytes(tmp_path, monkeypatch, maker):
    checkpoint = open_source(parity.make(maker, tmp_path))
    files = {}
    for name, least in (("small", 1 << 60), ("large", 0)):
        monkeypatch.setattr(onnx_format, "_LARGE_PARAMETERS", least)
        folders = [tmp_path / name / step for step in ("full", "int4-rtn-32")]
        for folder in folders:
            folder.mkdir(parents=True)
        full = onnx_format.convert(checkpoint, folders[0], context_length=64)
        made = onnx_format.quantize(full, checkpoint, "int4-rtn-32", folders[1], calibration=None)
        assert {s for e in made.ledger for s in e.source} == set(checkpoint.tensors)
        graph = load(made.path)
        files[name] = {k: np.asarray(v) for k, v in graph.weights.items() if v.size >= 16}, full
    small, large = files["small"][0], files["large"][0]
    stored = sorted((v.shape, v.dtype.str, v.tobytes()) for v in small.values())
    assert stored == sorted((v.shape, v.dtype.str, v.tobytes()) for v in large.values())
    sizes = [sum((f.folder / name).stat().st_size for name in f.files) for _, f in files.values()]
    assert sizes[1] < sizes[0] / 10  # nothing but the graph and its tables


def test_rows_rounded_in_pieces_are_the_same(monkeypatch):
    matrix = np.random.default_rng(0).standard_normal((96, 64), np.float32)
    whole = blocks.quantize(matrix, 4, 32, "rtn")
    monkeypatch.setattr(blocks, "_AT_ONCE", 640)
    pieces = blocks.quantize(matrix, 4, 32, "rtn")
    for name in ("data", "scales", "zero_points"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))


def checkpoint(*names):
    info = {n: SimpleNamespace(shape=(2, 3)) for n in names}
    values = {n: np.full((2, 3), i, np.float32) for i, n in enumerate(names)}
    return SimpleNamespace(name="tiny", tensors=info, config={}, read=values.__getitem__, folder=Path("nowhere"))


def graph(*nodes):
    import onnx

    made = [onnx.helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in nodes]
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 3])
    return Graph(onnx.helper.make_model(onnx.helper.make_graph(made, "g", [x], [])))


def test_matrices_below_one_another_and_turned_become_one_weight():
    source = checkpoint("q", "k")
    made = graph(
        ("Concat", ["q", "k"], ["qk"], {"axis": 0}),
        ("Transpose", ["qk"], ["qk_turned"], {}),
        ("MatMul", ["x", "qk_turned"], ["y"], {}),
    )
    [entry] = onnx_source.fold(made, source)
    assert (entry.source, entry.transform, [n.op_type for n in made.nodes]) == (("q", "k"), "pack", ["MatMul"])
    weight = made.weights[made.nodes[0].input[1]]
    assert weight.shape == np.asarray(weight).shape == (3, 4)
    assert np.array_equal(np.asarray(weight)[0], [0, 0, 1, 1])
    half = weight.astype(np.float16)
    assert (half.nbytes, np.asarray(half).dtype) == (24, np.float16)
    bare = onnx_source.attach(Graph(made.model), source, (entry,))
    assert np.array_equal(np.asarray(bare.weights[entry.target[0]]), np.asarray(weight))


@pytest.mark.parametrize(
    ("names", "words"),
    [((), "reads q, which is no tensor of the checkpoint"), (("q", "k"), "1 source tensors are unaccounted for")],
)
def test_a_graph_that_is_not_the_checkpoints_is_refused(names, words):
    with pytest.raises(EdgeError, match=words):
        onnx_source.fold(graph(("MatMul", ["x", "q"], ["y"], {})), checkpoint(*names))


def test_whether_a_graph_is_made_of_the_checkpoints_tensors():
    node = ("MatMul", ["x", "q"], ["y"], {})
    assert onnx_source.folds(graph(node), checkpoint("q"))
    assert not onnx_source.folds(graph(node), checkpoint("k"))


def test_queries_keys_and_values_of_one_tensor_are_that_tensor():
    parts = ["a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"]
    made = graph(
        ("Concat", parts, ["qkv"], {"axis": 0}),
        ("Transpose", ["qkv"], ["turned"], {}),
        ("MatMul", ["x", "turned"], ["y"], {}),
    )
    [entry] = onnx_source.fold(made, checkpoint("a.qkv_proj.weight"))
    assert (entry.source, entry.transform) == (("a.qkv_proj.weight",), "permute")


@pytest.mark.runtime
def test_a_large_model_whose_weights_are_computed_is_built_with_them_if_they_fit(tmp_path, monkeypatch):
    checkpoint = open_source(parity.make("mistral", tmp_path))
    monkeypatch.setattr(onnx_format, "_LARGE_PARAMETERS", 0)
    monkeypatch.setattr(onnx_source, "folds", lambda *_: False)
    made = onnx_format.convert(checkpoint, tmp_path, context_length=64)
    assert {s for e in made.ledger for s in e.source} == set(checkpoint.tensors)
    assert sum((made.folder / f).stat().st_size for f in made.files) > 4 * checkpoint.n_parameters
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 1)
    with pytest.raises(EdgeError, match=r"converting to ONNX with all weights in memory needs \d\.\d GB, 0\.0 GB is"):
        onnx_format.convert(checkpoint, tmp_path / "other", context_length=64)
