"""Exports that other tools would ship: each is damaged on its way into the bundle, and the gate has to say so.

The damage is done to files that were just packed, so that everything else is the real thing:
smollm2's weights, llama.cpp, the source in transformers. What fails is never published.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.errors import GateError
from edge.export import pack, pipeline, stages
from edge.readers.gguf import read_header

pytestmark = pytest.mark.runtime


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """`refused(damage)` exports with `damage(folder)` done after packing and gives the gate's words."""
    fill = pack.fill

    def run(damage, quantization="q8_0", **options):
        def spoilt(folder, artifact, checkpoint):
            fill(folder, artifact, checkpoint)
            if damage is not None:
                damage(folder)

        monkeypatch.setattr(pack, "fill", spoilt)
        with pytest.raises(GateError) as failure:
            pipeline.export("smollm2", tmp_path / "out", formats=["gguf"], quantization=quantization, **options)
        assert list((tmp_path / "out").iterdir()) == []
        return str(failure.value)

    return run


def model(folder):
    [path] = folder.glob("*.gguf")
    return path


def write(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_two_tensors_of_one_shape_in_each_other_s_place(refused):
    def swap(folder):
        path = model(folder)
        tensors = read_header(path).tensors
        a, b = tensors["blk.3.ffn_gate.weight"], tensors["blk.4.ffn_gate.weight"]
        raw = path.read_bytes()
        write(path, a.offset, raw[b.offset : b.offset + b.n_bytes])
        write(path, b.offset, raw[a.offset : a.offset + a.n_bytes])

    words = refused(swap)
    assert "mean KLD" in words
    assert "same top token at" in words


def test_a_wrong_rope_base(refused):
    def rebase(folder):
        path = model(folder)
        key = b"llama.rope.freq_base"
        at = path.read_bytes().index(key) + len(key)
        assert path.read_bytes()[at : at + 4] == (6).to_bytes(4, "little")  # a float32
        import struct

        write(path, at + 4, struct.pack("<f", 10_000.0 * 100))

    assert "mean KLD" in refused(rebase)


def test_a_quantized_file_in_which_nothing_is_quantized(refused, monkeypatch):
    convert = stages.quantized

    def renamed(job, order, progress):
        return replace(convert(replace(job, quantization="f32"), order, progress), quantization=job.quantization)

    monkeypatch.setattr(stages, "quantized", renamed)
    assert "nothing was quantized: 32.0 bits per weight, q8_0 should have 8" in refused(None)


def test_a_broken_tokenizer(refused):
    def reverse_merges(folder):
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text())
        data["model"]["merges"][:200] = reversed(data["model"]["merges"][:200])
        path.write_text(json.dumps(data))

    assert "the packed tokenizer gives other ids for" in refused(reverse_merges)


def test_a_tokenizer_inside_the_model_file_that_is_another(refused):
    def other_pre_tokenizer(folder):
        path = model(folder)
        at = path.read_bytes().index(b"tokenizer.ggml.pre")
        at = path.read_bytes().index(b"smollm", at)
        write(path, at, b"llama3")  # as long as the right one

    assert "the embedded tokenizer gives other ids for" in refused(other_pre_tokenizer)


def test_an_edited_chat_template(refused):
    def edit(folder):
        path = folder / "chat_template.jinja"
        path.write_text(path.read_text().replace("<|im_end|>", "<|im_end|> ", 1))

    assert "the chat template gives" in refused(edit)


def test_an_output_that_is_all_zero(refused):
    def silence(folder):
        path = model(folder)
        norm = read_header(path).tensors["output_norm.weight"]
        write(path, norm.offset, bytes(norm.n_bytes))

    assert "the same logit for every token: its output is empty" in refused(silence)


def test_plain_q4_0_does_not_pass_and_what_passes_is_offered(refused):
    words = refused(None, "q4_0", calibrate=False)
    assert "mean KLD 0.3" in words
    assert "calibration (leave out --no-calibration)" in words
    assert "--quant q" in words
