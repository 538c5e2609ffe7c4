"""How far are students of SmolLM2-135M from it: layers dropped, cut as a recipe says, and trained?

    python -m benchmarks.students WORK -o benchmarks/results/students/half.json

WORK is the folder below `~/.cache/edge/distilling` of a run of the recipe `half`. All are read by PyTorch, with
products of bfloat16 where the processor has them. Text is held out; KLD is over
the teacher's 32 likeliest next tokens and all others together, so it is at most that of the whole
distributions. What each answers to a few questions is kept as it is, good or bad.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.export.distill import answers, recipe, store
from edge.export.distill.precision import computing, has_bfloat16
from edge.export.distill.run import distill
from edge.export.distill.students import depth
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.export.sources.folder import open_folder
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

QUESTIONS = ("What is the capital of France?", "Write two sentences about the sea.", "How do I boil an egg?")
NEW_TOKENS = 40


def students(work: Path, teacher: Any, weights: str) -> Iterator[tuple[str, Any]]:
    """The teacher and every student as models, one at a time; layers alone are dropped to the student's parameters."""
    yield "teacher", load_model(teacher)
    cut = open_folder(max(work.glob("student-*"), key=lambda p: int(p.name.rpartition("-")[2])))
    all_layers = int(teacher.config["num_hidden_layers"])
    each = (teacher.n_parameters - _outside_layers(teacher)) // all_layers
    layers = round((cut.n_parameters - _outside_layers(cut)) / each)
    with tempfile.TemporaryDirectory() as folder:
        depth.write(teacher, depth.even(all_layers, layers), Path(folder))
        yield "layers dropped evenly", load_model(open_folder(Path(folder)))
    alone = distill(teacher, recipe.parse({"student": {"depth": {"layers": layers}}})).student
    yield "layers dropped by importance", load_model(alone)
    yield "cut", load_model(cut)
    model = load_model(cut)
    from safetensors.torch import load_file

    model.load_state_dict(load_file(work / weights / "model.safetensors"), strict=False)
    model.tie_weights()
    yield "trained", model


def _outside_layers(checkpoint: Any) -> int:
    return sum(math.prod(t.shape) for name, t in checkpoint.tensors.items() if ".layers." not in name)


def judged(model: Any, held: store.Store) -> dict[str, float]:
    """Mean KLD and perplexity over the held-out texts."""
    import torch

    loss = n = 0.0
    with torch.inference_mode(), computing():
        kld = answers.kld(model, held, texts_at_once=2)
        for i in range(len(held)):
            ids = torch.from_numpy(held[i]["token"].astype("int64"))[None]
            logits = model(ids, use_cache=False).logits[0, :-1].float()
            loss += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            n += ids.shape[1] - 1
    return {"mean_kld": kld, "perplexity": math.exp(loss / n), "tokens": held.n_tokens}


def said(model: Any, tokenizer: Tokenizer, template: ChatTemplate) -> dict[str, str]:
    """The likeliest answers to the questions."""
    import torch

    found = {}
    for question in QUESTIONS:
        prompt = tokenizer.encode(template.render([{"role": "user", "content": question}], add_generation_prompt=True))
        ids = torch.tensor([prompt])
        with torch.inference_mode(), computing():
            made = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=2
            )
        found[question] = tokenizer.decode(made[0, len(prompt) :].tolist(), skip_special=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--weights", default="best", help="best, or state: what was kept last")
    args = parser.parse_args()
    teacher = open_source("smollm2")
    tokenizer, template = Tokenizer.load(teacher.folder), ChatTemplate.load(teacher.folder)
    assert template is not None
    held = store.open_store(args.work / "held-out")
    log = [json.loads(line) for line in (args.work / "log.jsonl").read_text().splitlines()]
    steps = [row for row in log if "loss" in row]
    out: dict[str, Any] = {
        "bfloat16": has_bfloat16(),
        "training": {"steps": len(steps), "tokens": steps[-1]["tokens"], "cpu_s": steps[-1]["cpu_s"]},
        "log": log,
        "students": {},
    }
    for name, model in students(args.work, teacher, args.weights):
        row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), **judged(model, held)}
        row["says"] = said(model, tokenizer, template)
        out["students"][name] = row
        print(name, json.dumps(row, ensure_ascii=False), flush=True)
        args.output.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
