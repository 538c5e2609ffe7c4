"""A source that does not fit in memory, run as it is but for one thing: a layer's weights are read when its turn comes.

Each pass reads the whole checkpoint from disk, so callers put as much as they can into one pass. In float32, as
the source in memory is; what it computes is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export.checkpoint import Checkpoint
from edge.export.preflight import PASS_BYTES

if TYPE_CHECKING:
    import torch


@dataclass
class _Coming:
    """How weights come: as what `parameter(name, values)` gives, and once more for the way back if `recomputed`."""

    parameter: Callable[[str, torch.Tensor], torch.nn.Parameter]
    recomputed: bool = False


def causal_lm(checkpoint: Checkpoint, config: Any) -> Any:
    """The model of `config` with weights of `checkpoint` that come and go.

    Raises `EdgeError` for a model whose parameters are not the checkpoint's tensors one by one.
    """
    import torch
    import transformers

    with _empty_parameters():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = model.eval()
    stored = _stored_names(model, checkpoint)
    model.streamed = _Coming(_frozen)
    for prefix, unit in _units(model):
        wanted = {name: stored[f"{prefix}.{name}"] for name, _ in unit.named_parameters()}
        _bring(unit, wanted, checkpoint, model.streamed)
    return model


@contextmanager
def changed(
    model: Any, parameter: Callable[[str, torch.Tensor], torch.nn.Parameter], *, recomputed: bool = False
) -> Iterator[None]:
    """Within, the model computes with what `parameter(name, values)` makes of each tensor of the checkpoint.

    `recomputed`: what a layer computes is not kept for a way back, but computed again on it, with weights that come
    once more. Then gradients of all can be had with one layer in memory: parameters that come are new ones each time.
    """
    before, model.streamed.parameter = model.streamed.parameter, parameter
    model.streamed.recomputed = recomputed
    try:
        yield
    finally:
        model.streamed.parameter, model.streamed.recomputed = before, False


def _frozen(_: str, values: torch.Tensor) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(values, requires_grad=False)


@contextmanager
def _empty_parameters() -> Iterator[None]:
    """Modules made inside have parameters of the right shape and no memory; what they compute themselves is real."""
    import torch

    register = torch.nn.Module.register_parameter

    def empty(self: Any, name: str, parameter: Any) -> None:
        register(self, name, parameter)
        if parameter is not None:
            self._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    torch.nn.Module.register_parameter = empty  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


def is_streamed(model: Any) -> bool:
    """Whether every call of this model reads its checkpoint."""
    return bool(getattr(model, "streamed", False))


def together(model: Any, windows: Sequence[Sequence[int]], vocab_size: int) -> int:
    """How many windows go through at once: one, or as many as leave `PASS_BYTES` of logits when each call reads all."""
    longest = max(map(len, windows))
    return max(1, PASS_BYTES // (4 * longest * vocab_size)) if is_streamed(model) else 1


def padded(windows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of windows as one batch, zeros at the end of short ones, and where a token is real: `(windows, longest)`."""
    import torch

    ids = torch.zeros(len(windows), max(map(len, windows)), dtype=torch.long)
    real = torch.zeros_like(ids)
    for row, tokens in enumerate(windows):
        ids[row, : len(tokens)] = torch.tensor(list(tokens))
        real[row, : len(tokens)] = 1
    return ids, real


def _units(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """What is in memory at one time: a decoder layer, or another module that has weights of its own."""
    import torch

    layers = {id(m) for blocks in model.modules() if isinstance(blocks, torch.nn.ModuleList) for m in blocks}
    inside = ""
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if id(module) in layers or next(module.parameters(recurse=False), None) is not None:
            inside = f"{name}."
            yield name, module


def _stored_names(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """Each parameter's tensor in the checkpoint; a tied head's is the embedding's."""
    out = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        found = checkpoint.stored_name(name)
        if (
            found not in checkpoint.tensors
            and name == "lm_head.weight"
            and checkpoint.config.get("tie_word_embeddings")
        ):
            found = checkpoint.stored_name("model.embed_tokens.weight")
        info = checkpoint.tensors.get(found)
        if info is None or info.shape != tuple(weight.shape):
            raise EdgeError(
                f"{checkpoint.name} does not fit in memory, and cannot be run layer by layer: its parameter {name} is "
                f"no tensor of the checkpoint",
                hint="export on a machine with more memory, or without proof: --no-gate --no-calibration",
            )
        out[name] = found
    return out


def _bring(unit: Any, wanted: dict[str, str], checkpoint: Checkpoint, coming: _Coming) -> None:
    """Read the unit's weights before it computes, forget them after."""
    import torch
    from torch.utils.checkpoint import checkpoint as recomputed

    places = {name: (unit.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in wanted}
    empty = {name: module._parameters[leaf] for name, (module, leaf) in places.items()}

    compute = unit.forward
    # What takes ids or gives logits has nothing before or after it that could be forgotten.
    layer = any(True for _ in unit.children())

    def forward(*args: Any, **kwargs: Any) -> Any:
        if coming.recomputed and layer:
            # The other way keeps the parameters of the first time, and so all of them.
            return recomputed(lambda *given: once(*given, **kwargs), *args, use_reentrant=True)
        return once(*args, **kwargs)

    def once(*args: Any, **kwargs: Any) -> Any:
        for name, (module, leaf) in places.items():
            values = torch.from_numpy(checkpoint.read(wanted[name]))
            module._parameters[leaf] = coming.parameter(wanted[name], values)
        try:
            return compute(*args, **kwargs)
        finally:
            for name, (module, leaf) in places.items():
                module._parameters[leaf] = empty[name]

    unit.forward = forward
