"""Runs as text for other programs: Markdown for a pull request or a wiki, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edge import memory_parts
from edge.measurement import Measurement, Result, Run
from edge.report import acting

Rows = Sequence[tuple[Run, Result]]
_COLUMNS = (
    "group", "taken_at", "device", "cpu", "threads", "emulated", "bundle", "id", "format", "quantization",
    "measurement", "unit", "median", "low_95", "high_95", "p90", "p95", "p99", "samples",
)  # fmt: skip


def grouped(runs: Sequence[Run]) -> list[list[tuple[Run, Result]]]:
    """Results that may be compared together, others apart, in the order in which they came."""
    groups: dict[str, list[tuple[Run, Result]]] = {}
    for run in runs:
        for result in run.results:
            groups.setdefault(run.group_of(result), []).append((run, result))
    return list(groups.values())


def labels(rows: Rows, *, whole: bool = False) -> dict[int, str]:
    """How results of one group are called, by their `id`: what tells them apart, and unless `whole` no more than that.

    The same bundle in several runs has the number of its run; two bundles that are called alike have their ids.
    """
    several = whole or len({r.bundle.get("name") for _, r in rows}) > 1
    named = {id(r): f"{r.bundle.get('name')} {r.label}" if several else r.label for _, r in rows}
    numbers = {id(run): i for i, run in enumerate(_runs(rows), 1)}
    out = {}
    for run, result in rows:
        name = named[id(result)]
        alike = [(other_run, other) for other_run, other in rows if named[id(other)] == name]
        if len({id(r) for r, _ in alike}) > 1:
            name += f", run {numbers[id(run)]}"
        if sum(other_run is run for other_run, _ in alike) > 1:
            name += f" ({result.bundle.get('id')})"
        out[id(result)] = name
    return out


def taken(rows: Rows) -> str:
    """When the runs of a group were taken, where there are several: before and after a change, as it may be."""
    runs = _runs(rows)
    said = ", ".join(f"run {i} at {run.taken_at}" for i, run in enumerate(runs, 1))
    return f"taken: {said}" if len(runs) > 1 else ""


def _runs(rows: Rows) -> list[Run]:
    return list({id(run): run for run, _ in rows}.values())


def notes(results: Sequence[Result], names: Mapping[int, str]) -> list[str]:
    """What speaks against the results; what is said of one of several has its name."""
    said = dict.fromkeys(note for r in results for note in r.notes)
    common = [note for note in said if all(note in r.notes for r in results)]
    alone = [(names[id(r)], [note for note in r.notes if note not in common]) for r in results]
    return common + [f"{name}: {'; '.join(found)}" for name, found in alone if found]


def markdown(runs: Sequence[Run]) -> str:
    """A table for each group of comparable results, what it was measured on, and what speaks against it."""
    out = []
    groups = grouped(runs)
    for i, rows in enumerate(groups):
        run, first = rows[0]
        if len(groups) > 1:
            out.append(f"## Section {i + 1} of {len(groups)}")
            if i:
                why = groups[0][0][0].difference(groups[0][0][1], run, first)
                out.append(f"Not compared with the first: {_cell(why)}.")
        out.append(_facts(run, first, taken(rows)))
        results, names = [result for _, result in rows], labels(rows, whole=True)
        out.append(_lines(*acting.table(results, names)) if first.acts else _table(rows, names))
        against = notes(results, names)
        if not all(r.complete for r, _ in rows):
            against.insert(0, "cut short: what was measured before that is shown")
        if against:
            out.append("\n".join(f"- {_cell(note)}" for note in against))
        commands = sorted({shlex.join(r.command) for r, _ in rows})
        out.append("\n".join(f"`{_plain(command).replace('`', '')}`" for command in commands))
    return "\n\n".join(out) + "\n"


def comma_separated(runs: Sequence[Run]) -> str:
    """One line for each measurement of each result; `group` numbers what may be compared."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(_COLUMNS)
    for number, rows in enumerate(grouped(runs), 1):
        for run, result in rows:
            device = run.device
            for name, taken in sorted(result.measurements.items()):
                low, high = taken.interval()
                write(
                    [number, _safe(run.taken_at), _safe(device.get("model")), _safe(device.get("cpu")),
                     _safe(result.settings.get("threads")), result.emulated, _safe(result.bundle.get("name")),
                     _safe(result.bundle.get("id")), _safe(result.bundle.get("format")),
                     _safe(result.bundle.get("quantization")), _safe(name), _safe(taken.unit), f"{taken.median:.6g}",
                     *((f"{low:.6g}", f"{high:.6g}") if taken.n_repetitions > 1 else ("", "")),
                     *("" if (at := taken.tail(p)) is None else f"{at:.6g}" for p in (90, 95, 99)),
                     len(taken.samples)]
                )  # fmt: skip
    return out.getvalue()


def _facts(run: Run, result: Result, when: str) -> str:
    """`when` several runs were taken, if they are."""
    device, settings = run.device, result.settings
    bandwidth = run.machine.get("read_bandwidth_bytes_per_s")
    said = [
        str(device.get("model") or device.get("cpu")),
        f"{settings.get('threads')} {'thread' if settings.get('threads') == 1 else 'threads'}",
        f"memory read at {bandwidth / 1e9:.1f} GB/s" if bandwidth else "bandwidth not measured",
        f"{len(settings['act'])} requests to act" if result.acts else f"{settings.get('new_tokens')} new tokens",
        when or f"taken {run.taken_at}",
        f"edge {run.edge_version}",
        *(["**emulated: speeds say nothing about a real device**"] if result.emulated else []),
    ]
    return _cell("; ".join(said)) + "."


def _table(rows: Rows, names: Mapping[int, str]) -> str:
    heads = ["bundle", "on disk", "load cold / warm", "first token", "reads", "answers", "p50 / p95 / p99",
            "of bandwidth", "peak memory", "energy", "proven"]  # fmt: skip
    lines = []
    for run, result in rows:
        prompts = result.settings.get("prompt_tokens") or [0]
        share = result.roofline(run.machine.get("read_bandwidth_bytes_per_s"))
        gaps = result.measurements.get("inter_token")
        decode = result.measurements.get("decode")
        parts = memory_parts.split(result)
        lines.append(
            [
                names[id(result)],
                f"{result.bundle.get('size_bytes', 0) / 1e6:.0f} MB",
                f"{_median(result, 'load_cold', '{:.2f}')} / {_median(result, 'load_warm', '{:.2f}')} s",
                _median(result, f"ttft_{min(prompts)}", "{:.0f} ms"),
                _median(result, f"prefill_{max(prompts)}", "{:.0f} tok/s"),
                _speed(decode) if decode else "",
                gaps_words(gaps, (50, 95, 99)) + " ms" if gaps else "",
                f"{100 * share:.0f} %" if share else "",
                f"{sum(size for _, size in parts.named()) / 1e6:.0f} MB" if parts else "",
                result.energy_words,
                "yes" if result.bundle.get("proven") else "no",
            ]
        )
    return _lines(heads, lines)


def _lines(heads: list[str], rows: list[list[str]]) -> str:
    """The first and the last column are words, those between are numbers."""
    under = ["---", *["---:"] * (len(heads) - 2), "---"]
    cells = [list(map(_cell, heads)), under, *(list(map(_cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def gaps_words(gaps: Measurement, percents: Sequence[float]) -> str:
    """Percentiles in milliseconds, a dash where there are too few samples for one."""
    return " / ".join("–" if (at := gaps.tail(p)) is None else f"{at:.1f}" for p in percents)


def _speed(decode: Measurement) -> str:
    low, high = decode.interval()
    return f"{decode.median:.1f}{f' ({low:.1f} to {high:.1f})' if decode.n_repetitions > 1 else ''} tok/s"


def _median(result: Result, name: str, words: str) -> str:
    found = result.median(name)
    return "" if found is None else words.format(found)


def _cell(text: str) -> str:
    """Names of other people stay one cell of plain text."""
    plain = _plain(text)
    for special in ("\\", "|", "<", "`", "[", "*"):
        plain = plain.replace(special, f"\\{special}" if special != "<" else "&lt;")
    return plain.replace("\\*\\*", "**")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _safe(value: Any) -> str:
    """A spreadsheet takes a cell that begins like a formula for one."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
