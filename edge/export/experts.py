"""Where the experts and routers of a checkpoint are: one description for all layouts of tensors.

Every layer with experts has a router matrix `(experts, hidden)`; an expert is a gated MLP of three
matrices, gate and up `(inner, hidden)` and down `(hidden, inner)`. Most checkpoints store each matrix
by itself, Granite's all experts of a layer in two tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.errors import InputError
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np


class Naming(NamedTuple):
    """How a model type names things below `model.layers.N.`; `stacked` holds gate and up, then down."""

    router: str
    expert: str = ""  # with {e}, before the matrix
    gate: str = ""
    up: str = ""
    down: str = ""
    stacked: tuple[str, str] | None = None


_PROJECTIONS = Naming("mlp.gate.weight", "mlp.experts.{e}.", "gate_proj.weight", "up_proj.weight", "down_proj.weight")
NAMINGS: dict[str, Naming] = {
    "mixtral": Naming(
        "block_sparse_moe.gate.weight", "block_sparse_moe.experts.{e}.", "w1.weight", "w3.weight", "w2.weight"
    ),
    "qwen3_moe": _PROJECTIONS,
    "olmoe": _PROJECTIONS,
    "granitemoe": Naming(
        "block_sparse_moe.router.layer.weight",
        stacked=("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
    ),
}
_ALWAYS_NORMALIZED = frozenset({"mixtral", "granitemoe"})


@dataclass(frozen=True)
class Layer:
    """The experts of one decoder layer, as names of tensors.

    `experts` has a (gate, up, down) for each expert; it is empty where `stacked` names the two
    tensors `(experts, 2 inner, hidden)` and `(experts, hidden, inner)` that hold them all.
    """

    index: int
    router: str
    experts: tuple[tuple[str, str, str], ...]
    stacked: tuple[str, str] | None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.router, *(self.stacked or ()), *(name for expert in self.experts for name in expert))

    def keys(self, e: int) -> tuple[str, str, str]:
        """What to keep about gate, up and down of expert `e` is kept under these: their names, if they have any."""
        if self.stacked is None:
            return self.experts[e]
        both, down = self.stacked
        return f"{both}#{e}.gate", f"{both}#{e}.up", f"{down}#{e}"


def count(config: Mapping[str, Any]) -> int:
    """Experts of each layer. Raises `InputError` when the configuration does not say."""
    found = config.get("num_local_experts", config.get("num_experts"))
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InputError(f"config.json says that there are {found!r} experts, wanted a whole number above 0")
    return found


def used(config: Mapping[str, Any]) -> int:
    """Experts that each token is computed by. Raises `InputError` when it is not between 1 and all of them."""
    found, most = config.get("num_experts_per_tok"), count(config)
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= most:
        raise InputError(f"config.json says that each token uses {found!r} of {most} experts")
    return found


def normalized(config: Mapping[str, Any]) -> bool:
    """Whether the weights of the chosen experts are made to add up to one."""
    return config.get("model_type") in _ALWAYS_NORMALIZED or bool(config.get("norm_topk_prob", False))


def layers(checkpoint: Checkpoint) -> tuple[Layer, ...]:
    """Every layer that has experts, in order; nothing is checked."""
    config = checkpoint.config
    naming = NAMINGS.get(checkpoint.model_type)
    if naming is None:
        return ()
    n = count(config)
    dense = set(config.get("mlp_only_layers") or ())
    step = int(config.get("decoder_sparse_step") or 1)
    found = []
    for i in range(int(config.get("num_hidden_layers", 0))):
        if i in dense or (i + 1) % step:
            continue
        front = f"model.layers.{i}."
        experts = () if naming.stacked else tuple(_expert(front, naming, e) for e in range(n))
        stacked = (front + naming.stacked[0], front + naming.stacked[1]) if naming.stacked else None
        found.append(Layer(i, front + naming.router, experts, stacked))
    return tuple(found)


def _expert(front: str, naming: Naming, e: int) -> tuple[str, str, str]:
    own = front + naming.expert.format(e=e)
    return own + naming.gate, own + naming.up, own + naming.down


def check(checkpoint: Checkpoint) -> None:
    """Raise `InputError` unless every router and every expert is there, with the shapes that belong together.

    Only headers are looked at.
    """
    config, tensors = checkpoint.config, checkpoint.tensors
    n, _ = count(config), used(config)
    for layer in layers(checkpoint):
        missing = [name for name in layer.names if name not in tensors]
        if missing:
            lost = sorted({e for e, names in enumerate(layer.experts) if set(names) & set(missing)})
            what = "its router" if layer.router in missing else f"expert {lost[0]}" if lost else "its experts"
            raise InputError(
                f"layer {layer.index} of {checkpoint.name} lacks {what}: there is no tensor {missing[0]} "
                f"({n} experts wanted)",
                hint="the checkpoint is not whole; download or save it again",
            )
        rows = tensors[layer.router].shape[0]
        if rows != n:
            raise InputError(
                f"the router of layer {layer.index} of {checkpoint.name} chooses between {rows} experts, "
                f"config.json says {n}: {layer.router}",
                hint="router and config.json must come from the same checkpoint",
            )
        for name in layer.stacked or ():
            if tensors[name].shape[0] != n:
                raise InputError(
                    f"{name} of {checkpoint.name} holds {tensors[name].shape[0]} experts, config.json says {n}",
                    hint="the checkpoint is not whole; download or save it again",
                )
        for part in range(3):
            shapes = {tensors[expert[part]].shape for expert in layer.experts}
            if len(shapes) > 1:
                raise InputError(
                    f"the experts of layer {layer.index} of {checkpoint.name} have different sizes: {shapes}"
                )


def read(checkpoint: Checkpoint, layer: Layer, e: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate and up `(inner, hidden)` and down `(hidden, inner)` of one expert, float32."""
    if layer.stacked is None:
        gate, up, down = (checkpoint.read(name) for name in layer.experts[e])
        return gate, up, down
    both, down = checkpoint.read(layer.stacked[0])[e], checkpoint.read(layer.stacked[1])[e]
    return both[: len(both) // 2], both[len(both) // 2 :], down


def n_parameters(checkpoint: Checkpoint) -> tuple[int, int]:
    """Parameters of all experts, and those of them that take part in one token."""
    total = 0
    for layer in layers(checkpoint):
        for name in set(layer.names) - {layer.router}:
            size = 1
            for d in checkpoint.tensors[name].shape:
                size *= d
            total += size
    return total, total * used(checkpoint.config) // count(checkpoint.config)
