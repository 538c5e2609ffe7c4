"""smollm2-moe: put together as it was scored, and routed by what a text is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.export.zoo import smollm2_moe
from edge.export.zoo._assemble import ADAPTERS

HOME = ADAPTERS / smollm2_moe.NAME
DOMAINS = ("chat", "code", "manual", "data")


def score() -> dict:
    return json.loads((HOME / "score.json").read_text())


def judged() -> dict[str, str]:
    rows = [json.loads(line) for line in (HOME / "domains.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["domain"]: row["text"] for row in rows}


def test_every_expert_is_the_base_and_what_it_learned():
    draw = np.random.default_rng(0)
    weights = {
        "model.embed_tokens.weight": draw.normal(size=(8, 4)).astype(np.float32),
        "model.layers.0.mlp.gate_proj.weight": draw.normal(size=(6, 4)).astype(np.float32),
        "model.layers.0.mlp.up_proj.weight": draw.normal(size=(6, 4)).astype(np.float32),
        "model.layers.0.mlp.down_proj.weight": draw.normal(size=(4, 6)).astype(np.float32),
    }
    learned = {"router": draw.normal(size=(1, 2, 4)).astype(np.float16)}
    for part, (n_out, n_in) in {"gate": (6, 4), "up": (6, 4), "down": (4, 6)}.items():
        learned[f"{part}_a"] = draw.normal(size=(1, 2, 3, n_in)).astype(np.float16)
        learned[f"{part}_b"] = draw.normal(size=(1, 2, n_out, 3)).astype(np.float16)
    base = SimpleNamespace(tensors=dict.fromkeys(weights), read=weights.__getitem__)
    made = dict(smollm2_moe.tensors(base, learned))
    assert len(made) == 1 + 1 + 2 * 3
    assert made["model.embed_tokens.weight"] is weights["model.embed_tokens.weight"]
    front = "model.layers.0.block_sparse_moe"
    assert np.array_equal(made[f"{front}.gate.weight"], learned["router"][0].astype(np.float32))
    change = learned["down_b"][0, 1].astype(np.float64) @ learned["down_a"][0, 1].astype(np.float64)
    wanted = weights["model.layers.0.mlp.down_proj.weight"] + change
    assert np.allclose(made[f"{front}.experts.1.w2.weight"], wanted, atol=1e-6)
    assert not np.allclose(made[f"{front}.experts.0.w2.weight"], wanted, atol=1e-2)


def test_the_score_says_that_each_expert_is_worth_something():
    found = score()
    for i, domain in enumerate(DOMAINS):
        assert found["perplexity"][domain] < 0.95 * found["perplexity_base"][domain]
        assert found["perplexity_without"][domain][domain] > 1.1 * found["perplexity"][domain]
        assert max(range(4), key=found["expert_load"][domain].__getitem__) == i
    assert max(found["router_entropy_nats"]) < found["router_entropy_most"]


def test_the_card_has_the_figures_of_the_score():
    card, found = (HOME / "card.md").read_text(), score()
    for domain in DOMAINS:
        without = [found["perplexity_without"][other][domain] for other in DOMAINS]
        row = [
            f"{found['perplexity_base'][domain]:.2f}",
            f"**{found['perplexity'][domain]:.2f}**",
            *(f"{p:.2f}" for p in without),
        ]
        assert f"| {domain} | {' | '.join(row)} |" in card


@pytest.mark.runtime
def test_its_routers_know_what_a_text_is():
    """Opening checks the hash; then one window of each kind, and again without the expert of that kind."""
    import torch

    from edge.export import expert_use
    from edge.export.reference import load_model
    from edge.export.source import open_source
    from edge.runtimes.tokenizer import Tokenizer

    checkpoint = open_source("smollm2-moe")
    assert checkpoint.family == "moe"
    assert checkpoint.licence == "apache-2.0"
    model, tokenizer = load_model(checkpoint), Tokenizer.load(Path(checkpoint.folder))
    banned: list[int] = []

    def ban(module, inputs, output):
        if not banned:
            return None
        scores = output[0].clone()
        scores[:, banned] = -torch.inf
        best, chosen = scores.softmax(-1).topk(2)
        return scores, best / best.sum(-1, keepdim=True), chosen

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(ban)
    for i, domain in enumerate(DOMAINS):
        ids = torch.tensor([tokenizer.encode(judged()[domain])[:160]])
        with torch.inference_mode():
            with expert_use.counting(model, checkpoint) as use:
                whole = float(model(ids, labels=ids, use_cache=False).loss)
            load = sum(tokens for tokens, _ in use.values())
            assert int(np.argmax(load)) == i, domain
            banned[:] = [i]
            assert float(model(ids, labels=ids, use_cache=False).loss) > whole + 0.05, domain
            banned.clear()
