"""The page: whole in itself, escaped, and the same as the golden one."""

import dataclasses
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edge.errors import InputError
from edge.measurement import read
from edge.report import render, tables
from edge.report.axes import NARROW, Axis, Point, points
from edge.report.plots import Bar, Spread, Stack, bars, spreads, stacks
from tests.fixed_run import HOSTILE, acting_run, fixed_run

GOLDEN = Path(__file__).parent.parent / "golden"


class _Page(HTMLParser):
    """Tags with their attributes, and whether each is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    page = _Page()
    page.feed(text)
    assert page.open == []
    return page.tags


@pytest.mark.parametrize(("name", "runs"), [("report", [fixed_run()]), ("report-acting", [acting_run()])])
def test_it_is_the_golden_page(name, runs):
    """After a change that is meant: EDGE_WRITE_GOLDEN=1 pytest tests/report, and look at it in a browser."""
    found = render(runs)
    golden = GOLDEN / f"{name}.html"
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def test_it_asks_for_nothing_from_anywhere():
    text = render([fixed_run(), acting_run()])
    tags = parsed(text)
    assert not [t for t, _ in tags if t in {"script", "link", "img", "iframe", "object"}]
    assert not [a for _, attrs in tags for a in attrs if a in {"src", "href", "onload", "onerror", "srcset"}]
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    [policy] = [a["content"] for t, a in tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_names_of_other_people_stay_text():
    text = render([fixed_run(), acting_run()])
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;") >= 3


def test_runs_of_different_machines_are_never_side_by_side():
    run = fixed_run()
    other = dataclasses.replace(run, device={**run.device, "cpu": "Raspberry Pi 4"})
    assert render([run]).count("not compared") == 0
    two = render([run, other])
    assert two.count("so they are not compared") == 2
    assert two.count("What differs from the first: cpu Raspberry Pi 5 and Raspberry Pi 4.") == 1
    assert "Raspberry Pi 4" in two


def test_an_unproven_bundle_and_a_lost_answer_are_said():
    text = render([fixed_run()])
    assert "Nobody knows whether it behaves like its source" in text
    assert "1 answer that was right at the source and is not any more" in text


def test_what_is_drawn_of_a_run():
    text = render([fixed_run()])
    for heading in ("what memory allows", "Does it last?", "What does it hold", "How long does the whole take?"):
        assert heading in text
    assert text.count("after 512 tokens") == 1
    assert "140.0 MB (Q8_0 139.0 MB, F32 1.0 MB); without 5.0 MB of experts" in text
    assert "50 mJ a token (RAPL package-0 (processor))" in text
    # 145 tok/s of 141.1 MB each, of 17 GB/s
    assert ">120 %<" in text


def test_an_old_run_is_a_page_too():
    text = render([read(GOLDEN / "run-schema-1.json")])
    assert "What does it hold in memory?" in text
    assert "Does it last?" not in text
    assert "what memory allows" not in text


def test_quality_stands_beside_speed_for_exports_of_one_source():
    run = fixed_run()
    [first, _] = run.results

    def result(label, rate, lost, source="a"):
        decode = dataclasses.replace(first.measurements["decode"], samples=(rate,))
        quality = {**first.bundle["quality"], "logits": {**first.bundle["quality"]["logits"], "mean_kld": lost}}
        bundle = {**first.bundle, "quantization": label, "quality": quality, "source": {"files": {"m": source}}}
        return dataclasses.replace(first, bundle=bundle, measurements={**first.measurements, "decode": decode})

    results = (result("fast", 200.0, 0.05), result("exact", 100.0, 0.001), result("beaten", 90.0, 0.04))
    text = render([dataclasses.replace(run, results=results)])
    assert "joined: gguf fast, gguf exact." in text
    apart = render([dataclasses.replace(run, results=(results[0], result("other", 100.0, 0.1, source="b")))])
    assert "What does speed cost?" not in apart


def test_a_run_that_was_cut_short_is_said():
    text = render([dataclasses.replace(fixed_run(), complete=False)])
    assert "this run was cut short" in text


def test_a_page_of_nothing():
    with pytest.raises(InputError, match="there is nothing in these runs"):
        render([dataclasses.replace(fixed_run(), results=())])


def test_emulated_results_are_said():
    run = fixed_run()
    emulated = dataclasses.replace(run, results=tuple(dataclasses.replace(r, emulated=True) for r in run.results))
    assert "Emulated: speeds say nothing" in render([emulated])


def test_the_machine_is_shown_before_while_and_after():
    text = render([fixed_run()])
    for name, *cells in (
        ("temperature", "44 °C", "55 °C to 58 °C", "51 °C"),
        ("battery", "not measured", "not measured", "not measured"),
    ):
        heads = zip(("before", "while it ran", "afterwards"), cells, strict=True)
        row = "".join(f'<td data-name="{head}">{cell}</td>' for head, cell in heads)
        assert f'<td class="whole">{name}</td>{row}' in text


def test_bars_are_as_long_as_their_values():
    svg = str(bars([Bar("a", "gguf", 10, 9, 11, "10"), Bar("b", "onnx", 5, 5, 5, "5")], "speed"))
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', svg)]
    assert abs(widths[0] - 2 * widths[1]) < 0.2
    assert svg.count('class="whisker"') == 1


def test_plots_of_nothing_and_of_zeros_are_drawn():
    assert str(bars([], "x")).startswith("<svg")
    assert str(stacks([Stack("a", "gguf", (("x", 0.0),), None, "0")], "x")).startswith("<svg")
    assert str(spreads([Spread("a", "gguf", (0.0,) * 6, "0")], "x")).startswith("<svg")


def test_a_stack_that_passes_its_limit_shows_both():
    svg = str(stacks([Stack("a", "gguf", (("w", 100.0), ("rest", 50.0)), 120.0, "150")], "x"))
    [limit] = re.findall(r'x1="([\d.]+)"[^>]*class="limit"', svg)
    ends = [float(x) + float(w) for x, w in re.findall(r'<rect x="([\d.]+)"[^>]*width="([\d.]+)"', svg)]
    assert ends[0] < float(limit) < ends[1]


def test_the_same_bundle_in_two_runs_is_told_apart():
    before, after = (dataclasses.replace(run, results=run.results[:1]) for run in (fixed_run(), fixed_run()))
    after = dataclasses.replace(after, taken_at="2026-11-25T06:00:00+00:00")
    text = render([before, after])
    assert "taken: run 1 at 2026-11-24T06:00:00+00:00, run 2 at 2026-11-25T06:00:00+00:00" in text
    assert ">gguf q8_0, run 1<" in text
    assert ">gguf q8_0, run 2<" in text
    said = tables.markdown([before, after])
    assert "| SmolLM2-135M-Instruct gguf q8_0, run 2 |" in said


def test_so_are_two_bundles_that_are_called_alike():
    run = fixed_run()
    [result, *_] = run.results
    other = dataclasses.replace(result, bundle={**result.bundle, "id": "fedcba987654"})
    text = render([dataclasses.replace(run, results=(result, other))])
    assert ">gguf q8_0 (fedcba987654)<" in text
    assert ", run " not in text


def test_what_is_said_of_one_bundle_has_its_name_in_markdown():
    run = fixed_run()
    first, second = run.results
    run = dataclasses.replace(run, results=(dataclasses.replace(first, notes=("it swapped", "it slept")), second))
    assert "- SmolLM2-135M-Instruct gguf q8_0: it swapped; it slept" in tables.markdown([run])


def test_on_a_phone_many_points_have_numbers_and_their_names_beneath():
    rows = [Point(f"bundle {i}", "gguf", 100.0 + i, 50.0, "") for i in range(4)]
    axes = Axis("MB", 0.0, 200.0), Axis("tok/s", 0.0, 100.0)
    narrow = points(rows, *axes, "speed", shape=NARROW)
    assert all(f">{i}</text>" in narrow and f">bundle {i - 1}</text>" in narrow for i in range(1, 5))
    assert ">1</text>" not in points(rows, *axes, "speed")


def test_bundles_that_nobody_compared_share_one_card():
    run = fixed_run()
    unproven = [dataclasses.replace(r, bundle={**r.bundle, "quality": {}}) for r in run.results]
    text = render([dataclasses.replace(run, results=tuple(unproven))])
    assert len(unproven) > 1
    assert text.count("never compared</span>") == 1
    assert "They were exported with --no-gate. Nobody knows whether they behave like their source." in text
    assert "Each export answered the same text" not in text
