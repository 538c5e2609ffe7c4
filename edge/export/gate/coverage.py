"""Every source tensor is in the export exactly once, and the weights have the bits they were asked to have."""

from __future__ import annotations

from collections import Counter

from edge.export.artifact import Artifact, Quantization
from edge.export.checkpoint import Checkpoint

_TOLERANCE = 1.25  # small matrices, and those a format cannot quantize, cost bits


def coverage(checkpoint: Checkpoint, artifact: Artifact, asked: Quantization) -> tuple[dict[str, object], list[str]]:
    """What the ledger adds up to, and what is wrong with it.

    A tensor may be dropped, with a note that says why; it may not be missing. An export that
    was asked to quantize and did not is an error, whatever its file is called.
    """
    counts = Counter(name for entry in artifact.ledger for name in entry.source)
    failures = []
    for words, found in (
        ("are missing from the export", sorted(set(checkpoint.tensors) - set(counts))),
        ("are in the export twice", sorted(n for n, k in counts.items() if k > 1)),
        ("are in the export but not in the source", sorted(set(counts) - set(checkpoint.tensors))),
    ):
        if found:
            failures.append(f"{len(found)} tensors {words}: {', '.join(found[:3])}")
    dropped = [e for e in artifact.ledger if e.transform == "drop"]
    failures += [f"{e.source[0]} was dropped without a reason" for e in dropped if not e.note]
    stored = [e for e in artifact.ledger if e.target]
    n_elements = sum(e.n_elements for e in stored)
    n_bytes = sum(e.n_bytes for e in stored)
    achieved = 8 * n_bytes / max(1, n_elements)
    if asked.bits < 16 and achieved > 16:
        failures.append(f"nothing was quantized: {achieved:.1f} bits per weight, {asked.name} should have {asked.bits}")
    file_bytes = sum((artifact.folder / name).stat().st_size for name in artifact.files)
    if n_bytes > file_bytes:
        failures.append(f"the ledger has {n_bytes:,} bytes of tensors, the files only {file_bytes:,}")
    by_type: dict[str, int] = {}
    for entry in stored:
        by_type[entry.type] = by_type.get(entry.type, 0) + entry.n_bytes
    record = {
        "source_tensors": len(checkpoint.tensors),
        "accounted": len(set(counts) & set(checkpoint.tensors)),
        "dropped": {e.source[0]: e.note for e in dropped},
        "bits_per_weight": round(achieved, 3),
        "bits_asked": asked.bits_per_weight,
        "above_asked": achieved > asked.bits_per_weight * _TOLERANCE,
        "bytes_by_type": dict(sorted(by_type.items())),
    }
    return record, failures
