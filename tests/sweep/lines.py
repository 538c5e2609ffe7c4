"""Lines as cells write them."""

from __future__ import annotations

from edge.sweep.cell import Cell

KV_BYTES = 1000


def outcome(size=100_000_000, kld=0.01, status="passed", **more):
    """What the process of a cell says in the end."""
    return {
        "status": status, "time_s": 3.0, "mean_kld": kld, "agreement": 0.95,
        "gate": {"passed": status == "passed", "failures": []},
        "bundle": {
            "name": "m", "family": "slm", "format": "gguf", "quantization": "q8_0", "context_length": 256,
            "size_bytes": size, "memory": {"weights_bytes": size, "kv_bytes_per_token": KV_BYTES},
            "source": {"parameters": size},
        },
        "traffic": {
            "weights_bytes": size, "kv_bytes_per_token": KV_BYTES, "by_type": {"Q8_0": size}, "left_out": {},
            "experts": False,
        },
        **more,
    }  # fmt: skip


def line(label, speed=10.0, against=(), model="m", **more):
    """A line as `results.jsonl` has it, predicted for one device `d`."""
    found = outcome(**more)
    rate = None if speed is None else {"low": speed / 2, "expected": speed, "high": 2 * speed}
    made = {"memory_bytes": 10**8, "tokens_per_s": rate, "against": list(against), "notes": ["a note"]}
    return {
        "key": f"{model}/{label}", "model": model, "label": label, "cell": Cell(model, "gguf", "8bit").record(),
        "command": "edge export m", "size_bytes": found["bundle"]["size_bytes"], "predictions": {"d": made}, **found,
    }  # fmt: skip
