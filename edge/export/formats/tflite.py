"""TFLite: graphs by litert-torch, weights of few bits by ai-edge-quantizer and by our own blocks.

edge export SOURCE --format tflite --quant 8bit
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.errors import EdgeError, UsageError, require
from edge.export.artifact import Artifact, Need, Planned, Quantization, link
from edge.export.checkpoint import Checkpoint
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

    from edge.export.calibrate import Calibration
    from edge.export.smooth import Factor

EXTRA = "tflite"
EMBEDDER = "embedder.tflite"  # of a model that sees: its decoder takes embeddings

# Tokens that one prefill takes. One size: every graph costs half a minute of conversion and 8 MB of memory
# (SmolLM2-135M). One of 128 reads a fifth more tokens a second, and a short turn pays for all of it.
PREFILLS = (64,)

# Rows of the cache that graphs see which do not see all of it (`edge.export.litert_near`).
NEAR = (512, 2048, 8192, 32768)

# Tokens whose logits one graph gives at once: as many rows as XNNPACK's kernels for quantized weights take in one pass,
# 4 on Arm by their names, 5 on x86 as measured. There 4 cost a third more than one, and 6 twice as much.
AHEAD = 4


class _Plan(NamedTuple):
    """Bits, block size (0: a scale for each row), whether activations are rounded to 8 bits too, and the method.

    Matrices whose name matches `eight` are kept in 8 bits, a scale for each row; those that `wide` matches have blocks
    of twice the size; those that `whole` matches stay in float32. The quantizer knows an operation by the name of its
    result: that of the head is the signature's output `logits`. `smooth` says whose inputs lose their outliers to the
    weights before both are rounded.
    """

    bits: int
    block: int
    dynamic: bool
    method: str
    eight: str = ""
    wide: str = ""
    whole: str = ""
    smooth: tuple[str, ...] = ()


# A router is small, and what it decides is not a little wrong but another expert: it stays in float32.
_ROUTERS = r".*(mlp\.gate|block_sparse_moe\.gate|router\.layer)(#\d+)?(;|$)"

# Where massive activations arise (Sun et al. 2024, arXiv:2402.17762): of all matrices, rounding what the first and the
# third of these read to 8 bits costs SmolLM2-135M most on calibration text.
_LOUDEST = r"layers\.[012]\.(mlp\.down_proj|experts\.\d+\.down)"

_PLANS: dict[str, _Plan] = {
    "int8-weights": _Plan(8, 0, False, "rtn"),
    "int8-gptq": _Plan(8, 0, False, "gptq"),
    "int8": _Plan(8, 0, True, "gptq", whole=_LOUDEST, smooth=("attention", "values", "mlp", "down")),
    # Not gate and up, whose blocks of 4 bits share scales between columns, which factors would drive apart.
    "int4-mixed": _Plan(
        4,
        32,
        True,
        "gptq",
        eight=r"self_attn|down_proj|experts\.\d+\.down|embed_tokens|lm_head|/logits",
        smooth=("attention", "values", "down"),
    ),
    "int4": _Plan(4, 32, True, "gptq"),
    "int4-rtn": _Plan(4, 32, True, "rtn"),
}
# How the operation of the head is called: by its module, or by what it gives.
_HEAD = r"lm_head|/logits"
QUANTIZATIONS: dict[str, Quantization] = {
    "fp32": Quantization("fp32", 32, 32.0, about="full precision; the reference of the other files"),
    "int8-gptq": Quantization(
        "int8-gptq",
        8,
        8.1,
        calibrated=True,
        about="calibrated; on disk alone: LiteRT unpacks a weight to 16 bytes",
    ),
    "int8-weights": Quantization(
        "int8-weights", 8, 8.1, about="the same, rounded to nearest; what tflite-runtime can run, too"
    ),
    "int8": Quantization("int8", 8, 8.6, calibrated=True, about="activations in 8 bits too, smoothed: fast, small"),
    "int4-mixed": Quantization(
        "int4-mixed",
        4,
        6.3,
        calibrated=True,
        about="two thirds of the layers' weights in 8 bits: what small models need",
    ),
    "int4": Quantization("int4", 4, 4.5, calibrated=True, about="blocks of 32, calibrated; activations in 8 bits"),
    "int4-rtn": Quantization("int4-rtn", 4, 4.5, about="blocks of 32, rounded to nearest; activations in 8 bits"),
}
PORTABLE: dict[str, str] = {"32bit": "fp32", "8bit": "int8", "4bit": "int4-mixed"}
# What rounded activations cost adds up over experts: smollm2-moe loses twice what a model of its size may.
PORTABLE_FOR: dict[str, dict[str, str]] = {"moe": {"8bit": "int8-weights"}}

# What litert-torch took on dense models: 0.6 GB, and 18.4 bytes for each of 124 and of 311 million parameters.
_LIBRARY_BYTES, _BYTES_PER_PARAMETER = 650 << 20, 19


def kv_element_bytes(quantization: str) -> int:
    """Of the session's cache, which is float32 whatever the weights are."""
    return 4


def estimate(checkpoint: Checkpoint, quantization: str, *, calibrated: bool = True) -> Need:
    """Memory, disk and time of `convert` and `quantize`, from measured rates on two cores."""
    kind = _kind(quantization)
    n = checkpoint.n_parameters
    rates = {"rtn": 5e7, "gptq": 1.2e6}
    method = _method(quantization, calibrated)
    return Need(
        ram_bytes=_LIBRARY_BYTES + _BYTES_PER_PARAMETER * n,
        disk_bytes=8 * n + int(n * kind.bits_per_weight / 8),
        time_s=20 + n / 1e6 + (n / rates[method] if method else 0),
        who="litert-torch, which holds the model in float32 several times over,",
    )


def convert(checkpoint: Checkpoint, folder: Path, *, context_length: int, progress: Progress | None = None) -> Artifact:
    """Write `model.tflite` in float32 into `folder`, with a ledger of where every tensor went.

    Raises `EdgeError` when litert-torch cannot convert the architecture, or when a tensor was lost
    or changed on the way.
    """
    from edge.export import litert_run, tflite_ledger

    require("litert_torch", extra="export", purpose="converting to TFLite")
    progress = progress or Silent()
    folder = Path(folder)
    graphs = _graphs(checkpoint, context_length)
    ahead = _ahead(checkpoint, context_length)
    n = sum(1 + len(sizes) + bool(ahead) for sizes in graphs.values())
    progress.start(f"building {n} TFLite graphs")
    version = litert_run.convert(checkpoint, folder, graphs=graphs, ahead=ahead, embedder=checkpoint.sees)
    files = ("model.tflite", EMBEDDER) if checkpoint.sees else ("model.tflite",)
    for extra in folder.iterdir():
        if extra.is_dir():
            shutil.rmtree(extra)
        elif extra.name not in files:
            extra.unlink()
    embedder = folder / EMBEDDER if checkpoint.sees else None
    progress.start("comparing every tensor with its source")
    return Artifact(
        format="tflite",
        quantization="fp32",
        folder=folder,
        model_file="model.tflite",
        files=files,
        parts={"embedding": EMBEDDER} if embedder else {},
        ledger=tflite_ledger.ledger(checkpoint, folder / "model.tflite", embedder),
        context_length=context_length,
        plan={
            "type": "fp32",
            "prefills": {str(window): sizes for window, sizes in graphs.items()},
            **({"ahead": ahead} if ahead else {}),
        },
        tools={"litert-torch": version},
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
    """Write the model with another `quantization` into `folder`, or as it was `planned`, with bits for each matrix.

    With `calibration`, blocks of 4 bits carry rounding errors over to other columns of the same
    matrix; without it they are rounded to nearest.
    """
    from edge.export import expert_use, litert_experts, litert_run, smooth, tflite_ledger

    kind = planned.kind if planned else _kind(quantization)
    progress = progress or Silent()
    target = Path(folder) / artifact.model_file
    tools = dict(artifact.tools)
    plan: dict[str, Any] = {"type": quantization}
    embedder = Path(folder) / EMBEDDER if "embedding" in artifact.parts else None
    warnings: list[str] = []
    if kind.bits == 32:
        for name in artifact.files:
            link(artifact.folder / name, Path(folder) / name)
    else:
        require("ai_edge_quantizer", extra="export", purpose="quantizing to TFLite")
        chosen = plan_of(planned) if planned else _PLANS[quantization]
        factors = {}
        if chosen.smooth and calibration:
            may = _may_be_smoothed(planned, checkpoint)
            factors = smooth.factors(checkpoint, calibration, progress, inputs=chosen.smooth, may=may)
        factors |= litert_experts.factors(factors, checkpoint)
        progress.start("quantizing")
        with _smoothed(artifact.path, target, factors) as full:
            tools["ai-edge-quantizer"] = litert_run.quantize(full, target, _recipe(chosen), near=chosen.dynamic)
        if embedder:
            litert_run.quantize(artifact.folder / EMBEDDER, embedder, _recipe(chosen))
        how = chosen._asdict()
        if planned:  # which matrices they are says the plan better than expressions do
            how |= {"eight": "", "wide": "", "whole": "", "planned": planned.record()}
        plan |= {**how, "smoothed": len(factors)}
        if not chosen.dynamic:
            # LiteRT computes them in float32: a copy for every signature, and one packed for its kernels.
            window, sizes = max(artifact.plan["prefills"].items(), key=lambda item: int(item[0]))
            plan |= {"prefills": {window: sizes}, "unpacked_bytes": 4 * checkpoint.n_parameters * (len(sizes) + 2)}
            plan |= {"ahead": None}
        if chosen.method == "gptq" and calibration is not None:
            plan |= {"matrices": _calibrate(target, checkpoint, chosen, calibration, factors, progress)}
            plan |= {"calibration": calibration.sha256}
            used, warnings = expert_use.measured(checkpoint, calibration, progress)
            plan |= used
        else:
            plan |= {"method": "rtn", "calibration": calibration.sha256 if factors and calibration else None}
    return replace(
        artifact,
        quantization=quantization,
        folder=Path(folder),
        ledger=tflite_ledger.with_types(artifact.ledger, target, embedder),
        plan={**artifact.plan, **plan},
        tools=tools,
        warnings=(*artifact.warnings, *warnings),
    )


def inspect(path: Path) -> dict[str, Any]:
    """What the file says, without loading the model. Raises `InputError` for a damaged one."""
    from edge.readers.tflite import read

    return read(path).facts()


def weight_errors(artifact: Artifact, checkpoint: Checkpoint) -> Iterator[tuple[str, float]]:
    """For every matrix: its source tensor and the relative error of what is stored."""
    import numpy as np

    from edge.export import litert_experts, smooth
    from edge.export.litert_factors import factor
    from edge.export.tflite_ledger import base_name, values
    from edge.readers.tflite import read

    header, factors = read(artifact.path), smooth.kept(artifact.folder)
    of_experts = {m.name: m for m in litert_experts.matrices(checkpoint)}
    for tensor in header.constants().values():
        if (matrix := of_experts.get(base_name(tensor))) is not None:
            wanted = factors.get(matrix.name, smooth.Factor()).of(matrix.read(checkpoint))
            size = float(np.linalg.norm(wanted)) or 1.0
            yield matrix.keys[0], float(np.linalg.norm(values(artifact.path, header, tensor) - wanted)) / size
            continue
        if tensor.name in checkpoint.tensors and len(tensor.shape) == 2:
            stored, wanted = values(artifact.path, header, tensor), checkpoint.read(tensor.name)
            wanted = factors.get(tensor.name, smooth.Factor()).of(wanted)
            wanted = wanted * np.float32(factor(stored, wanted, tensor.name, checkpoint.config))
            size = float(np.linalg.norm(wanted)) or 1.0
            yield tensor.name, float(np.linalg.norm(stored - wanted)) / size


def router_choices(
    path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]
) -> tuple[str, Iterator[Mapping[int, np.ndarray]]]:
    """What the file's routers choose for each token of each window, and how that is known."""
    from edge.export import litert_routing

    return litert_routing.METHOD, litert_routing.choices(path, checkpoint, windows)


def plan_of(planned: Planned) -> _Plan:
    """The plan of types ("4/32", "4/64", "8", "32": bits and block) by the name of the tensor in the file."""

    tied = not any(name.endswith("lm_head.weight") for name in planned.types)

    def which(kind: str) -> str:
        return "|".join(_operation(name, tied) for name, own in planned.types.items() if own == kind)

    if not {"4/32", "4/64"} & set(planned.types.values()):
        return _PLANS["int8"]._replace(whole=which("32"))
    inputs = _PLANS["int8"].smooth  # those of them that `_may_be_smoothed`
    return _PLANS["int4-mixed"]._replace(eight=which("8"), wide=which("4/64"), whole=which("32"), smooth=inputs)


def _may_be_smoothed(planned: Planned | None, checkpoint: Checkpoint) -> Callable[[str], bool]:
    """Which matrices may be multiplied by columns: not those in blocks, whose columns share scales."""
    from edge.export import litert_experts

    types = planned.types if planned else {}
    of_experts = {key: m.name for m in litert_experts.matrices(checkpoint) for key in m.keys} if planned else {}
    return lambda reader: "/" not in types.get(of_experts.get(reader, reader), "8")


def types_of(quantization: str, names: Sequence[str]) -> tuple[str, ...]:
    """The type that one of the plans here gives each of the matrices of these names."""
    plan = _PLANS[quantization]
    usual = "8" if plan.bits == 8 else f"{plan.bits}/{plan.block}"

    def kind(name: str) -> str:
        words = name.removesuffix(".weight") + ("/logits" if name.endswith("embed_tokens.weight") else "")
        if plan.whole and re.search(plan.whole, words):
            return "32"
        return "8" if plan.eight and re.search(plan.eight, words) else usual

    return tuple(map(kind, names))


def _operation(name: str, tied: bool) -> str:
    """What finds the operations of a matrix; those of an embedding that is `tied` are the head's too."""
    if name.endswith("lm_head.weight"):
        return _HEAD
    if name.endswith("embed_tokens.weight"):
        return f"embed_tokens|{_HEAD}" if tied else "embed_tokens"
    return re.escape(name.removesuffix(".weight"))


def _recipe(plan: _Plan) -> list[dict[str, Any]]:
    """ai-edge-quantizer's own words for a plan; where two rules match, the later one holds."""
    rules = [(".*", plan.bits, plan.block)]
    if plan.wide:
        rules.append((f".*({plan.wide}).*", plan.bits, 2 * plan.block))
    if plan.eight:
        rules.append((f".*({plan.eight}).*", 8, 0))
    made: list[dict[str, Any]] = [
        {
            "regex": regex,
            "operation": operation,
            "algorithm_key": "min_max_uniform_quantize",
            "op_config": {
                "weight_tensor_config": {
                    "num_bits": bits,
                    "symmetric": True,
                    "granularity": f"BLOCKWISE_{block}" if block else "CHANNELWISE",
                    "dtype": "INT",
                },
                "compute_precision": "INTEGER" if plan.dynamic else "FLOAT",
                "explicit_dequantize": not plan.dynamic,
                "skip_checks": False,
                "min_weight_elements": 0,
            },
        }
        for regex, bits, block in rules
        for operation in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
    ]
    whole = [f".*({plan.whole})(#\\d+)?(;|$)"] if plan.whole else []
    untouched = {"operation": "FULLY_CONNECTED", "algorithm_key": "no_quantize", "op_config": {}}
    return made + [{"regex": regex, **untouched} for regex in (*whole, _ROUTERS)]


@contextmanager
def _smoothed(path: Path, target: Path, factors: Mapping[str, Factor]) -> Iterator[Path]:
    """The file to quantize: `path`, or a copy beside `target` whose weights were multiplied."""
    from edge.export import smooth

    if not factors:
        yield path
        return
    copy = target.with_suffix(".full")
    try:
        shutil.copyfile(path, copy)
        smooth.apply(copy, factors)
        smooth.keep(target.parent, factors)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _calibrate(
    path: Path,
    checkpoint: Checkpoint,
    plan: _Plan,
    calibration: Calibration,
    factors: Mapping[str, Factor],
    progress: Progress,
) -> int:
    """Write better roundings over those of the quantizer; how many matrices."""
    import numpy as np

    from edge.export import litert_experts
    from edge.export.blocks import quantize as blocks_of
    from edge.export.calibrate import activation_hessians
    from edge.export.litert_factors import candidates, factor
    from edge.export.litert_rows import codes
    from edge.export.tflite_ledger import base_name, scales_of, values
    from edge.readers.tflite import rewrite

    done = 0
    # Gate and up are fed the same, so that what calibration says about gate holds for both.
    of_experts = {m.keys[0]: m for m in litert_experts.matrices(checkpoint)}

    def change(header: Any, data: Any) -> None:
        kind = f"int{plan.bits}"
        matrices = {base_name(t): t for t in header.constants().values() if t.type == kind and len(t.shape) == 2}
        embedding = next((n for n in matrices if n.endswith("embed_tokens.weight")), None)

        def one(name: str, hessian: Any) -> None:
            nonlocal done
            expert = of_experts.get(name)
            stored = (
                expert.name
                if expert
                else embedding
                if name not in matrices and name.endswith("lm_head.weight")
                else name
            )
            tensor = matrices.get(stored or "")
            scales = scales_of(header, tensor) if tensor else None
            # Scales of a row, which only calibration makes better, or, in 4 bits, of each of its blocks.
            by_rows = scales is None and plan.bits == 8 and hessian is not None
            if tensor is None or (scales is None and not (by_rows and tensor.n_scales == tensor.shape[0])):
                return
            matrix = expert.read(checkpoint) if expert else checkpoint.read(tensor.name)
            if (smoothing := factors.get(expert.name if expert else tensor.name)) is not None:
                matrix = smoothing.of(matrix)
                if smoothing.columns is not None and hessian is not None:
                    hessian = hessian / smoothing.columns[:, None] / smoothing.columns
            if candidates(tensor.name, checkpoint.config):
                before = values(path, header, tensor)
                matrix = matrix * np.float32(factor(before, matrix, tensor.name, checkpoint.config))
            place = slice(tensor.offset, tensor.offset + tensor.n_bytes)
            if scales is None:
                rows = np.frombuffer(data, "<f4", tensor.n_scales, tensor.scales_at).copy()
                data[place] = codes(matrix, rows, hessian).tobytes()
            else:
                made = blocks_of(matrix, plan.bits, tensor.block_size, "gptq", hessian, symmetric=True)
                data[scales.offset : scales.offset + scales.n_bytes] = made.scales.astype("<f2").tobytes()
                # The blocks' codes are 0 to 15 around 8; TFLite's are -8 to 7.
                data[place] = (made.data.reshape(-1) ^ 0x88).tobytes()
            done += 1

        activation_hessians(checkpoint, calibration, one, progress)

    rewrite(path, change)
    if not done:
        raise EdgeError(f"nothing was quantized: this graph has no matrix of {plan.bits} bits")
    return done


def _method(quantization: str, calibrated: bool) -> str:
    """Who rounds the weights: the plan's method, or to nearest where it is not calibrated; nobody in float32."""
    method = _PLANS[quantization].method if quantization in _PLANS else ""
    return "rtn" if method == "gptq" and not calibrated else method


def _graphs(checkpoint: Checkpoint, context_length: int) -> dict[int, list[int]]:
    """For each window on the cache, the smallest first, the sizes of its prefills; the last is the whole cache.

    The prefill for the rows of a picture that see each other (Gemma 3) sees everything.
    """
    windows = [near for near in NEAR if near < context_length] + [context_length]
    sizes = [size for size in PREFILLS if size < context_length]
    together = int(checkpoint.config.get("mm_tokens_per_image") or 0)
    return {w: sizes + [together] * (w == context_length and together > max(sizes, default=0)) for w in windows}


def _ahead(checkpoint: Checkpoint, context_length: int) -> int | None:
    """How many tokens the graphs take that look ahead.

    None for routed experts: several tokens choose several times as many of them, which costs what it saves.
    """
    from edge.export import experts

    return AHEAD if context_length > AHEAD and not experts.layers(checkpoint) else None


def _kind(quantization: str) -> Quantization:
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"TFLite has no quantization {quantization!r}", hint=f"there are: {', '.join(QUANTIZATIONS)}")
    return QUANTIZATIONS[quantization]
