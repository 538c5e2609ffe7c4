"""What the routers of an ONNX file choose, on onnxruntime: its router logits are made outputs of a copy in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.export import experts, onnx_experts
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

METHOD = "router logits of the shipped graph, made outputs of a copy that onnxruntime runs on the same weights"


def choices(path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Iterator[dict[int, np.ndarray]]:
    """The experts of each token of each window, by layer: `(tokens, used)`."""
    import numpy as np

    layers = [layer.index for layer in experts.layers(checkpoint)]
    session, names = _session(path)
    inputs = {i.name: i for i in session.get_inputs()}
    for window in windows:
        feeds: dict[str, Any] = {
            "input_ids": np.array([window], np.int64),
            "attention_mask": np.ones((1, len(window)), np.int64),
        }
        for name, info in inputs.items():
            if name.startswith("past_key_values."):
                _, heads, _, width = info.shape
                feeds[name] = np.zeros((1, heads, 0, width), np.float32)
        logits = session.run(names, feeds)
        yield {
            layer: np.argsort(-values, axis=1, kind="stable")[:, : experts.used(checkpoint.config)]
            for layer, values in zip(layers, logits, strict=True)
        }


def _session(path: Path) -> tuple[Any, list[str]]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnx
    import onnxruntime

    model = onnx.load(str(path), load_external_data=False)
    names = [n.input[1] for n in model.graph.node if onnx_experts.is_experts(n)]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, names
