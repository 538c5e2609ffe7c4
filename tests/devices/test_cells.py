"""Families in formats on devices: what the committed table says is what happens now."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tests import cells
from tests.rigs import machines

PAGE = cells.RESULTS.with_suffix(".md")
RESULTS = cells.read()
ALL = [(family, k, d) for d in cells.DEVICES for k in cells.FORMATS for family in cells.FAMILIES]
# A cell takes half a minute or more under emulation; tests/devices/pack has phones in all three formats, one that sees,
# and a Raspberry Pi. EDGE_EVERY_CELL=1 repeats all of them.
REPEATED = {("llm", "gguf", "laptop"), ("lam", "onnx", "pi"), ("moe", "gguf", "android")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(family, format) -> its bundle, made when first asked for."""
    work, made = tmp_path_factory.mktemp("cells"), {}

    def of(family, format_name):
        if (family, format_name) not in made:
            made[family, format_name] = cells.export(family, format_name, work)
        return made[family, format_name]

    return of


@pytest.fixture
def device(request, tmp_path):
    """The kind's device, which other tests use too; of this machine, a store of its own."""
    if request.param != "laptop":
        yield request.getfixturevalue({"pi": "pi", "android": "phone"}[request.param])
        return
    with machines.laptop(tmp_path) as device:
        yield device


@pytest.mark.rig
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("family", "format_name", "device"),
    [cell for cell in ALL if cell in REPEATED or os.environ.get("EDGE_EVERY_CELL")],
    indirect=["device"],
)
def test_cell(exported, tmp_path, family, format_name, device, request):
    kind = request.node.callspec.params["device"]
    found = cells.run(family, exported(family, format_name), device, tmp_path)
    recorded = RESULTS[family][format_name][kind]
    assert found == dataclasses.replace(recorded, runs_with=found.runs_with)  # another Python is no other result
    assert (found.refused, found.same + found.ties) == ("", found.compared)
    assert found.ties <= 1
    assert found.compared > 1
    assert found.emulated == (kind != "laptop")


def test_the_table_is_that_of_the_results():
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        PAGE.write_text(cells.page(RESULTS), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == cells.page(RESULTS)


def test_a_cell_that_was_not_run_or_refused_says_so():
    one = {
        "slm": {
            "gguf": {
                "pi": cells.Cell("x", same=3, ties=1, compared=8, emulated=True),
                "laptop": cells.Cell("x", refused="too big"),
            }
        }
    }
    [row] = [line for line in cells.page(one).splitlines() if line.startswith("| SLM | SmolLM2 | gguf ")]
    assert row == "| SLM | SmolLM2 | gguf | refused (1) | 3 of 8 (1 tied), emulated | not run |"
    assert cells.page(one).endswith("\n1. too big\n")
