"""A run as a table for a terminal: a row for each quantity, a column for each bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge import memory_parts
from edge.measurement import Measurement, Result, Run

_ACROSS = 4  # bundles side by side


def table(made: Run) -> str:
    """Medians, with the 95 % interval of the answering speed; a blank line between blocks of bundles."""
    rows = made.results
    blocks = [_block(made, rows[i : i + _ACROSS]) for i in range(0, len(rows), _ACROSS)]
    return "\n\n".join(blocks)


def _block(made: Run, results: Sequence[Result]) -> str:
    lines: list[list[str]] = [["", *(r.label for r in results)]]
    names = {str(r.bundle.get("name")) for r in results}
    if len(names) > 1:
        lines.insert(0, ["", *(str(r.bundle.get("name")) for r in results)])
    else:
        lines[0][0] = next(iter(names))

    def row(name: str, said: Callable[[Result], str]) -> None:
        cells = [said(r) for r in results]
        if any(cells):
            lines.append([name, *cells])

    def plain(name: str, measured: str, words: str, times: float = 1.0) -> None:
        row(name, lambda r: _m(r, measured, words, times))

    row("on disk", lambda r: f"{r.bundle['size_bytes'] / 1e6:.0f} MB")
    row("load, cold / warm", lambda r: f"{_m(r, 'load_cold')} / {_m(r, 'load_warm')} s")
    for n in sorted({n for r in results for n in r.settings.get("prompt_tokens", ())}):
        plain(f"first token, prompt of {n}", f"ttft_{n}", "{:.0f} ms")
        plain(f"read {n} tokens", f"prefill_{n}", "{:.0f} tok/s")
    for i, depth in enumerate(sorted({d for r in results for d, _, _ in r.depths()})):
        lines.append([f"answer after {depth}", *(_speed(_at(r, depth, 1)) for r in results)])
        lines.append(["  between tokens p50/p90/p95/p99", *(_gaps(_at(r, depth, 2)) for r in results)])
        plain("  prompt and answer", f"end_to_end_{depth}", "{:.2f} s")
        if i == 0:
            shares = [r.roofline(made.machine.get("read_bandwidth_bytes_per_s")) for r in results]
            if any(shares):
                lines.append(["  of memory's bandwidth", *(f"{100 * x:.0f} %" if x else "" for x in shares)])
    plain("memory at its peak", "peak_rss", "{:.0f} MB", 1e-6)
    plain("  shared fairly (PSS)", "held_pss", "{:.0f} MB", 1e-6)
    split = [memory_parts.split(r) for r in results]
    for i, words in enumerate(("Python and libraries", "weights, mapped", "weights, copied", "KV cache", "scratch")):
        cells = [f"{p.named()[i][1] / 1e6:.0f} MB" if p else "" for p in split]
        lines.append([f"  {words}", *cells])
    row("sustained, first / last", _sustained)
    row("energy", lambda r: r.energy_words)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _m(result: Result, name: str, words: str = "{:.2f}", times: float = 1.0) -> str:
    found = result.median(name)
    return "" if found is None else words.format(found * times)


def _at(result: Result, depth: int, which: int) -> Measurement | None:
    names = next((row for row in result.depths() if row[0] == depth), None)
    return result.measurements.get(str(names[which])) if names else None


def _speed(taken: Measurement | None) -> str:
    if taken is None:
        return ""
    low, high = taken.interval()
    return f"{taken.median:.1f}{f' ({low:.1f}-{high:.1f})' if taken.n_repetitions > 1 else ''} tok/s"


def _gaps(taken: Measurement | None) -> str:
    if taken is None:
        return ""
    return " / ".join("-" if (at := taken.tail(p)) is None else f"{at:.1f}" for p in (50, 90, 95, 99)) + " ms"


def _sustained(result: Result) -> str:
    points = result.sustained
    if not points:
        return ""
    heat = [p["temperature_c"] for p in points if p.get("temperature_c") is not None]
    rest = f", {heat[0]:.0f} to {max(heat):.0f} °C" if heat else ""
    return (
        f"{points[0]['tokens_per_s']:.1f} / {points[-1]['tokens_per_s']:.1f} tok/s in {points[-1]['at_s']:.0f} s{rest}"
    )
