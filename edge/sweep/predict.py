"""What a line's bundle will take and answer on each device: computed from the line, so a new device needs no export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.bundle import Bundle, File
from edge.devices.predict import expected
from edge.devices.profiles import Known
from edge.runtimes.traffic import Traffic

DEPTH = 128  # tokens before the answer that is predicted, as in edge predict


def predictions(
    line: Mapping[str, Any], devices: Mapping[str, Known | None], here: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """By device: bytes of memory, tokens a second with their bounds, what is against it, and what that rests on.

    `here` is what was measured of this machine: its bandwidth, and the memory that is free.
    """
    if "bundle" not in line:
        return {}
    facts, read = line["bundle"], line.get("traffic")
    bundle = Bundle(
        name=facts["name"], family=facts["family"], format=facts["format"], quantization=facts["quantization"],
        model_file="", context_length=facts["context_length"], vocab_size=0, stop_ids=(), source=facts["source"],
        files=(File("model", facts["size_bytes"], ""),), proven=False, memory=facts["memory"],
    )  # fmt: skip
    traffic = read and Traffic(
        read["weights_bytes"], read["kv_bytes_per_token"], read["by_type"], read["left_out"], read["experts"]
    )
    length = bundle.context_length
    found = {}
    for name, device in devices.items():
        made = expected(
            bundle, traffic, device, context_length=length, depth=min(DEPTH, length - 1),
            **(here if device is None else {}),
        )  # fmt: skip
        speed = made.tokens_per_s
        found[name] = {
            "memory_bytes": made.memory["total_bytes"],
            "tokens_per_s": speed and dict(zip(("low", "expected", "high"), (round(v, 3) for v in speed), strict=True)),
            "against": list(made.against),
            "notes": list(made.notes),
        }
    return found
