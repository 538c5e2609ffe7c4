"""From runs to what the page shows: results that may be compared stand together, others apart."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge import conditions, memory_parts
from edge.devices.preflight import SCRATCH_BYTES
from edge.errors import InputError
from edge.measurement import Measurement, Result, Run
from edge.report import acting, pictures, tables
from edge.report.pictures import kind as _kind
from edge.report.plots import Bar, Spread, Stack, bars, both, spreads, stacks
from edge.report.tables import gaps_words, grouped

_MEMORY_WORDS = ("Python and libraries", "weights, mapped from the file", "weights, copied", "KV cache", "scratch")


def render(runs: Sequence[Run]) -> str:
    """The page as HTML text. Runs on different machines, or with different settings, get sections of their own."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    groups = grouped(runs)
    if not groups:
        raise InputError("there is nothing in these runs: not one bundle was measured to the end")
    text: str = environment.get_template("page.html.jinja").render(
        groups=[_group(rows, _unlike(groups[0][0], rows[0])) for rows in groups],
        title=_title(runs),
        taken=sorted({run.taken_at for run in runs}),
    )
    return text


def _title(runs: Sequence[Run]) -> str:
    names = sorted({str(r.bundle.get("name")) for run in runs for r in run.results})
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _unlike(first: tuple[Run, Result], other: tuple[Run, Result]) -> str:
    """Why results are not shown side by side."""
    return first[0].difference(first[1], other[0], other[1])


def _group(rows: Sequence[tuple[Run, Result]], unlike: str) -> dict[str, Any]:
    run, first = rows[0]
    results = [result for _, result in rows]
    labels = tables.labels(rows)
    bandwidth = run.machine.get("read_bandwidth_bytes_per_s")
    incomplete = (
        ["this run was cut short: what was measured before that is shown"]
        if not all(r.complete for r, _ in rows)
        else []
    )
    shared = {
        "unlike": unlike,
        "taken": tables.taken(rows),
        "acts": first.acts,
        "device": _device(run.device),
        "commands": sorted({shlex.join(r.command) for r, _ in rows}),
        "versions": sorted({r.edge_version for r, _ in rows}),
        "emulated": first.emulated,
        "notes": incomplete + tables.notes(results, labels),
        "results": [_result(r, labels[id(r)], bandwidth) for r in results],
    }
    return {**shared, **(acting.shown(results, labels) if first.acts else _answering(rows, labels, bandwidth))}


def _answering(
    rows: Sequence[tuple[Run, Result]], labels: Mapping[int, str], bandwidth: float | None
) -> dict[str, Any]:
    """What is shown of results that answered: speed, steadiness, loading, memory."""
    results = [result for _, result in rows]
    return {
        "quality": pictures.quality(results, labels),
        "roofline": pictures.roofline(results, labels, bandwidth),
        "distribution": pictures.distribution(results, labels),
        "lasting": pictures.lasting(results, labels),
        "energy": _energy(results, labels),
        "bandwidth": f"{bandwidth / 1e9:.1f} GB/s" if bandwidth else "not measured",
        "settings": results[0].settings,
        "decode": _by_depth(results, labels),
        "whole": _whole_answers(results, labels),
        "gaps": both(
            spreads, [_spread(labels[id(r)], r) for r in results if "inter_token" in r.measurements], "latency"
        ),
        "reading": [
            (n, both(bars, [_bar(labels[id(r)], r, m, "{:.0f} tok/s") for r in results if (m := r.measurements.get(f"prefill_{n}"))], "tokens per second"))  # noqa: E501
            for n in sorted({n for r in results for n in r.settings.get("prompt_tokens", ())})
        ],
        "loading": both(
            bars,
            [
                _bar(f"{labels[id(r)]} {words}", r, r.measurements[name], "{:.2f} s")
                for r in results
                for name, words in (("load_cold", "cold"), ("load_warm", "warm"))
                if name in r.measurements
            ],
            "seconds",
        ),
        "memory": both(stacks, [stack for r in results if (stack := _memory(labels[id(r)], r))], "bytes"),
        "memory_parts": _MEMORY_WORDS,
    }  # fmt: skip


def _energy(results: Sequence[Result], labels: Mapping[int, str]) -> str:
    """What each used; said once where nobody counted."""
    lasted = [r for r in results if r.sustained]
    if not any(r.energy.get("joules") for r in lasted):
        return conditions.NOT_MEASURED
    return "; ".join(f"{labels[id(r)]} {r.energy_words}" for r in lasted)


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


def _bar(label: str, result: Result, taken: Measurement, words: str) -> Bar:
    low, high = taken.interval()
    return Bar(label, _kind(result), taken.median, low, high, words.format(taken.median))


def _spread(label: str, result: Result) -> Spread:
    taken = result.measurements["inter_token"]
    least, p5, p50, p95, p99, most = (taken.percentile(p) for p in (0, 5, 50, 95, 99, 100))
    return Spread(label, _kind(result), (least, p5, p50, p95, p99, most), gaps_words(taken, (50, 95, 99)))


def _by_depth(results: Sequence[Result], labels: Mapping[int, str]) -> list[tuple[int, Any]]:
    """How fast each answers, for every depth of the context, on one scale."""
    found: dict[int, list[tuple[Result, Measurement]]] = {}
    for result in results:
        for depth, name, _ in result.depths():
            found.setdefault(depth, []).append((result, result.measurements[name]))
    top = max((m.interval()[1] for rows in found.values() for _, m in rows), default=0)
    return [
        (depth, both(bars, [_bar(labels[id(r)], r, m, "{:.1f} tok/s") for r, m in rows], "tokens per second", top=top))
        for depth, rows in sorted(found.items())
    ]


def _whole_answers(results: Sequence[Result], labels: Mapping[int, str]) -> list[tuple[int, Any]]:
    """Seconds for a prompt and its answer together."""
    depths = sorted({depth for r in results for depth, _, _ in r.depths()})
    return [
        (depth, both(bars, rows, "seconds"))
        for depth in depths
        if (rows := [
            _bar(labels[id(r)], r, m, "{:.2f} s") for r in results if (m := r.measurements.get(f"end_to_end_{depth}"))
        ])
    ]  # fmt: skip


def _memory(label: str, result: Result) -> Stack | None:
    parts = memory_parts.split(result)
    if parts is None:
        return None
    weights = float(result.bundle.get("memory", {}).get("weights_bytes") or 0)
    limit = weights + float(result.bundle.get("kv_bytes") or 0) + SCRATCH_BYTES if weights else None
    named = [(f"{words}: {size / 1e6:.0f} MB", size) for words, size in parts.named()]
    return Stack(label, _kind(result), tuple(named), limit, f"{sum(size for _, size in named) / 1e6:.0f} MB")


def _result(result: Result, label: str, bandwidth: float | None) -> dict[str, Any]:
    bundle, taken = result.bundle, result.measurements
    quality = bundle.get("quality") or {}
    decode = result.median("decode")
    share = result.roofline(bandwidth)
    gaps = taken.get("inter_token")
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
        "share": f"{100 * share:.0f} %" if share else "",
        "gap": f"{gaps_words(gaps, (50, 99))} ms" if gaps else "",
        "parts": [(words, f"{size / 1e6:.0f} MB") for words, size in parts.named()]
        if (parts := memory_parts.split(result))
        else [],
        "traffic": _traffic(result),
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
                "interval": "{:.4g} to {:.4g}".format(*m.interval()) if m.n_repetitions > 1 else "",
                "n": len(m.samples),
                "raw": " ".join(f"{x:.4g}" for x in m.samples),
            }
            for name, m in sorted(taken.items())
        ],
    }


def _traffic(result: Result) -> str:
    """What one token reads, in words."""
    read = result.traffic.get("weights_bytes")
    if not read:
        return "not known"
    kinds = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in result.traffic.get("by_type", {}).items())
    left = "; ".join(
        f"without {size / 1e6:.1f} MB of {name}" for name, size in result.traffic.get("left_out", {}).items()
    )
    return f"{read / 1e6:.1f} MB ({kinds}){'; ' + left if left else ''}"


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
