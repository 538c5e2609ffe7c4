"""What acting took, on the page and as a table."""

import dataclasses

from edge.report import acting, render, tables
from edge.report.page import grouped
from edge.runtimes.act import measured
from tests.fixed_run import acting_run, fixed_run


def changed(run, **more):
    """The run with other measurements of its first result, or without those that are None."""
    [first, *_] = run.results
    taken = {name: m for name, m in {**first.measurements, **more}.items() if m is not None}
    return dataclasses.replace(run, results=(dataclasses.replace(first, measurements=taken),))


def test_the_stages_are_those_that_are_measured():
    assert tuple(acting.STAGES) == measured.STAGES


def test_stages_requests_and_what_came_of_them_are_shown():
    text = render([acting_run()])
    for words in ("Where does the time go?", "intent: the model says", "delete draft.txt and list the files", "2 of 3"):
        assert words in text
    assert "edge bench out/acts --act -o act.json" in text
    assert "Raspberry Pi 5" in text
    assert "How fast does it answer?" not in text
    assert "None" not in text


def test_a_percentile_of_too_few_samples_is_a_dash():
    [first, _] = acting_run().results
    taken = first.measurements["act_intent"]
    assert acting.tail_words(taken, (50, 95)).endswith(" / –")
    many = dataclasses.replace(taken, samples=taken.samples * 3, repeats=taken.repeats * 3)
    assert acting.tail_words(many, (50, 95, 99)) == "250 / 570 / –"


def test_the_means_of_the_stages_add_up_to_the_request():
    [first, _] = acting_run().results
    parts = acting._means(first)
    whole = first.measurements["act_request"].samples
    assert abs(sum(parts.values()) - sum(whole) / len(whole)) < 0.2  # what is between the stages


def test_requests_are_told_apart_only_where_all_were_made():
    [first, _] = acting_run().results
    assert [row["actions"] for row in acting.requests(first)] == ["1", "2", "0"]
    assert [row["tokens"] for row in acting.requests(first)] == ["27", "60", "9"]
    short = dataclasses.replace(first.measurements["act_request"], samples=(1.0, 2.0), repeats=(2,))
    cut = changed(acting_run(), act_request=short)
    assert acting.requests(cut.results[0]) == []
    assert "What was asked?" not in render([cut])


def test_a_run_without_some_stages_is_a_page_too():
    bare = changed(acting_run(), act_plan=None, act_action=None, act_actions=None, act_tokens=None, act_ready=None)
    text = render([bare])
    assert "plan: steps" not in text
    assert "intent: the model says" in text
    none = dict.fromkeys(name for name in acting_run().results[0].measurements if name.startswith("act_"))
    assert "Where does the time go?" not in render([changed(acting_run(), **none)])


def test_acting_and_answering_stand_apart_and_say_why():
    text = render([fixed_run(), acting_run()])
    assert "Section 2 of 2" in text
    assert "What differs from the first: one measured answering, the other acting." in text
    assert len(grouped([fixed_run(), acting_run()])) == 2


def test_other_requests_are_another_section():
    run = acting_run()
    other = tuple(dataclasses.replace(r, settings={**r.settings, "act": ["sing", "sing", "sing"]}) for r in run.results)
    assert len(grouped([run, dataclasses.replace(run, results=other)])) == 2


def test_markdown_has_a_column_for_each_stage():
    text = tables.markdown([acting_run()])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "| perception | recall | intent | plan | execution |" in rows[0]
    assert "3 requests to act" in text
    assert "2 of 3" in text


def test_every_measurement_is_a_line_of_csv():
    lines = tables.comma_separated([acting_run()]).splitlines()
    assert len([line for line in lines if ",act_execution," in line]) == 2
