"""The gate's tool calls: what counts as right, as kept, as lost, and when an export fails by them."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest

from edge.export import calibrate
from edge.export.gate.replies import Reply
from edge.export.gate.tool_calls import Case, cases, compare, judge, score
from edge.export.zoo._assemble import ADAPTERS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import NO_TOOL_FITS, Answer, ToolCall, read, write
from tests.tiny_bundle import tiny_bundle

ON, OFF = (ToolCall("light", {"room": "hall", "state": s}) for s in ("on", "off"))
TEXTS = (write([ON]), write([OFF]), NO_TOOL_FITS, "<tool_call>{</tool_call>", "Hello")
TOKENIZER = SimpleNamespace(decode=lambda ids, skip_special: TEXTS[ids[0]])
TEMPLATE = ChatTemplate((ADAPTERS / "smollm2-act" / "chat_template.jinja").read_text(encoding="utf-8"))


def wanted(answer: Answer) -> Case:
    return Case("known", "light on", (1,), answer)


def replies(*ids: int, margin: float = 3.0) -> list[Reply]:
    return [Reply((i,), (margin, margin)) for i in ids]


def test_scores_are_those_worked_out_by_hand():
    asked = [wanted(Answer((ON,)))] * 3 + [wanted(Answer(text=NO_TOOL_FITS))] * 2
    found = score(asked, [read(TEXTS[i]) for i in (0, 1, 2, 2, 3)])
    assert found.tool == pytest.approx(2 / 3, abs=1e-4)
    assert found.exact == pytest.approx(1 / 3, abs=1e-4)
    # Wanted six arguments, given four, three of them right.
    assert found.argument_f1 == pytest.approx(2 * 3 / (6 + 4), abs=1e-4)
    assert found.json == pytest.approx(4 / 5)
    assert found.refusals == pytest.approx(1 / 2)


def test_order_of_calls_counts_and_order_of_arguments_does_not():
    both = wanted(Answer((ON, OFF)))
    assert both.accepts(Answer((ToolCall("light", {"state": "on", "room": "hall"}), OFF)))
    assert not both.accepts(Answer((OFF, ON)))
    assert not wanted(Answer((ON,))).accepts(Answer((ON, ON)))
    assert not wanted(Answer((ToolCall("a", {"n": 1}),))).accepts(Answer((ToolCall("a", {"n": "1"}),)))


def test_a_case_where_no_call_is_right_wants_none():
    idle = wanted(Answer(text=NO_TOOL_FITS))
    assert idle.accepts(Answer(text="I cannot do that."))
    assert not idle.accepts(Answer((ON,)))
    assert not idle.accepts(Answer(sound=False))


def test_only_what_the_source_calls_rightly_is_judged_and_near_ties_are_apart():
    asked = [wanted(Answer((ON,)))] * 30
    source = replies(*[0] * 25, *[1] * 5)
    source[0] = Reply((0,), (0.01, 3.0))
    found = compare(asked, source, iter([(1,)] * 2 + [(0,)] * 28), TOKENIZER)
    assert (found["source_right"], found["kept"], len(found["lost"]), len(found["near_ties"])) == (25, 23, 1, 1)
    assert found["share_kept"] == pytest.approx(23 / 24)
    assert found["lost"][0] == {"request": "light on", "reply": TEXTS[1]}
    assert found["identical_replies"] == 23


def test_too_many_lost_calls_fail():
    asked = [wanted(Answer((ON,)))] * 30
    found = compare(asked, replies(*[0] * 30), iter([(1,)] * 3 + [(0,)] * 27), TOKENIZER)
    assert judge(found, 0.9) == []
    [failure] = judge(found, 0.95)
    assert "the source makes rightly 90% are still made (95% must be): 'light on' gives" in failure


def test_broken_json_fails_even_when_no_right_call_was_lost():
    asked = [wanted(Answer((ON,)))] * 30
    found = compare(asked, replies(*[0] * 24, *[1] * 6), iter([(0,)] * 24 + [(3,)] * 6), TOKENIZER)
    [failure] = judge(found, 0.95)
    assert failure == "80% of the answers can be read as tool calls or text, 100% of the source's"


def test_a_source_that_can_hardly_call_is_not_judged():
    asked = [wanted(Answer((ON,)))] * 30
    found = compare(asked, replies(*[0] * 10, *[4] * 20), iter([(4,)] * 30), TOKENIZER)
    assert found["share_kept"] is None
    assert judge(found, 1.0) == []


def test_the_cases_that_ship_share_their_manifests(tmp_path):
    tiny_bundle(tmp_path)
    found = cases(Tokenizer.load(tmp_path), TEMPLATE)
    assert len(found) == 96
    assert len({c.prompt for c in found}) == len(found)
    shared = [
        next((i for i, (x, y) in enumerate(zip(a.prompt, b.prompt, strict=False)) if x != y), 0)
        for a, b in pairwise(found)
    ]
    assert sum(n > 100 for n in shared) > 70
    assert all(c.accepts(c.wanted) for c in found)


def test_calibration_and_judging_of_a_model_that_acts_share_no_text(tmp_path):
    tiny_bundle(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    calibration = calibrate.default_calibration(tokenizer, TEMPLATE)
    judged = calibrate.held_out(tokenizer, TEMPLATE)
    assert calibration.source == "edge: tool_calibration.jsonl and calibration.jsonl"
    assert judged.source == "edge: tool_calls.jsonl and held_out.jsonl"
    seen = {run for window in calibration.windows for run in runs(window, tokenizer)}
    assert len(seen) > 2000
    shared = seen & {run for window in judged.windows for run in runs(window, tokenizer)}
    assert {run for run in shared if not {"SmolLM,", "tools:"} & set(run)} == set()


def runs(window: tuple[int, ...], tokenizer: Tokenizer) -> list[tuple[str, ...]]:
    """Twelve words in a row."""
    words = tokenizer.decode(list(window), skip_special=False).split()
    return [tuple(words[i : i + 12]) for i in range(len(words) - 11)]


def test_only_models_that_act_get_tool_calls_to_read(tmp_path):
    tiny_bundle(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    plain = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert calibrate.held_out(tokenizer, plain).source == "edge: held_out.jsonl"
    assert calibrate.default_calibration(tokenizer, plain).source == "edge: calibration.jsonl"


def test_the_answer_of_a_case_is_part_of_the_text_to_judge_by(tmp_path):
    tiny_bundle(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    path = calibrate._CORPUS / "tool_calls.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    text = tokenizer.decode(calibrate._line(json.dumps(row), "x", tokenizer, TEMPLATE), skip_special=False)
    assert write([ToolCall(c["name"], c["arguments"]) for c in row["calls"]]) in text
