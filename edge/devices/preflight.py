"""What speaks against a bundle on a device, before anything is copied."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge.bundle import Bundle
from edge.devices.facts import Facts

SCRATCH_BYTES = 150_000_000  # Python, its libraries and a runtime's working memory, as `benchmarks.predict` finds it
_SYSTEM_BYTES = 150 << 20  # what a small Linux takes for itself
_MARGIN_BYTES = 16 << 20  # disks that are full to the last byte do other harm
_CLOCK_S = 86400  # a Raspberry Pi has no clock of its own: until it has asked the network it is somewhere in the past
_PAGE_BYTES = 1 << 16  # our libraries' segments are aligned to this


@dataclass(frozen=True)
class Verdict:
    """`against` are reasons to refuse; `notes` what a person should know."""

    against: tuple[str, ...]
    notes: tuple[str, ...]
    ram_bytes: int


def check(
    bundle: Bundle, facts: Facts, *, send_bytes: int, free_bytes: int, context_length: int | None = None
) -> Verdict:
    """Compare what the bundle needs with what the device has.

    1. Memory: weights, the cache at `context_length` tokens, and scratch, against all of the RAM but the system's.
    2. Disk: what has to be sent stands beside what is there, the old version included.
    3. A 32-bit userland, or pages that libraries are not aligned to, run nothing of ours.
    """
    against, notes = [], []
    memory = dict(bundle.memory)
    tokens = context_length or bundle.context_length
    # Some runtimes unpack what a file holds in few bits.
    weights = int(memory.get("weights_bytes") or bundle.size_bytes) + int(memory.get("unpacked_bytes") or 0)
    cache = int(memory.get("kv_bytes_per_token") or 0) * tokens
    need = weights + cache + SCRATCH_BYTES
    total = facts.profile.ram_bytes
    if total is not None and need > total - _SYSTEM_BYTES:
        against.append(
            f"memory: {bundle.name} needs {mb(need)} (weights {mb(weights)}, cache for {tokens} tokens {mb(cache)}, "
            f"the rest {mb(SCRATCH_BYTES)}), and it has {mb(total)} with its system in it"
        )
    elif facts.state and facts.state.available_bytes is not None and need > facts.state.available_bytes:
        notes.append(f"only {mb(facts.state.available_bytes)} of memory are free now; {mb(need)} will be needed")
    if send_bytes + _MARGIN_BYTES > free_bytes:
        against.append(
            f"disk: {mb(send_bytes)} have to go beside what is there, and {mb(free_bytes)} are free; "
            "edge remove frees what older bundles take"
        )
    if facts.bits != 64:
        against.append(f"its system is {facts.bits} bit; the runtimes need 64 bit")
    if facts.profile.page_bytes > _PAGE_BYTES:
        against.append(f"its memory pages are {facts.profile.page_bytes} bytes; up to {_PAGE_BYTES} work")
    state = facts.state
    if state and state.clock_s is not None and abs(state.clock_s - time.time()) > _CLOCK_S:
        days = (state.clock_s - time.time()) / 86400
        notes.append(f"its clock is {abs(days):.0f} days {'ahead' if days > 0 else 'behind'}; nothing here needs it")
    if state and state.throttled not in (None, "no"):
        notes.append(f"its firmware says: {state.throttled}")
    if (
        state
        and state.battery_percent is not None
        and state.battery_percent < 15
        and state.battery_status != "Charging"
    ):
        notes.append(f"its battery is at {state.battery_percent} %")
    return Verdict(tuple(against), tuple(notes), need)


def mb(n: int) -> str:
    """Bytes for people.

    >>> mb(42_000), mb(1_500_000), mb(12_345_678_900)
    ('42 kB', '1.5 MB', '12.3 GB')
    """
    if n < 100_000:
        return f"{n / 1e3:.0f} kB"
    return f"{n / 1e9:.1f} GB" if n >= 1e10 else f"{n / 1e6:.1f} MB"
