"""Is a prediction within 20 % of what is then measured, for every bundle of the zoo?

Shares of bandwidth are fitted on the even rounds of smollm2 (and, for experts, of one quantization of smollm2-moe)
and tested on the odd rounds of everything: smollm2-act, smollm2-vision and the other mixtures were never fitted.

    python -m benchmarks.predict --write       also keeps the shares, as edge/devices/reached.json
    python -m benchmarks.predict --only smollm2 --format gguf --rounds 2 --tokens 16
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import race
from benchmarks.race import Contestant
from edge import bundle as bundles
from edge import profile
from edge.devices import predict
from edge.errors import EdgeError
from edge.runtimes import traffic

_SOURCES = ("smollm2", "smollm2-act", "smollm2-moe", "smollm2-vision")
_KINDS = {
    "gguf": ("q4_k_m", "q4_0", "q8_0", "f32"),
    "onnx": ("int4-mixed", "int4", "int8", "fp32"),
    "tflite": ("int4-mixed", "int4", "int8", "fp32"),
}
_OTHERS = ("4bit", "8bit")  # of the other sources
_PROMPT = 16
_BANDWIDTH = "memory"
_WITHIN = 0.2
_SAYS = {
    "decode_tokens_per_s": "predicted over measured",
    "peak_rss_bytes": "memory predicted over measured, context full",
}


def main() -> int:
    parser = race.arguments(__doc__, rounds=6)
    parser.add_argument("--write", action="store_true", help="keep the shares of this machine in the product")
    parser.add_argument("--only", metavar="SOURCE", action="append", help="these members of the zoo")
    parser.add_argument("--format", metavar="FORMAT", action="append", help="these formats")
    args = parser.parse_args()
    folders: dict[str, Path] = {}
    for source in args.only or _SOURCES:
        for format_name in args.format or _KINDS:
            kinds = _KINDS[format_name]
            for kind in kinds if source == "smollm2" else _OTHERS:
                try:
                    folder = race.bundle(source, format_name, kind)
                except EdgeError as err:  # what an export refuses cannot be predicted either
                    print(f"  {source} {format_name} {kind}: {err.message}", flush=True)
                    continue
                folders[f"{source} {format_name} {bundles.read(folder).quantization}"] = folder
    contestants = [Contestant(_BANDWIDTH, race.contestant("bandwidth", args.threads))]
    contestants += [
        Contestant(name, race.contestant("edge_session", folder, args.threads, _PROMPT, args.tokens))
        for name, folder in folders.items()
    ]
    done = race.run(__doc__, contestants, rounds=args.rounds)
    for name, folder in folders.items():
        full = Contestant(f"{name}, context full", _filled(folder, args.threads))
        done.contestants[full.name], done.samples[full.name] = full.about, [race.once(full)]
        print(f"  {full.name}: {done.samples[full.name][0]['peak_rss_bytes'] / 1e6:.0f} MB", flush=True)
    # The median, as whoever predicts will find it: on a machine shared with others a single look can be far above it.
    bandwidth = statistics.median(s["read_bandwidth_bytes_per_s"] for s in done.samples[_BANDWIDTH])
    depth = _PROMPT + args.tokens // 2
    fitted = _fit(folders, done.samples, bandwidth, depth)
    claims = [
        _claim(name, folder, done.samples[name][1::2], fitted, bandwidth, depth) for name, folder in folders.items()
    ]
    claims += [_memory(name, folder, done.samples[f"{name}, context full"]) for name, folder in folders.items()]
    if args.write:
        path = Path(predict.__file__).with_name("reached.json")
        about = json.loads(path.read_text(encoding="utf-8"))["about"]
        machine = profile.this_machine()
        measured = {"cpu": machine.cpu, "cores": machine.physical_cores, "bandwidth_bytes_per_s": round(bandwidth)}
        path.write_text(
            json.dumps({"about": about, "measured": measured, **fitted}, indent=1, sort_keys=True) + "\n",
            encoding="utf-8",
        )
    return race.keep("predict", done, claims)


def _filled(folder: Path, threads: int) -> tuple[str, ...]:
    """An answer that ends where the context does: what is measured is memory."""
    context = bundles.read(folder).context_length
    return race.contestant("edge_session", folder, threads, _PROMPT, 8, context - 16)


def _fit(folders: dict[str, Path], samples: dict[str, Any], bandwidth: float, depth: int) -> dict[str, Any]:
    """Shares by format and quantization, and what experts change, from even rounds."""
    shares: dict[str, dict[str, float]] = {}
    experts: dict[str, float] = {}
    for name, folder in folders.items():
        bundle = bundles.read(folder)
        read = traffic.of(folder, bundle)
        assert read is not None
        rate = statistics.median(s["decode_tokens_per_s"] for s in samples[name][::2])
        reached = rate * read.at(depth) / bandwidth
        if name.startswith("smollm2 "):
            shares.setdefault(bundle.format, {})[bundle.quantization] = round(reached, 4)
        elif read.experts:
            known = shares.get(bundle.format, {})
            dense = known.get(bundle.quantization) or statistics.median(known.values())
            experts.setdefault(bundle.format, round(reached / dense, 4))
    return {"shares": shares, "experts": experts}


def _memory(name: str, folder: Path, found: list[dict[str, float]]) -> dict[str, Any]:
    """What is predicted for a full context, held against the peak of a session that filled it."""
    bundle = bundles.read(folder)
    made = predict.predict(folder, bundle, None, context_length=bundle.context_length, depth=_PROMPT)
    return _within(name, "peak_rss_bytes", float(made.memory["total_bytes"]), found)


def _claim(
    name: str, folder: Path, tested: list[dict[str, float]], fitted: dict[str, Any], bandwidth: float, depth: int
) -> dict[str, Any]:
    bundle = bundles.read(folder)
    predict.reached = lambda: fitted  # type: ignore[assignment]
    made = predict.predict(folder, bundle, None, bandwidth=bandwidth, context_length=bundle.context_length, depth=depth)
    assert made.tokens_per_s is not None
    return _within(name, "decode_tokens_per_s", made.tokens_per_s[1], tested)


def _within(name: str, quantity: str, predicted: float, found: list[dict[str, float]]) -> dict[str, Any]:
    ratios = sorted(predicted / s[quantity] for s in found)
    ratio = statistics.median(ratios)
    # One bound is a claim: a prediction that is too low is held against 0.8, one that is too high against 1.2.
    high = ratio > 1
    return {
        "says": f"{_SAYS[quantity]}, {name}",
        "quantity": quantity,
        "ours": name,
        "theirs": "measured",
        "median_ours": predicted,
        "median_theirs": statistics.median(s[quantity] for s in found),
        "ratio": round(ratio, 4),
        "ratio_low": round(ratios[0], 4),
        "ratio_high": round(ratios[-1], 4),
        "at_least": None if high else 1 - _WITHIN,
        "at_most": 1 + _WITHIN if high else None,
        "met": abs(ratio - 1) <= _WITHIN,
    }


if __name__ == "__main__":
    sys.exit(main())
