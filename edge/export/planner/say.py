"""A plan in words, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edge.export.planner.budget import Budget, missed

if TYPE_CHECKING:
    from edge.export.planner.front import Candidate
    from edge.export.planner.run import Built, Plan
    from edge.export.planner.variety import Variety

_WORDS: dict[str, tuple[str, Callable[[float], str]]] = {
    "max_size_bytes": ("--max-size", lambda v: f"{v / 1e6:.1f} MB" if v >= 1e5 else f"{v:,.0f} bytes"),
    "max_memory_bytes": ("--max-memory", lambda v: f"{v / 1e6:.0f} MB of memory"),
    "min_tokens_per_s": ("--min-tokens-per-second", lambda v: f"{_number(v)} tok/s"),
    "min_agreement": ("--min-agreement", lambda v: f"{v:.1%} of top tokens kept"),
}
_SPARED = 3  # kinds of matrices that are named


def table(plan: Plan) -> str:
    """The front, smallest first: `->` marks the chosen one, `~>` the closest; what misses the budget says by what."""
    rows = [("", "plan", "size", "memory", "answers", "top tokens kept", "mean KLD", "")]
    for c in plan.front:
        held = "; ".join(c.against) or ", ".join(_WORDS[name][0] for name in missed(plan.budget, c.has()))
        mark = "" if c != plan.chosen else "->" if plan.fits else "~>"
        values = (f"{c.size_bytes / 1e6:.1f} MB", f"{c.memory_bytes / 1e6:.0f} MB", _speed(c), f"{c.agreement:.1%}")
        rows.append((mark, c.name, *values, f"{c.kld:.2g}", f"misses {held}" if held else ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _speed(c: Candidate) -> str:
    if c.speed is None:
        return "not known"
    low, middle, high = c.speed
    return f"{_number(middle)} tok/s ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def expected(c: Candidate) -> str:
    """What is expected of a candidate, on one line."""
    speed = "" if c.speed is None else f", {_number(c.speed[1])} tok/s"
    return (
        f"{c.size_bytes / 1e6:.1f} MB, {c.memory_bytes / 1e6:.0f} MB of memory{speed}, "
        f"{c.agreement:.1%} of top tokens kept (estimated)"
    )


def sentences(chosen: Candidate, candidates: Sequence[Candidate], budget: Budget, variety: Variety) -> tuple[str, str]:
    """What was chosen, and why just that."""
    within = [c for c in candidates if not c.against and not missed(budget, c.has())]
    what = f"{chosen.name} is expected to take {expected(chosen)}, at a mean KLD of {chosen.kld:.2g}"
    best = "is the smallest" if budget.record().keys() == {"min_agreement"} else "errs least"
    why = f"of {len(within)} plans within the budget, of {len(candidates)}, it {best}"
    if chosen.mix.name in variety.named:
        return f"{what}.", f"{why[0].upper()}{why[1:]}: no mixture does better than the format's own {chosen.mix.name}."
    spared = _spared(chosen, variety)
    return f"{what}.", f"{why[0].upper()}{why[1:]}: {spared}."


def _spared(chosen: Candidate, variety: Variety) -> str:
    """Which kinds of matrices keep most bits, and which least."""
    kinds: dict[str, list[int]] = {}
    for part, option in zip(variety.parts, chosen.mix.chosen, strict=True):
        words = [w for w in part.name.removesuffix(".weight").split(".") if not w.isdigit()]
        row = kinds.setdefault(words[-1], [0, 0])
        row[0] += option.n_bytes
        row[1] += part.n_elements
    bits = sorted(((8 * size / max(1, n), name) for name, (size, n) in kinds.items()), reverse=True)
    if bits[0][0] - bits[-1][0] < 0.05:
        return f"every matrix keeps {bits[0][0]:.1f} bits per weight"
    most = ", ".join(f"{name} {b:.1f}" for b, name in bits[:_SPARED])
    if len(bits) <= _SPARED:
        return f"bits per weight are {most}"
    least = ", ".join(f"{name} {b:.1f}" for b, name in bits[_SPARED:][-_SPARED:])
    return f"rounding {most} costs most per byte, and {least} least (bits per weight that they keep)"


def miss(name: str, budget: Budget, value: float | None) -> str:
    """One bound that is not held."""
    option, words = _WORDS[name]
    asked = getattr(budget, name)
    return f"{words(value or 0)}, {option} asks for {words(asked).split(' of ')[0]}"


def impossible(closest: Candidate, budget: Budget, n: int) -> tuple[str, str]:
    """That nothing fits, and what comes closest."""
    by = missed(budget, closest.has())
    values = closest.has()
    misses = [miss(name, budget, values[name]) for name in by] + list(closest.against)
    return (
        f"impossible: none of {n} plans is within the budget",
        f"closest is {closest.name} with {expected(closest)}, which misses it: {'; '.join(misses)}",
    )


def way_out(budget: Budget, closest: Candidate) -> str:
    """What would have to be asked for instead."""
    values = closest.has()
    asks = []
    for name in missed(budget, closest.has()):
        value = values[name]
        option, _ = _WORDS[name]
        if not value:
            continue
        if name.startswith("max_"):
            asks.append(f"{option} {-(-int(value) // 10**6)}MB")
        else:
            asks.append(f"{option} {value * 0.999:.3g}")
    return f"ask for {' '.join(asks)}, or for a smaller student first (--distill)" if asks else "choose a larger device"


def given_up(tried: Sequence[tuple[Candidate, Built]], budget: Budget, reason: str = "") -> str:
    """That what was built does not hold, each with what was measured, and why no other is tried."""
    lines = ["impossible: what was built is not within the budget"]
    for candidate, built in tried:
        kept = "" if built.agreement is None else f", {built.agreement:.1%} of top tokens kept"
        lines.append(f"  {candidate.name}: {built.size_bytes / 1e6:.1f} MB{kept}; {'; '.join(built.failures)}")
    if reason:
        lines.append(f"  after these: {reason}")
    return "\n".join(lines)


def record(plan: Plan) -> dict[str, Any]:
    """As JSON: what was asked for, the choice, the front, in bytes, nats and tokens per second."""
    return {
        "budget": plan.budget.record(),
        "fits": plan.fits,
        "chosen" if plan.fits else "closest": of(plan.chosen),
        "why": " ".join(plan.sentences) if plan.fits else "; ".join(plan.sentences),
        "candidates": plan.n_candidates,
        "front": [of(c) for c in plan.front],
        "notes": list(plan.notes),
    }


def of(c: Candidate) -> dict[str, Any]:
    """What is expected of one candidate; all of it is an estimate."""
    speed = c.speed and dict(zip(("low", "expected", "high"), (round(v, 4) for v in c.speed), strict=True))
    return {
        "format": c.format, "plan": c.mix.name, "size_bytes": c.size_bytes, "memory_bytes": c.memory_bytes,
        "mean_kld": float(f"{c.kld:.6g}"), "agreement": round(c.agreement, 6), "tokens_per_s": speed,
        "against": list(c.against),
    }  # fmt: skip
