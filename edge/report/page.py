"""From runs to what the page shows: results that may be compared stand together, others apart."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge import conditions
from edge.measurement import Measurement, Result, Run
from edge.report.plots import Bar, Spread, Stack, bars, spreads, stacks

_SCRATCH_BYTES = 150_000_000  # what a session may hold besides its file and its cache
_KINDS = ("gguf", "onnx", "tflite")


def render(runs: Sequence[Run]) -> str:
    """The page as HTML text. Runs on different machines, or with different settings, get sections of their own."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    groups: dict[str, list[tuple[Run, Result]]] = {}
    for run in runs:
        for result in run.results:
            groups.setdefault(run.group_of(result), []).append((run, result))
    text: str = environment.get_template("page.html.jinja").render(
        groups=[_group(rows) for rows in groups.values()],
        title=_title(runs),
        taken=sorted({run.taken_at for run in runs}),
    )
    return text


def _title(runs: Sequence[Run]) -> str:
    names = sorted({str(r.bundle.get("name")) for run in runs for r in run.results})
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _group(rows: Sequence[tuple[Run, Result]]) -> dict[str, Any]:
    run, first = rows[0]
    results = [result for _, result in rows]
    several = len({r.bundle.get("name") for r in results}) > 1
    labels = {id(r): f"{r.bundle.get('name')} {r.label}" if several else r.label for r in results}
    bandwidth = run.machine.get("read_bandwidth_bytes_per_s")
    decode = [(r, r.measurements["decode"]) for r in results if "decode" in r.measurements]
    return {
        "device": _device(run.device),
        "bandwidth": f"{bandwidth / 1e9:.1f} GB/s" if bandwidth else "not measured",
        "settings": first.settings,
        "commands": sorted({shlex.join(r.command) for r, _ in rows}),
        "versions": sorted({r.edge_version for r, _ in rows}),
        "emulated": first.emulated,
        "notes": sorted({note for r in results for note in r.notes}),
        "results": [_result(r, labels[id(r)], bandwidth) for r in results],
        "decode": bars([_bar(labels[id(r)], r, m, "{:.1f} tok/s") for r, m in decode], "tokens per second"),
        "gaps": spreads([_spread(labels[id(r)], r) for r in results if "inter_token" in r.measurements], "latency"),
        "reading": [
            (n, bars([_bar(labels[id(r)], r, m, "{:.0f} tok/s") for r in results if (m := r.measurements.get(f"prefill_{n}"))], "tokens per second"))  # noqa: E501
            for n in sorted({n for r in results for n in r.settings.get("prompt_tokens", ())})
        ],
        "loading": bars(
            [
                _bar(f"{labels[id(r)]} {words}", r, r.measurements[name], "{:.2f} s")
                for r in results
                for name, words in (("load_cold", "cold"), ("load_warm", "warm"))
                if name in r.measurements
            ],
            "seconds",
        ),
        "memory": stacks([_memory(labels[id(r)], r) for r in results if "peak_rss" in r.measurements], "bytes"),
    }  # fmt: skip


def _device(device: Mapping[str, Any]) -> list[tuple[str, str]]:
    ram = device.get("ram_bytes")
    rows = [
        ("device", device.get("model")),
        ("processor", device.get("cpu")),
        ("cores", f"{device.get('physical_cores')} ({device.get('logical_cores')} threads)"),
        ("instruction sets", " ".join(device.get("features", ()))),
        ("memory", f"{ram / 2**30:.1f} GiB" if ram else "unknown"),
        (
            "system",
            ", ".join(filter(None, (device.get("system"), device.get("machine"), f"Linux {device.get('kernel')}"))),
        ),
        ("governor", device.get("governor") or conditions.NOT_MEASURED),
        ("virtual machine", "yes" if device.get("virtual") else "no"),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _kind(result: Result) -> str:
    found = str(result.bundle.get("format"))
    return found if found in _KINDS else "other"


def _bar(label: str, result: Result, taken: Measurement, words: str) -> Bar:
    low, high = taken.interval()
    return Bar(label, _kind(result), taken.median, low, high, words.format(taken.median))


def _spread(label: str, result: Result) -> Spread:
    taken = result.measurements["inter_token"]
    least, p5, p50, p95, p99, most = (taken.percentile(p) for p in (0, 5, 50, 95, 99, 100))
    return Spread(label, _kind(result), (least, p5, p50, p95, p99, most), f"{p50:.1f} / {p95:.1f} / {p99:.1f}")


def _memory(label: str, result: Result) -> Stack:
    peak = result.measurements["peak_rss"].median
    python = result.median("python_rss") or 0.0
    weights = float(result.bundle.get("memory", {}).get("weights_bytes") or 0)
    kv = float(result.bundle.get("kv_bytes") or 0)
    parts, left = [], peak
    for words, size in (("Python and libraries", python), ("weights", weights), ("KV cache", kv)):
        used = min(size, left)
        parts.append((f"{words}: {used / 1e6:.0f} MB", used))
        left -= used
    parts.append((f"everything else: {left / 1e6:.0f} MB", left))
    limit = weights + kv + _SCRATCH_BYTES if weights else None
    return Stack(label, _kind(result), tuple(parts), limit, f"{peak / 1e6:.0f} MB")


def _result(result: Result, label: str, bandwidth: float | None) -> dict[str, Any]:
    bundle, taken = result.bundle, result.measurements
    quality = bundle.get("quality") or {}
    decode = result.median("decode")
    weights = bundle.get("memory", {}).get("weights_bytes")
    share = decode * weights / bandwidth if decode and weights and bandwidth else None
    prompt = min(result.settings.get("prompt_tokens", (0,)))
    return {
        "label": label,
        "kind": _kind(result),
        "bundle": bundle,
        "proven": bool(bundle.get("proven")),
        "size": f"{bundle.get('size_bytes', 0) / 1e6:.0f} MB",
        "decode": f"{decode:.1f}" if decode else "",
        "ttft": f"{taken[f'ttft_{prompt}'].median:.0f} ms" if f"ttft_{prompt}" in taken else "",
        "peak": f"{taken['peak_rss'].median / 1e6:.0f} MB" if "peak_rss" in taken else "",
        "share": f"{share:.0%}" if share else "",
        "gate": _gate(quality),
        "failures": list(quality.get("failures", ())),
        "lost": _lost(quality),
        "runtime": sorted(result.runtime.items()),
        "conditions": conditions.rows(result.before, result.during, result.after),
        "tools": sorted(bundle.get("tools", {}).items()),
        "source": sorted((bundle.get("source") or {}).get("files", {}).items()),
        "samples": [
            {
                "name": name,
                "unit": m.unit,
                "median": f"{m.median:.4g}",
                "interval": "{:.4g} to {:.4g}".format(*m.interval()),
                "n": len(m.samples),
                "raw": " ".join(f"{x:.4g}" for x in m.samples),
            }
            for name, m in sorted(taken.items())
        ],
    }


def _gate(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was judged: how far each figure is from the limit it must keep, as a share of it."""
    bound, logits, answers = quality.get("limits") or {}, quality.get("logits"), quality.get("answers")
    rows: list[dict[str, Any]] = []

    def most(name: str, value: float, limit: float | None, words: str = "{:.3g}") -> None:
        if limit is not None:
            used = value / limit if limit else 1.0
            rows.append(_row(name, words.format(value), "at most " + words.format(limit), used, value <= limit))

    def least(name: str, value: float, limit: float | None) -> None:
        if limit is not None:
            used = (1 - value) / (1 - limit) if limit < 1 else float(value < 1)
            rows.append(_row(name, f"{value:.1%}", f"at least {limit:.1%}", used, value >= limit))

    if isinstance(logits, Mapping):
        most("mean KL divergence, nats", logits["mean_kld"], bound.get("mean_kld"))
        least("same most likely token", logits["same_top1"], bound.get("same_top1"))
        most("error of the logits (NMSE)", logits["nmse"], bound.get("nmse"))
    if isinstance(answers, Mapping) and answers.get("share_kept") is not None:
        least("right answers kept", answers["share_kept"], bound.get("answers_kept"))
    tokenizer = quality.get("tokenizer")
    if isinstance(tokenizer, Mapping):
        different = sum(v for k, v in tokenizer.items() if k.endswith("_different"))
        found = f"{different} of {tokenizer.get('strings', 0):,} strings differ"
        rows.append(_row("tokenizer", found, "none", float(different > 0), different == 0))
    tensors = quality.get("tensors")
    if isinstance(tensors, Mapping):
        found = f"{tensors.get('accounted')} of {tensors.get('source_tensors')}"
        good = tensors.get("accounted") == tensors.get("source_tensors")
        rows.append(_row("source tensors accounted for", found, "all", float(not good), good))
    return rows


def _row(name: str, value: str, limit: str, used: float, good: bool) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "limit": limit,
        "used": round(100 * min(max(used, 0.0), 1.0), 1),
        "good": good,
    }


def _lost(quality: Mapping[str, Any]) -> list[dict[str, str]]:
    answers = quality.get("answers")
    if not isinstance(answers, Mapping):
        return []
    return [{k: str(v) for k, v in row.items()} for row in answers.get("lost", ())][:10]
