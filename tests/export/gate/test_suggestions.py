"""What an export that fails the gate is told to try next."""

from __future__ import annotations

import pytest

from edge.export import verify
from edge.export.formats import tflite
from edge.find import load


@pytest.mark.parametrize(
    ("form", "failed", "next_ones"),
    [
        ("tflite", "int8-weights", ("int8-gptq", "fp32")),
        ("tflite", "int8-gptq", ("fp32",)),
        ("tflite", "int8", ("int8-gptq", "fp32")),
        ("tflite", "int4-rtn", ("int4", "int4-mixed")),
        ("gguf", "q8_0", ("f16", "f32")),
        ("onnx", "int4", ("int4-mixed", "int8")),
        ("onnx", "fp32", ()),
    ],
)
def test_as_many_bits_but_more_exact_and_then_more(form, failed, next_ones):
    module = load("edge.export.formats", form)
    assert verify._better(module, module.QUANTIZATIONS[failed], "slm")[:2] == next_ones


def test_what_a_family_does_not_take_is_not_suggested_to_it():
    assert "int8" not in verify._better(tflite, tflite.QUANTIZATIONS["int4-mixed"], "moe")
