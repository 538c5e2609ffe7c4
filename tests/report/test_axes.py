"""Plots with two axes: what is drawn where."""

import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from edge.report import pictures
from edge.report.axes import NARROW, WIDE, Axis, Line, Point, lines, points, ticks, wide_and_narrow
from tests.fixed_run import HOSTILE, fixed_run

X, Y = Axis("x", 0.0, 10.0), Axis("y", 0.0, 10.0)


def circles(svg):
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', str(svg))]


def test_more_is_to_the_right_and_higher():
    for shape in (WIDE, NARROW):
        low, high = circles(
            points([Point("a", "gguf", 1, 1, ""), Point("b", "onnx", 9, 9, "")], X, Y, "t", shape=shape)
        )
        assert low[0] < high[0]
        assert low[1] > high[1]


def test_what_is_above_the_axis_stays_in_the_picture():
    [at] = circles(points([Point("a", "gguf", 5, 1e9, "")], X, Y, "t"))
    assert 0 < at[1] < 320


def test_names_do_not_lie_on_one_another():
    rows = [Point(f"name {i}", "gguf", 5 + i / 50, 5 + i / 50, "") for i in range(4)]
    svg = str(wide_and_narrow(points, rows, X, Y, "t"))
    at = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)" class="name halo"', svg)]
    assert len(at) == 8
    assert len(set(at[:4])) == len(set(at[4:])) == 4


def test_a_name_at_the_edge_is_inside():
    rows = [Point("a name that is rather long, q8_0", "gguf", x, y, "") for x in (0.1, 9.9) for y in (0.1, 9.9)]
    more = {"ceiling": lambda x: 99 / x, "ceiling_name": "what 17.0 GB/s allow"}
    svg = str(wide_and_narrow(points, rows, X, Y, "t", **more))
    heights = [float(y) for y in re.findall(r'<text x="[\d.-]+" y="([\d.-]+)" class="name halo"', svg)]
    assert len(heights) == 8
    assert all(y >= 12 for y in heights)
    assert all(y <= 274 for y in heights[:4])
    assert all(y <= 234 for y in heights[4:])


def test_the_ceiling_is_drawn_only_where_it_is_inside():
    svg = str(points([], X, Y, "t", ceiling=lambda x: 20 / x, ceiling_name="limit"))
    path = re.search(r'<path d="([^"]+)" class="ceiling"', svg)[1]
    assert all(float(y) >= 14 for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path))
    assert "limit" in svg
    assert "ceiling" not in str(points([], X, Y, "t", ceiling=lambda _: 1e9))


def test_a_second_line_of_one_colour_is_dashed():
    row = Line("a", "gguf", ((0.0, 1.0), (5.0, 2.0)))
    rows = [row, dataclasses.replace(row, name="b"), dataclasses.replace(row, kind="onnx")]
    svg = str(wide_and_narrow(lines, rows, X, Y, "t"))
    assert svg.count('"curve gguf dash0"') == 4  # the line and its sample beside the name, in both shapes
    assert svg.count('"curve gguf dash1"') == 4
    assert svg.count('"curve onnx dash0"') == 4


def test_names_of_other_people_stay_text():
    svg = str(points([Point(HOSTILE, "gguf", 1, 1, HOSTILE)], X, Y, HOSTILE)) + str(
        lines([Line(HOSTILE, "gguf", ((0.0, 1.0),))], X, Y, HOSTILE)
    )
    assert "<script" not in svg


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low, wide):
    found = ticks(low, low + wide)
    assert len(found) <= 12
    slack = 1e-6 * max(abs(low), wide)
    assert all(low - slack <= t <= low + wide + slack for t in found)


def test_the_distribution_ends_at_all_tokens():
    [result, *_] = fixed_run().results
    svg = str(pictures.distribution([result], {id(result): "a"}))
    path = re.search(r'<path d="([^"]+)" class="curve', svg)[1]
    heights = [float(y) for y in re.findall(r"V([\d.]+)", path)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == 14.0  # a hundred of a hundred
