"""The parts of a model that sees, as LiteRT-LM takes them: its pictures, its signatures, its names.

LiteRT-LM hands a vision encoder pictures with channels last and values from 0 to 1, puts what it gives through an
adapter, which must be there, and asks the embedder for one token at a time. So the encoder gets three operations in
front, the adapter does nothing, and of the embedder one signature is kept. Weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export import flatbuffer

ENCODER, ADAPTER, EMBEDDER = "vision_encoder.tflite", "vision_adapter.tflite", "embedder.tflite"


def write(folder: Path, parts: Mapping[str, str], rule: Mapping[str, Any], work: Path) -> None:
    """Write `ENCODER`, `ADAPTER` and `EMBEDDER` into `work`, from a bundle's parts.

    Raises `UsageError` for pictures that LiteRT-LM does not cut so, or whose rows see each other.
    """
    if rule["kind"] != "whole" or rule.get("bidirectional") or rule.get("before") or rule.get("after"):
        reason = "whose rows see each other" if rule.get("bidirectional") else "in tiles, or with words around them"
        raise UsageError(
            f"this model takes pictures {reason}, which LiteRT-LM's generic model does not",
            hint="leave out --also litertlm",
        )
    shape = _encoder(folder / parts["vision"], work / ENCODER, rule)
    _adapter(shape, work / ADAPTER)
    _embedder(folder / parts["embedding"], work / EMBEDDER)


def describe(model: Any, rule: Mapping[str, Any]) -> None:
    """Say in LiteRT-LM's metadata which text stands for a picture, and how large it is."""
    import re

    model.image_enabled = True
    model.delimiter_regex = f"({re.escape(rule['token'])})"
    model.image_token_regex = re.escape(rule["token"])
    model.image_tensor_height, model.image_tensor_width = rule["height"], rule["width"]
    model.start_of_image_token.token_str = model.end_of_image_token.token_str = ""
    model.image_prefix = model.image_suffix = ""
    model.add_image_end = False


def _encoder(source: Path, target: Path, rule: Mapping[str, Any]) -> list[int]:
    """The encoder with channels moved and values normalized inside; the shape of its features."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(source))
    [signature] = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    made = _Graph(model, graph)
    _, channels, height, width = (int(n) for n in graph.tensors[signature.inputs[0].tensorIndex].shape)
    images = made.tensor("images", [1, height, width, channels])
    # 0 to 1 is 1/255 of the source's 8 bits: times 255 and the source's own scale, then its mean and deviation.
    scale = 255 * (1.0 if rule.get("scale") is None else rule["scale"])
    deviation = np.array(rule.get("std") or [1.0] * channels, np.float32)
    mean = np.array(rule.get("mean") or [0.0] * channels, np.float32)
    stretched = made.tensor("images/scaled", [1, height, width, channels])
    shifted = made.tensor("images/normalized", [1, height, width, channels])
    operators = [
        made.operator(
            schema.BuiltinOperator.MUL, [images, made.constant("images/scale", scale / deviation)], stretched,
            schema.BuiltinOptions.MulOptions, schema.MulOptionsT(),
        ),
        made.operator(
            schema.BuiltinOperator.ADD, [stretched, made.constant("images/shift", -mean / deviation)], shifted,
            schema.BuiltinOptions.AddOptions, schema.AddOptionsT(),
        ),
        made.operator(
            schema.BuiltinOperator.TRANSPOSE,
            [shifted, made.constant("images/order", np.array([0, 3, 1, 2], np.int32))],
            signature.inputs[0].tensorIndex,
            schema.BuiltinOptions.TransposeOptions, schema.TransposeOptionsT(),
        ),
    ]  # fmt: skip
    graph.operators = [*operators, *graph.operators]
    graph.inputs = [images]
    signature.inputs[0].name, signature.inputs[0].tensorIndex = b"images", images
    signature.outputs[0].name = b"features"
    flatbuffer.write(model, target)
    return [int(n) for n in graph.tensors[signature.outputs[0].tensorIndex].shape]


def _adapter(shape: Sequence[int], target: Path) -> None:
    """A model that gives what it is given."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT(version=3, operatorCodes=[], subgraphs=[schema.SubGraphT()], buffers=[schema.BufferT()])
    model.description = b"the projector is inside the encoder"
    [graph] = model.subgraphs
    graph.tensors, graph.operators, graph.name = [], [], b"main"
    made = _Graph(model, graph)
    given, found = made.tensor("soft_tokens", shape), made.tensor("mm_embedding", shape)
    size = made.constant("shape", np.array(shape, np.int32))
    options = schema.ReshapeOptionsT(newShape=list(shape))
    graph.operators = [
        made.operator(
            schema.BuiltinOperator.RESHAPE, [given, size], found, schema.BuiltinOptions.ReshapeOptions, options
        )
    ]
    graph.inputs, graph.outputs = [given], [found]
    ends = (
        [schema.TensorMapT(name=b"soft_tokens", tensorIndex=given)],
        [schema.TensorMapT(name=b"mm_embedding", tensorIndex=found)],
    )
    model.signatureDefs = [
        schema.SignatureDefT(inputs=ends[0], outputs=ends[1], signatureKey=b"vision_adapter", subgraphIndex=0)
    ]
    flatbuffer.write(model, target)


def _embedder(source: Path, target: Path) -> None:
    """Only the signature for one token: LiteRT-LM takes the first that there is."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(source))
    one = next(s for s in model.signatureDefs if s.signatureKey == b"decode_embedder")
    for other in model.signatureDefs:
        if other is not one:
            graph = model.subgraphs[other.subgraphIndex]
            graph.operators, graph.tensors, graph.inputs, graph.outputs = [], [], [], []
    model.signatureDefs = [one]
    flatbuffer.write(model, target)


class _Graph:
    """Adds tensors and operators to a subgraph; indices as FlatBuffers count them."""

    def __init__(self, model: Any, graph: Any) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema: Any = schema_py_generated
        self._model, self._graph = model, graph

    def tensor(self, name: str, shape: Sequence[int], *, kind: int = 0, buffer: int = 0) -> int:
        """A tensor, float32 unless `kind` says otherwise."""
        made = self._schema.TensorT(shape=list(shape), type=kind, buffer=buffer, name=name.encode(), hasRank=True)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: Any) -> int:
        import numpy as np

        self._model.buffers.append(self._schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        kinds = self._schema.TensorType
        kind = kinds.INT32 if values.dtype == np.int32 else kinds.FLOAT32
        return self.tensor(name, values.shape, kind=kind, buffer=len(self._model.buffers) - 1)

    def operator(self, code: int, inputs: Sequence[int], output: int, kind: int, options: Any) -> Any:
        codes = self._model.operatorCodes
        known = next((i for i, c in enumerate(codes) if c.builtinCode == code), None)
        if known is None:
            known = len(codes)
            codes.append(self._schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code))
        return self._schema.OperatorT(
            opcodeIndex=known, inputs=list(inputs), outputs=[output], builtinOptionsType=kind, builtinOptions=options
        )
