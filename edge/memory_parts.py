"""What a process holds, cut into parts with names: from what the kernel counted, and what the manifest says.

The kernel knows pages of files from pages without one. Among those without, the cache's size is known from the
manifest, and what a runtime has copied of weights it does not map is the difference to the file; the rest is scratch.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.measurement import Result


@dataclass(frozen=True)
class Parts:
    """Bytes; they add up to the peak. `counted` says whether the kernel told the parts, or arithmetic did."""

    python: float
    mapped_weights: float
    copied_weights: float
    kv: float
    scratch: float
    counted: bool

    def named(self) -> list[tuple[str, float]]:
        """In the order in which they are drawn."""
        return [
            ("Python and libraries", self.python),
            ("weights, mapped from the file", self.mapped_weights),
            ("weights, copied", self.copied_weights),
            ("KV cache", self.kv),
            ("scratch", self.scratch),
        ]


def split(result: Result) -> Parts | None:
    """The peak of resident memory in parts, medians over the repetitions; `None` when it was not measured."""
    peak = result.median("peak_rss")
    if peak is None:
        return None
    file = float(result.bundle.get("memory", {}).get("weights_bytes") or 0)
    cache = float(result.bundle.get("kv_bytes") or 0)
    private, libraries = result.median("held_private"), result.median("held_libraries")
    mapped, before = result.median("held_weights"), result.median("private_before")
    if private is None or libraries is None or mapped is None or before is None:
        python = min(result.median("python_rss") or 0.0, peak)
        weights = min(file, peak - python)
        kv = min(cache, peak - python - weights)
        return Parts(python, weights, 0.0, kv, peak - python - weights - kv, counted=False)
    grown = max(0.0, private - before)
    kv = min(cache, grown)
    copied = min(max(0.0, file - mapped), grown - kv)
    # What the process held at its peak and had given back when it was looked at was scratch too.
    gone = max(0.0, peak - private - libraries - mapped)
    python = min(peak, libraries + min(before, private))
    return Parts(python, mapped, copied, kv, max(0.0, grown - kv - copied) + gone, counted=True)
