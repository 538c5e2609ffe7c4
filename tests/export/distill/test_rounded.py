"""Students that learn in few bits: their grids are those of the exporters, and what lies on one is not moved again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge.errors import UsageError
from edge.export import blocks
from edge.export.distill import recipe as recipes
from edge.export.distill.run import distill
from edge.export.distill.students import rounded

pytestmark = pytest.mark.runtime
TRAIN = {"tokens": 6_000, "check_every": 4, "batch": 4, "rate": 1e-4, "top_k": 16}


def stored(to, weight):
    """What the exporter's own code makes of a matrix."""
    if to == "gguf q4_0":
        from gguf import GGMLQuantizationType, quants

        kind = GGMLQuantizationType.Q4_0
        return quants.dequantize(quants.quantize(weight, kind), kind)
    symmetric = to.startswith("tflite")
    return blocks.quantize(weight, 4, 32, "rtn", symmetric=symmetric).dequantize(weight.shape[1])


@pytest.mark.parametrize("to", rounded.GRIDS)
@pytest.mark.parametrize("scale", [0.03, 1e-7, 40.0])
def test_a_grid_is_the_exporter_s_and_stays(to, scale):
    import torch

    weight = (np.random.default_rng(3).standard_normal((24, 96)) * scale).astype(np.float32)
    weight[2] = 0
    weight[3, :32] = np.abs(weight[3, :32])
    of = rounded.rounding(rounded.Options(to))
    once = of("model.layers.0.mlp.up_proj.weight", torch.from_numpy(weight))
    assert np.allclose(once, stored(to, weight), rtol=1e-3, atol=1e-9)
    assert np.allclose(stored(to, once.numpy()), once, rtol=1e-6, atol=1e-12)
    assert np.allclose(of("a.weight", once), once, rtol=1e-6, atol=1e-12)
    assert of("model.norm.weight", torch.ones(96)) is None


def test_rows_that_are_no_multiple_of_a_block_are_rounded_too():
    import torch

    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    found = rounded.rounding(rounded.Options("tflite int4-rtn"))("x.weight", weight)
    assert found.shape == weight.shape
    assert np.allclose(found, stored("tflite int4-rtn", weight.numpy()), rtol=1e-3)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


def made(texts, to, **tables):
    data = {"text": {"files": ["text.txt"], "held_out": "held.txt"}, "student": {"rounded": {"to": to}}, **tables}
    return dataclasses.replace(recipes.parse(data), name="test", folder=texts)


def test_a_student_learns_to_make_up_for_its_bits(tiny, texts, own_cache):
    import torch
    from safetensors.torch import load_file

    done = distill(tiny, made(texts, "onnx int4-rtn-32", train=TRAIN))
    learned = done.record["training"]
    assert learned["best"] < learned["before"]
    assert done.student.n_parameters == tiny.n_parameters
    assert "onnx int4-rtn-32" in done.table()
    of = rounded.rounding(rounded.Options("onnx int4-rtn-32"))
    weights = load_file(next(done.student.folder.glob("*.safetensors")))
    held = {name: of(name, weight.float()) for name, weight in weights.items()}
    assert sum(rows is not None for rows in held.values()) > 10
    for name, rows in held.items():
        assert rows is None or torch.allclose(rows, weights[name], rtol=1e-5, atol=1e-9)


def test_what_makes_no_sense_is_refused(tiny, texts, own_cache, tiny_moe):
    with pytest.raises(UsageError, match=r"there is no grid 'gguf q4_9'[\s\S]*there are: gguf q4_0"):
        distill(tiny, made(texts, "gguf q4_9", train=TRAIN))
    with pytest.raises(UsageError, match=r"\[student.rounded\] is the same model until it learns[\s\S]*add \[train\]"):
        distill(tiny, made(texts, "gguf q4_0"))
    with pytest.raises(UsageError, match="has experts, which cannot be rounded while they learn"):
        distill(tiny_moe("mixtral"), made(texts, "gguf q4_0", train=TRAIN))
