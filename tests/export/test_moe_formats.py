"""Mixtures of experts in every format: tiny random ones whose experts differ, against PyTorch, on the runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export import experts, pipeline

pytestmark = pytest.mark.runtime
CELLS = [
    *[(kind, form) for form in ("gguf", "onnx") for kind in ("mixtral", "qwen3_moe", "olmoe", "granitemoe")],
    ("mixtral", "tflite"),
    ("olmoe", "tflite"),
]


@pytest.mark.parametrize(("model_type", "form"), CELLS)
def test_full_precision_is_the_source(tiny_moe, tmp_path, model_type, form):
    """The gate's own limits at 32 bits: NMSE and KLD within 1e-6, and the very same experts chosen."""
    import torch

    from edge.export.reference import load_model

    checkpoint = tiny_moe(model_type)
    [done] = pipeline.export(checkpoint.folder, tmp_path, formats=[form], quantization="32bit", context_length=256)
    assert done.bundle.family == "moe"
    record = done.bundle.quality
    assert record["logits"]["nmse"] < 1e-6
    assert record["routing"]["overlap"] > 0.999
    assert record["routing"]["decisions"] >= 2 * 256
    prompt, tokens = done.bundle.selftest["prompt"], done.bundle.selftest["tokens"]
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        made = load_model(checkpoint).generate(
            ids,
            attention_mask=torch.ones_like(ids),  # the prompt holds the padding token, which ends turns
            max_new_tokens=len(tokens),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=2,
        )
    assert made[0, len(prompt) :].tolist() == list(tokens)


def test_experts_are_told_apart(tiny_moe):
    """What the tests above rest on: no two experts are alike, and routers do not choose by chance."""
    checkpoint = tiny_moe("mixtral")
    [first, second] = experts.layers(checkpoint)
    matrices = [experts.read(checkpoint, layer, e)[0] for layer in (first, second) for e in range(4)]
    for i, a in enumerate(matrices):
        for b in matrices[:i]:
            assert np.linalg.norm(a - b) > np.linalg.norm(a)


@pytest.mark.parametrize("form", ["gguf", "onnx"])
def test_exchanged_experts_do_not_pass(tiny_moe, tmp_path, form, monkeypatch):
    """A converter that mixes up two experts is found out by the gate: the check that routing matters."""
    from dataclasses import replace

    from edge.errors import EdgeError
    from edge.export import stages
    from edge.export.sources.folder import open_folder

    checkpoint = tiny_moe("mixtral")
    other = tmp_path / "exchanged"
    _exchange(checkpoint, other)
    wrong = open_folder(other)
    # What is exported has two experts exchanged; what it is compared with has not.
    judged = stages.judged
    monkeypatch.setattr(
        stages, "judged", lambda f, d, a, order, p: judged(f, d, a, replace(order, checkpoint=checkpoint), p)
    )
    with pytest.raises(EdgeError, match="does not behave like its source"):
        pipeline.export(wrong.folder, tmp_path, formats=[form], quantization="32bit", context_length=256)


def _exchange(checkpoint, folder) -> None:
    """Experts 0 and 1 of the first layer change places; the router does not know."""
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(checkpoint.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    [layer, _] = experts.layers(checkpoint)
    for a, b in zip(layer.experts[0], layer.experts[1], strict=True):
        tensors[a], tensors[b] = tensors[b].copy(), tensors[a].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(("form", "quantization"), [("gguf", "q4_0"), ("onnx", "int4"), ("tflite", "int4-mixed")])
def test_four_bits_are_calibrated_expert_by_expert(tiny_moe, tmp_path, form, quantization):
    """Every matrix of every expert in blocks, none further from its source than 4 bits are, routers untouched."""
    from edge.export import calibrate
    from edge.find import load
    from edge.runtimes.tokenizer import Tokenizer

    checkpoint = tiny_moe("mixtral")
    module = load("edge.export.formats", form)
    text = calibrate.default_calibration(Tokenizer.load(checkpoint.folder), None)
    full, small = tmp_path / "full", tmp_path / "small"
    full.mkdir()
    small.mkdir()
    made = module.quantize(
        module.convert(checkpoint, full, context_length=256), checkpoint, quantization, small, calibration=text
    )
    errors = dict(module.weight_errors(made, checkpoint))
    of_experts = {name: e for name, e in errors.items() if ".experts." in name}
    assert len(of_experts) == (16 if form == "tflite" else 24)
    assert 0.001 < max(of_experts.values()) < 0.2
    routers = [e for e in made.ledger if e.source and e.source[0].endswith("block_sparse_moe.gate.weight")]
    assert [e.type.lower().replace("float", "f") for e in routers] == ["f32", "f32"]
    use = made.plan["experts"]
    assert use["starved"] == []
    assert all(sum(counts) == 2 * text.n_tokens for counts in use["tokens"].values())
