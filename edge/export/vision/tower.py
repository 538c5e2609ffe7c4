"""The vision part as torch runs it: pixels in, features out, one row for each image token.

LLaVA      hidden state of one layer of CLIP or SigLIP (class token in or out), two linear layers
Idefics3   SigLIP's last layer, neighbouring patches put side by side, one linear layer
Gemma 3    SigLIP's last layer, averaged over squares of patches, normalized, one matrix
Qwen2.5    patches in windows, squares of them put side by side, two linear layers; one picture at a time
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.errors import UsageError
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np


def feature_layer(config: Any) -> int:
    """How many layers of LLaVA's tower are used: `vision_feature_layer` counted from the front."""
    layer = config["vision_feature_layer"] if isinstance(config, dict) else config.vision_feature_layer
    n = (config["vision_config"] if isinstance(config, dict) else vars(config.vision_config))["num_hidden_layers"]
    if not isinstance(layer, int):
        raise UsageError(f"features of several layers at once ({layer}) are not exported")
    return n + 1 + layer if layer < 0 else layer


def tower(model: Any) -> Any:
    """A module `pixels (n, 3, h, w) -> features (n, tokens, hidden)` of the reference model's own parts.

    Raises `UsageError` for a model type whose vision part is not known.
    """
    import torch

    inner = model.model
    kind = model.config.model_type

    class Llava(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projector = inner.vision_tower, inner.multi_modal_projector
            self.layer = model.config.vision_feature_layer
            self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0

        def forward(self, pixel_values: Any) -> Any:
            states = self.tower(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
            return self.projector(states[self.layer][:, self.first :])

    class Gemma3(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projector = inner.vision_tower, inner.multi_modal_projector

        def forward(self, pixel_values: Any) -> Any:
            return self.projector(self.tower(pixel_values, return_dict=True).last_hidden_state)

    class Idefics3(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projector = inner.vision_model, inner.connector
            self.n = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2

        def forward(self, pixel_values: Any) -> Any:
            # Its own forward looks up positions patch by patch, which tracers cannot follow. A tile is always
            # whole, so that the positions are 0, 1, 2, ... and nothing is masked.
            embeddings = self.tower.embeddings
            x = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
            x = x + embeddings.position_embedding(torch.arange(self.n))
            x = self.tower.encoder(inputs_embeds=x).last_hidden_state
            return self.projector(self.tower.post_layernorm(x))

    class Qwen25(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = inner.visual

        def forward(self, pixel_values: Any) -> Any:
            own = model.config.vision_config
            sizes = own.patch_size, own.spatial_merge_size, own.temporal_patch_size
            patches, grid = patched(pixel_values.numpy(), *sizes)
            grid_thw = torch.tensor([[1, *grid]])
            return self.tower(torch.from_numpy(patches), grid_thw=grid_thw).pooler_output[None]

    found: dict[str, Any] = {
        "llava": Llava, "gemma3": Gemma3, "idefics3": Idefics3, "smolvlm": Idefics3, "qwen2_5_vl": Qwen25,
    }  # fmt: skip
    if kind not in found:
        raise UsageError(f"the vision part of model type {kind!r} is not exported", hint=f"of {', '.join(found)} it is")
    if kind == "llava":
        feature_layer(model.config)
    return found[kind]().eval()


def features(model: Any, values: np.ndarray) -> np.ndarray:
    """The source's own features of `values` `(views, 3, h, w)`, float32 `(rows, hidden)`."""
    import torch

    with torch.inference_mode():
        out: np.ndarray = tower(model)(torch.from_numpy(values)).flatten(0, 1).numpy()
    return out


def patched(values: np.ndarray, patch: int, merge: int, frames: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One view `(1, 3, h, w)` as Qwen's processor orders it, and rows and columns of its patches.

    Patches of one merged square follow each other, `(patches, 3 * frames * patch * patch)`; a still picture is in
    all frames of a patch.
    """
    import numpy as np

    _, channels, height, width = values.shape
    rows, columns = height // patch, width // patch
    cut = values[0].reshape(channels, rows // merge, merge, patch, columns // merge, merge, patch)
    cut = cut.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, channels, 1, patch, patch)
    out: np.ndarray = np.repeat(cut, frames, axis=2).reshape(rows * columns, -1)
    return out, (rows, columns)


def unused(checkpoint: Checkpoint, name: str) -> str:
    """Why a vision tensor has no part in the features; empty when it has one."""
    kind = checkpoint.model_type
    if kind != "llava":
        return "SigLIP's pooling head: not used" if ".head." in name and "vision" in name else ""
    if "post_layernorm" in name:
        return "comes after the layer that features are taken from"
    if ".head." in name:
        return "SigLIP's pooling head: not used"
    parts = name.split(".")
    if "layers" in parts:
        number = int(parts[parts.index("layers") + 1])
        if number >= feature_layer(dict(checkpoint.config)):
            return "comes after the layer that features are taken from"
    return ""
