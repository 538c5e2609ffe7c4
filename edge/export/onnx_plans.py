"""How ONNX stores weights: every quantization by name, with the bits, blocks and method behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge.export.artifact import Planned, Quantization


class Plan(NamedTuple):
    """Bits and block size of the matrices, and of the head that shares its blocks with the embedding.

    `attention_bits` are those of the matrices of attention, where they differ; `each` has those of single matrices, by
    the tensor that they come from.
    """

    bits: int
    block: int
    head_bits: int
    head_block: int
    method: str
    attention_bits: int = 0
    each: Mapping[str, tuple[int, int]] = {}

    def at(self, source: str, is_head: bool) -> tuple[int, int]:
        """Bits and block size of the matrix that the tensor `source` is in."""
        if source in self.each:
            return self.each[source]
        if is_head:
            return self.head_bits, self.head_block
        return (self.attention_bits or self.bits) if ".self_attn." in source else self.bits, self.block


PLANS: dict[str, Plan] = {}
EXPERTS = "experts"  # what a plan calls all experts together: their operator has one width for each layer


def table() -> dict[str, Quantization]:
    """Every way to store weights, best first among equals; the short names are the recommended ones."""
    rows = {
        "fp32": Quantization("fp32", 32, 32.0, about="full precision; the reference of the other files"),
        "fp16": Quantization("fp16", 16, 16.0, about="half precision on disk; computed in float32 on a CPU"),
    }

    def add(name: str, plan: Plan, about: str) -> None:
        PLANS[name] = plan
        # A float32 scale and a zero point for each block.
        stored = plan.bits + (32 + plan.bits) / plan.block
        rows[name] = Quantization(name, plan.bits, stored, calibrated=plan.method == "gptq", about=about)

    add("int8", Plan(8, 32, 8, 32, "rtn"), "hardly any loss")
    add("int8-64", Plan(8, 64, 8, 64, "gptq"), "smaller and faster than int8, calibrated")
    mixed = "calibrated; embedding, head and attention in 8 bits: what small models need"
    add("int4-mixed", Plan(4, 32, 8, 32, "gptq", attention_bits=8), mixed)
    # Fewer scales to read: a tenth faster than blocks of 32, at a mean KLD of 0.22 for 0.18 (SmolLM2, rtn-32: 0.47).
    add("int4", Plan(4, 64, 4, 64, "gptq"), "calibrated; the smallest and fastest")
    for method in ("rtn", "kquant", "hqq", "gptq"):
        for block in (32, 64, 128):
            add(f"int4-{method}-{block}", Plan(4, block, 4, block, method), f"{method}, blocks of {block}")
    return rows


def planned(made: Planned, embedding: str) -> Plan:
    """The plan of types such as "4/32" (bits and block) by source tensor; `embedding` is the token embedding's.

    What is kept under "experts" holds for all of them.
    """
    each = {name: (int(kind.split("/")[0]), int(kind.split("/")[1])) for name, kind in made.types.items()}
    head = each.get(embedding, (8, 32))
    return Plan(*each.pop(EXPERTS, (8, 32)), *head, "gptq", each=each)


def method(quantization: str, *, calibrated: bool) -> str:
    """How the weights are rounded: the plan's method, or to nearest where it is not calibrated."""
    asked = PLANS[quantization].method if quantization in PLANS else ""
    return "rtn" if asked == "gptq" and not calibrated else asked
