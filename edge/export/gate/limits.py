"""How far an export may be from its source, by bits and by the size of the model."""

from __future__ import annotations

from dataclasses import dataclass

_REFERENCE_PARAMETERS = 1e9
_MOST = 2.0


@dataclass(frozen=True)
class Limits:
    """Upper bounds of NMSE and mean KLD (nats), lower bounds of three shares; `None` is not judged."""

    nmse: float | None
    mean_kld: float
    same_top1: float
    answers_kept: float
    tool_calls_kept: float


# For models of 1e9 parameters and more.
_LIMITS = {
    32: Limits(1e-6, 1e-6, 0.999, 1.0, 1.0),
    16: Limits(1e-4, 5e-4, 0.995, 1.0, 1.0),
    8: Limits(2e-3, 5e-3, 0.97, 0.95, 0.98),
    6: Limits(5e-3, 1e-2, 0.95, 0.95, 0.98),
    5: Limits(1.5e-2, 2e-2, 0.93, 0.90, 0.96),
    4: Limits(6e-2, 6e-2, 0.90, 0.85, 0.95),
    3: Limits(None, 2e-1, 0.80, 0.70, 0.8),
    2: Limits(None, 4e-1, 0.70, 0.50, 0.6),
}
CLASSES = tuple(_LIMITS)


def limits(bits: int, n_parameters: int) -> Limits:
    """The limits for a class of bits, scaled to the size of the model.

    One rule: below 1e9 parameters a quantized model may err more, by the fourth root of how
    much smaller it is, at most twice. The factor multiplies NMSE, KLD and the share of changed
    top tokens. Reason: the same quantization costs a small model more; q8_0 changes 2.3 % of
    the top tokens of models of 1e9 and more parameters (README of llama.cpp's quantize tool)
    and 4.3 % of SmolLM2-135M's: 1.9 times, where the rule allows 1.65. Whole formats (16 and
    32 bit) lose nothing by being small, so they are not scaled; nor are the answers and the tool
    calls kept, because they are counted among those that the source itself gives.

    >>> round(limits(4, 135_000_000).mean_kld, 4), limits(4, 7_000_000_000).mean_kld
    (0.099, 0.06)
    """
    base = _LIMITS[bits]
    if bits >= 16:
        return base
    factor = min(_MOST, max(1.0, (_REFERENCE_PARAMETERS / max(1, n_parameters)) ** 0.25))
    return Limits(
        nmse=None if base.nmse is None else base.nmse * factor,
        mean_kld=base.mean_kld * factor,
        same_top1=1 - (1 - base.same_top1) * factor,
        answers_kept=base.answers_kept,
        tool_calls_kept=base.tool_calls_kept,
    )
