"""The fallback exporter: installed when asked, given a configuration that it understands, run with a growing cache."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgeError, InputError, MissingError, UsageError
from edge.export import optimum_env, pipeline
from edge.progress import Silent
from edge.runtimes.onnx_growing import GrowingSession
from edge.runtimes.session import ContextFull


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    config = {"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0}}
    return SimpleNamespace(folder=folder, name="tiny", model_type="llama", config=config)


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match="needs optimum's exporter, which is not installed") as missing:
        optimum_env.export(checkpoint, tmp_path / "out", Silent())
    assert "edge doctor --install optimum" in str(missing.value)


def test_a_failed_installation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    failed = SimpleNamespace(returncode=1, stderr="no index\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(EdgeError, match="pip cannot install optimum: no index"):
        optimum_env.install()
    assert optimum_env.folder() is None


def test_its_last_words_are_passed_on(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(optimum_env, "folder", lambda: tmp_path)
    failed = SimpleNamespace(returncode=1, stderr="ValueError: no such type\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(EdgeError, match=r"optimum cannot export tiny \(llama\): ValueError: no such type"):
        optimum_env.export(checkpoint, tmp_path / "out", Silent())


def test_rotary_parameters_are_written_as_transformers_4_reads_them(checkpoint, tmp_path):
    view = optimum_env._older_view(checkpoint, tmp_path / "view")
    config = json.loads((view / "config.json").read_text())
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"] == {"rope_type": "llama3", "factor": 32.0}
    assert "rope_parameters" not in config
    assert (view / "tokenizer.json").is_symlink()
    assert json.loads((checkpoint.folder / "config.json").read_text()) == {}


@pytest.mark.parametrize(
    ("formats", "exporter", "words"),
    [(["onnx"], "tracing", "onnx has no exporter 'tracing'"), (["gguf"], "optimum", "gguf has no exporter 'optimum'")],
)
def test_an_exporter_that_a_format_does_not_have_is_refused(formats, exporter, words):
    with pytest.raises(UsageError, match=words):
        pipeline.export("smollm2", formats=formats, exporter=exporter)


class Counting:
    """A graph of one layer whose logits say how many tokens were seen."""

    def get_inputs(self):
        cache = [SimpleNamespace(name=f"past_key_values.0.{k}", shape=["b", 1, "p", 2]) for k in ("key", "value")]
        plain = [SimpleNamespace(name=n, shape=[]) for n in ("input_ids", "attention_mask", "position_ids")]
        for one in cache:
            one.type = "tensor(float)"
        return plain + cache

    def get_outputs(self):
        names = ("logits", "present.0.key", "present.0.value")
        return [SimpleNamespace(name=n, shape=["b", "n", 8]) for n in names]

    def run(self, names, feeds):
        ids, past = feeds["input_ids"], feeds["past_key_values.0.key"]
        if (ids == 7).any():
            raise RuntimeError("bad token")
        seen = past.shape[2] + ids.shape[1]
        assert feeds["attention_mask"].shape == (1, seen)
        assert feeds["position_ids"][0, -1] == seen - 1
        logits = np.zeros((1, ids.shape[1], 8), np.float32)
        logits[0, :, 0] = feeds["position_ids"][0] + 1
        grown = np.concatenate([past, np.zeros((1, 1, ids.shape[1], 2), np.float32)], axis=2)
        return [logits, grown, grown]


def test_a_growing_cache_is_a_session_like_any_other():
    session = GrowingSession(Counting(), context_length=200)
    assert session.feed([1] * 150)[0] == 150
    session.rewind(3)
    assert session.position == 3
    assert session.feed_all([1, 2])[:, 0].tolist() == [4, 5]
    with pytest.raises(EdgeError, match="onnxruntime failed at token 5: bad token"):
        session.feed([7])
    assert session.position == 5
    for call, error, words in (
        (lambda: session.feed([8]), UsageError, "token id 8 is outside the vocabulary of 8"),
        (lambda: session.feed([]), UsageError, "nothing to feed"),
        (lambda: session.feed([1] * 196), ContextFull, "the context is full"),
        (lambda: session.rewind(6), UsageError, "cannot rewind to 6"),
        (lambda: session.feed_embeddings(np.zeros((1, 2))), UsageError, "takes token ids only"),
    ):
        with pytest.raises(error, match=words):
            call()
    session.close()
    with pytest.raises(UsageError, match="this session is closed"):
        session.feed([1])


def test_a_graph_of_another_kind_is_refused():
    other = Counting()
    other.get_outputs = list
    with pytest.raises(InputError, match="no decoder with a growing cache"):
        GrowingSession(other, context_length=8)


@pytest.mark.rig
@pytest.mark.skipif(optimum_env.folder() is None, reason="not installed: edge doctor --install optimum")
def test_what_optimum_exports_passes_the_gate(tmp_path):
    from tests import parity

    checkpoint = parity.make("llama_3_2", tmp_path)
    [done] = pipeline.export(
        checkpoint, tmp_path / "out", formats=["onnx"], quantization="32bit", exporter="optimum", context_length=256
    )
    assert done.bundle.proven
    assert done.bundle.tools == {"optimum": optimum_env.VERSION}
