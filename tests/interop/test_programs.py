"""Other programs run what edge writes, and say what edge's own session says.

node-llama-cpp and transformers.js come from npm (`make test` installs them when there is node),
onnxruntime-genai and litert-lm from PyPI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.export.formats import tflite
from edge.export.pipeline import export
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from tests import tiny_vlm

pytestmark = [pytest.mark.rig, pytest.mark.runtime]

NODE = Path(__file__).parent / "node"
QUESTIONS = ("What is the capital of France?", "List three fruits.", "Who wrote Hamlet?")
N_NEW = 12
NEAR_TIE = 0.2  # logits

needs_node = pytest.mark.skipif(
    not (NODE / "node_modules").is_dir() or not shutil.which("node"),
    reason="node is not installed: install nodejs and npm, then `make setup`",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """format -> a bundle of 8 bits; what is compared is the file, so the gate is left out."""
    root = tmp_path_factory.mktemp("interop")
    made: dict[tuple[str, str | None], Path] = {}

    def folder(name, *, kv=None, **options):
        if (name, kv) not in made:
            [done] = export(
                "smollm2",
                root,
                formats=[name],
                quantization="8bit",
                gate=False,
                calibrate=kv is not None,
                kv=kv,
                **options,
            )
            made[name, kv] = done.folder
        return made[name, kv]

    yield folder
    shutil.rmtree(root)


def ours(folder):
    """Prompts as ids, and what our own session continues them with."""
    with open_bundle(folder) as model:
        prompts = [model.prompt(q) for q in QUESTIONS]
        model.bundle.stop_ids  # noqa: B018
        answers, margins = [], []
        for prompt in prompts:
            model.session.rewind(0)
            logits, answer, ahead = model.session.feed(prompt), [], []
            for _ in range(N_NEW):
                answer.append(int(logits.argmax()))
                second, first = sorted(logits.tolist())[-2:]
                ahead.append(first - second)
                logits = model.session.feed([answer[-1]])
            answers.append(answer)
            margins.append(ahead)
        text = model.prompt("Hi 123 🎉")
    return prompts, answers, margins, text


def agree(theirs, mine, margins):
    """The same tokens, up to where our own session hardly prefers its choice to the other.

    Files of 8 bits are computed with activations rounded to 8 bits, by other kernels on other processors, so a
    near-tie may fall otherwise. `margins` are how many logits each of our tokens is ahead of the next best.
    """
    for theirs_one, mine_one, ahead in zip(theirs, mine, margins, strict=True):
        parted = next((i for i, (a, b) in enumerate(zip(theirs_one, mine_one, strict=True)) if a != b), None)
        assert parted is None or ahead[parted] < NEAR_TIE, (theirs_one, mine_one, ahead)
    assert any(a == b for a, b in zip(theirs, mine, strict=True))


def run(*words, given):
    done = subprocess.run(
        [str(w) for w in words],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=600,
        cwd=NODE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_node
def test_node_llama_cpp_runs_our_gguf(bundle):
    folder = bundle("gguf")
    prompts, answers, margins, _ = ours(folder)
    found = run("node", "llama.mjs", folder / "model.gguf", N_NEW, given=prompts)
    agree(found["answers"], answers, margins)
    with open_bundle(folder) as model:
        assert found["spelled"] == model.tokenizer.encode("<|im_start|>user\nHi 123 🎉<|im_end|>")


@needs_node
@pytest.mark.parametrize("kv", [None, "8bit"])
def test_transformers_js_runs_our_onnx(bundle, kv):
    folder = bundle("onnx", kv=kv)
    prompts, answers, margins, text = ours(folder)
    found = run("node", "transformers.mjs", folder, "q8", N_NEW, given=prompts)
    agree(found["answers"], answers, margins)
    assert found["spelled"] == text


@pytest.mark.parametrize("kv", [None, "8bit"])
def test_onnxruntime_genai_runs_our_onnx(bundle, kv):
    folder = bundle("onnx", kv=kv)
    prompts, answers, margins, _ = ours(folder)
    script = """
import json, sys
import onnxruntime_genai as genai
model = genai.Model(sys.argv[1])
answers = []
for prompt in json.load(sys.stdin):
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + int(sys.argv[2]), do_sample=False, min_length=0)
    generator = genai.Generator(model, params)
    generator.append_tokens(prompt)
    answer = []
    while not generator.is_done():
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    answers.append(answer)
print(json.dumps({"answers": answers}))
"""
    found = run(sys.executable, "-c", script, folder, N_NEW, given=prompts)
    # It stops where the model says it is done; ours goes on.
    assert all(len(theirs) >= 5 for theirs in found["answers"])
    agree(found["answers"], [m[: len(t)] for t, m in zip(found["answers"], answers, strict=True)], margins)


def test_litert_lm_runs_our_litertlm(bundle):
    folder = bundle("tflite", also=("litertlm",))
    script = """
import json, sys
import litert_lm
engine = litert_lm.Engine(sys.argv[1], backend=litert_lm.Backend.CPU(), max_num_tokens=512)
greedy = litert_lm.SamplerConfig(top_k=1, temperature=0.0)
answers = []
for question in json.load(sys.stdin):
    with engine.create_conversation(sampler_config=greedy) as conversation:
        answers.append(conversation.send_message(question)["content"][0]["text"])
print(json.dumps({"answers": answers}))
"""
    found = run(sys.executable, "-c", script, folder / "model.litertlm", given=QUESTIONS)
    with open_bundle(folder) as model:
        for question, theirs in zip(QUESTIONS, found["answers"], strict=True):
            mine = "".join(p.text for p in model.generate(question, Sampling(max_tokens=200)))
            # A token of eight bits may fall otherwise late in a long answer; its beginning may not.
            assert theirs[:60] == mine[:60]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny LLaVA, and three pictures of the size that its encoder takes, which it tells apart."""
    import numpy as np
    from PIL import Image

    folder, paths = tmp_path_factory.mktemp("seeing"), []
    (folder / "llava").mkdir()
    for i, value in enumerate((0, 120, 255)):
        pixels = np.full((36, 36, 3), value, np.uint8)
        pixels[:, :18] = (255 - value, value // 2, 40 * i)
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return tiny_vlm.llava(folder / "llava"), paths


def about(path):
    return [{"role": "user", "content": [{"type": "image", "path": str(path)}, {"type": "text", "text": "Hm?"}]}]


@needs_node
def test_transformers_js_sees_with_our_onnx(seeing, tmp_path):
    checkpoint, paths = seeing
    [done] = export(checkpoint, tmp_path, formats=["onnx"], quantization="32bit", context_length=256, gate=False)
    given, mine = [], []
    with open_bundle(done.folder) as model:
        for path in paths:
            prompt = model.prompt(about(path))
            values = prompt.pictures[0].seen.views.values
            pixels = {"pixels": values.reshape(-1).tolist(), "shape": list(values.shape), "path": str(path)}
            given.append({"ids": list(prompt), **pixels})
            pieces = model.generate_ids(prompt, Sampling(max_tokens=N_NEW))
            mine.append([p.token_id for p in pieces if p.token_id is not None])
    found = run("node", "vision.mjs", done.folder, N_NEW, given=given)
    assert found["off"] == [0, 0, 0]
    assert [theirs[: len(ours)] for theirs, ours in zip(found["answers"], mine, strict=True)] == mine
    assert len({tuple(answer) for answer in mine}) == len(mine)


def test_litert_lm_sees_with_our_litertlm(seeing, tmp_path, monkeypatch):
    checkpoint, paths = seeing
    monkeypatch.setattr(tflite, "PREFILLS", (16,))
    options = {"quantization": "32bit", "context_length": 256, "gate": False, "also": ("litertlm",)}
    [done] = export(checkpoint, tmp_path, formats=["tflite"], **options)
    script = """
import json, sys
import litert_lm
cpu = litert_lm.Backend.CPU
engine = litert_lm.Engine(sys.argv[1], backend=cpu(), vision_backend=cpu(), max_num_tokens=200, max_num_images=1)
greedy = litert_lm.SamplerConfig(top_k=1, temperature=0.0)
answers = []
for messages in json.load(sys.stdin):
    with engine.create_conversation(sampler_config=greedy) as conversation:
        answers.append(conversation.send_message(messages[0])["content"][0]["text"])
print(json.dumps({"answers": answers}))
"""
    asked = [about(path) for path in paths]
    found = run(sys.executable, "-c", script, done.folder / "model.litertlm", given=asked)
    with open_bundle(done.folder) as model:
        mine = ["".join(p.text for p in model.generate(a, Sampling(max_tokens=60))).rstrip("\ufffd") for a in asked]
    assert [theirs[: len(ours)] for theirs, ours in zip(found["answers"], mine, strict=True)] == mine
    assert len(set(mine)) == len(mine)
