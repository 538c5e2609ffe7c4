"""The ledger must add up: every source tensor once, and the bits that were asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.export.artifact import Artifact, Entry, Quantization
from edge.export.checkpoint import Checkpoint, TensorInfo
from edge.export.gate.coverage import coverage

FOUR = Quantization("q4", 4, 4.5)


@pytest.fixture
def sound(tmp_path):
    """A checkpoint of three tensors and an artifact that holds them in 4 bits."""
    (tmp_path / "model.bin").write_bytes(bytes(100))
    tensors = {n: TensorInfo(n, "F32", (8, 8), "model.safetensors") for n in ("a", "b", "c")}
    checkpoint = Checkpoint(tmp_path, "x", "slm", {}, tensors, {})
    entries = (Entry(("a", "b"), ("ab",), "Q4", 128, 64, "pack"), Entry(("c",), ("c",), "Q4", 64, 32))
    return checkpoint, Artifact("gguf", "q4", tmp_path, "model.bin", ("model.bin",), entries, 64)


def test_a_sound_ledger(sound):
    record, failures = coverage(*sound, FOUR)
    assert failures == []
    assert (record["source_tensors"], record["accounted"], record["bits_per_weight"]) == (3, 3, 4.0)
    assert record["bytes_by_type"] == {"Q4": 96}
    assert not record["above_asked"]


def test_more_bits_than_asked_are_said(sound):
    record, failures = coverage(*sound, Quantization("q3", 3, 3.1))
    assert record["above_asked"]
    assert failures == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e[:1], "1 tensors are missing from the export: c"),
        (lambda e: (*e, e[1]), "1 tensors are in the export twice: c"),
        (lambda e: (*e, Entry(("z",), ("z",), "Q4", 1, 1)), "1 tensors are in the export but not in the source: z"),
        (lambda e: (e[0], Entry(("c",), (), "", 0, 0, "drop")), "c was dropped without a reason"),
        (lambda e: tuple(replace(x, n_bytes=4 * x.n_elements) for x in e), "nothing was quantized: 32.0 bits"),
        (lambda e: (e[0], replace(e[1], n_bytes=64)), "the ledger has 128 bytes of tensors, the files only 100"),
    ],
)
def test_what_does_not_add_up_is_said(sound, change, words):
    checkpoint, artifact = sound
    _, failures = coverage(checkpoint, replace(artifact, ledger=change(artifact.ledger)), FOUR)
    assert any(words in f for f in failures), failures


def test_a_reason_makes_dropping_right(sound):
    checkpoint, artifact = sound
    dropped = Entry(("c",), (), "", 0, 0, "drop", note="computed from the config")
    record, failures = coverage(checkpoint, replace(artifact, ledger=(artifact.ledger[0], dropped)), FOUR)
    assert failures == []
    assert record["dropped"] == {"c": "computed from the config"}
