"""The documentation is true: commands parse, links lead somewhere, tables are those of the code.

`EDGE_WRITE_GOLDEN=1 pytest tests/test_docs.py` writes the tables anew.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from pathlib import Path

import pytest

from edge.cli import parser
from edge.export.gate import limits
from edge.find import load, names

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
GUIDES = [p for p in PAGES if "decisions" not in p.parts]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for page in GUIDES for block in blocks(page, "console") for line in block.splitlines()]
    return sorted({line.split(" #")[0].strip() for line in lines if line.startswith("edge ")})


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_guides_is_one(line):
    words = shlex.split(line.split(" < ")[0])
    parser().parse_args(words[1:])  # exits when an option does not exist


def test_the_guides_show_commands():
    assert len(commands()) > 10


@pytest.mark.parametrize("name", names("edge.commands"))
def test_every_example_in_the_help_is_a_command(name):
    text = load("edge.commands", name).__doc__
    lines = [line.strip() for line in text.partition("examples:")[2].splitlines() if "edge " in line]
    assert lines
    for line in lines:
        words = shlex.split(line.split("| ")[-1].split(" > ")[0])
        parser().parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_in_the_guides_is_python_with_names_that_exist(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module, fromlist=["_"])
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_makefile_has_what_the_readme_says():
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    assert all(f"\n{t}:" in makefile for t in targets)


def held(page: Path, text: str) -> None:
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text


def test_the_table_of_quantizations_is_that_of_the_formats():
    text = "# Quantizations\n\nGenerated from the formats themselves. Portable names are what every format knows.\n"
    for name in names("edge.export.formats"):
        module = load("edge.export.formats", name)
        portable = {own: common for common, own in module.PORTABLE.items()}
        text += (
            f"\n## {name}\n\n| name | portable | bits per weight | calibrated | |\n| --- | --- | --- | --- | --- |\n"
        )
        for q in module.QUANTIZATIONS.values():
            calibrated = "yes" if q.calibrated else ""
            text += (
                f"| `{q.name}` | {portable.get(q.name, '')} | {q.bits_per_weight:.2f} | {calibrated} | {q.about} |\n"
            )
    held(ROOT / "docs/reference/quantizations.md", text)


def test_the_table_of_limits_is_that_of_the_gate():
    page = ROOT / "docs/guides/gate.md"
    labels = {32: "fp32", 16: "fp16, bf16"}
    rows = ""
    for bits in sorted(limits.CLASSES, reverse=True):
        bound = limits.limits(bits, 10**9)
        nmse = "" if bound.nmse is None else f"{bound.nmse:g}"
        rows += (
            f"| {labels.get(bits, f'{bits} bit')} | {nmse} | {bound.mean_kld:g} | {bound.same_top1:.1%} | "
            f"{bound.answers_kept:.0%} | {bound.tool_calls_kept:.0%} |\n"
        ).replace("%", " %")
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- limits -->\n")
    after = rest.partition("<!-- /limits -->")[2]
    held(page, f"{before}<!-- limits -->\n{rows}<!-- /limits -->{after}")


def test_the_page_of_performance_is_made_from_the_results():
    from benchmarks import table

    held(table.PAGE, table.page(table.records()))


def test_the_page_of_quality_and_its_plots_are_made_from_the_results():
    from benchmarks import quality_size_page as made

    kept = made.rows()
    held(made.PAGE, made.page(kept))
    for name, text in made.plots(kept).items():
        held(made.PAGE.with_name(name), text)


def test_every_result_is_of_a_benchmark_that_is_there():
    from benchmarks import table

    for name, record in table.records().items():
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()
        assert record["samples"]


def test_the_tests_that_the_page_of_faults_names_are_there():
    text = (ROOT / "docs/reference/faults.md").read_text(encoding="utf-8")
    names, file = [], ""
    for named, test in re.findall(r"`([\w/]+\.py)`|\b(test_\w+)(?!\.py)\b", text):
        file = named or file
        if test:
            names.append((file, test))
    assert len(names) > 30
    for file, test in names:
        assert f"def {test}(" in (ROOT / "tests/devices" / file).read_text(encoding="utf-8"), (file, test)
