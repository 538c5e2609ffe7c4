"""Is a checkpoint of 7B parameters exported within 8 GB of private memory, and does a killed export go on?

    python -m benchmarks.large_model --size 7b --format gguf --quant q4_0 --answer
    python -m benchmarks.large_model --size 7b --format gguf --quant q4_0 --kill-in gguf-quantized --kill-after 20
    python -m benchmarks.large_model --size 1b --format gguf --quant q4_0 --gate

Writes a checkpoint of Mistral's shape shard by shard (bfloat16, random weights, so it says nothing worth
reading), runs `edge export` in a process of its own, and looks at the memory of that process and of all that
it starts ten times a second: private memory (anonymous), and what is resident with mapped files included, which the
system takes back when it needs to. `--kill-in` ends everything by SIGKILL, `--kill-after` seconds after that stage
began, and starts again; the time of processors says how much the second run had to do. `--answer` lets the bundle
write 8 tokens. Results are added to those that are kept; whatever else was made is removed, `--checkpoint` excepted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import race
from benchmarks.race import Claim
from edge import profile

_LIMIT_BYTES = 8_000_000_000
_POOL = (1 << 24) + 43  # random numbers, read from another place for each tensor


@dataclass(frozen=True)
class Shape:
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int


SHAPES = {
    "tiny": Shape(256, 512, 4, 4, 2, 1024),
    "0.1b": Shape(768, 2560, 10, 12, 4, 32000),
    "0.3b": Shape(2048, 5632, 4, 32, 8, 32000),
    "1b": Shape(2048, 7168, 16, 32, 8, 32000),
    "7b": Shape(4096, 14336, 32, 32, 8, 32768),
}


def write_checkpoint(folder: Path, shape: Shape) -> int:
    """A Mistral checkpoint, one layer in a shard; the number of its parameters."""
    import numpy as np
    from transformers import MistralConfig

    from tests import checkpoint_parts as parts

    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    ids = parts.byte_level(folder, special=special, eos=special[2], template=parts.CHATML, cut=parts.ONE_BY_ONE)
    config = MistralConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096, sliding_window=None, tie_word_embeddings=False, rms_norm_eps=1e-5,
        bos_token_id=ids[special[0]], eos_token_id=ids[special[2]], dtype="bfloat16",
    )  # fmt: skip
    config.architectures = ["MistralForCausalLM"]
    config.save_pretrained(folder)
    pool = np.random.default_rng(0).standard_normal(_POOL, np.float32)
    width = shape.hidden // shape.heads
    shards = [{"model.embed_tokens.weight": (shape.vocab, shape.hidden)}]
    for i in range(shape.layers):
        layer = {
            "input_layernorm": (shape.hidden,),
            "post_attention_layernorm": (shape.hidden,),
            "self_attn.q_proj": (shape.hidden, shape.hidden),
            "self_attn.k_proj": (shape.kv_heads * width, shape.hidden),
            "self_attn.v_proj": (shape.kv_heads * width, shape.hidden),
            "self_attn.o_proj": (shape.hidden, shape.hidden),
            "mlp.gate_proj": (shape.inner, shape.hidden),
            "mlp.up_proj": (shape.inner, shape.hidden),
            "mlp.down_proj": (shape.hidden, shape.inner),
        }
        shards.append({f"model.layers.{i}.{name}.weight": size for name, size in layer.items()})
    shards.append({"model.norm.weight": (shape.hidden,), "lm_head.weight": (shape.vocab, shape.hidden)})
    weight_map: dict[str, str] = {}
    n_parameters = 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, Any] = {}
        end = 0
        for tensor, size in tensors.items():
            n = int(np.prod(size))
            header[tensor] = {"dtype": "BF16", "shape": list(size), "data_offsets": [end, end + 2 * n]}
            weight_map[tensor] = name
            end += 2 * n
            n_parameters += n
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor, size in tensors.items():
                _write(file, pool, size, 3.0 if "embed" in tensor or "lm_head" in tensor else 1.0)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return n_parameters


_written = 0


def _write(file: Any, pool: Any, size: tuple[int, ...], scale: float) -> None:
    """One tensor in bfloat16, a piece of the pool at a time, from another place than the one before."""
    global _written  # noqa: PLW0603
    import numpy as np

    n = int(np.prod(size))
    at = (_written * 7919) % _POOL
    _written += n
    while n:
        piece = pool[at : at + n]
        values = 1 + 0.1 * piece if len(size) == 1 else piece * np.float32(scale / size[-1] ** 0.5)
        (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tofile(file)
        n -= len(piece)
        at = 0


@dataclass
class Peaks:
    """Largest sums over a process and all that it started, and the largest of one process alone."""

    private_bytes: int = 0
    resident_bytes: int = 0
    one_private_bytes: int = 0
    one_resident_bytes: int = 0

    def look(self, pid: int) -> None:
        rows = [_memory(p) for p in _family(pid)]
        private, resident = [r[0] for r in rows], [r[1] for r in rows]
        self.private_bytes = max(self.private_bytes, sum(private))
        self.resident_bytes = max(self.resident_bytes, sum(resident))
        self.one_private_bytes = max(self.one_private_bytes, *private, 0)
        self.one_resident_bytes = max(self.one_resident_bytes, *resident, 0)


def _family(pid: int) -> list[int]:
    out, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        out.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return out


def _memory(pid: int) -> tuple[int, int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", status, re.MULTILINE))
    return 1024 * int(found.get("RssAnon", 0)), 1024 * int(found.get("VmRSS", 0))


@dataclass(frozen=True)
class Ended:
    """How a process and its children came to their end."""

    code: int
    peaks: Peaks
    seconds: float
    processor_s: float


def run(command: list[str], environment: dict[str, str], until: Callable[[], bool] = lambda: False) -> Ended:
    """Run to the end; as soon as `until` holds, everything is killed."""
    began, before, peaks = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), Peaks()
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        while process.poll() is None:
            peaks.look(process.pid)
            if until():
                for pid in _family(process.pid):
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.1)
        code = process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(code, peaks, round(time.monotonic() - began, 1), round(used, 1))


class _Inside:
    """Whether a stage began to write more than `seconds` ago."""

    def __init__(self, cache_folder: Path, stage: str, seconds: float) -> None:
        self._folder, self._seconds = cache_folder / stage, seconds
        self._began: float | None = None

    def __call__(self) -> bool:
        if self._began is None and any(self._folder.glob("*/*")):
            self._began = time.monotonic()
        return self._began is not None and time.monotonic() - self._began >= self._seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--format", default="gguf")
    parser.add_argument("--quant", default="q4_0")
    parser.add_argument("--gate", action="store_true", help="prove it too; the source is read layer by layer")
    parser.add_argument("--kill-in", metavar="STAGE", help="kill in this stage (gguf-full, gguf-quantized, ...)")
    parser.add_argument("--kill-after", type=float, default=0.0, metavar="S", help="seconds that the stage has (0)")
    parser.add_argument("--answer", action="store_true", help="let the bundle write 8 tokens")
    parser.add_argument("--work", type=Path, help="where everything is made (default: the temporary folder)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="keep the checkpoint there, or take it from there"
    )
    args = parser.parse_args()
    load = profile.conditions().load_average
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        name, sample = measure(args, Path(work))
    print(json.dumps({name: sample}, indent=1))
    return keep(name, sample, load)


def measure(args: argparse.Namespace, work: Path) -> tuple[str, dict[str, float]]:
    """What this export is called, and its numbers."""
    folder = args.checkpoint or work / f"mistral-{args.size}"
    if not (folder / "model.safetensors.index.json").is_file():
        folder.mkdir(exist_ok=True)
        write_checkpoint(folder, SHAPES[args.size])
    cache_folder, out = work / "cache", work / "out"
    _lend_sources(cache_folder)
    environment = {**os.environ, "EDGE_CACHE": str(cache_folder)}
    command = [
        sys.executable, "-m", "edge", "export", str(folder), "-o", str(out), "--name", f"mistral-{args.size}",
        "--format", args.format, "--quant", args.quant, "--no-calibration", *([] if args.gate else ["--no-gate"]),
    ]  # fmt: skip
    name = f"{args.size} {args.format} {args.quant}" + (", proven" if args.gate else "")
    sample: dict[str, float] = {}
    peaks = []
    if args.kill_in:
        name += f", killed in {args.kill_in}"
        killed = run(command, environment, _Inside(cache_folder, args.kill_in, args.kill_after))
        if killed.code != -signal.SIGKILL:
            raise RuntimeError(f"it ended by itself ({killed.code}) before it could be killed")
        peaks.append(killed.peaks)
        sample |= {
            "before_kill_s": killed.seconds,
            "stages_kept": len(list(cache_folder.glob("*/*/artifact.json"))),
            "matrices_kept": len([p for p in cache_folder.glob("*-pieces/*/*") if not p.name.startswith(".")]),
        }
    planned = subprocess.run([*command, "--dry-run", "--json"], env=environment, capture_output=True, check=True)
    sample["foreseen_bytes"] = json.loads(planned.stdout)["ram_bytes"]
    done = run(command, environment)
    peaks.append(done.peaks)
    if done.code != 0:
        raise RuntimeError(f"the export failed ({done.code})")
    sample |= {"export_s": done.seconds, "processor_s": done.processor_s}
    sample |= {f"peak_{k}": max(getattr(p, k) for p in peaks) for k in asdict(done.peaks)}
    [bundle] = [p.parent for p in out.glob("*/edge.json")]
    sample["bundle_bytes"] = sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
    if args.answer:
        shutil.rmtree(cache_folder)  # the bundle is all that is needed; room for its pages
        chat = ["chat", str(bundle), "-p", "Hello", "--temperature", "0", "--max-tokens", "8", "--json"]
        said = run([sys.executable, "-m", "edge", *chat], environment)
        if said.code != 0:
            raise RuntimeError(f"the bundle does not answer ({said.code})")
        sample |= {"answer_s": said.seconds, **{f"answer_{k}": v for k, v in asdict(said.peaks).items()}}
    return name, sample


def keep(name: str, sample: dict[str, float], load: float | None) -> int:
    """Add `sample` to the results that are kept, and judge all of them; 0 when every claim is met."""
    kept = race.RESULTS / "large_model.json"
    samples = json.loads(kept.read_text())["samples"] if kept.is_file() else {}
    samples[name] = [sample]
    about = {n: "no gate" if "proven" not in n else "proven" for n in samples}
    claims = []
    for one in sorted(samples):
        [found] = samples[one]
        if " tflite " not in one:  # litert-torch takes what it takes; the preflight has to know
            says = f"peak private memory, {one}"
            claims.append(_claim(says, one, "peak_private_bytes", "allowed", _LIMIT_BYTES))
        if "foreseen_bytes" in found:
            says = f"peak private memory over what the preflight says, {one}"
            claims.append(_claim(says, one, "peak_private_bytes", "preflight", found["foreseen_bytes"]))
        whole = samples.get(one.partition(", killed")[0])
        if "before_kill_s" in found and whole:
            says = f"processors after the kill, {one}"
            claims.append(_claim(says, one, "processor_s", "never killed", whole[0]["processor_s"]))
    done = race.Race(str(__doc__).splitlines()[0], about, samples, load)
    return race.keep("large_model", done, race.judge(done, claims), words=[])


def _claim(says: str, ours: str, quantity: str, theirs: str, allowed: float) -> Claim:
    return Claim(quantity, ours, theirs, at_most=1.0, says=says, fixed=allowed)


def _lend_sources(cache_folder: Path) -> None:
    """llama.cpp's sources as they are in the real cache; everything else starts empty."""
    from edge.export import cache

    for name in ("sources", "llama.cpp"):
        if (cache.root() / name).is_dir():
            shutil.copytree(cache.root() / name, cache_folder / name)


if __name__ == "__main__":
    sys.exit(main())
