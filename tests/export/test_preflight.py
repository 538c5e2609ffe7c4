from __future__ import annotations

import pytest

from edge.errors import EdgeError, UsageError
from edge.export import preflight
from edge.export.artifact import Need


def test_stages_share_memory_and_add_up_disk_and_time():
    assert preflight.total([Need(5, 2, 1.0), Need(3, 4, 2.0)]) == Need(5, 6, 3.0)


@pytest.mark.parametrize(
    ("need", "error", "words"),
    [
        (Need(1 << 60, 0, 0), EdgeError, r"not enough memory: this export needs 1152921504\.6 GB"),
        (Need(0, 1 << 60, 0), EdgeError, "not enough disk at"),
        (Need(0, 0, 600), UsageError, "takes about 10 min, the limit is 1 min"),
    ],
)
def test_what_cannot_finish_is_refused(tmp_path, need, error, words):
    with pytest.raises(error, match=words):
        preflight.check(need, tmp_path / "not" / "there", time_limit_s=60)


def test_available_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4 kB\nMemAvailable:   2048 kB\n")
    assert preflight.available_ram_bytes(meminfo) == 2048 * 1024
    meminfo.write_text("MemAvailable: much\n")
    assert preflight.available_ram_bytes(meminfo) is None
    assert preflight.available_ram_bytes(tmp_path / "none") is None


def test_the_vision_part_is_counted_in_every_format(tmp_path):
    from edge.export import pipeline
    from tests.commands.test_inspect import CHECKPOINTS, write_checkpoint

    write_checkpoint(tmp_path / "sees", *CHECKPOINTS["vlm"])
    config, shapes = CHECKPOINTS["vlm"]
    text = {name.removeprefix("language_model."): s for name, s in shapes.items() if name.startswith("language_model.")}
    write_checkpoint(tmp_path / "reads", config["text_config"], text)
    for name in ("gguf", "onnx", "tflite"):
        sees = pipeline.estimate(tmp_path / "sees", formats=[name])
        reads = pipeline.estimate(tmp_path / "reads", formats=[name])
        assert sees.time_s > reads.time_s + 20  # questions about pictures, and the stage itself
        assert sees.disk_bytes > reads.disk_bytes
        assert sees.ram_bytes >= reads.ram_bytes
    assert pipeline.estimate(tmp_path / "sees", formats=["tflite"], gate=False).ram_bytes > 1500 << 20


@pytest.mark.parametrize("name", ["gguf", "onnx", "tflite"])
def test_seven_billion_parameters_on_24_gb(tmp_path, monkeypatch, name):
    """GGUF and ONNX need a part of them at a time; TFLite is refused, in one line that says why."""
    from types import SimpleNamespace

    from edge.find import load

    layer = {f"model.layers.{i}.mlp.up_proj.weight": 218_000_000 for i in range(32)}
    sizes = {"model.embed_tokens.weight": 134_000_000, "lm_head.weight": 134_000_000, **layer}
    tensors = {name: SimpleNamespace(shape=(n // 4096, 4096), dtype="BF16") for name, n in sizes.items()}
    source = SimpleNamespace(family="llm", n_parameters=sum(sizes.values()), tensors=tensors)
    module = load("edge.export.formats", name)
    need = module.estimate(source, module.PORTABLE["4bit"], calibrated=False)
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 24 * 10**9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 60))
    if name != "tflite":
        assert need.ram_bytes < 8 * 10**9
        preflight.check(need, tmp_path)
        return
    with pytest.raises(EdgeError) as refused:
        preflight.check(need, tmp_path)
    assert "not enough memory: litert-torch, which holds the model in float32 several times over, needs" in str(
        refused.value
    )
    assert "24.0 GB is available" in str(refused.value)


@pytest.mark.parametrize("size", ["0.1b", "0.3b"])
def test_what_litert_torch_took_is_what_is_foreseen(size):
    """Within a fifth, and never more than is said, for the sizes that were measured."""
    import json
    from types import SimpleNamespace

    from benchmarks.large_model import SHAPES
    from benchmarks.race import RESULTS
    from edge.export.formats import tflite

    s = SHAPES[size]
    width = s.hidden // s.heads
    attention = 2 * s.hidden * s.hidden + 2 * s.hidden * s.kv_heads * width
    layer = attention + 3 * s.hidden * s.inner + 2 * s.hidden
    source = SimpleNamespace(n_parameters=s.layers * layer + 2 * s.vocab * s.hidden + s.hidden)
    [measured] = json.loads((RESULTS / "large_model.json").read_text())["samples"][f"{size} tflite int4-rtn"]
    foreseen = tflite.estimate(source, "int4-rtn", calibrated=False).ram_bytes
    assert 0.8 < measured["peak_private_bytes"] / foreseen <= 1
