"""ONNX: graphs by mobius, blocks of few bits, one file for onnxruntime, onnxruntime-genai and transformers.js.

edge export SOURCE --format onnx --quant int4
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError, require
from edge.export import cache, onnx_plans, preflight
from edge.export.artifact import Artifact, Need, Planned, Quantization, link
from edge.export.checkpoint import Checkpoint
from edge.export.pack import head_width, kv_bytes_per_token
from edge.progress import Progress, Silent
from edge.runtimes.cores import physical_cores

if TYPE_CHECKING:
    import numpy as np

    from edge.export.artifact import Entry
    from edge.export.calibrate import Calibration
    from edge.export.onnx_graph import Graph
    from edge.export.onnx_plans import Plan
    from edge.export.pieces import Pieces

EXTRA = "onnx"
EXPORTERS = ("mobius", "optimum")  # the first is taken unless another is asked for


QUANTIZATIONS: dict[str, Quantization] = onnx_plans.table()
PORTABLE: dict[str, str] = {"32bit": "fp32", "16bit": "fp16", "8bit": "int8", "4bit": "int4-mixed"}

# What transformers.js calls the file of each precision (its option `dtype`: fp32, fp16, q8, q4).
_FILE_NAMES = {32: "model", 16: "model_fp16", 8: "model_quantized", 4: "model_q4"}
_DTYPES = {32: "fp32", 16: "fp16", 8: "q8", 4: "q4"}
_LARGE_PARAMETERS = 500_000_000  # more than that stay in the checkpoint until they are quantized
_UNROUNDED = ("fp32", "fp16")
_LIBRARY_BYTES = 900 << 20
_OPSET = 21  # the newest that runtimes in browsers read; the graph needs nothing newer


def kv_element_bytes(quantization: str) -> int:
    """Of the session's cache, which is float32 whatever the weights are."""
    return 4


def estimate(checkpoint: Checkpoint, quantization: str, *, calibrated: bool = True) -> Need:
    """Memory, disk and time of `convert` and `quantize`, from measured rates on two cores."""
    kind = _kind(quantization)
    n = checkpoint.n_parameters
    method = onnx_plans.method(quantization, calibrated=calibrated)
    rates = {"": 0.0, "rtn": 2e7, "kquant": 8e5, "hqq": 3e6, "gptq": 1.2e6}
    if _is_large(checkpoint):  # matrices one by one, each kept on disk until all are written
        largest = max((math.prod(t.shape) for t in checkpoint.tensors.values()), default=0)
        made = 0 if kind.bits >= 16 else int(n * kind.bits_per_weight / 8)
        ram_bytes, disk_bytes = 2 * _LIBRARY_BYTES + 16 * largest, made
    else:
        ram_bytes, disk_bytes = _whole_need(checkpoint).ram_bytes, 8 * n
    return Need(
        ram_bytes=ram_bytes,
        disk_bytes=disk_bytes + int(n * kind.bits_per_weight / 8),
        time_s=15 + n / 4e7 + (n / rates[method] if method else 0),
        who="converting to ONNX",
    )


def _whole_need(checkpoint: Checkpoint) -> Need:
    """What it takes when mobius writes all weights."""
    n = checkpoint.n_parameters
    return Need(_LIBRARY_BYTES + 9 * n, disk_bytes=8 * n, time_s=0, who="converting to ONNX with all weights in memory")


def carries_errors(quantization: str) -> bool:
    """Whether calibrating it takes more of the source than one look at each layer."""
    return onnx_plans.method(quantization, calibrated=True) == "gptq"


def convert(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    context_length: int,
    exporter: str = EXPORTERS[0],
    progress: Progress | None = None,
) -> Artifact:
    """Write `onnx/model.onnx` in float32 into `folder`, with a ledger of where every tensor went.

    Weights of a large checkpoint stay where they are, and are read when they are quantized.

    Raises `EdgeError` when mobius cannot build the architecture, or when a tensor was lost or
    changed on the way.
    """
    from edge.export import mobius_run, onnx_experts, onnx_graph, onnx_rotary, onnx_source, onnx_windows
    from edge.export.onnx_ledger import ledger

    progress = progress or Silent()
    folder = Path(folder)
    if exporter == "optimum":
        return _traced(checkpoint, folder, context_length, progress)
    require("mobius", extra="export", purpose="converting to ONNX")
    built = folder / "built"
    large = _is_large(checkpoint)
    version = mobius_run.build(checkpoint, built, progress, weights=not large)
    graph = onnx_graph.load(built / "model.onnx")
    if large and not onnx_source.folds(graph, checkpoint):  # mobius computes some of its weights
        preflight.check(_whole_need(checkpoint), folder)
        large = False
        mobius_run.remove(built)
        mobius_run.build(checkpoint, built, progress)
        graph = onnx_graph.load(built / "model.onnx")
    onnx_graph.lower_opset(graph, _OPSET)
    onnx_graph.tie_head(graph)
    onnx_rotary.restore(graph, checkpoint, context_length)
    onnx_windows.restore(graph, checkpoint, context_length)
    progress.start("comparing every tensor with its source")
    if large:
        entries = onnx_source.fold(graph, checkpoint)
    else:
        entries = ledger(checkpoint, graph, onnx_experts.fuse(graph, checkpoint, built / "experts"))
    onnx_graph.choose_rows(graph)
    progress.start("writing the ONNX file")
    files = _write(graph, folder, 32, checkpoint, built / "genai_config.json", context_length, keep_sources=True)
    mobius_run.remove(built)
    return Artifact(
        format="onnx",
        quantization="fp32",
        folder=folder,
        model_file=files[0],
        files=files,
        ledger=entries,
        context_length=context_length,
        plan={"type": "fp32", "opset": _OPSET},
        tools={"mobius-onnx": version},
    )


def _traced(checkpoint: Checkpoint, folder: Path, context_length: int, progress: Progress) -> Artifact:
    """By optimum, for what mobius does not build: the graph is transformers' own, its cache grows."""
    from edge.export import onnx_graph, optimum_env
    from edge.export.onnx_ledger import ledger

    built = folder / "built"
    optimum_env.export(checkpoint, built, progress)
    graph = onnx_graph.load(built / "model.onnx")
    progress.start("comparing every tensor with its source")
    entries = ledger(checkpoint, graph)
    progress.start("writing the ONNX file")
    files = _write(graph, folder, 32, checkpoint, built / "genai_config.json", context_length)
    shutil.rmtree(built)
    return Artifact(
        format="onnx",
        quantization="fp32",
        folder=folder,
        model_file=files[0],
        files=files,
        ledger=entries,
        context_length=context_length,
        plan={"type": "fp32", "exporter": "optimum"},
        tools={"optimum": optimum_env.VERSION},
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

    With `calibration`, the methods that use it carry rounding errors over to other columns of
    the same matrix; without it they round to nearest.
    """
    from edge.export import expert_use, onnx_graph, onnx_join, onnx_nodes, onnx_source
    from edge.export.pieces import Pieces

    kind = planned.kind if planned else _kind(quantization)
    progress = progress or Silent()
    folder = Path(folder)
    warnings: list[str] = []
    graph = onnx_source.attach(onnx_graph.load(artifact.path), checkpoint, artifact.ledger)
    ledger = artifact.ledger
    pieces = (
        Pieces("onnx-pieces", _key(checkpoint, quantization, calibration, planned)) if _is_large(checkpoint) else None
    )
    if kind.bits == 16:
        onnx_nodes.halve(graph)
        plan: dict[str, Any] = {"type": "fp16"}
    elif kind.bits < 16:
        chosen = onnx_plans.planned(planned, embedding(graph, ledger)) if planned else onnx_plans.PLANS[quantization]
        done = _quantize_matrices(graph, artifact, checkpoint, chosen, calibration, pieces, progress)
        ledger = onnx_join.entries(ledger, onnx_join.join(graph))
        plan = {
            **({"planned": planned.record()} if planned else _without_each(chosen)),
            "type": quantization,
            "method": "rtn" if chosen.method == "gptq" and calibration is None else chosen.method,
            "matrices": done,
            "calibration": calibration.sha256 if calibration and chosen.method == "gptq" else None,
        }
        if calibration is not None and chosen.method == "gptq":
            used, warnings = expert_use.measured(checkpoint, calibration, progress)
            plan |= used
    else:
        plan = {"type": "fp32"}
    progress.start("writing the ONNX file")
    genai = artifact.folder / "genai_config.json"
    files = _write(graph, folder, kind.bits, checkpoint, genai, artifact.context_length)
    from edge.export.onnx_ledger import with_types

    entries = with_types(ledger, graph)
    if pieces:
        pieces.discard()
    return replace(
        artifact,
        quantization=quantization,
        folder=folder,
        model_file=files[0],
        files=files,
        ledger=entries,
        plan={**artifact.plan, **plan},
        warnings=(*artifact.warnings, *warnings),
    )


def _quantize_matrices(
    graph: Graph,
    artifact: Artifact,
    checkpoint: Checkpoint,
    plan: Plan,
    calibration: Calibration | None,
    pieces: Pieces | None,
    progress: Progress,
) -> int:
    """Replace every product with a constant matrix by one with blocks; how many there were."""
    from edge.export import onnx_experts, onnx_nodes
    from edge.export.calibrate import activation_hessians

    source_of = {target: e.source for e in artifact.ledger for target in e.target}
    products = constant_products(graph, artifact.ledger, checkpoint)
    experts_waiting = onnx_experts.Waiting(
        graph, checkpoint, bits=plan.bits, block_size=plan.block, method=plan.method if plan.bits < 8 else "rtn"
    )
    # Packed matrices have one input, so any of their sources' Hessians is theirs.
    waiting = {source_of[w][0]: w for w in products if source_of.get(w)}
    head = "lm_head.weight"
    tied = next((w for w, (_, turned) in products.items() if turned), None)
    if tied is not None:
        waiting.pop(source_of[tied][0], None)
        waiting[head] = tied
    done = 0

    def one(name: str, hessian: np.ndarray | None) -> None:
        nonlocal done
        if experts_waiting.take(name, hessian):
            return
        weight = waiting.pop(name, None)
        if weight is None:
            return
        node, turned = products[weight]
        bits, block_size = plan.at(source_of[weight][0] if source_of.get(weight) else name, name == head or turned)
        onnx_nodes.quantize_product(
            graph,
            node,
            weight,
            turned,
            bits=bits,
            block_size=block_size,
            method=plan.method if bits < 8 else "rtn",
            hessian=hessian,
            pieces=pieces,
        )
        done += 1

    if calibration is not None and plan.method == "gptq":
        # What was rounded before a kill is not measured again.
        rest = [name for name, weight in waiting.items() if weight not in pieces] if pieces else None
        activation_hessians(checkpoint, calibration, one, progress, wanted=rest)
    progress.start("quantizing", len(waiting))
    for name in list(waiting):
        one(name, None)
        progress.advance(done)
    experts_waiting.rest()
    done += experts_waiting.done
    if not done:
        raise EdgeError("nothing was quantized: this graph has no product with a constant matrix")
    onnx_nodes.quantize_embedding(graph, bits=plan.head_bits, block_size=plan.head_block, pieces=pieces)
    return done


def constant_products(graph: Graph, ledger: Sequence[Entry], checkpoint: Checkpoint) -> dict[str, tuple[Any, bool]]:
    """The products with constant matrices that are quantized, by weight: the node, and whether a Transpose precedes it.

    A router is small, and what it decides is not a little wrong but another expert: it stays in float32.
    """
    from edge.export import experts, onnx_graph

    source_of = {target: e.source for e in ledger for target in e.target}
    routers = {layer.router for layer in experts.layers(checkpoint)}
    products = {weight: (node, turned) for node, weight, turned in onnx_graph.constant_matmuls(graph)}
    return {w: product for w, product in products.items() if not routers & set(source_of.get(w, ()))}


def embedding(graph: Graph, ledger: Sequence[Entry]) -> str:
    """The source tensor of the token embedding; its name in the graph where it has none."""
    from edge.export import onnx_nodes

    _, weight = onnx_nodes.embedding(graph)
    return next((e.source[0] for e in ledger if weight in e.target and e.source), weight)


def _without_each(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in plan._asdict().items() if name != "each"}


def narrow_cache(
    artifact: Artifact,
    full: Callable[[], Artifact],
    checkpoint: Checkpoint,
    folder: Path,
    *,
    calibration: Calibration | None,
    progress: Progress | None = None,
) -> Artifact:
    """The same weights with a graph that holds keys and values in int8, by scales from calibration text.

    Raises `UsageError` without calibration, `EdgeError` when the graph's attention cannot.
    """
    from edge.export import onnx_cache, onnx_graph
    from edge.runtimes.engines.onnx import OnnxSession, open_graph

    progress = progress or Silent()
    narrow_element_bytes(checkpoint, calibrated=calibration is not None)
    assert calibration is not None
    # Rounded weights add a noise that hides the cache's. And where all layers hold int8, attention over several tokens
    # is that over single ones, bit for bit, so that guesses can be tried (decision 24). The scales are chosen on the
    # weights as they were, unless those of a large model, which are not all in its graph.
    exact = not _is_large(checkpoint)
    chooses = exact and artifact.quantization in _UNROUNDED
    windows = calibration.windows
    length = min(artifact.context_length, max(map(len, windows)))
    windows = tuple(window[:length] for window in windows)
    path = (full() if exact else artifact).path
    session = OnnxSession(path, open_graph(path, physical_cores()), context_length=length)
    try:
        ways = onnx_cache.ways_to_hold(session, windows, progress)
        cost = onnx_cache.costs(session, ways, windows, progress) if chooses else {}
    finally:
        session.close()
    graph = onnx_graph.load(artifact.path)
    keep = onnx_cache.wide(cost)
    element_bytes = onnx_cache.narrow(graph, ways, keep)
    progress.start("writing the ONNX file")
    files = onnx_graph.save(graph, Path(folder) / artifact.model_file)
    written = {str(path.relative_to(folder)) for path in files}
    for name in set(artifact.files) - written:
        link(artifact.folder / name, Path(folder) / name)
    made = {
        "type": "int8",
        "element_bytes": element_bytes,
        "wide_layers": list(keep),
        "kld_of_each_layer": [round(cost[layer], 7) for layer in sorted(cost)],
        "calibration": calibration.sha256,
    }
    return replace(artifact, folder=Path(folder), plan={**artifact.plan, "kv_cache": made})


def narrow_element_bytes(checkpoint: Checkpoint, *, calibrated: bool) -> float:
    """Of an element of that cache, at most: which layers stay wide is measured.

    Raises `UsageError` when not calibrated.
    """
    from edge.export import onnx_cache

    if not calibrated:
        raise UsageError(
            "the scales of a KV cache of 8 bits in ONNX are chosen on calibration text",
            hint="leave out --no-calibration, or --kv",
        )
    return onnx_cache.most_element_bytes(int(checkpoint.text_config["num_hidden_layers"]))


def narrow_weights_bytes(checkpoint: Checkpoint) -> int:
    """What that cache adds to the file: steps of keys and values, and what values are held less."""
    config = checkpoint.text_config
    queries = int(config["num_hidden_layers"]) * int(config["num_attention_heads"]) * head_width(config)
    # What is taken off stands in a row with room for queries and keys, and what is given back in one for all queries.
    return 4 * (2 * kv_bytes_per_token(config, 1) + 2 * queries)


def inspect(path: Path) -> dict[str, Any]:
    """What the graph says, without loading the model. Raises `InputError` for a damaged file."""
    from edge.readers.onnx import read

    return read(path).facts()


def weight_errors(artifact: Artifact, checkpoint: Checkpoint) -> Iterator[tuple[str, float]]:
    """For every matrix: its first source tensor and the relative error of what is stored."""
    import numpy as np

    from edge.export import onnx_experts, onnx_graph, onnx_nodes
    from edge.export.onnx_ledger import source_matrix

    graph = onnx_graph.load(artifact.path)
    yield from onnx_experts.weight_errors(graph, checkpoint)
    for entry in artifact.ledger:
        if not entry.source or not entry.target or ".mlp.experts." in entry.target[0]:
            continue
        wanted = source_matrix(checkpoint, entry.source)
        found = onnx_nodes.stored_matrix(graph, entry.target[0], wanted.shape)
        if found is not None and wanted.ndim == 2:
            size = float(np.linalg.norm(wanted)) or 1.0
            yield entry.source[0], float(np.linalg.norm(found - wanted)) / size


def router_choices(
    path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]
) -> tuple[str, Iterator[Mapping[int, np.ndarray]]]:
    """What the file's routers choose for each token of each window, and how that is known."""
    from edge.export import onnx_routing

    return onnx_routing.METHOD, onnx_routing.choices(path, checkpoint, windows)


def _write(
    graph: Graph,
    folder: Path,
    class_bits: int,
    checkpoint: Checkpoint,
    genai_config: Path,
    context_length: int,
    *,
    keep_sources: bool = False,
) -> tuple[str, ...]:
    """The graph, and what other programs read beside it: genai_config.json, and config.json for transformers.js."""
    from edge.export import onnx_graph
    from edge.export.onnx_source import SourceWeight

    bits = min(_FILE_NAMES, key=lambda b: (abs(b - class_bits), b))
    name = f"onnx/{_FILE_NAMES[bits]}.onnx"
    onnx_graph.name_batch(graph)
    onnx_graph.save(graph, folder / name, without=lambda w: keep_sources and isinstance(w, SourceWeight))
    browser = {"dtype": _DTYPES[bits], "use_external_data_format": {Path(name).name: 1}}
    own = {**checkpoint.config, "transformers.js_config": browser}
    (folder / "config.json").write_text(json.dumps(own, indent=2) + "\n")
    if not genai_config.is_file():  # onnxruntime-genai runs no graph whose cache grows
        return name, f"{name}_data", "config.json"
    config = json.loads(genai_config.read_text())
    config["model"]["context_length"] = context_length
    config["model"]["decoder"]["filename"] = name
    config["search"].update(max_length=context_length, do_sample=False, past_present_share_buffer=True)
    (folder / "genai_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return name, f"{name}_data", "genai_config.json", "config.json"


def _key(checkpoint: Checkpoint, quantization: str, calibration: Calibration | None, planned: Planned | None) -> str:
    """What the blocks of a large checkpoint depend on."""
    return cache.key(
        checkpoint=checkpoint.id,
        quantization=quantization,
        planned=planned.record() if planned else None,
        calibration=calibration.sha256 if calibration else None,
        code=cache.code_of(__name__),
        libraries=cache.libraries(),
    )


def _is_large(checkpoint: Checkpoint) -> bool:
    """Whether weights stay in the checkpoint until they are quantized; experts are put together before that."""
    return checkpoint.n_parameters > _LARGE_PARAMETERS and checkpoint.family != "moe"


def _kind(quantization: str) -> Quantization:
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"ONNX has no quantization {quantization!r}", hint=f"there are: {', '.join(QUANTIZATIONS)}")
    return QUANTIZATIONS[quantization]
