"""ONNX: vision encoder, token embedding and decoder in the files that transformers.js looks for.

    onnx/vision_encoder*.onnx         pixel_values -> image_features
    onnx/embed_tokens*.onnx           input_ids -> inputs_embeds
    onnx/decoder_model_merged*.onnx   inputs_embeds, attention_mask, cache -> logits, cache

The encoder is traced by torch (mobius's own is another computation for LLaVA: features 0.56 of
their size away); the decoder is the text model's graph, cut behind its token embedding.
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, UsageError
from edge.export.artifact import Artifact, Entry, Need
from edge.export.checkpoint import Checkpoint
from edge.export.vision.account import account
from edge.export.vision.join import bring, joined
from edge.export.vision.rule import refuse_any_size
from edge.export.vision.split import Split
from edge.progress import Progress

FULL, HALF = "onnx/vision_encoder.onnx", "onnx/vision_encoder_fp16.onnx"
_OPSET = 20
_DTYPES = {"": "fp32", "_fp16": "fp16", "_quantized": "q8", "_q4": "q4"}


def estimate(n_text: int, n_vision: int) -> Need:
    """Memory, disk and time of `convert` for so many parameters: torch traces the whole model, loaded in float32."""
    ram_bytes = (1200 << 20) + 4 * n_text + 16 * n_vision
    return Need(ram_bytes=ram_bytes, disk_bytes=6 * n_vision, time_s=15 + n_vision / 1e7)


def check(checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any]) -> None:
    """Raise `UsageError` for pictures that this format cannot take, before anything is made."""
    if rule.get("bidirectional"):
        raise UsageError(
            f"in {checkpoint.name} the rows of a picture see each other; ONNX's GroupQueryAttention lets each row "
            "see only those before it",
            hint="choose --format gguf",
        )
    refuse_any_size(checkpoint, rule, "ONNX")


def convert(
    checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path, *, half: bool, progress: Progress
) -> Artifact:
    """Write the vision encoder into `folder`, its matrices in float16 if `half`.

    Raises `EdgeError` when torch cannot trace it, or when a tensor was lost on the way.
    """
    from edge.export import onnx_graph, onnx_nodes
    from edge.export.onnx_ledger import with_types
    from edge.export.reference import load_model

    progress.start("building the ONNX graph of the vision encoder")
    traced = folder / "traced.onnx"
    _trace(load_model(checkpoint), rule, traced, checkpoint.name)
    graph = onnx_graph.load(traced)
    entries = account(checkpoint, split.vision, graph.weights.items(), where="ONNX")
    if half:
        onnx_nodes.halve(graph)
        entries = with_types(entries, graph)
    name = HALF if half else FULL
    onnx_graph.save(graph, folder / name)
    for path in folder.glob("traced.onnx*"):
        path.unlink()
    return Artifact(
        format="onnx",
        quantization="fp16" if half else "fp32",
        folder=folder,
        model_file=name,
        files=(name, f"{name}_data"),
        ledger=entries,
        context_length=1,
        plan={"type": "fp16" if half else "fp32", "opset": _OPSET},
        tools={"torch": importlib.metadata.version("torch")},
    )


def _trace(model: Any, rule: Mapping[str, Any], path: Path, name: str) -> None:
    import torch

    from edge.export.vision.tower import tower

    module = tower(model)
    # Idefics3's connector, traced for any number of tiles, takes only that of the sample: one at a time.
    several = rule["kind"] != "tiles"
    sample = torch.zeros(2 if several else 1, 3, rule["height"], rule["width"])
    shapes = {"pixel_values": {0: torch.export.Dim("pictures", min=1, max=64)}} if several else None
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        try:
            made: Any = torch.onnx.export(
                module,
                (sample,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=["pixel_values"],
                output_names=["image_features"],
                dynamic_shapes=shapes,
                verbose=False,
            )
        # Whatever the tracer meets that it cannot follow, it says in an exception type of its own.
        except Exception as err:  # noqa: BLE001
            words = (str(err).splitlines() or [type(err).__name__])[0]
            raise EdgeError(f"torch cannot trace the vision encoder of {name}: {words:.300}") from None
    made.save(str(path), external_data=True)


def join(
    text: Artifact, vision: Artifact, checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path
) -> Artifact:
    """Cut the text model behind its embedding, and put the three graphs side by side."""
    from edge.export import onnx_graph

    suffix = Path(text.model_file).stem.removeprefix("model")
    decoder, embedding = f"onnx/decoder_model_merged{suffix}.onnx", f"onnx/embed_tokens{suffix}.onnx"
    graph = onnx_graph.load(text.path)
    front = _cut(graph, int(split.text.config["hidden_size"]))
    shared = set(front.weights) & {name for node in graph.nodes for name in node.input}
    onnx_graph.save(front, folder / embedding)
    onnx_graph.save(graph, folder / decoder)
    bring(vision, vision.files, folder)
    _write_config(vision, checkpoint, folder, decoder, embedding, suffix)
    files = (
        decoder, f"{decoder}_data", embedding, f"{embedding}_data", *vision.files, "config.json",
    )  # fmt: skip
    parts = {"embedding": embedding, "vision": vision.model_file}
    made = joined(
        text, vision, split, folder,
        parts=parts, files=[f for f in files if (folder / f).is_file()], rule=rule, ledger=_twice(text, graph, shared),
    )  # fmt: skip
    return replace(made, model_file=decoder)


def _cut(graph: Any, hidden: int) -> Any:
    """Take the token embedding out of `graph`, which then reads `inputs_embeds`; the graph that was taken out."""
    import copy

    import onnx

    from edge.export.onnx_graph import Graph

    taken, names = [], {"input_ids"}
    value = ""
    # From the ids forward, as long as only one node reads what was made: the first value that two read is the input.
    while True:
        readers = [n for n in graph.nodes if names & set(n.input)]
        if value and len(readers) != 1:
            break
        node = next((n for n in readers if n.op_type.startswith("Gather")), readers[0] if readers else None)
        if node is None or len(node.output) != 1 or (not value and len(readers) != 1):
            raise EdgeError("this graph has no token embedding that can be taken out")
        for name in node.input:  # what is made of constants for this node alone goes with it
            maker = graph.producers().get(name)
            if maker is not None and all(i in graph.weights for i in maker.input) and maker not in taken:
                taken.append(maker)
        taken.append(node)
        value = node.output[0]
        names = {value}
    float32 = onnx.TensorProto.FLOAT
    made = [copy.deepcopy(node) for node in taken]
    made[-1].output[0] = "inputs_embeds"
    weights = {n: graph.weights[n] for node in made for n in node.input if n in graph.weights}
    body = onnx.helper.make_graph(
        made,
        "embedding",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])],
        [onnx.helper.make_tensor_value_info("inputs_embeds", float32, ["batch", "sequence", hidden])],
    )
    front = onnx.helper.make_model(body, opset_imports=list(graph.model.opset_import))
    front.ir_version = graph.model.ir_version
    gone = {n.output[0] for n in taken}
    # A node that the decoder reads too (a Cast of the matrix that it shares) stays there.
    shared = {i for n in graph.nodes if n.output[0] not in gone for i in n.input}
    rest = [n for n in graph.nodes if n.output[0] not in gone or (n.output[0] in shared and n.output[0] != value)]
    for node in rest:
        for i, name in enumerate(node.input):
            if name == value:
                node.input[i] = "inputs_embeds"
    kept = list(rest)
    del graph.nodes[:]
    graph.nodes.extend(kept)
    for i, end in enumerate(list(graph.model.graph.input)):
        if end.name == "input_ids":
            del graph.model.graph.input[i]
            break
    end = onnx.helper.make_tensor_value_info("inputs_embeds", float32, ["batch", "sequence_len", hidden])
    graph.model.graph.input.insert(0, end)
    return Graph(front, weights)


def _twice(text: Artifact, graph: Any, shared: set[str]) -> list[Entry]:
    """The text part's account with what both files hold counted in both."""
    out = []
    for entry in text.ledger:
        if shared & set(entry.target):
            note = "in the token embedding's file, and once more as the decoder's head"
            entry = replace(entry, n_elements=2 * entry.n_elements, n_bytes=2 * entry.n_bytes, note=note)  # noqa: PLW2901
        out.append(entry)
    return out


def _write_config(
    vision: Artifact, checkpoint: Checkpoint, folder: Path, decoder: str, embedding: str, suffix: str
) -> None:
    """config.json as transformers.js reads it.

    There is none for onnxruntime-genai: it knows no LLaVA, and the types that it knows merge pictures inside an
    embedding graph of their own.
    """
    dtype = {
        "decoder_model_merged": _DTYPES[suffix],
        "embed_tokens": _DTYPES[suffix],
        "vision_encoder": vision.quantization,
    }
    browser = {
        "dtype": dtype,
        "use_external_data_format": {Path(f).name: 1 for f in (decoder, embedding, vision.model_file)},
    }
    own = {**checkpoint.config, "transformers.js_config": browser}
    (folder / "config.json").write_text(json.dumps(own, indent=2) + "\n")
