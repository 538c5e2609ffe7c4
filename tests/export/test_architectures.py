"""Types of checkpoints in formats: what the committed table says is what the product does now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import parity

NMSE_FULL = 1e-6  # the gate's own limit
NMSE_8BIT = 2e-2  # more than the gate allows: a random router is often undecided, and rounding changes its mind
# Half a minute for a conversion to TFLite, and nearly as much for a gate with pictures: of those, CI repeats one type
# of each family and leaves out what tests/runtimes/test_vision_runtime.py shows. EDGE_EVERY_CELL=1 repeats them all.
SEEING = {m for m in parity.makers() if parity.family(m) == "vlm"}
REPEATED = {("phi_3", "tflite"), ("granite_moe", "tflite"), ("gemma_3_vision", "tflite")}
PAGE = parity.RESULTS.with_suffix(".md")
RESULTS = parity.read()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """maker -> its checkpoint, made when first asked for."""
    made: dict[str, Path] = {}

    def of(maker):
        if maker not in made:
            made[maker] = parity.make(maker, tmp_path_factory.mktemp(maker))
        return made[maker]

    return of


def cells():
    for maker, row in RESULTS.items():
        for name, result in row.items():
            dear = name == "tflite" or maker in SEEING
            if not dear or result.refused or (maker, name) in REPEATED or os.environ.get("EDGE_EVERY_CELL"):
                yield maker, name


@pytest.mark.runtime
@pytest.mark.parametrize(("maker", "format_name"), list(cells()))
def test_conversion(checkpoint, tmp_path, maker, format_name):
    found = parity.convert(checkpoint(maker), format_name, tmp_path)
    assert found.status == RESULTS[maker][format_name].status
    if not found.refused:
        assert found.nmse <= NMSE_FULL
        assert found.nmse_8bit <= NMSE_8BIT
        same, _, n = found.greedy.partition(" of ")
        assert same == n


def test_the_table_is_that_of_the_results():
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        PAGE.write_text(parity.page(RESULTS), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == parity.page(RESULTS)


def test_what_ci_repeats_is_in_the_table():
    assert all(not RESULTS[maker][name].refused for maker, name in REPEATED)
    assert {parity.family(maker) for maker, _ in REPEATED} == {parity.family(maker) for maker in parity.makers()}


def test_every_type_has_a_row_and_every_row_a_type():
    rows = PAGE.read_text(encoding="utf-8")
    assert all(f"| {parity.about(maker)[0]} |" in rows for maker in parity.makers())
    assert set(RESULTS) <= set(parity.makers())
