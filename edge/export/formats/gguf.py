"""GGUF: llama.cpp's own converter and quantizer, both from the commit that the runtime was built from.

edge export SOURCE --format gguf --quant q4_k_m
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError, require
from edge.export.artifact import Artifact, Entry, Need, Planned, Quantization, link
from edge.export.checkpoint import Checkpoint
from edge.export.pack import head_width
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

    from edge.export.calibrate import Calibration

EXTRA = "gguf"
MODEL_FILE = "model.gguf"


def _table(*rows: tuple[str, int, float, str]) -> dict[str, Quantization]:
    return {name: Quantization(name, bits, bpw, calibrated=bits <= 6, about=about) for name, bits, bpw, about in rows}


QUANTIZATIONS: dict[str, Quantization] = _table(
    ("f32", 32, 32.0, "full precision; the reference of the other files"),
    ("f16", 16, 16.0, "half precision"),
    ("bf16", 16, 16.0, "half precision with the range of float32"),
    ("q8_0", 8, 8.5, "blocks of 32, one scale; hardly any loss"),
    ("q6_k", 6, 6.56, "super-blocks of 256"),
    ("q5_k_m", 5, 5.69, "5 bits, more for the tensors that need it"),
    ("q5_k_s", 5, 5.53, "5 bits throughout"),
    ("q5_0", 5, 5.5, "blocks of 32, one scale"),
    ("q4_k_m", 4, 4.89, "4 bits, more for the tensors that need it: the usual choice"),
    ("q4_k_s", 4, 4.58, "4 bits throughout"),
    ("q4_0", 4, 4.5, "blocks of 32, one scale: the fastest on most CPUs"),
    ("iq4_nl", 4, 4.5, "blocks of 32 on a curved grid: better than q4_0 at its size"),
    ("iq4_xs", 4, 4.25, "super-blocks on a curved grid"),
    ("q3_k_m", 3, 3.91, "3 bits, more for the tensors that need it"),
    ("iq3_m", 3, 3.66, "3 bits on a lattice"),
    ("q2_k", 2, 2.96, "2 to 3 bits"),
    ("iq2_m", 2, 2.7, "2 bits on a lattice; needs calibration"),
)
PORTABLE: dict[str, str] = {
    "32bit": "f32",
    "16bit": "f16",
    "8bit": "q8_0",
    "6bit": "q6_k",
    "5bit": "q5_k_m",
    "4bit": "q4_k_m",
    "3bit": "q3_k_m",
    "2bit": "iq2_m",
}

_ROWS_BYTES = 256 << 20  # rows of one tensor in memory at once while quantizing; llama.cpp's default is 8 GiB
_LARGE_PARAMETERS = 2_000_000_000
_TORCH_BYTES = 700 << 20  # the converter's process before it has read a tensor
_CHOSEN = re.compile(r"^\[ *\d+/ *\d+\] (\S+) .*,\s*size = .*MiB -> .*\((\w+)\)$", re.MULTILINE)
_FALLBACK = re.compile(r"(\S+)\s+- ncols +(\d+) not divisible by +(\d+) \(required for type +(\S+)\)")
_CACHE_BLOCK = 32
# What a file whose tensors have types of their own says that it is, by the bits that the gate holds it to.
_OTHERS, OTHERS_BYTES = "Q8_0", 8.5 / 8
_USUAL = {16: "q8_0", 8: "q8_0", 6: "q6_k", 5: "q5_k_m", 4: "q4_k_m", 3: "q3_k_m", 2: "q2_k"}
_NEEDS_IMATRIX = frozenset({"iq2_m"})
# Model types for which the pinned llama.cpp hides what lies outside a layer's window; for others it shows everything.
_WINDOWED = frozenset({"gemma2", "gemma3", "gemma3_text"})


def kv_element_bytes(quantization: str) -> int:
    """Of the session's cache: half precision, except for the bundle that is there to be exact."""
    return 4 if quantization == "f32" else 2


def estimate(checkpoint: Checkpoint, quantization: str, *, calibrated: bool = True) -> Need:
    """Memory, disk and time of `convert` and `quantize`, from measured rates on two cores."""
    kind = _kind(quantization)
    n = checkpoint.n_parameters
    largest = max((_n_elements(info.shape) for info in checkpoint.tensors.values()), default=0)
    quantizing = 0.0 if kind.bits == 32 else n / (9e6 if kind.bits < 5 else 4e7)
    return Need(
        ram_bytes=_TORCH_BYTES + _ROWS_BYTES + 4 * 4 * largest,
        disk_bytes=(2 if _full_type(checkpoint) == "bf16" else 4) * n
        + (0 if kind.bits == 32 else int(n * kind.bits_per_weight / 8)),
        time_s=12 + n / 1e8 + quantizing,
        who="converting to GGUF",
    )


def convert(checkpoint: Checkpoint, folder: Path, *, context_length: int, progress: Progress | None = None) -> Artifact:
    """Write `model.gguf` in full precision into `folder`, with a ledger of where every tensor went.

    That is float32; or bfloat16 for a large checkpoint of bfloat16, which takes half the disk and loses nothing.

    Raises `EdgeError` when llama.cpp's converter refuses the checkpoint, or when a tensor was
    lost, invented or used twice on the way.
    """
    from edge.export import llama_cpp_source, pooling
    from edge.export.llama_cpp_ledger import ledger
    from edge.export.llama_cpp_run import run_converter

    require("torch", extra="export", purpose="converting to GGUF")
    require("transformers", extra="export", purpose="converting to GGUF")
    _refuse_windows(checkpoint, context_length)
    pooling.check(checkpoint.folder, checkpoint.name)
    progress = progress or Silent()
    path = Path(folder) / MODEL_FILE
    full = _full_type(checkpoint)
    trace = run_converter(llama_cpp_source.folder(), checkpoint, path, progress, outtype=full)
    warnings = []
    if trace["pre"]["how"] == "nearest":
        warnings.append(
            f"llama.cpp has no pre-tokenizer that splits text as this checkpoint's does; "
            f"{trace['pre']['name']!r} comes nearest, and other programs will see other token ids"
        )
    progress.start("comparing every tensor with its source")
    entries = ledger(checkpoint, path, trace)
    return Artifact(
        format="gguf",
        quantization=full,
        folder=Path(folder),
        model_file=MODEL_FILE,
        files=(MODEL_FILE,),
        ledger=entries,
        context_length=context_length,
        plan={
            "type": full,
            "bits_per_weight": QUANTIZATIONS[full].bits_per_weight,
            "pre_tokenizer": dict(trace["pre"]),
        },
        tools={"llama.cpp converter": f"llama-cpp-python {llama_cpp_source.VERSION}"},
        warnings=tuple(warnings),
    )


def quantize(
    artifact: Artifact,
    checkpoint: Checkpoint,
    quantization: str,
    folder: Path,
    *,
    calibration: Calibration | None,
    planned: Planned | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Write `model.gguf` of another `quantization` into `folder`, or as it was `planned`, with a type for each tensor.

    With `calibration`, types of 6 bits and fewer weigh each column by the mean square of what
    it is multiplied with (an importance matrix). Raises `EdgeError` when llama.cpp refuses, or
    when the result is no smaller than half precision although it should be.
    """
    kind = planned.kind if planned else _kind(quantization)
    progress = progress or Silent()
    path = Path(folder) / artifact.model_file
    if quantization == artifact.quantization:
        link(artifact.path, path)
        return replace(artifact, folder=Path(folder))
    if quantization in _NEEDS_IMATRIX and calibration is None:
        raise UsageError(
            f"{quantization} cannot be made without calibration text", hint="leave calibration on, or take q3_k_m"
        )
    require("llama_cpp", extra=EXTRA, purpose="quantizing a GGUF file")
    importance: dict[str, np.ndarray] = {}
    routed: dict[str, Any] = {}
    starved: list[str] = []
    if calibration is not None and kind.calibrated:
        from edge.export import expert_use
        from edge.export.calibrate import activation_statistics

        statistics = activation_statistics(checkpoint, calibration, progress)
        importance = _by_target(artifact.ledger, statistics) | _of_experts(checkpoint, statistics)
        routed, starved = expert_use.report(expert_use.tokens(statistics, checkpoint))
    progress.start(f"quantizing to {quantization}", len(artifact.ledger))
    types = planned.types if planned else {}
    usual = _USUAL[kind.bits] if planned else quantization
    log = _run_quantizer(artifact.path, path, usual, importance, progress, types)
    plan: dict[str, Any] = (
        {"importance_matrix": {"matrices": len(importance), "calibration": calibration.sha256}}
        if calibration and importance
        else {}
    )
    if routed:
        plan["experts"] = routed
    if planned:
        plan["planned"] = planned.record()
    made = replace(
        artifact,
        folder=Path(folder),
        plan={**artifact.plan, **plan},
        warnings=(*artifact.warnings, *starved),
    )
    return _account(made, kind, log, set(importance))


def narrow_cache(
    artifact: Artifact,
    full: Callable[[], Artifact],
    checkpoint: Checkpoint,
    folder: Path,
    *,
    calibration: Calibration | None,
    progress: Progress | None = None,
) -> Artifact:
    """The same file, run with keys and values in q8_0: blocks of 32, rounded as they come.

    Raises as `narrow_element_bytes` does.
    """
    element_bytes = narrow_element_bytes(checkpoint, calibrated=calibration is not None)
    for name in artifact.files:
        link(artifact.folder / name, Path(folder) / name)
    plan = {**artifact.plan, "kv_cache": {"type": "q8_0", "element_bytes": element_bytes}}
    return replace(artifact, folder=Path(folder), plan=plan)


def narrow_element_bytes(checkpoint: Checkpoint, *, calibrated: bool) -> float:
    """Of an element of that cache. Raises `UsageError` when the heads are no multiple of a block wide."""
    width = head_width(checkpoint.text_config)
    if width % _CACHE_BLOCK:
        raise UsageError(
            f"{checkpoint.name} cannot have a KV cache of 8 bits in GGUF: its heads are {width} wide, and llama.cpp "
            f"rounds in blocks of {_CACHE_BLOCK}",
            hint="leave out --kv, or choose onnx",
        )
    return (_CACHE_BLOCK + 2) / _CACHE_BLOCK


def types_of(full: Artifact, quantization: str) -> dict[str, str]:
    """The type that llama.cpp would give each tensor that it would quantize; nothing is written."""
    log = _run_quantizer(full.path, full.path.with_suffix(".none"), quantization, {}, Silent(), dry_run=True)
    return dict(_CHOSEN.findall(re.sub(r", *\n+size", ", size", log)))


def inspect(path: Path) -> dict[str, Any]:
    """What the header says, without loading the model. Raises `InputError` for a damaged file."""
    from edge.readers.gguf import read_header

    header = read_header(path)
    meta = header.metadata
    architecture = str(meta.get("general.architecture", ""))
    by_type: dict[str, dict[str, int]] = {}
    for tensor in header.tensors.values():
        row = by_type.setdefault(tensor.type, {"tensors": 0, "bytes": 0})
        row["tensors"] += 1
        row["bytes"] += tensor.n_bytes
    n_elements = sum(t.n_elements for t in header.tensors.values())
    n_bytes = sum(t.n_bytes for t in header.tensors.values())
    tokens = meta.get("tokenizer.ggml.tokens")
    return {
        "format": "gguf",
        "architecture": architecture,
        "name": meta.get("general.name"),
        "context_length": meta.get(f"{architecture}.context_length"),
        "vocab_size": len(tokens) if isinstance(tokens, list) else None,
        "parameters": n_elements,
        "bits_per_weight": round(8 * n_bytes / n_elements, 4) if n_elements else None,
        "size_bytes": header.size_bytes,
        "tensors": len(header.tensors),
        "types": dict(sorted(by_type.items())),
        "metadata": {k: f"{len(v)} values" if isinstance(v, list) else v for k, v in sorted(meta.items())},
    }


def tokenizer_ids(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids by the tokenizer that the file itself carries, as llama.cpp runs it."""
    from edge.runtimes import llama_vocab

    return llama_vocab.tokenizer_ids(path, texts)


def weight_errors(artifact: Artifact, checkpoint: Checkpoint) -> Iterator[tuple[str, float]]:
    """For every matrix that came from one source tensor, and every expert's: its name and the relative error.

    That is |stored - source| / |source| over all elements.
    """
    require("gguf", extra=EXTRA, purpose="reading the weights of a GGUF file")
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from edge.export import experts

    stored = {t.name: t for t in GGUFReader(artifact.path).tensors}
    for layer in experts.layers(checkpoint):
        names = [f"blk.{layer.index}.ffn_{kind}_exps.weight" for kind in ("gate", "up", "down")]
        stacks = [dequantize(stored[n].data, stored[n].tensor_type) for n in names if n in stored]
        for e in range(experts.count(checkpoint.config) if len(stacks) == len(names) else 0):
            for key, stack, wanted in zip(layer.keys(e), stacks, experts.read(checkpoint, layer, e), strict=True):
                size = float(np.linalg.norm(wanted)) or 1.0
                yield key, float(np.linalg.norm(stack[e].reshape(wanted.shape) - wanted)) / size
    for entry in artifact.ledger:
        if len(entry.source) != 1 or len(entry.target) != 1 or entry.target[0] not in stored:
            continue
        tensor = stored[entry.target[0]]
        source = checkpoint.read(entry.source[0])
        values = dequantize(tensor.data, tensor.tensor_type).reshape(-1)
        if values.size != source.size or source.ndim < 2:
            continue
        size = float(np.linalg.norm(source)) or 1.0
        orders = [source.reshape(-1), *_rotary_orders(source, checkpoint)]
        yield entry.source[0], min(float(np.linalg.norm(values - o)) for o in orders) / size


def router_choices(
    path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]
) -> tuple[str, Iterator[Mapping[int, np.ndarray]]]:
    """What the file's routers choose for each token of each window, and how that is known."""
    from edge.export import llama_cpp_routing

    return llama_cpp_routing.METHOD, llama_cpp_routing.choices(path, checkpoint, windows)


def _rotary_orders(matrix: np.ndarray, checkpoint: Checkpoint) -> list[np.ndarray]:
    """The matrix with its rows as llama.cpp orders queries and keys, for either number of heads."""
    orders = []
    for key in ("num_attention_heads", "num_key_value_heads"):
        heads = checkpoint.text_config.get(key)
        if isinstance(heads, int) and heads > 0 and matrix.shape[0] % (2 * heads) == 0:
            split = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, *matrix.shape[1:])
            orders.append(split.swapaxes(1, 2).reshape(-1))
    return orders


def _full_type(checkpoint: Checkpoint) -> str:
    """What the checkpoint is converted to before it is quantized."""
    halves = all(t.dtype == "BF16" for t in checkpoint.tensors.values() if len(t.shape) > 1)
    return "bf16" if halves and checkpoint.n_parameters > _LARGE_PARAMETERS else "f32"


def _refuse_windows(checkpoint: Checkpoint, context_length: int) -> None:
    """Raise `UsageError` when llama.cpp would let a token see more of its past than the source does."""
    from edge.export.attention import windows

    narrow = min((w for w in windows(checkpoint) if w is not None), default=context_length)
    if narrow < context_length and checkpoint.model_type not in _WINDOWED:
        raise UsageError(
            f"a context of {context_length} tokens was asked for; layers of {checkpoint.name} see {narrow} tokens, and "
            f"llama.cpp shows them everything (it knows no windows for the model type {checkpoint.model_type!r})",
            hint=f"ask for a shorter one: --context {narrow}; or choose another format",
        )


def _kind(quantization: str) -> Quantization:
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"GGUF has no quantization {quantization!r}", hint=f"there are: {', '.join(QUANTIZATIONS)}")
    return QUANTIZATIONS[quantization]


def _n_elements(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n


def _by_target(ledger: tuple[Entry, ...], statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Activation statistics under the GGUF name of the matrix they belong to.

    Reordered output rows leave them as they are. Tensors that several sources went into are
    left to llama.cpp's own weighting.
    """
    out = {}
    for entry in ledger:
        if len(entry.source) == len(entry.target) == 1 and entry.source[0] in statistics:
            out[entry.target[0]] = statistics[entry.source[0]]
    return out


def _of_experts(checkpoint: Checkpoint, statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Importance of the merged matrices of experts: one row of columns after the other, `(experts * columns,)`.

    Columns of an expert that was never chosen count alike, as llama.cpp's own tool has it.
    """
    import numpy as np

    from edge.export import experts

    out = {}
    for layer in experts.layers(checkpoint):
        for part, kind in enumerate(("gate", "up", "down")):
            rows = [statistics.get(layer.keys(e)[part]) for e in range(experts.count(checkpoint.config))]
            measured = next((r for r in rows if r is not None), None)
            if measured is not None:
                each = [np.ones_like(measured) if r is None else r for r in rows]
                out[f"blk.{layer.index}.ffn_{kind}_exps.weight"] = np.concatenate(each)
    return out


def _run_quantizer(
    source: Path, target: Path, quantization: str, importance: Mapping[str, np.ndarray], progress: Progress,
    types: Mapping[str, str] | None = None, *, dry_run: bool = False,
) -> str:  # fmt: skip
    """Call `llama_model_quantize`, with `types` for some tensors; its log. Leaves no file behind when it fails."""
    import llama_cpp
    import numpy as np

    from edge.runtimes.llama_log import captured

    params = llama_cpp.llama_model_quantize_default_params()
    ftype = "ALL_F32" if quantization == "f32" else f"MOSTLY_{quantization.upper()}"
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{ftype}")
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    params.max_buf_size = _ROWS_BYTES
    rows = {name: np.ascontiguousarray(values, np.float32) for name, values in importance.items()}
    if rows:
        item = llama_cpp.llama_model_imatrix_data
        table = (item * (len(rows) + 1))()
        for slot, (name, values) in zip(table, rows.items(), strict=False):
            slot.name, slot.size = name.encode(), values.size
            slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(table, ctypes.POINTER(item))
    params.dry_run = dry_run
    if types:
        override = llama_cpp.llama_model_tensor_override
        # The first that matches holds; the last one is for tensors that were not planned.
        patterns = {f"^{re.escape(name)}$": kind for name, kind in types.items()} | {".": _OTHERS}
        overrides = (override * (len(patterns) + 1))()
        for place, (pattern, kind) in zip(overrides, patterns.items(), strict=False):
            place.pattern = pattern.encode()
            place.type = getattr(llama_cpp, f"GGML_TYPE_{kind}")
        params.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(override))
    done = 0

    def count(text: str) -> None:
        nonlocal done
        if text.startswith("["):
            done += 1
            progress.advance(done)

    with captured(count) as log:
        rc = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if rc != 0:
        target.unlink(missing_ok=True)
        raise EdgeError(
            f"llama.cpp cannot quantize {source.name} to {quantization}: {log.reason()}",
            hint="choose another type, or free disk space and try again",
        )
    return log.text()


def _account(artifact: Artifact, kind: Quantization, log: str, weighted: set[str]) -> Artifact:
    """The quantized artifact: its ledger with the stored types, and what differs from the name."""
    from edge.export.llama_cpp_ledger import with_types
    from edge.readers.gguf import read_header

    tensors = read_header(artifact.path).tensors
    ledger = with_types(artifact.ledger, tensors)
    matrices = [t for t in tensors.values() if len(t.shape) > 1]
    n_elements = sum(t.n_elements for t in matrices)
    achieved = 8 * sum(t.n_bytes for t in matrices) / max(1, n_elements)
    warnings = list(artifact.warnings)
    fallbacks = _FALLBACK.findall(log)
    if fallbacks:
        instead = sorted({f"{wanted} as {tensors[name].type}" for name, _, _, wanted in fallbacks if name in tensors})
        warnings.append(
            f"{len(fallbacks)} of {len(matrices)} matrices have rows that are no multiple of {fallbacks[0][2]} and "
            f"were stored otherwise ({', '.join(instead)}): {achieved:.2f} bits per weight, not {kind.bits_per_weight}"
        )
    missing = [e.target[0] for e in ledger if weighted and _wants_importance(e) and e.target[0] not in weighted]
    if missing:
        warnings.append(f"{len(missing)} matrices were quantized without calibration, {missing[0]} among them")
    by_type: dict[str, int] = {}
    for tensor in tensors.values():
        by_type[tensor.type] = by_type.get(tensor.type, 0) + tensor.n_bytes
    plan: dict[str, Any] = {
        **artifact.plan,
        "type": kind.name,
        "bits_per_weight": round(achieved, 4),
        "bytes_by_type": dict(sorted(by_type.items())),
    }
    if achieved > 16.5 and kind.bits <= 16:
        artifact.path.unlink()
        raise EdgeError(f"nothing was quantized: {kind.name} came out at {achieved:.1f} bits per weight")
    return replace(artifact, quantization=kind.name, ledger=ledger, plan=plan, warnings=tuple(warnings))


def _wants_importance(entry: Entry) -> bool:
    return (
        bool(entry.target)
        and entry.type not in ("F32", "F16", "BF16", "Q8_0")
        and entry.target[0] not in ("token_embd.weight", "output.weight")
    )
