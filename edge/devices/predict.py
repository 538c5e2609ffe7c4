"""How fast a bundle will answer and what it will hold in memory, before it is copied anywhere.

A token cannot be there before memory has delivered what it reads, and how near a runtime comes to that depends on its
kernels: on the format and on how the weights are stored. That share was measured (`reached.json`, made by
`python -m benchmarks.predict --write`); bytes of a token come from the file's header.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.devices.preflight import SCRATCH_BYTES, mb
from edge.devices.profiles import Known
from edge.runtimes import traffic
from edge.runtimes.traffic import Traffic

_NEAR = 0.2  # on a machine that was measured, of a model like those that were
_UNLIKE = 1.3  # a quantization, or a format on a device, of which nothing is known
_LARGER = 1.3  # what calling operators takes is a smaller part of a larger model's token
_MEASURED_PARAMETERS = 4e8  # the models that shares were measured with have fewer
_PUBLISHED_PARAMETERS = 3e8  # the models of published figures have more
_REFERENCE = ("gguf", "q8_0")  # what published figures are mostly of


@dataclass(frozen=True)
class Prediction:
    """`tokens_per_s` with its bounds (`None`: the header tells too little), and memory in bytes.

    `against` says why it will not run there, `notes` what the figures rest on.
    """

    device: str
    tokens_per_s: tuple[float, float, float] | None
    memory: Mapping[str, int]
    against: tuple[str, ...]
    notes: tuple[str, ...]


def predict(
    folder: Path, bundle: Bundle, device: Known | None, *,
    bandwidth: float | None = None, available_bytes: int | None = None, context_length: int, depth: int,
) -> Prediction:  # fmt: skip
    """For a device that is known, or for this machine with its measured `bandwidth`.

    1. Tokens per second are bytes per second over bytes of a token that has `depth` tokens before it.
    2. Of this machine, bytes per second are its bandwidth times the share that this format and quantization
       reached where it was measured.
    3. Of a device, they are what llama.cpp's decoders reach there, for other formats times what they reach beside
       it where both were measured.
    """
    return expected(
        bundle, traffic.of(folder, bundle), device,
        bandwidth=bandwidth, available_bytes=available_bytes, context_length=context_length, depth=depth,
    )  # fmt: skip


def expected(
    bundle: Bundle, read: Traffic | None, device: Known | None, *,
    bandwidth: float | None = None, available_bytes: int | None = None, context_length: int, depth: int,
) -> Prediction:  # fmt: skip
    """The same for a bundle that is not there yet, of which it is known what one token will `read`."""
    memory = _memory(bundle, context_length)
    notes: list[str] = []
    if device is None:
        name, available = "this machine", available_bytes
        bounds = _here(bundle, read, bandwidth, notes) if read and bandwidth else None
    else:
        name, available = device.model, device.ram_bytes - device.system_bytes
        bounds = _there(bundle, read, device, notes) if read else None
    if read is None:
        notes.append("the header of its file does not tell what a token reads: no speed can be predicted")
    speed = None
    if read and bounds:
        low, middle, high = (rate / read.at(depth) for rate in bounds)
        if _parameters(bundle) > _MEASURED_PARAMETERS:
            high *= _LARGER
            notes.append("it is larger than the models that were measured: expect the upper half")
        speed = (low, middle, high)
    against = []
    if available is not None and memory["total_bytes"] > available:
        against.append(f"it needs {mb(memory['total_bytes'])} of memory and {mb(max(0, available))} can be had")
    return Prediction(name, speed, memory, tuple(against), tuple(notes))


@cache
def reached() -> Mapping[str, Any]:
    """The shares of memory bandwidth that were measured: `shares` by format and quantization, `experts` by format."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("reached.json").read_text(encoding="utf-8"))
    return found


def share(bundle: Bundle, read: Traffic) -> tuple[float, bool]:
    """The share of bandwidth that its kernels reach, and whether just this quantization was measured."""
    known: Mapping[str, float] = reached()["shares"].get(bundle.format, {})
    experts = float(reached()["experts"].get(bundle.format, 1.0)) if read.experts else 1.0
    if bundle.memory.get("unpacked_bytes") and "fp32" in known:
        # What is unpacked is multiplied as float32 is, and all of it counts, of experts that were not chosen too.
        return known["fp32"], True
    if bundle.quantization in known:
        return known[bundle.quantization] * experts, True
    if not known:
        return statistics.median(v for row in reached()["shares"].values() for v in row.values()) * experts, False
    return statistics.median(known.values()) * experts, False


def _here(bundle: Bundle, read: Traffic, bandwidth: float, notes: list[str]) -> tuple[float, float, float]:
    found, exact = share(bundle, read)
    rate = bandwidth * found
    wide = 1 + _NEAR
    if not exact:
        wide *= _UNLIKE
        notes.append(f"{bundle.format} {bundle.quantization} was not measured: the median of its format was taken")
    return rate / wide, rate, rate * wide


def _there(bundle: Bundle, read: Traffic, device: Known, notes: list[str]) -> tuple[float, float, float]:
    low, high = device.reached_low, device.reached_high
    notes.append(f"from {'published figures' if device.published else 'its memory alone'}: {device.source}")
    if bundle.format != _REFERENCE[0]:
        # On a PC other kernels may come nearer to its memory; on a board with slow memory nobody passes it.
        beside = min(1.0, share(bundle, read)[0] / reached()["shares"][_REFERENCE[0]][_REFERENCE[1]])
        low *= beside / _UNLIKE
        notes.append(f"unproven: what {bundle.format} reaches beside llama.cpp was measured on a PC")
    if _parameters(bundle) < _PUBLISHED_PARAMETERS:
        low /= _LARGER
        notes.append("it is smaller than the models of those figures: expect the lower half")
    notes.append("unproven: nobody has measured this bundle there")
    return low, (low + high) / 2, high


def _memory(bundle: Bundle, context_length: int) -> dict[str, int]:
    table = dict(bundle.memory)
    weights = int(table.get("weights_bytes") or bundle.size_bytes) + int(table.get("unpacked_bytes") or 0)
    cache_bytes = int(table.get("kv_bytes_per_token") or 0) * context_length
    return {
        "weights_bytes": weights,
        "cache_bytes": cache_bytes,
        "scratch_bytes": SCRATCH_BYTES,
        "total_bytes": weights + cache_bytes + SCRATCH_BYTES,
    }


def _parameters(bundle: Bundle) -> float:
    facts = bundle.source.get("facts")
    active = facts.get("active_parameters") if isinstance(facts, Mapping) else None
    return float(active or bundle.source.get("parameters") or 0)
