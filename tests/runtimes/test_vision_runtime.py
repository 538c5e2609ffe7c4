"""Models that see, from pixels to words on the runtimes that ship: the same greedy tokens as `transformers`.

Tiny random checkpoints of every type, in every format that has it; what a format cannot do is refused in words.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edge.errors import InputError, UsageError
from edge.export.formats import tflite
from edge.find import load
from edge.runtimes.model import open_bundle
from edge.runtimes.profilers import PHASES
from edge.runtimes.session import Sampling
from tests import tiny_vlm

pytestmark = pytest.mark.runtime
N_NEW = 12
MAKERS = {
    "llava-siglip": tiny_vlm.llava,
    "llava-clip": lambda folder: tiny_vlm.llava(folder, tower="clip"),
    "smolvlm": tiny_vlm.smolvlm,
    "gemma3": tiny_vlm.gemma3,
    "qwen2.5-vl": tiny_vlm.qwen2_5_vl,
}
# Relative error of features in float32: llama.cpp computes GELU from a table of 16 bits, but not in our own CLIP.
CASES = [
    ("llava-siglip", "onnx", 1e-5),
    ("llava-siglip", "gguf", 1e-3),
    ("llava-siglip", "tflite", 1e-5),
    ("llava-clip", "onnx", 1e-5),
    ("llava-clip", "gguf", 1e-5),
    ("smolvlm", "onnx", 1e-5),
    ("smolvlm", "gguf", 1e-3),
    ("smolvlm", "tflite", 1e-5),
    ("gemma3", "gguf", 1e-3),
    ("qwen2.5-vl", "gguf", 1e-3),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / name
            folder.mkdir()
            made[name] = MAKERS[name](folder)
        return made[name]

    return make


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    paths = []
    for i, (width, height) in enumerate([(60, 40), (36, 36)]):
        paths.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def export(source, output, format_name, monkeypatch, **options):
    from edge.export.pipeline import export as run

    monkeypatch.setattr(tflite, "PREFILLS", (16,))  # a second size shows nothing new, and costs half a minute
    options = {"gate": False, "quantization": "32bit", "context_length": 256, **options}
    [done] = run(source, output, formats=[format_name], **options)
    return done


@pytest.mark.parametrize(("name", "format_name", "most"), CASES)
def test_the_same_features_and_the_same_words(name, format_name, most, checkpoints, pictures, tmp_path, monkeypatch):
    import torch
    from PIL import Image

    from edge.export import reference
    from edge.export.source import open_source
    from edge.export.vision.tower import features

    done = export(checkpoints(name), tmp_path, format_name, monkeypatch)
    source = open_source(checkpoints(name))
    model, processor = reference.load_model(source), reference.load_processor(source)
    words = {"type": "text", "text": "What is this?"}
    with open_bundle(done.folder) as ours:
        for n in (1, 2):
            shown = pictures[:n]
            asked = [{"role": "user", "content": [*({"type": "image"} for _ in shown), words]}]
            text = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
            images = [[Image.open(p) for p in shown]]
            inputs = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
            asked = [{"role": "user", "content": [*({"type": "image", "path": p} for p in shown), words]}]
            prompt = ours.prompt(asked)
            assert list(prompt) == inputs["input_ids"][0].tolist()
            seen = [p.seen.views for p in prompt.pictures]
            pixels = np.concatenate([_arranged(views) for views in seen])
            assert np.array_equal(pixels, inputs["pixel_values"].numpy().reshape(pixels.shape))
            found = np.concatenate([ours.sight.features(p.seen) for p in prompt.pictures])
            wanted = np.concatenate([features(model, views.values) for views in seen])
            assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < most
            with torch.inference_mode():
                made = model.generate(**inputs, max_new_tokens=N_NEW, do_sample=False)
            # Features that are 5e-4 away let the words of a random model part some day, but not at once.
            n_new = N_NEW if most < 1e-4 else N_NEW // 2
            reply = [p.token_id for p in ours.generate(asked, Sampling(max_tokens=n_new)) if p.token_id is not None]
            assert reply == made[0, inputs["input_ids"].shape[1] :].tolist()[: len(reply)]
    recorded = load("edge.runtimes.profilers", format_name).record(
        done.folder, done.bundle, list(range(20)), 2, threads=1, context_length=None
    )
    assert [sum(s.tokens for s in recorded.steps if s.phase == phase) for phase in PHASES] == [20, 2]
    if format_name == "tflite":
        assert any(event.operator == "Embedding of tokens" for event in recorded.events)
    shutil.rmtree(done.folder)


def _arranged(views):
    """Pixels in the order of the source's own processor."""
    rule = views.rule
    if rule["kind"] != "patches":
        return views.values
    from edge.export.vision.tower import patched

    return patched(views.values, rule["patch"], rule["merge"], rule["frames"])[0]


def test_rows_and_columns_are_places_only_where_the_model_has_them(checkpoints, pictures, tmp_path, monkeypatch):
    """What llama.cpp counts is not what the cache holds; a session keeps both, and goes back to either."""
    asked = [{"role": "user", "content": [{"type": "image", "path": pictures[0]}, {"type": "text", "text": "Hm?"}]}]
    done = export(checkpoints("qwen2.5-vl"), tmp_path, "gguf", monkeypatch)
    with open_bundle(done.folder) as ours:
        session, prompt = ours.session, ours.prompt(asked)
        [placed] = prompt.pictures
        [(first, n)] = placed.runs
        rows = ours.sight.features(placed.seen)
        session.feed(prompt[:first])
        session.feed_grid(rows, placed.seen.views.grid)
        assert (session.position, session._place(session.position)) == (first + n, first + max(placed.seen.views.grid))
        once = session.feed(prompt[first + n :]).copy()
        with pytest.raises(UsageError, match=f"cannot rewind to {first + 1}: that is inside a picture"):
            session.rewind(first + 1)
        session.rewind(first + n)
        assert np.array_equal(once, session.feed(prompt[first + n :]))
        session.rewind(first)
        with pytest.raises(UsageError, match=f"{n} rows are no picture of 2 x 2"):
            session.feed_grid(rows, (2, 2))
        session.feed_grid(rows, placed.seen.views.grid)
        assert np.array_equal(once, session.feed(prompt[first + n :]))
    done = export(checkpoints("llava-siglip"), tmp_path, "gguf", monkeypatch)
    with open_bundle(done.folder) as ours, pytest.raises(UsageError, match="places what it reads one after the other"):
        ours.session.feed_grid(np.zeros((4, ours.session.hidden_size), np.float32), (2, 2))


def test_the_gate_looks_at_pictures_and_a_damaged_projector_does_not_pass(checkpoints, tmp_path, monkeypatch):
    from edge.errors import GateError
    from edge.export.vision import mmproj

    done = export(checkpoints("llava-siglip"), tmp_path, "gguf", monkeypatch, gate=True, context_length=512)
    seen = done.bundle.quality["pictures"]
    assert seen["pixels"] == {"pictures": 22, "different": 0, "max_abs": 0.0, "refused": []}
    assert seen["features"]["relative_rms"] < 1e-3
    assert seen["logits"]["positions"] > 200
    assert "features of pictures, relative RMS" in done.verdict.table()

    from edge.export import llama_cpp_source

    unpacked = llama_cpp_source.folder()
    whole = mmproj._stored
    monkeypatch.setattr(mmproj, "_check", lambda *a, **k: None)
    monkeypatch.setattr(mmproj, "_stored", lambda place, a, half: whole(place, a * (place != "mm.2.bias"), half=half))
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(llama_cpp_source, "folder", lambda: unpacked)
    with pytest.raises(GateError, match=r"features of pictures are .* of their size away from the source's"):
        export(checkpoints("llava-siglip"), tmp_path / "bad", "gguf", monkeypatch, gate=True, context_length=512)


def test_the_built_in_model_passes_the_gate_with_pictures(tmp_path, monkeypatch):
    done = export("smollm2-vision", tmp_path, "gguf", monkeypatch, gate=True, quantization="8bit", context_length=512)
    seen = done.bundle.quality["pictures"]
    assert seen["pixels"]["max_abs"] == 0.0
    assert seen["features"]["relative_rms"] < 1e-3
    assert seen["logits"]["same_top1"] > 0.95
    assert seen["answers"]["questions"] == 48


@pytest.mark.parametrize(
    ("name", "format_name", "words"),
    [
        ("gemma3", "onnx", "the rows of a picture see each other"),
        ("qwen2.5-vl", "onnx", "places their rows in height and width"),
        ("qwen2.5-vl", "tflite", "places their rows in height and width"),
    ],
)
def test_what_a_format_cannot_do_is_said_before_anything_is_made(
    name, format_name, words, checkpoints, tmp_path, monkeypatch
):
    source = checkpoints(name)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=words):
        export(source, tmp_path / "out", format_name, monkeypatch)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "hashes"] == ["text-parts"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "format_name", "config", "change", "words"),
    [
        ("qwen2.5-vl", "gguf", "config.json", {"window_size": 56}, "sees windows of 56 pixels, llama.cpp's has 112"),
        ("gemma3", "tflite", "config.json", {"sliding_window": 3}, "the 4 rows of a picture see each other, and in"),
        ("llava-siglip", "gguf", "config.json", {"vision_feature_select_strategy": "default"}, "leaves out the first"),
    ],
)
def test_what_a_format_cannot_do_with_one_checkpoint(
    name, format_name, config, change, words, checkpoints, tmp_path, monkeypatch
):
    folder = tmp_path / "other"
    shutil.copytree(checkpoints(name), folder)
    data = json.loads((folder / config).read_text())
    for part in (data, data["vision_config"], data["text_config"]):
        part.update({key: value for key, value in change.items() if key in part})
    (folder / config).write_text(json.dumps(data))
    path = folder / "processor_config.json"
    if "vision_feature_select_strategy" in change:  # the processor says the same
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=words):
        export(folder, tmp_path / "out", format_name, monkeypatch)


def test_patches_of_another_size_are_refused(checkpoints, tmp_path, monkeypatch):
    folder = tmp_path / "other"
    shutil.copytree(checkpoints("qwen2.5-vl"), folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "merge_size": 4}))
    with pytest.raises(InputError, match=r"its processor makes patches of .*'merge': 4.*, its vision encoder takes"):
        export(folder, tmp_path / "out", "gguf", monkeypatch)


def test_a_vision_part_of_another_model_is_refused(checkpoints, pictures, tmp_path, monkeypatch):
    done = export(checkpoints("llava-siglip"), tmp_path, "gguf", monkeypatch)
    asked = [{"role": "user", "content": [{"type": "image", "path": pictures[0]}, {"type": "text", "text": "?"}]}]
    (done.folder / "mmproj.gguf").write_bytes((done.folder / "model.gguf").read_bytes())
    with open_bundle(done.folder, check=False) as ours, pytest.raises(InputError, match="is no vision encoder"):
        list(ours.generate(asked))
    with pytest.raises(InputError, match=r"mmproj\.gguf is damaged"):
        open_bundle(done.folder)


def test_a_processor_that_does_not_fit_the_weights_is_found_before_anything_is_made(checkpoints, tmp_path, monkeypatch):
    folder = tmp_path / "other"
    shutil.copytree(checkpoints("llava-siglip"), folder)
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    for change, words in (
        (
            {"image_processor": {**config["image_processor"], "size": {"height": 48, "width": 48}}},
            "encoder takes 36 x 36",
        ),
        ({"num_additional_image_tokens": 1}, "gives 9 rows for a picture, its processor makes room for 10"),
        ({"image_processor": {**config["image_processor"], "image_mean": [0.5]}}, "image_mean must be three numbers"),
    ):
        path.write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=words):
            export(folder, tmp_path / "out", "onnx", monkeypatch)
    path.unlink()
    with pytest.raises(UsageError, match="has no processor of pictures"):
        export(folder, tmp_path / "out", "onnx", monkeypatch)
    assert not (tmp_path / "out").exists()
