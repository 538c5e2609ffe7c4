"""What runs in a process of its own: litert-torch and the LiteRT quantizer, which print, and keep memory.

python -m edge.export.litert_worker convert CHECKPOINT FOLDER GRAPHS AHEAD [embedder|whole]
python -m edge.export.litert_worker vision CHECKPOINT TO SIDE
python -m edge.export.litert_worker quantize FROM TO RECIPE.json [near|whole]

GRAPHS is JSON, {"512": [16, 128], "2048": [128]}: for each window on the cache, the sizes of its prefills.
AHEAD is how many tokens a graph for each window takes that gives logits after each of them, or null.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

_RENAMED_BYTES = 1_800_000_000  # a FlatBuffer with everything inside ends at 2 GiB


def convert(checkpoint: Path, folder: Path, graphs: dict[int, list[int]], ahead: int | None, embedder: bool) -> None:
    """Write `folder/model.tflite` in float32, its weights named as in the checkpoint; its cache is the largest window.

    With `embedder`, the token embedding is in `folder/embedder.tflite`, and the model takes embeddings.
    """
    _stand_in_for_tensorflow()
    from litert_torch.generative.export_hf import export

    from edge.export import experts, litert_experts, litert_near
    from edge.export.source import open_source

    _one_window_for_all()
    litert_near.install(graphs, ahead)
    mixture = experts.layers(open_source(str(checkpoint)))
    export.export(
        model=str(checkpoint),
        output_dir=str(folder),
        prefill_lengths=sorted({size for sizes in graphs.values() for size in sizes}),
        cache_length=max(graphs),
        quantization_recipe="none",
        bundle_litert_lm=False,
        keep_temporary_files=True,
        export_vision_encoder=False,
        export_audio_encoder=False,
        **({"moe_exports_implementation": litert_experts.IMPLEMENTATION} if mixture else {}),
        externalize_embedder=embedder,
    )
    for path in folder.glob("*.tflite"):
        if path.stat().st_size < _RENAMED_BYTES:
            _rename(path, checkpoint)


def vision(checkpoint: Path, target: Path, side: int) -> None:
    """Write the vision part of the checkpoint as `target`: pictures of `side` x `side` to features, in float32."""
    _stand_in_for_tensorflow()
    import litert_torch
    import torch

    from edge.export.reference import load_model
    from edge.export.source import open_source
    from edge.export.vision.tower import tower

    opened = open_source(str(checkpoint))
    litert_torch.convert(tower(load_model(opened)), (torch.zeros(1, 3, side, side),)).export(str(target))
    if target.stat().st_size < _RENAMED_BYTES:
        _rename(target, checkpoint)


def _one_window_for_all() -> None:
    """Give models whose layers all see the same window a mask of it.

    litert-torch hands over masks by kind of layer, and code that knows no kinds (Phi-3's, Mixtral's) takes none
    of them; only for Mistral's it makes an exception.
    """
    from litert_torch.generative.export_hf.core import exportable_module, utils

    kind = exportable_module.LiteRTExportableModuleForDecoderOnlyLM
    adapt = kind.adapt_inputs

    def adapted(self: Any, tokens: Any, embeddings: Any, positions: Any, cache: Any, mask: Any, **options: Any) -> Any:
        made = adapt(self, tokens, embeddings, positions, cache, mask, **options)
        config = self.model.config.get_text_config()
        if isinstance(made["attention_mask"], dict) and not getattr(config, "layer_types", None):
            window = utils.create_sliding_mask(
                positions.clone().unsqueeze(0), cache.get_max_length(), config.sliding_window
            )
            made["attention_mask"] = window + mask
        return made

    kind.adapt_inputs = adapted


def quantize(source: Path, target: Path, recipe: Path, near: bool) -> None:
    """Write `target` as the recipe says (ai-edge-quantizer's own JSON); without `near`, as `litert_near.empty` says."""
    from ai_edge_quantizer import quantizer

    if not near:
        source = _without_near(source, target.with_suffix(".whole"))
    made = quantizer.Quantizer(str(source), json.loads(recipe.read_text()))
    made.quantize().export_model(str(target), overwrite=True)


def _without_near(source: Path, target: Path) -> Path:
    from ai_edge_litert.tools import flatbuffer_utils

    from edge.export import flatbuffer, litert_near

    model = flatbuffer_utils.read_model(str(source))
    litert_near.empty(model)
    flatbuffer.write(model, target)
    return target


def _stand_in_for_tensorflow() -> None:
    """litert-torch imports TFLite's schema from tensorflow, which it does not require; LiteRT has the same one."""
    from ai_edge_litert import schema_py_generated

    for name in ("tensorflow", "tensorflow.lite", "tensorflow.lite.python"):
        module: Any = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
    sys.modules["tensorflow.lite.python.schema_py_generated"] = schema_py_generated
    sys.modules["tensorflow.lite.python"].schema_py_generated = schema_py_generated  # type: ignore[attr-defined]


def _rename(path: Path, checkpoint: Path) -> None:
    """Give every weight its name in the checkpoint, and what is computed from it a name after it.

    The exporter's own names spell out the whole module path of every operation: for a model of
    30 layers that is 2 MB of names, and none of them is the checkpoint's.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    from edge.export import flatbuffer

    model = flatbuffer_utils.read_model(str(path))
    names = _names_by_value(checkpoint)
    chosen: dict[int, str] = {}
    used: dict[str, int] = {}  # the quantizer wants every name once in the whole file

    def name(tensor: Any, words: str) -> None:
        n = used.get(words, 0)
        used[words] = n + 1
        tensor.name = (f"{words}#{n}" if n else words).encode()

    ends = {s.subgraphIndex: s for s in model.signatureDefs}
    for number, graph in enumerate(model.subgraphs):
        signature = ends.get(number)
        scope = signature.signatureKey.decode() if signature else f"subgraph_{number}"
        pending = set(range(len(graph.tensors)))
        for i, tensor in enumerate(graph.tensors):
            data = model.buffers[tensor.buffer].data if tensor.buffer else None
            if data is None or not len(data):
                continue
            if tensor.buffer not in chosen:
                waiting = names.get(_fingerprint(tensor.shape, bytes(data)))
                chosen[tensor.buffer] = waiting.pop(0) if waiting else f"constant_{tensor.buffer}"
            name(tensor, chosen[tensor.buffer])
            pending.discard(i)
        for direction in ("inputs", "outputs") if signature else ():
            for end in getattr(signature, direction):
                if end.tensorIndex in pending:
                    name(graph.tensors[end.tensorIndex], f"{scope}/{direction[:-1]}/{end.name.decode()}")
                    pending.discard(end.tensorIndex)
        for operator in graph.operators:
            inputs = [graph.tensors[i].buffer for i in operator.inputs if i >= 0]
            words = next((chosen[b].removesuffix(".weight") for b in inputs if b in chosen), "value")
            for i in operator.outputs:
                if i in pending:
                    name(graph.tensors[i], f"{scope}/{words}")
                    pending.discard(i)
        for i in pending:
            name(graph.tensors[i], f"{scope}/value")
    written = path.with_suffix(".renamed")
    flatbuffer.write(model, written)
    written.replace(path)


def _names_by_value(checkpoint: Path) -> dict[str, list[str]]:
    """Fingerprint of every float32 value -> the tensors of the checkpoint that have it.

    A norm's weight may be stored with the 1 that some models add to it, a matrix times a number that follows it.
    """
    import numpy as np

    from edge.export import litert_experts
    from edge.export.litert_factors import candidates
    from edge.export.source import open_source

    source = open_source(str(checkpoint))
    found: dict[str, list[str]] = {}
    for matrix in litert_experts.matrices(source):
        array = matrix.read(source)
        found.setdefault(_fingerprint(array.shape, array.tobytes()), []).append(matrix.name)
    inside = {name for sources, _ in litert_experts.sources(source) for name in sources}
    for name in source.tensors:
        if name not in inside:
            array = source.read(name)
            numbers = [np.float32(by) for by in candidates(name, source.config)]
            made = [array + 1] if array.ndim == 1 else [v for by in numbers for v in (array * by, array / (1 / by))]
            for print_ in {_fingerprint(values.shape, values.tobytes()) for values in (array, *made)}:
                found.setdefault(print_, []).append(name)
    return found


def _fingerprint(shape: Any, data: bytes) -> str:
    return f"{[int(n) for n in shape]} {hashlib.blake2b(data, digest_size=16).hexdigest()}"


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "convert":
        graphs = {int(window): sizes for window, sizes in json.loads(rest[2]).items()}
        convert(Path(rest[0]), Path(rest[1]), graphs, json.loads(rest[3]), rest[4] == "embedder")
    elif verb == "vision":
        vision(Path(rest[0]), Path(rest[1]), int(rest[2]))
    else:
        quantize(Path(rest[0]), Path(rest[1]), Path(rest[2]), rest[3] == "near")
