"""A run with fixed numbers: two bundles, one of them hostile in every name it may choose."""

from __future__ import annotations

import dataclasses

from edge.measurement import Measurement, Result, Run

HOSTILE = "<script>alert(1)</script>"
QUALITY = {
    "limits": {"mean_kld": 0.01, "same_top1": 0.95, "nmse": 0.0033, "answers_kept": 0.95},
    "logits": {"mean_kld": 0.004, "same_top1": 0.967, "nmse": 0.0019},
    "answers": {"share_kept": 0.9, "lost": [{"question": "Who?", "reply": HOSTILE}]},
    "tokenizer": {"strings": 2000, "llama.cpp_different": 0},
    "tensors": {"accounted": 272, "source_tensors": 272},
    "failures": [],
}


def _result(name: str, format_name: str, quantization: str, decode: tuple[float, ...], *, proven: bool) -> Result:
    taken = [
        Measurement("load_cold", "s", (0.5, 0.6)),
        Measurement("load_warm", "s", (0.2, 0.21)),
        Measurement("ttft_16", "ms", (30.0, 32.0)),
        Measurement("prefill_16", "tok/s", (500.0, 510.0)),
        Measurement("decode", "tok/s", decode),
        Measurement("inter_token", "ms", (6.0, 6.5, 7.0, 9.0), repeats=(2, 2)),
        Measurement("decode_at_512", "tok/s", tuple(0.8 * x for x in decode)),
        Measurement("inter_token_at_512", "ms", (7.0, 7.5, 8.0, 12.0), repeats=(2, 2)),
        Measurement("end_to_end_16", "s", (0.5, 0.52)),
        Measurement("warm_up", "ms", (19.0, 8.0), repeats=(1, 1)),
        Measurement("held_rss", "bytes", (320e6, 321e6)),
        Measurement("held_pss", "bytes", (250e6, 251e6)),
        Measurement("held_weights", "bytes", (140e6, 140e6)),
        Measurement("held_libraries", "bytes", (30e6, 30e6)),
        Measurement("held_private", "bytes", (150e6, 151e6)),
        Measurement("private_before", "bytes", (20e6, 20e6)),
        Measurement("peak_rss", "bytes", (327e6, 328e6)),
        Measurement("python_rss", "bytes", (40e6, 40e6)),
    ]
    return Result(
        bundle={
            "name": name,
            "id": "0123456789ab",
            "family": "slm",
            "format": format_name,
            "quantization": quantization,
            "proven": proven,
            "licence": "apache-2.0",
            "size_bytes": 148_000_000,
            "memory": {"weights_bytes": 144_000_000, "kv_bytes_per_token": 23040},
            "kv_bytes": 47_185_920,
            "source": {"files": {"model.safetensors": "ab" * 32}},
            "tools": {"llama-cpp-python": "0.3.36"},
            "quality": QUALITY if proven else {},
        },
        runtime={"llama-cpp-python": "0.3.36"},
        settings={"threads": 2, "context_length": 2048, "prompt_tokens": [16], "depths": [16, 512], "new_tokens": 64},
        before={"load_average": 0.1, "temperature_c": 44.2, "frequency_mhz": 1500.0, "throttled": "no"},
        after={"load_average": 1.9, "temperature_c": 51.0, "frequency_mhz": 1500.0, "throttled": "no"},
        during=(
            {"load_average": 0.9, "temperature_c": 55.0, "frequency_mhz": 2400.0, "throttled": "no"},
            {"load_average": 1.9, "temperature_c": 58.5, "frequency_mhz": 2400.0, "throttled": "no"},
        ),
        measurements={m.name: m for m in taken},
        notes=(),
        fitness={"against": [], "notes": [], "forced": False, "others_share": 0.01},
        traffic={
            "weights_bytes": 140_000_000,
            "kv_bytes_per_token": 23040,
            "by_type": {"Q8_0": 139_000_000, "F32": 1_000_000},
            "left_out": {"experts": 5_000_000},
        },
        sustained=tuple(
            {"at_s": float(i), "tokens": 140, "tokens_per_s": decode[0] - i, "temperature_c": 50.0 + i}
            for i in range(9)
        ),
        energy={"source": "RAPL package-0 (processor)", "joules": 63.0, "tokens": 1260},
    )


def _acted(name: str, format_name: str, slower: float, *, proven: bool) -> Result:
    """Five repetitions of three requests, of which the last leads to nothing."""
    answered = _result(name, format_name, "q4_k_m", (100.0,), proven=proven)
    asked = ["read todo.txt", "delete draft.txt and list the files", f"sing {HOSTILE}"]
    stages = {
        "perception": (0.02, 0.03, 0.02), "recall": (0.4, 0.5, 0.4), "intent": (240.0, 530.0, 190.0),
        "plan": (0.2, 0.4, 0.1), "execution": (9.0, 21.0, 0.0),
    }  # fmt: skip
    rounds = [slower * (1 + 0.02 * i) for i in range(5)]

    def each(name: str, unit: str, row: tuple[float, ...], *, grows: bool = True) -> Measurement:
        samples = tuple(x * (by if grows else 1) for by in rounds for x in row)
        return Measurement(f"act_{name}", unit, samples, (len(row),) * len(rounds))

    whole = tuple(sum(row[i] for row in stages.values()) + 0.1 for i in range(3))
    taken = [
        Measurement("load_warm", "s", tuple(0.3 * by for by in rounds)),
        Measurement("act_ready", "s", tuple(1.1 * by for by in rounds)),
        Measurement("peak_rss", "bytes", (410e6,) * 5),
        *(each(stage, "ms", row) for stage, row in stages.items()),
        each("request", "ms", whole),
        each("action", "ms", (whole[0], whole[1] / 2)),
        each("tokens", "tokens", (27.0, 60.0, 9.0), grows=False),
        each("actions", "actions", (1.0, 2.0, 0.0), grows=False),
    ]
    return dataclasses.replace(
        answered,
        settings={"threads": 2, "context_length": 2048, "act": asked},
        measurements={m.name: m for m in taken},
        sustained=(),
        energy={},
    )


def acting_run() -> Run:
    """What `edge bench --act` writes, the same every time: two bundles, one of them hostile in its name."""
    return dataclasses.replace(
        fixed_run(),
        command=("edge", "bench", "out/acts", "--act", "-o", "act.json"),
        results=(
            _acted("smollm2-act", "gguf", 1.0, proven=True),
            _acted(HOSTILE, "tflite", 1.6, proven=False),
        ),
    )


def fixed_run() -> Run:
    """The same every time."""
    return Run(
        device={
            "machine": "aarch64",
            "cpu": "Raspberry Pi 5",
            "physical_cores": 4,
            "logical_cores": 4,
            "features": ["asimddp"],
            "ram_bytes": 8 << 30,
            "kernel": "6.6",
            "governor": "ondemand",
            "virtual": False,
        },
        command=("edge", "bench", "out/my model", "-o", "run.json"),
        taken_at="2026-11-24T06:00:00+00:00",
        edge_version="0.1.0",
        results=(
            _result("SmolLM2-135M-Instruct", "gguf", "q8_0", (140.0, 145.0, 150.0), proven=True),
            _result(HOSTILE, "onnx", HOSTILE, (100.0, 102.0), proven=False),
        ),
        machine={"read_bandwidth_bytes_per_s": 17e9, "threads": 2},
    )
