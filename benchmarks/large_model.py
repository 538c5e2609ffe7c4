"""Is a checkpoint that is larger than memory exported in bounded memory, and does it go on after a kill?

    python -m benchmarks.large_model --size 7b --format gguf --quant q4_0
    python -m benchmarks.large_model --size 1b --format gguf --quant q4_0 --gate
    python -m benchmarks.large_model --size 1b --format gguf --quant q4_0 --kill-after 20

Writes a checkpoint of Mistral's shape shard by shard (bfloat16, random weights, so it says nothing worth
reading), runs `edge export` in a process of its own, and looks at the memory of that process and of all that
it starts ten times a second: private memory (anonymous), and what is resident with mapped files included, which the
system takes back when it needs to. `--kill-after` ends everything by SIGKILL after that many seconds and starts
again. What it made is removed at the end, stages in the cache too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


def run(command: list[str], environment: dict[str, str], kill_after_s: float | None) -> tuple[int, Peaks, float]:
    """Exit code, peaks and seconds; everything is killed after `kill_after_s`."""
    began, peaks = time.monotonic(), Peaks()
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        while process.poll() is None:
            peaks.look(process.pid)
            if kill_after_s is not None and time.monotonic() - began > kill_after_s:
                for pid in _family(process.pid):
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.1)
        code = process.wait()
    return code, peaks, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--format", default="gguf")
    parser.add_argument("--quant", default="q4_0")
    parser.add_argument("--gate", action="store_true", help="prove it too; the source is read layer by layer")
    parser.add_argument("--kill-after", type=float, metavar="S", help="kill after S seconds, then start again")
    parser.add_argument("--work", type=Path, help="where everything is made (default: the temporary folder)")
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        folder = Path(work, f"mistral-{args.size}")
        folder.mkdir()
        n_parameters = write_checkpoint(folder, SHAPES[args.size])
        environment = {**os.environ, "EDGE_CACHE": str(Path(work, "cache"))}
        _lend_sources(Path(work, "cache"))
        command = [
            sys.executable, "-m", "edge", "export", str(folder), "-o", str(Path(work, "out")),
            "--format", args.format, "--quant", args.quant, "--no-calibration", *([] if args.gate else ["--no-gate"]),
        ]  # fmt: skip
        stages: list[str] = []
        if args.kill_after:
            run(command, environment, args.kill_after)
            stages = [p.parent.name for p in Path(work, "cache").glob("*/*/artifact.json")]
        code, peaks, seconds = run(command, environment, None)
        bundles = [p for p in Path(work, "out").glob("*/edge.json")]
        result = {
            "size": args.size,
            "parameters": n_parameters,
            "format": args.format,
            "quantization": args.quant,
            "gate": args.gate,
            "exit_code": code,
            "stages_kept_after_kill": stages,
            "seconds": round(seconds, 1),
            "bundle_bytes": sum(p.stat().st_size for b in bundles for p in b.parent.rglob("*") if p.is_file()),
            "limit_bytes": _LIMIT_BYTES,
            "within_limit": peaks.private_bytes <= _LIMIT_BYTES,
            **asdict(peaks),
        }
    print(json.dumps(result, indent=1))
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if code == 0 and result["within_limit"] else 1


def _lend_sources(cache_folder: Path) -> None:
    """llama.cpp's sources as they are in the real cache; everything else starts empty."""
    from edge.export import cache

    for name in ("sources", "llama.cpp"):
        if (cache.root() / name).is_dir():
            shutil.copytree(cache.root() / name, cache_folder / name)


if __name__ == "__main__":
    sys.exit(main())
