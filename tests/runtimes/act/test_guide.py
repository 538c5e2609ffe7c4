"""The guide's manifests are manifests, and its tables are those of the code."""

import json
import tomllib
from pathlib import Path

import pytest

from edge.find import load, names
from edge.runtimes.act import manifest
from tests.injections import driver
from tests.test_docs import ROOT, blocks, held

GUIDE = ROOT / "docs/guides/tools.md"


@pytest.mark.parametrize("text", blocks(GUIDE, "toml"))
def test_every_manifest_in_the_guide_is_one(text):
    assert manifest.parse(tomllib.loads(text), folder=Path("/"), where="the guide").tools


@pytest.mark.parametrize("module", [manifest, *(load(manifest.TOOLSETS, n) for n in names(manifest.TOOLSETS))])
def test_every_manifest_in_a_docstring_is_one(module):
    lines = [line[4:] for line in module.__doc__.splitlines() if line.startswith("    ") or not line.strip()]
    if text := "\n".join(lines).strip():
        assert manifest.parse(tomllib.loads(text), folder=Path("/"), where="a docstring").tools


def test_the_table_of_built_in_tools_is_that_of_the_code():
    rows = "\n| set | tools | |\n| --- | --- | --- |\n"
    for name in names(manifest.TOOLSETS):
        tools = ", ".join(f"`{tool.name}`" for tool in manifest.read(name).tools.values())
        about = load(manifest.TOOLSETS, name).__doc__.partition(":")[0].partition("\n")[0].strip()
        rows += f"| `{name}` | {tools} | {about} |\n"
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition("<!-- toolsets -->\n")
    after = rest.partition("<!-- /toolsets -->")[2]
    held(GUIDE, f"{before}<!-- toolsets -->{rows}<!-- /toolsets -->{after}")


def test_the_table_of_attacks_is_that_of_the_results():
    samples = json.loads((ROOT / "benchmarks/results/injections.json").read_text())["samples"]
    rows = "\n| | against the user's will | their tasks, under attack | not attacked |\n| --- | --- | --- | --- |\n"
    for way in driver.WAYS:
        [sums], cases = samples[f"{way}, in all"], len(samples[way])
        tasks = sum("useful" in sample for sample in samples[way])
        done = [f"{sums[key]:.0f} of {tasks}" for key in ("useful", "useful_unattacked")]
        rows += f"| {way} | {sums['unauthorised']:.0f} of {cases} | {' | '.join(done)} |\n"
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition("<!-- injections -->\n")
    after = rest.partition("<!-- /injections -->")[2]
    held(GUIDE, f"{before}<!-- injections -->{rows}<!-- /injections -->{after}")


def test_every_key_of_a_manifest_is_in_the_guide():
    text = GUIDE.read_text(encoding="utf-8")
    for key in (*manifest.KEYS, *names(manifest.EXECUTORS)):
        assert f"`{key}`" in text
