"""Upcycle SmolLM2 into four experts, train them apart, then teach the routers: the adapter of `smollm2-moe`.

    python -m edge.export.training.smollm2_moe WORK MANUALS

MANUALS is the folder `usr/share/man/man3` of Debian's libcurl4-doc. WORK keeps what is finished, so
that a run that was stopped goes on; at its end it holds adapter.safetensors, score.json, and domains.jsonl.

1. Every MLP is copied to four experts ("sparse upcycling": Komatsuzaki et al. 2022). An expert is the
   base MLP plus a low-rank change of each of its three matrices; the base stays as it is.
2. Each expert is trained on its own kind of text alone ("branch-train-mix": Sukhbaatar et al. 2024).
3. Routers start from a least-squares classifier of each layer's inputs by domain, then routers and
   experts learn together for a while, with a loss that keeps the load even (Fedus et al. 2021).
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from edge.export.calibrate import default_calibration, held_out
from edge.export.corpus import prompts
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.export.training import smollm2_moe_texts as texts
from edge.export.training.smollm2_moe_texts import DOMAINS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

SEED = 7
RANK = 4
TOP_K = 2
WINDOW = 128
APART_STEPS, APART_RATE = 120, 2e-3
TOGETHER_STEPS, TOGETHER_RATE, ROUTER_RATE = 30, 1e-3, 2e-3
HORIZON = 320  # steps after which the rate would be at its least; training apart ends earlier
BALANCE = 0.02
ROUTER_SHARPNESS = 4.0  # the classifier's scores are near 0 and 1; the router's softmax needs more contrast
JUDGED_WINDOWS = 8  # of each domain
OWN_WORDS = 4  # answers to each prompt
MATRICES = ("gate", "up", "down")


class Mixture(torch.nn.Module):
    """An MLP in whose place four experts stand. `assigned` int `(batch,)` names one for each window, else the router
    chooses; `banned` is an expert that must not be chosen. What was routed is left in `probabilities` and `chosen`."""

    def __init__(self, mlp: Any, draw: torch.Generator) -> None:
        super().__init__()
        self.base = {"gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}
        n = len(DOMAINS)
        for name, linear in self.base.items():
            a = torch.randn(n, RANK, linear.in_features, generator=draw) / math.sqrt(linear.in_features)
            self.register_parameter(f"{name}_a", torch.nn.Parameter(a))
            self.register_parameter(f"{name}_b", torch.nn.Parameter(torch.zeros(n, linear.out_features, RANK)))
        self.router = torch.nn.Parameter(torch.zeros(n, mlp.gate_proj.in_features))
        self.assigned: torch.Tensor | None = None
        self.banned: int | None = None
        self.inputs: torch.Tensor | None = None

    def _changes(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = self.base[name].weight.dtype
        return getattr(self, f"{name}_a").to(dtype), getattr(self, f"{name}_b").to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.base["gate"](x), self.base["up"](x)
        (ga, gb), (ua, ub), (da, db) = (self._changes(name) for name in MATRICES)
        if self.assigned is not None:
            e = self.assigned
            self.inputs = x
            g = gate + x @ ga[e].transpose(1, 2) @ gb[e].transpose(1, 2)
            u = up + x @ ua[e].transpose(1, 2) @ ub[e].transpose(1, 2)
            h = F.silu(g) * u
            return self.base["down"](h) + h @ da[e].transpose(1, 2) @ db[e].transpose(1, 2)
        logits = x.float() @ self.router.T
        if self.banned is not None:
            logits[..., self.banned] = -math.inf
        self.probabilities = logits.softmax(-1)
        best, self.chosen = self.probabilities.topk(TOP_K, -1)
        weights = torch.zeros_like(logits).scatter(-1, self.chosen, best / best.sum(-1, keepdim=True)).to(x.dtype)
        mixed, changed = torch.zeros_like(gate), torch.zeros_like(x)
        for i in range(len(DOMAINS)):
            h = F.silu(gate + x @ ga[i].T @ gb[i].T) * (up + x @ ua[i].T @ ub[i].T) * weights[..., i : i + 1]
            mixed = mixed + h
            changed = changed + h @ da[i].T @ db[i].T
        return self.base["down"](mixed) + changed


def mixture_of(model: Any) -> list[Mixture]:
    draw = torch.Generator().manual_seed(SEED)
    layers = []
    for layer in model.model.layers:
        layer.mlp = Mixture(layer.mlp, draw)
        layers.append(layer.mlp)
    return layers


def save(layers: Sequence[Mixture], path: Path, dtype: torch.dtype = torch.float32) -> None:
    """`gate_a` and its like `(layers, experts, rank, inputs)` or `(layers, experts, outputs, rank)`, `router`."""
    names = [n for n, _ in layers[0].named_parameters()]
    stacked = {n: torch.stack([getattr(m, n).detach() for m in layers]).to(dtype).contiguous() for n in names}
    part = path.with_suffix(".part")
    save_file(stacked, part)
    part.replace(path)


def restore(layers: Sequence[Mixture], path: Path) -> None:
    for name, stacked in load_file(path).items():
        for mixture, value in zip(layers, stacked, strict=True):
            getattr(mixture, name).data.copy_(value)


def own_words(model: Any, tokenizer: Tokenizer, template: ChatTemplate) -> list[list[int]]:
    """Conversations that the model writes itself: every calibration prompt answered a few times."""
    torch.manual_seed(SEED)
    out = []
    for n in range(OWN_WORDS):
        asked = [tokenizer.encode(template.render([{"role": "user", "content": p}])) for p in prompts.CALIBRATION]
        longest = max(map(len, asked))
        ids = torch.tensor([[2] * (longest - len(a)) + a for a in asked])
        mask = torch.tensor([[0] * (longest - len(a)) + [1] * len(a) for a in asked])
        made = model.generate(
            ids, attention_mask=mask, max_new_tokens=160, do_sample=True, temperature=0.8, top_p=0.95, pad_token_id=2
        )
        for row, a in zip(made.tolist(), asked, strict=True):
            answer = row[longest:]
            end = answer.index(2) + 1 if 2 in answer else len(answer)
            out.append(a + answer[:end])
        print(f"own words {n + 1}/{OWN_WORDS}", flush=True)
    return out


def windows_of(ids: Sequence[int]) -> list[list[int]]:
    return [list(ids[i : i + WINDOW + 1]) for i in range(0, len(ids) - WINDOW, WINDOW)]


def corpora(work: Path, manuals: Path, model: Any) -> dict[str, list[list[int]]]:
    """Training windows of each domain, kept in `work`; `domains.jsonl` gets what the domains are judged by."""
    kept = work / "windows.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    checkpoint = open_source("smollm2")
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    assert template is not None
    talk = own_words(model, tokenizer, template) + [list(w) for w in default_calibration(tokenizer, template).windows]
    random.Random(SEED).shuffle(talk)
    found = {
        "chat": windows_of([t for one in talk for t in one]),
        "code": windows_of(tokenizer.encode(texts.code(held_out=False))),
        "manual": windows_of(tokenizer.encode(texts.manual(manuals, held_out=False)[:400_000])),
        "data": windows_of(tokenizer.encode(texts.data(900, seed=1))),
    }
    judged = texts.held_out(
        manuals, tokenizer.decode([t for w in held_out(tokenizer, template).windows[:12] for t in w])
    )
    lines = [json.dumps({"domain": d, "text": t}, ensure_ascii=False) + "\n" for d, t in judged.items()]
    (work / "domains.jsonl").write_text("".join(lines), encoding="utf-8")
    kept.write_text(json.dumps(found))
    return found


def loss_of(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss of each window, float32 `(batch,)`."""
    logits = model(batch[:, :-1], use_cache=False).logits
    flat = F.cross_entropy(logits.float().transpose(1, 2), batch[:, 1:], reduction="none")
    return flat.mean(1)


def rate_at(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / min(20, steps // 6)) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def batches(windows: dict[str, list[list[int]]], seed: int) -> Iterator[torch.Tensor]:
    """One window of each domain, in the order of the experts, for ever."""
    draw = random.Random(seed)
    orders: dict[str, list[list[int]]] = {d: [] for d in DOMAINS}
    while True:
        rows = []
        for domain in DOMAINS:
            if not orders[domain]:
                orders[domain] = list(windows[domain])
                draw.shuffle(orders[domain])
            rows.append(orders[domain].pop())
        yield torch.tensor(rows)


def train_apart(model: Any, layers: list[Mixture], windows: dict[str, list[list[int]]], work: Path) -> None:
    """Each window is computed by the expert of its domain alone, so no expert sees another's text."""
    for mixture in layers:
        mixture.assigned = torch.arange(len(DOMAINS))
    trained = [p for m in layers for n, p in m.named_parameters() if n != "router"]
    _train(model, layers, windows, work, "apart", APART_STEPS, [(trained, APART_RATE)], balance=0.0)


def train_together(model: Any, layers: list[Mixture], windows: dict[str, list[list[int]]], work: Path) -> None:
    for mixture in layers:
        mixture.assigned = None
    experts = [p for m in layers for n, p in m.named_parameters() if n != "router"]
    routers = [m.router for m in layers]
    groups = [(experts, TOGETHER_RATE), (routers, ROUTER_RATE)]
    _train(model, layers, windows, work, "together", TOGETHER_STEPS, groups, balance=BALANCE)


def _train(
    model: Any, layers: list[Mixture], windows: Any, work: Path, name: str, steps: int, groups: Any, balance: float
) -> None:
    done, kept = work / f"{name}.safetensors", work / f"{name}.state.pt"
    if done.is_file():
        restore(layers, done)
        return
    optimizer = torch.optim.AdamW([{"params": p, "lr": r, "top": r} for p, r in groups], weight_decay=0.0)
    start = 0
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        start = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        restore(layers, work / f"{name}.part.safetensors")
    source = batches(windows, SEED + len(name))
    for _ in range(start):
        next(source)
    for step in range(start, steps):
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * rate_at(step, HORIZON if name == "apart" else steps)
        losses = loss_of(model, next(source))
        total = losses.mean()
        if balance:
            total = total + balance * torch.stack([_imbalance(m) for m in layers]).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == steps - 1:
            words = " ".join(f"{d} {v:.3f}" for d, v in zip(DOMAINS, losses.tolist(), strict=True))
            print(f"{name} {step}/{steps} {words} {time.monotonic() - began:.1f} s", flush=True)
        if step % 10 == 9:
            save(layers, work / f"{name}.part.safetensors")
            torch.save({"step": step + 1, "optimizer": optimizer.state_dict()}, kept)
    save(layers, done)


def _imbalance(mixture: Mixture) -> torch.Tensor:
    """1 when experts are chosen equally often, more when not (Switch Transformer, equation 4)."""
    n = len(DOMAINS)
    p = mixture.probabilities.reshape(-1, n)
    chosen = F.one_hot(mixture.chosen.reshape(-1), n).float().mean(0)
    return n * (chosen * p.mean(0)).sum()


def classify(model: Any, layers: list[Mixture], windows: dict[str, list[list[int]]]) -> None:
    """Routers from least squares: scores of the layer's inputs near 1 for their domain, near 0 for others."""
    n, size = len(DOMAINS), layers[0].router.shape[1]
    xx = [torch.zeros(size, size, dtype=torch.float64) for _ in layers]
    xy = [torch.zeros(size, n, dtype=torch.float64) for _ in layers]
    for mixture in layers:
        mixture.assigned = torch.arange(n)
    source = batches(windows, SEED)
    with torch.no_grad():
        for _ in range(12):
            model(next(source)[:, :-1], use_cache=False)
            for i, mixture in enumerate(layers):
                assert mixture.inputs is not None
                x = mixture.inputs.double()
                xx[i] += torch.einsum("bth,btk->hk", x, x)
                xy[i] += x.sum(1).T
    for i, mixture in enumerate(layers):
        ridge = 1e-2 * xx[i].diagonal().mean() * torch.eye(size, dtype=torch.float64)
        found = torch.linalg.solve(xx[i] + ridge, xy[i]).T
        mixture.router.data.copy_((found * ROUTER_SHARPNESS).float())


def score(model: Any, layers: list[Mixture], work: Path, base_model: Any) -> dict[str, Any]:
    """Perplexities on text that nothing was trained on, and what the routers do with it; float32."""
    tokenizer = Tokenizer.load(open_source("smollm2").folder)
    judged = {}
    for line in (work / "domains.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        judged[row["domain"]] = windows_of(tokenizer.encode(row["text"]))[:JUDGED_WINDOWS]
    for mixture in layers:
        mixture.assigned = None
    found: dict[str, Any] = {"positions": {d: WINDOW * len(w) for d, w in judged.items()}}
    found["perplexity_base"] = _perplexities(base_model, judged)
    load, entropy = np.zeros((len(DOMAINS), len(layers), len(DOMAINS))), np.zeros(len(layers))
    found["perplexity"] = _perplexities(model, judged, layers, load, entropy)
    share = load / load.sum(-1, keepdims=True)
    found["expert_load"] = {d: [round(float(v), 4) for v in share[i].mean(0)] for i, d in enumerate(DOMAINS)}
    found["expert_load_by_layer"] = {d: np.round(share[i], 3).tolist() for i, d in enumerate(DOMAINS)}
    found["router_entropy_nats"] = [round(float(v), 4) for v in entropy]
    found["router_entropy_most"] = round(math.log(len(DOMAINS)), 4)
    found["perplexity_without"] = {}
    for i, domain in enumerate(DOMAINS):
        for mixture in layers:
            mixture.banned = i
        found["perplexity_without"][domain] = _perplexities(model, judged)
    for mixture in layers:
        mixture.banned = None
    return found


def _perplexities(
    model: Any, judged: dict[str, list[list[int]]], layers: Any = (), load: Any = None, entropy: Any = None
) -> dict[str, float]:
    out, total = {}, sum(len(w) for w in judged.values())
    with torch.no_grad():
        for i, (domain, windows) in enumerate(judged.items()):
            losses = []
            for start in range(0, len(windows), 4):
                batch = torch.tensor(windows[start : start + 4])
                losses.append(loss_of(model, batch))
                for n, mixture in enumerate(layers):
                    load[i, n] += np.bincount(mixture.chosen.reshape(-1).numpy(), minlength=len(DOMAINS))
                    p = mixture.probabilities
                    entropy[n] += float(-(p * p.clamp(min=1e-12).log()).sum(-1).mean()) * len(batch) / total
            out[domain] = round(float(torch.cat(losses).mean().exp()), 4)
    return out


def main(work: Path, manuals: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    checkpoint = open_source("smollm2")
    model = load_model(checkpoint).requires_grad_(requires_grad=False)
    windows = corpora(work, manuals, model)
    print({d: len(w) for d, w in windows.items()}, flush=True)
    layers = mixture_of(model)
    model.to(torch.bfloat16)
    for mixture in layers:
        mixture.float()
        for linear in mixture.base.values():
            linear.to(torch.bfloat16)
    train_apart(model, layers, windows, work)
    if not (work / "together.safetensors").is_file():
        classify(model, layers, windows)
    train_together(model, layers, windows, work)
    save(layers, work / "adapter.safetensors", torch.float16)
    exact = load_model(checkpoint)
    layers = mixture_of(exact)
    restore(layers, work / "adapter.safetensors")
    found = score(exact, layers, work, load_model(checkpoint))
    found["recipe"] = {
        "seed": SEED, "rank": RANK, "top_k": TOP_K, "window": WINDOW, "steps_apart": APART_STEPS,
        "steps_together": TOGETHER_STEPS, "base": dict(checkpoint.identity), "torch": torch.__version__,
    }  # fmt: skip
    (work / "score.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if "layer" not in k}, indent=1), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
