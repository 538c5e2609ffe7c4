"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): W + B A, with only A, B and the norms' gains trained.

Smaller than `peft` by all that is not needed here; what is trained is merged when a checkpoint is
assembled, so nothing of this runs afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SCALE = 2.0  # of B A in the merged weight; `learned` puts it into B
_resting = False


@contextmanager
def resting() -> Iterator[None]:
    """Inside, models compute as they did before `attach`."""
    global _resting  # noqa: PLW0603
    _resting = True
    try:
        yield
    finally:
        _resting = False


def attach(model: Any, targets: Sequence[str], rank: int, seed: int) -> dict[str, Any]:
    """Freeze `model`, put adapters on the linear layers whose last name is in `targets`, and free the norms.

    Returns the trained parameters by name: `<layer>.lora_A` float32 `(rank, in)`, `<layer>.lora_B`
    `(out, rank)`, and the gains of the norms under their own names. They are float32 whatever the model is.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    trained: dict[str, Any] = {}
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    class Adapted(torch.nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            start = torch.randn(rank, base.in_features, generator=generator) / base.in_features**0.5
            self.a = torch.nn.Parameter(start)
            self.b = torch.nn.Parameter(torch.zeros(base.out_features, rank))

        def forward(self, x: Any) -> Any:
            whole = self.base(x)
            if _resting:
                return whole
            low = SCALE * torch.nn.functional.linear(x, self.a.to(x.dtype)).flatten(0, -2)
            return torch.addmm(whole.flatten(0, -2), low, self.b.to(x.dtype).T).view_as(whole)

    class Gain(torch.nn.Module):
        """RMSNorm with a float32 gain in a model of another type."""

        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base.weight.detach().float()
            self.weight = torch.nn.Parameter(self.base.clone())
            self.epsilon = base.variance_epsilon

        def forward(self, x: Any) -> Any:
            wide = x.float()
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
            return ((self.base if _resting else self.weight) * wide).to(x.dtype)

    for path, module in list(model.named_modules()):
        parent = model.get_submodule(path.rpartition(".")[0])
        name = path.rpartition(".")[2]
        if isinstance(module, torch.nn.Linear) and name in targets:
            adapted = Adapted(module)
            setattr(parent, name, adapted)
            trained[f"{path}.lora_A"], trained[f"{path}.lora_B"] = adapted.a, adapted.b
        elif type(module).__name__.endswith("RMSNorm"):
            gain = Gain(module)
            setattr(parent, name, gain)
            trained[f"{path}.weight"] = gain.weight
    return trained


def resume(trained: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Begin where an adapter of this or a lower rank ended: `before` is what `learned` made of it.

    What the rank has more begins as `attach` made it: B is zero there and adds nothing.
    """
    import torch

    with torch.no_grad():
        for name, parameter in trained.items():
            old = before[name].float() / (SCALE if name.endswith(".lora_B") else 1.0)
            parameter[tuple(slice(n) for n in old.shape)] = old


def learned(trained: Mapping[str, Any]) -> dict[str, Any]:
    """What is committed: float16, sorted, the scale in B."""
    import torch

    made = {n: p.detach() * (SCALE if n.endswith(".lora_B") else 1.0) for n, p in sorted(trained.items())}
    return {n: p.to(torch.float16).contiguous() for n, p in made.items()}
