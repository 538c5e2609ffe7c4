"""TFLite: vision encoder, token embedding and decoder in three files.

vision.tflite     pixels of one view -> features
embedder.tflite   token ids -> embeddings
model.tflite      embeddings, positions, mask, cache -> logits, cache
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export.artifact import Artifact, Need
from edge.export.checkpoint import Checkpoint
from edge.export.vision.account import account
from edge.export.vision.join import bring, joined
from edge.export.vision.rule import refuse_any_size
from edge.export.vision.split import Split
from edge.progress import Progress

FILE = "vision.tflite"
_HALVES = [
    {
        "regex": ".*",
        "operation": operation,
        "algorithm_key": "float_casting",
        "op_config": {
            "weight_tensor_config": {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
            "skip_checks": False,
            "min_weight_elements": 0,
        },
    }
    for operation in ("FULLY_CONNECTED", "CONV_2D")
]


def estimate(n_text: int, n_vision: int) -> Need:
    """Memory, disk and time of `convert` for so many parameters: torch traces the whole model, loaded in float32."""
    ram_bytes = (1500 << 20) + 4 * n_text + 24 * n_vision
    return Need(ram_bytes=ram_bytes, disk_bytes=10 * n_vision, time_s=20 + n_vision / 2e6)


def check(checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any]) -> None:
    """Raise `UsageError` for pictures that this format cannot take, before anything is made."""
    window = split.text.config.get("sliding_window")
    if rule.get("bidirectional") and window and rule["n_tokens"] > window:
        raise UsageError(
            f"in {checkpoint.name} the {rule['n_tokens']} rows of a picture see each other, and in TFLite only as far "
            f"as its window of {window} tokens",
            hint="choose --format gguf",
        )
    refuse_any_size(checkpoint, rule, "TFLite")


def convert(
    checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path, *, half: bool, progress: Progress
) -> Artifact:
    """Write `vision.tflite` into `folder`, its matrices in float16 if `half`.

    Raises `EdgeError` when litert-torch cannot convert it, or when a tensor was lost on the way.
    """
    from edge.export import litert_run, tflite_ledger
    from edge.readers.tflite import read

    progress.start("building the TFLite graph of the vision encoder")
    path, full = folder / FILE, folder / "full.tflite"
    version = litert_run.vision(checkpoint, full, rule["height"])
    header = read(full)
    stored = ((t.name, tflite_ledger.values(full, header, t)) for t in header.constants().values())
    entries = account(checkpoint, split.vision, stored, where="TFLite")
    if half:
        litert_run.quantize(full, path, _HALVES)
        full.unlink()
        entries = tflite_ledger.with_types(entries, path)
    else:
        full.rename(path)
    return Artifact(
        format="tflite",
        quantization="fp16" if half else "fp32",
        folder=folder,
        model_file=FILE,
        files=(FILE,),
        ledger=entries,
        context_length=1,
        plan={"type": "fp16" if half else "fp32"},
        tools={"litert-torch": version},
    )


def join(
    text: Artifact, vision: Artifact, checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path
) -> Artifact:
    """The three files side by side."""
    bring(text, text.files, folder)
    bring(vision, vision.files, folder)
    parts = {**text.parts, "vision": FILE}
    return joined(text, vision, split, folder, parts=parts, files=[*text.files, *vision.files], rule=rule)
