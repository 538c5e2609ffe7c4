"""Answers held to a form, whatever the logits."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EdgeError, UsageError
from edge.runtimes import tool_calls
from edge.runtimes.engines.echo import EchoSession
from edge.runtimes.grammar import Grammar, Grammars
from edge.runtimes.session import Sampling, generate, pick
from edge.runtimes.tokenizer import Tokenizer
from tests.tiny_bundle import STOP, tiny_tokenizer

LIGHT = {
    "name": "set_light",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}, "level": {"type": "integer"}},
        "required": ["room", "state"],
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
ON = '<tool_call>\n{"name":"set_light","arguments":{"room":"hall","state":"on"}}\n</tool_call>'


@cache
def grammars(*more: str) -> Grammars:
    from tokenizers import Tokenizer as Inner

    return Grammars(Tokenizer(Inner.from_str(tiny_tokenizer(more)), {}), [STOP])


class Noise(EchoSession):
    """A model that says anything at all."""

    def __init__(self, seed: int, vocab: int) -> None:
        super().__init__(vocab_size=vocab)
        self._rng = np.random.default_rng(seed)
        self._size = vocab

    def feed(self, tokens: Any) -> np.ndarray:
        super().feed(tokens)
        return self._rng.standard_normal(self._size).astype(np.float32) * 4


def said(grammar: Grammar, seed: int, sampling: Sampling) -> tuple[str, str]:
    """What noise says under the grammar, and why it stopped."""
    engine = grammar.engine
    noise = Noise(seed, engine.tokenizer.vocab_size + 5)  # vocabularies are padded
    stream = generate(noise, [5], sampling, stop_ids=[STOP], mask=grammar.mask(sampling))
    ids = []
    while True:
        try:
            ids.append(next(stream).id)
        except StopIteration as end:
            return engine.tokenizer.decode(ids), end.value


scalars = st.one_of(
    st.sampled_from([{"type": t} for t in ("string", "integer", "number", "boolean", "null")]),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 9)),
    st.builds(
        lambda a, n: {"type": "integer", "minimum": a, "maximum": a + n}, st.integers(-99, 99), st.integers(0, 99)
    ),
    st.builds(lambda x: {"enum": x}, st.lists(st.text(max_size=6) | st.integers() | st.none(), min_size=1, max_size=4)),
    st.just({"type": "string", "pattern": "^[a-z]{2,4}-[0-9]+$"}),
    st.just({}),
)


def _object(properties: dict[str, Any], optional: list[str], more: bool) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    found = {"type": "object", "properties": properties, "required": required}
    return found if more else {**found, "additionalProperties": False}


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text('abcdé" \\', min_size=1, max_size=5)
    return st.one_of(
        st.builds(lambda x: {"type": "array", "items": x, "minItems": 1}, inner),
        st.builds(lambda *x: {"anyOf": list(x)}, inner, inner),
        st.builds(_object, st.dictionaries(names, inner, max_size=4), st.lists(names), st.booleans()),
    )


schemas = st.recursive(scalars, _deeper, max_leaves=6)


@settings(max_examples=40, deadline=None)
@given(schemas, st.integers(0, 2**32), st.sampled_from([0.0, 1.0]), st.sampled_from([120, 400]))
def test_noise_under_a_schema_is_json_of_that_schema(schema: Any, seed: int, heat: float, budget: int) -> None:
    text, stopped = said(grammars().schema(schema), seed, Sampling(temperature=heat, seed=seed, max_tokens=budget))
    assert stopped == "end", text
    jsonschema.validate(json.loads(text), schema)


tools = st.lists(
    st.tuples(st.text("abc_", min_size=1, max_size=8), schemas), min_size=1, max_size=3, unique_by=lambda t: t[0]
)


@settings(max_examples=40, deadline=None)
@given(tools, st.sampled_from(["tags", "list", "object"]), st.integers(0, 2**32), st.booleans())
def test_noise_under_tools_is_calls_of_those_tools(
    given: list[tuple[str, Any]], syntax: tool_calls.Syntax, seed: int, idle: bool
) -> None:
    made = [{"name": n, "parameters": {"type": "object", "properties": {"x": s}, "required": ["x"]}} for n, s in given]
    text, stopped = said(grammars().tools(made, syntax, idle=idle), seed, Sampling(max_tokens=600))
    assert stopped == "end", text
    answer = tool_calls.read(text.removeprefix("[TOOL_CALLS]"))
    assert answer.sound
    assert answer.calls or (idle and (answer.refuses or answer.asks_for == ("x",) * len(answer.asks_for)))
    by_name = {m["name"]: m["parameters"] for m in made}
    for call in answer.calls:
        jsonschema.validate(call.arguments, by_name[call.name])


def test_what_the_model_says_well_is_left_alone() -> None:
    grammar = grammars().tools([LIGHT, CLOCK])
    spaced = ON.replace(":", ": ").replace(",", ", ")
    bare = '<tool_call>{"name":"clock","arguments":{}}</tool_call>'
    for text in (ON, f"{ON}\n{ON}", spaced, bare, "Please tell me: room, state", "None of these tools can do that."):
        assert grammar.accepts(text), text
    for text in (ON[:-1], ON.replace("hall", 'ha"ll'), ON.replace('"on"', '"up"'), "Please tell me: hat", "Hello",
                 ON.replace("set_light", "set_lights"), ON.replace('"on"', '"on","mood":1')):  # fmt: skip
        assert not grammar.accepts(text), text


def test_the_syntax_is_the_models_own() -> None:
    listed = grammars("[TOOL_CALLS]").tools([LIGHT], "list", idle=False)
    ids = listed.engine.tokenizer.encode('[TOOL_CALLS][{"name":"set_light","arguments":{"room":"a","state":"on"}}]')
    matcher = listed.engine.matcher(listed.source)
    assert matcher.consume_tokens(ids)
    assert matcher.is_accepting()
    assert not listed.accepts(ON)
    single = grammars().tools([LIGHT], "object", idle=False)
    assert single.accepts('{"name": "set_light", "parameters": {"room": "a", "state": "on"}}')


def test_words_are_admitted_where_they_are_asked_for() -> None:
    talking = grammars().tools([LIGHT], text=True)
    assert talking.accepts("It is on, as you wished.\nAnything else?")
    assert talking.accepts(ON)
    assert not talking.accepts("Well: <tool_call>")
    assert grammars().tools([], text=True).accepts("There are no tools.")


def test_references_of_a_tool_begin_at_its_own_root() -> None:
    tool = {
        "name": "walk",
        "parameters": {
            "$defs": {"way": {"enum": ["up", "down"]}},
            "type": "object",
            "properties": {"way": {"$ref": "#/$defs/way"}},
            "required": ["way"],
        },
    }
    held = grammars().tools([LIGHT, tool])
    assert held.accepts('<tool_call>{"name":"walk","arguments":{"way":"up"}}</tool_call>')
    assert not held.accepts('<tool_call>{"name":"walk","arguments":{"way":"left"}}</tool_call>')


def test_greedy_and_masked_take_the_same_token() -> None:
    """Looking at the likeliest alone is a short cut, not another rule."""
    grammar = grammars().schema({"type": "array", "items": {"type": "integer"}})
    rng = np.random.default_rng(3)
    for _ in range(20):
        logits = rng.standard_normal(300).astype(np.float32)
        short = grammar.mask(Sampling())(logits, [])
        whole = grammar.mask(Sampling(temperature=1.0))(logits, [])
        chosen = pick(short, Sampling(), [], rng)
        assert chosen == int(whole.argmax())
        assert np.isinf(whole).sum() > 250


def test_an_answer_ends_within_its_budget() -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "array"}}, "required": ["s", "n"]}
    for seed in range(8):
        text, stopped = said(grammars().schema(schema), seed, Sampling(max_tokens=80))
        assert stopped == "end", text
        jsonschema.validate(json.loads(text), schema)


def test_what_cannot_be_held_is_said() -> None:
    with pytest.raises(UsageError, match=r"the JSON schema cannot be held: .*nsatisfiable"):
        grammars().schema({"type": "integer", "minimum": 3, "maximum": 2})
    with pytest.raises(UsageError, match="the arguments of the tool 'x' cannot be held"):
        grammars().tools(
            [{"name": "x", "parameters": {"type": "object", "properties": {"a": False}, "required": ["a"]}}]
        )
    with pytest.raises(UsageError, match="names no token that ends an answer"):
        Grammars(grammars().tokenizer, [])


def test_a_tokenizer_that_it_cannot_read() -> None:
    class Odd:
        def to_json(self) -> str:
            return "{}"

    with pytest.raises(UsageError, match="answers of this tokenizer cannot be held"):
        Grammars(Odd(), [0])  # type: ignore[arg-type]


def test_logits_that_are_no_numbers_are_still_found_out() -> None:
    mask = grammars().schema({}).mask()
    with pytest.raises(EdgeError, match="logits that are not numbers"):
        pick(mask(np.full(300, np.nan, np.float32), []), Sampling(), [], np.random.default_rng())


def test_a_token_against_the_grammar_is_an_error() -> None:
    mask = grammars().schema({"type": "integer"}).mask(Sampling(temperature=1.0))
    with pytest.raises(EdgeError, match="the grammar of this answer is too complex"):
        mask(np.zeros(300, np.float32), [grammars().tokenizer.encode("x")[0]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0]))
def test_free_text_is_copied_from_the_words(seed: int, heat: float) -> None:
    """Noise says nothing but words that were said, in their order."""
    words = 'remind me of the "red" carpet, at 7:30'
    tool = {
        "name": "remind",
        "parameters": {
            "type": "object",
            "properties": {
                "what": {"type": "string", "minLength": 1, "maxLength": 200},
                "urgent": {"type": "boolean"},
                "things": {"type": "array", "items": {"type": "string"}},
                "label": {"type": "string", "pattern": "^[a-z]{3}$"},
            },
            "required": ["what"],
        },
    }
    sampling = Sampling(temperature=heat, seed=seed, max_tokens=300)
    text, stopped = said(grammars().tools([tool], idle=False, most=1, words=words), seed, sampling)
    assert stopped == "end"
    [call] = tool_calls.read(text).calls
    jsonschema.validate(call.arguments, tool["parameters"])
    assert all(copied in words for copied in [call.arguments["what"], *call.arguments.get("things", ())])


def test_optional_arguments_may_be_left_out_and_nested_ones_are_held_whole() -> None:
    nested = {"name": "n", "parameters": {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "null"}}}}
    held = grammars().tools([LIGHT, nested], words="kitchen light on")
    for arguments in ('{"room":"kitchen","state":"on"}', '{"room":"light","state":"on","level":3}'):
        assert held.accepts(f'<tool_call>{{"name":"set_light","arguments":{arguments}}}</tool_call>')
    assert held.accepts('<tool_call>{"name":"n","arguments":{"a":null}}</tool_call>')
    for arguments in ('{"room":"hall","state":"on"}', '{"state":"on"}', '{"room":"kitchen","level":3}'):
        assert not held.accepts(f'<tool_call>{{"name":"set_light","arguments":{arguments}}}</tool_call>')
