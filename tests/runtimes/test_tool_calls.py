"""Tool calls as text, and the template that shows tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.export.zoo._assemble import ADAPTERS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tool_calls import NO_TOOL_FITS, ToolCall, ask, read, write

TEMPLATE = ChatTemplate((ADAPTERS / "smollm2-act" / "chat_template.jinja").read_text(encoding="utf-8"))
LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a lamp.",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "description": "which room"},
                "state": {"type": "string", "enum": ["on", "off"]},
                "scenes": {"type": "array", "items": {"type": "string"}},
                "level": {"type": ["integer", "null"], "description": "in percent"},
                "extra": {},
            },
            "required": ["room", "state"],
        },
    },
}
TV_ON = ToolCall("tv", {"state": "on"})

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), values, max_size=4)), max_size=3))
def test_what_is_written_is_read_again(calls):
    if "tool_call>" in write(calls).replace("<tool_call>\n", "").replace("\n</tool_call>", ""):
        return  # a text that holds the tags themselves ends where they do
    found = read(write(calls))
    assert (list(found.calls), found.text, found.sound) == (calls, "", True)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('<tool_call>{"name":"tv","arguments":{"state":"on"}}</tool_call>', (TV_ON,)),
        ('<tool_call>\n{"name": "tv", "arguments": {"state": "on"}}', (TV_ON,)),
        ('{"name": "tv", "parameters": {"state": "on"}}', (TV_ON,)),
        ('[{"name": "tv", "arguments": {"state": "on"}}, {"name": "off"}]', (TV_ON, ToolCall("off", {}))),
        ("[1, 2]", ()),
        ('{"a": 1}', ()),
        ("Good morning.", ()),
    ],
)
def test_forms_of_several_models_are_read(text, calls):
    assert read(text).calls == calls
    assert read(text).sound


@pytest.mark.parametrize(
    "broken",
    [
        "{", '{"name": 5}', '{"arguments": {}}', '{"name":"a","arguments":[1]}', "[" * 5000, '{"name":"a"',
        '{"name":"a","arguments":{"x":NaN}}', '{"name":"a","arguments":{"x":"\\ud800"}}', '{"name":"\\udfff"}',
    ],
)  # fmt: skip
def test_a_block_that_holds_no_call_is_not_sound(broken):
    found = read(f"<tool_call>{broken}</tool_call>")
    assert not found.sound
    assert found.calls == ()


def test_refusals_and_questions_are_told_apart():
    assert read(NO_TOOL_FITS).refuses
    assert read(ask(["room", "state"])).asks_for == ("room", "state")
    assert not read("Hello").refuses
    assert read("Hello").asks_for == ()


def test_tools_are_shown_in_one_line_each():
    text = TEMPLATE.render([{"role": "user", "content": "Hi"}], tools=[LIGHT, {"name": "bare"}])
    assert (
        "\n-set_light(room:string, which room;state:on|off;scenes?:list of string;"
        "level?:integer|null, in percent;extra?:any) Switch a lamp.\n-bare() <|im_end|>\n" in text
    )
    assert text.endswith("<|im_start|>user\nHi\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_request_is_shown_again_word_by_word_where_there_are_tools():
    messages = [{"role": "user", "content": "lock the side door"}]
    assert "<|im_start|>user\nlock the side door\nlock\nthe\nside\ndoor<|im_end|>" in TEMPLATE.render(
        messages, tools=[LIGHT]
    )
    assert "<|im_start|>user\nlock the side door<|im_end|>" in TEMPLATE.render(messages)
    parts = [{"role": "user", "content": [{"type": "text", "text": "a door"}]}]
    assert "\ndoor" not in TEMPLATE.render(parts, tools=[LIGHT])


def test_calls_and_results_of_earlier_turns_are_shown():
    messages = [
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "TV on"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "tv", "arguments": {"state": "on"}}}],
        },
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "tv", "arguments": '{"state":"off"}'}] * 2},
    ]
    text = TEMPLATE.render(messages, tools=[LIGHT], add_generation_prompt=False)
    assert text.startswith("<|im_start|>system\nBe quick.\nAct by calling these tools:\n-set_light(")
    assert f"<|im_start|>assistant\n{write([TV_ON])}<|im_end|>\n<|im_start|>tool\ndone<|im_end|>\n" in text
    assert f"<|im_start|>assistant\n{write([ToolCall('tv', {'state': 'off'})] * 2)}<|im_end|>\n" in text


def test_without_tools_it_is_the_template_of_smollm2():
    text = TEMPLATE.render([{"role": "user", "content": "Hi"}])
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
