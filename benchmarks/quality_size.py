"""How much of a model is left in how many bytes: edge's quantizations and plans beside the field's own?

Each point is one bundle, run on the runtime that ships it, over the text that the gate judges by, which nothing was
calibrated with. `mean_kld` is the divergence of its next tokens from the source's, in nats.

    python -m benchmarks.quality_size smollm2 --format gguf

What was measured stays in results/quality_size, and is not measured again. `python -m benchmarks.table` makes the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality_size_page import RESULTS
from edge import bundle as bundles
from edge import profile
from edge.errors import EdgeError
from edge.export import calibrate, distance
from edge.export.gate import logits
from edge.export.source import open_source
from edge.find import load
from edge.progress import Progress, Silent
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

    from edge.export.checkpoint import Checkpoint

_LIBRARIES = ("edge-deploy", "llama-cpp-python", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "torch")
_POSITIONS = 2_000
_GRID = ("Q4_1", "Q5_1")  # of the file that smollm2 comes from
# What a plan is held against: its file may be no larger than that of this one.
AUTO_ROUND = "benchmarks.contestants.auto_round"
PLAIN = {"gguf": "llama.cpp q4_k_m", "onnx": "onnxruntime int4 b32", "tflite": "ai-edge-quantizer wi4b32"}


@dataclass(frozen=True)
class Way:
    """One way to make a bundle. `whose` is "plain", "field" or "edge"; `make(source, folder)` gives the bundle."""

    name: str
    whose: str
    about: str
    make: Callable[[str, Path], Path]


def ways(format_name: str) -> list[Way]:
    """The plain one first: plans are as large as it is at most."""
    if format_name == "gguf":
        plain = [_own("gguf", q, f"llama.cpp {q}", "field", calibrated=False) for q in ("q4_0", "q4_k_s", "q5_k_m")]
        weighed = [
            _own("gguf", q, f"llama.cpp {q}, imatrix", "field")
            for q in ("q3_k_m", "iq4_xs", "iq4_nl", "q4_k_s", "q4_k_m", "q5_0", "q5_k_s", "q5_k_m", "q6_k")
        ]
        first = _own("gguf", "q4_k_m", PLAIN["gguf"], "plain", calibrated=False)
        return [
            first,
            _plan("gguf"),
            _plan("gguf", without=_GRID),
            *weighed,
            *plain,
            _own("gguf", "q8_0", "llama.cpp q8_0", "field"),
        ]
    if format_name == "onnx":
        return [
            _own("onnx", "int4-rtn-32", PLAIN["onnx"], "plain"),
            _plan("onnx"),
            _own("onnx", "int4-hqq-32", "onnxruntime HQQ b32", "field"),
            _own("onnx", "int4-kquant-32", "onnxruntime k-quant b32", "field"),
            _own("onnx", "int4-mixed", "edge int4-mixed", "edge"),
            _own("onnx", "int4", "edge int4", "edge"),
            _own("onnx", "int4-gptq-32", "edge int4-gptq-32", "edge"),
            _own("onnx", "int8", "onnxruntime int8 b32", "field"),
            Way("AutoRound b32", "field", f"tuned by {AUTO_ROUND}, head and embedding as the plain one's", _auto_round),
        ]
    return [
        _recipe("wi4b32", "plain", 4, "BLOCKWISE_32"),
        _plan("tflite"),
        _own("tflite", "int4", "edge int4", "edge"),
        _own("tflite", "int4-mixed", "edge int4-mixed", "edge"),
        _recipe("wi4b32 OCTAV", "field", 4, "BLOCKWISE_32", "OCTAV"),
        _recipe("wi8", "field", 8, "CHANNELWISE"),
        _own("tflite", "int8", "edge int8", "edge"),
    ]


def _own(format_name: str, quantization: str, name: str, whose: str, *, calibrated: bool = True) -> Way:
    def make(source: str, folder: Path) -> Path:
        from edge.export.pipeline import export

        [done] = export(
            source, folder, formats=[format_name], quantization=quantization, gate=False, calibrate=calibrated
        )
        return done.folder

    return Way(name, whose, f"{quantization}{'' if calibrated else ', not calibrated'}", make)


def _plan(format_name: str, *, without: Sequence[str] = ()) -> Way:
    """A plan that is no larger than the plain bundle, made of all types but some."""

    def make(source: str, folder: Path) -> Path:
        from edge.devices.predict import expected
        from edge.export.pipeline import export
        from edge.export.planner.budget import Budget
        from edge.export.within import within

        most = json.loads(kept(source, format_name, PLAIN[format_name]).read_text())["size_bytes"]

        def expect(bundle: Any, read: Any) -> Any:
            return expected(bundle, read, None, context_length=bundle.context_length, depth=256)

        make = within(Budget(max_size_bytes=most), expect)
        with _types_left_out(without):
            [done] = export(source, folder, formats=[format_name], gate=False, make=make)
        return done.folder

    less = f" without {', '.join(without)}" if without else ""
    return Way(f"edge plan{less}", "edge", f"planned{less}, no larger than {PLAIN[format_name]}", make)


@contextmanager
def _types_left_out(types: Sequence[str]) -> Iterator[None]:
    """The planner knows nothing of these types; what they cost is measured all the same."""
    from edge.export.planner import run

    whole = run._variety

    def fewer(*given: Any) -> Any:
        made = whole(*given)
        parts = tuple(replace(p, options=tuple(o for o in p.options if o.type not in types)) for p in made.parts)
        named = {name: kinds for name, kinds in made.named.items() if not set(kinds) & set(types)}
        return replace(made, parts=parts, named=named)

    run._variety = fewer
    try:
        yield
    finally:
        run._variety = whole


def _recipe(short: str, whose: str, bits: int, granularity: str, algorithm: str = "min_max_uniform_quantize") -> Way:
    """ai-edge-quantizer alone, on the graphs that edge writes, with one recipe for every matrix of every operation."""

    def make(source: str, folder: Path) -> Path:
        from edge.export import litert_run
        from edge.export.pipeline import export

        [done] = export(source, folder, formats=["tflite"], quantization="fp32", gate=False)
        weights = {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": "INT"}
        precision = {"compute_precision": "INTEGER", "explicit_dequantize": False}
        how = {"weight_tensor_config": weights, **precision, "skip_checks": False, "min_weight_elements": 0}
        rule = {"regex": ".*", "operation": "*", "algorithm_key": algorithm, "op_config": how}
        embedding = done.bundle.parts.get("embedding")  # of a model that sees, in a file of its own
        for name in filter(None, (done.bundle.model_file, embedding)):
            path = done.folder / name
            made = path.with_suffix(".made")
            litert_run.quantize(path, made, [rule], near=name != embedding)
            made.replace(path)
        return done.folder

    about = f"dynamic_wi{bits}{'b32' if 'BLOCK' in granularity else 'c'}_afp32 by {algorithm}"
    return Way(f"ai-edge-quantizer {short}", whose, about, make)


def _auto_round(source: str, folder: Path) -> Path:
    """The plain bundle with the blocks that AutoRound chose, from the file that ${AUTO_ROUND} names."""
    import numpy as np
    from safetensors import safe_open

    from edge.export import blocks, onnx_graph
    from edge.export.pipeline import export

    tuned = os.environ.get("AUTO_ROUND")
    if not tuned:
        raise EdgeError(f"AutoRound's rounding is asked for with AUTO_ROUND=FILE: see {AUTO_ROUND}")
    [done] = export(source, folder, formats=["onnx"], quantization="int4-rtn-32", gate=False, calibrate=False)
    path = done.folder / done.bundle.model_file
    graph, used = onnx_graph.load(path), 0
    with safe_open(tuned, "np") as file:
        for name in [n.removesuffix(".blocks") for n in graph.weights if n.endswith(".blocks") and ".layers." in n]:
            # Products of one input are one product: q, k and v in its name, gate and up as they were joined.
            parts = re.findall(r"(model\.layers\.\d+\.\w+?\.\w+_proj)", name.replace("gate_up_proj", "gate_proj"))
            parts += [parts[0].replace("gate_proj", "up_proj")] if "gate_up_proj" in name else []
            q, scale, zero = (
                np.concatenate([file.get_tensor(f"{part}.{kind}") for part in parts]) for kind in ("q", "scale", "zero")
            )
            made = blocks.packed(q.reshape(*scale.shape, -1), scale, zero, 4, 32)
            for part, array in ((".blocks", made.data), (".scales", made.scales), (".zero_points", made.zero_points)):
                assert array.shape == graph.weights[name + part].shape, name
                graph.weights[name + part] = array
            used += len(parts)
        assert 3 * used == len(file.keys()), "a matrix that was tuned has no place in the graph"
    onnx_graph.save(graph, folder / "made" / path.name)
    for new in (folder / "made").iterdir():
        new.replace(path.parent / new.name)
    return done.folder


def kept(source: str, format_name: str, name: str) -> Path:
    """Where a point's result lies."""
    return RESULTS / source / f"{format_name}-{re.sub('[^a-z0-9.]+', '-', name.lower())}.json"


class Judge:
    """Compares bundles of one source with it; what the source says is computed once."""

    def __init__(self, source: str, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
        self.held_out = calibrate.held_out(tokenizer, template)
        self._said: dict[tuple[int, ...], np.ndarray] = {}
        self._run: logits.Logits | None = None

    def source(self, window: Any) -> np.ndarray:
        """Logits of the source, float32 `(tokens, vocab)`."""
        key = tuple(window)
        if key not in self._said:
            self._run = self._run or distance.run(self.checkpoint)
            self._said[key] = self._run(window)
        return self._said[key]

    def compare(self, folder: Path) -> dict[str, Any]:
        """The gate's own comparison, of the file that is there."""
        bundle = bundles.read(folder)
        longest = max(len(w) for w in self.held_out.windows)
        session = load("edge.runtimes.engines", bundle.format).load(folder, bundle, context_length=longest)
        try:

            def fed(window: Any) -> np.ndarray:
                session.rewind(0)
                out: np.ndarray = session.feed_all(window)
                return out

            found = logits.compare(
                self.source, fed, self.held_out.windows,
                vocab_size=min(bundle.vocab_size, session.vocab_size), at_least=_POSITIONS,
            )  # fmt: skip
        finally:
            session.close()
        return vars(found)


@contextmanager
def _made(way: Way, source: str) -> Iterator[Path]:
    """The bundle, for as long as it is looked at."""
    work = Path(tempfile.mkdtemp(prefix="quality-size-"))
    try:
        yield way.make(source, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(source: str, format_name: str, way: Way, judge: Judge) -> dict[str, Any]:
    """One point, as it is kept."""
    began = time.process_time()
    with _made(way, source) as folder:
        bundle = bundles.read(folder)
        found = judge.compare(folder)
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != bundles.MANIFEST)
        planned = bundle.plan.get("budget", {}).get("chosen")
        made = {
            "source": source,
            "source_sha256": judge.checkpoint.id,
            "format": format_name,
            "name": way.name,
            "whose": way.whose,
            "about": way.about,
            "quantization": bundle.quantization,
            "size_bytes": size,
            **({"expected": planned} if planned else {}),
            "held_out": judge.held_out.source,
            "found": {k: v for k, v in found.items() if k not in ("flat", "finite")},
        }
    return made | {
        "process_s": round(time.process_time() - began, 1),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "machine": profile.this_machine().record(),
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


class _Said(Silent):
    def say(self, words: str) -> None:
        print(f"    {words}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="smollm2")
    parser.add_argument("--format", action="append", choices=tuple(PLAIN), help="this one alone (default: all)")
    parser.add_argument("--only", metavar="NAME", action="append", help="these points alone")
    args = parser.parse_args()
    progress: Progress = _Said()
    judge = Judge(args.source, open_source(args.source, progress=progress))
    failed = 0
    for format_name in args.format or PLAIN:
        for way in ways(format_name):
            path = kept(args.source, format_name, way.name)
            if path.is_file() or (args.only and way.name not in args.only):
                continue
            try:
                row = measure(args.source, format_name, way, judge)
            except EdgeError as err:
                print(f"{format_name} {way.name}: {err.message}", flush=True)
                failed = 1
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            found = row["found"]
            print(
                f"{format_name} {way.name}: {row['size_bytes'] / 1e6:.1f} MB, mean KLD {found['mean_kld']:.4f}, "
                f"same top {found['same_top1']:.1%}", flush=True,
            )  # fmt: skip
    return failed


if __name__ == "__main__":
    sys.exit(main())
