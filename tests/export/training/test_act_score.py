"""When an answer of smollm2-act is right: what it does is compared, not the bytes of its text."""

from __future__ import annotations

import pytest

from edge.export.training.act.requests import Case, call
from edge.export.training.act.score import right, same
from edge.runtimes.tool_calls import NO_TOOL_FITS


def case(*calls: dict, text: str = "") -> Case:
    return Case("known", (), (), {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})})


def written(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name":"{name}","arguments":{arguments}}}\n</tool_call>'


HEAT = case(call("heat", {"degrees": 20.0, "room": "attic", "fast": True}))


@pytest.mark.parametrize(
    ("arguments", "is_right"),
    [
        ('{"degrees":20.0,"room":"attic","fast":true}', True),
        ('{"room": "attic", "fast": true, "degrees": 20}', True),
        ('{"degrees":20.5,"room":"attic","fast":true}', False),
        ('{"degrees":20.0,"room":"attic","fast":1}', False),
        ('{"degrees":"20.0","room":"attic","fast":true}', False),
        ('{"degrees":20.0,"room":" attic","fast":true}', False),
        ('{"degrees":20.0,"fast":true}', False),
        ('{"degrees":20.0,"room":"attic","fast":true,"more":1}', False),
        ('{"degrees":20.0,"room":"attic",', False),
    ],
)
def test_arguments_are_compared_as_json_values(arguments, is_right):
    assert right(HEAT, written("heat", arguments)) is is_right


def test_another_tool_or_one_more_is_wrong():
    arguments = '{"degrees":20,"room":"attic","fast":true}'
    assert not right(HEAT, written("cool", arguments))
    assert not right(HEAT, "\n".join([written("heat", arguments)] * 2))
    assert not right(HEAT, NO_TOOL_FITS)


def test_two_calls_have_an_order():
    both = case(call("a", {}), call("b", {}))
    assert right(both, f"{written('a', '{}')}\n{written('b', '{}')}")
    assert not right(both, f"{written('b', '{}')}\n{written('a', '{}')}")


def test_a_question_or_refusal_has_its_words_and_no_call():
    asks = case(text="Please tell me: room")
    assert right(asks, "Please tell me: room")
    assert not right(asks, "Please tell me: door")
    assert not right(case(text=NO_TOOL_FITS), written("heat", "{}"))


def test_lists_and_objects_are_compared_through_and_through():
    assert same([1, {"a": [False]}], [1.0, {"a": [False]}])
    assert not same([1, {"a": [False]}], [1, {"a": [0]}])
    assert not same(["a"], ["a", "b"])
