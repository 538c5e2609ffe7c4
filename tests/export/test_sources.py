"""What people have becomes a checkpoint, or one clear line says why not."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from edge.errors import EdgeError, InputError, UsageError
from edge.export.source import open_source
from tests.tiny_bundle import tiny_tokenizer

CONFIG = {"model_type": "llama", "hidden_size": 4, "vocab_size": 8}


def shard(path, **tensors):
    """A safetensors file, written by hand so that it needs no library."""
    header, data = {}, b""
    for name, array in tensors.items():
        kind = {"float32": "F32", "float16": "F16", "int64": "I64", "uint16": "U16"}[str(array.dtype)]
        header[name] = {
            "dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes],
        }  # fmt: skip
        data += array.tobytes()
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


@pytest.fixture
def folder(tmp_path):
    """A small sound checkpoint."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "tokenizer.json").write_text(tiny_tokenizer())
    shard(made / "model.safetensors", a=np.arange(8, dtype=np.float32).reshape(2, 4), b=np.ones(3, np.float16))
    return made


@pytest.mark.runtime
def test_a_folder(folder):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    checkpoint = open_source(folder)
    assert (checkpoint.name, checkpoint.family, checkpoint.model_type) == ("model", "slm", "llama")
    assert checkpoint.n_parameters == 11
    assert checkpoint.licence == "apache-2.0"
    assert set(checkpoint.identity) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert checkpoint.read("a").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert checkpoint.read("b").dtype == np.float32
    assert [name for name, _ in checkpoint.items()] == ["a", "b"]


@pytest.mark.runtime
def test_shards(folder):
    (folder / "model.safetensors").unlink()
    shard(folder / "x-1.safetensors", a=np.zeros((2, 2), np.float32))
    shard(folder / "x-2.safetensors", b=np.ones(2, np.float32))
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_source(folder)
    assert checkpoint.tensors["b"].file == "x-2.safetensors"
    assert checkpoint.read("b").tolist() == [1, 1]


def test_the_identity_follows_the_bytes(folder):
    before = open_source(folder).id
    (folder / "config.json").write_text(json.dumps({**CONFIG, "rope_theta": 1.0}))
    assert open_source(folder).id != before


def index(folder, weight_map):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda f: (f / "config.json").unlink(), UsageError, "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), InputError, "is not sound JSON"),
        (lambda f: (f / "config.json").write_text("[" * 10**6), InputError, "is not sound JSON"),
        (lambda f: (f / "config.json").write_text("[]"), InputError, "wanted an object, found list"),
        (lambda f: os.truncate(f / "config.json", 65 << 20), InputError, "is larger than 64 MiB"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nova"}'), UsageError, "of the model type 'nova'"),
        (lambda f: (f / "tokenizer.json").unlink(), UsageError, "has no tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), UsageError, "has no model.safetensors and no"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            UsageError,
            r"as pickle \(pytorch_model.bin\)",
        ),
        (lambda f: os.truncate(f / "model.safetensors", 40), InputError, "is not a sound safetensors file"),
        (lambda f: index(f, {"a": "../x.safetensors"}), InputError, "names a shard outside its folder"),
        (lambda f: index(f, {"a": "x.safetensors"}), InputError, "lacks the shard x.safetensors"),
        (lambda f: index(f, ["a"]), InputError, "has no weight_map"),
    ],
)
def test_what_is_missing_or_damaged_is_said(folder, spoil, kind, words):
    spoil(folder)
    with pytest.raises(kind, match=words):
        open_source(folder)


def test_a_tensor_in_two_shards(folder):
    for name in ("x-1", "x-2"):
        shard(folder / f"{name}.safetensors", a=np.zeros(2, np.float32))
    index(folder, {"a": "x-1.safetensors", "b": "x-2.safetensors"})
    with pytest.raises(InputError, match=r"tensor 'a' is in both x-1\.safetensors and x-2\.safetensors"):
        open_source(folder)


@pytest.mark.runtime
def test_a_type_that_is_not_read(folder):
    shard(folder / "model.safetensors", a=np.zeros(2, np.uint16))
    with pytest.raises(InputError, match="tensor 'a' is stored as U16, which this edge does not read"):
        open_source(folder).read("a")


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="is a single file, but no GGUF file"):
        open_source(tmp_path / "weights.bin")


def test_a_damaged_gguf_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(InputError, match="is not a sound GGUF file"):
        open_source(tmp_path / "m.gguf")


def test_the_hub_without_a_network_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EdgeError) as failure:
        open_source("nobody/no-such-model")
    assert "nobody/no-such-model" in failure.value.message
    assert failure.value.hint
