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
from edge.runtimes.nearest_end import allowed
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
        # A penalty of nothing, but it keeps from the short cut.
        assert grammar.mask(Sampling())(logits, []) == grammar.mask(Sampling(repeat_penalty=1.0000001))(logits, [])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from([0.0, 0.7]), st.sampled_from([0, 3]), st.sampled_from([1.0, 0.8]),
    st.sampled_from([1.0, 1.4]),
)  # fmt: skip
def test_what_may_not_come_is_drawn_again_as_if_only_the_rest_could(
    seed: int, heat: float, top_k: int, top_p: float, penalty: float
) -> None:
    grammar = grammars().schema({"type": "array", "items": {"type": "string"}, "minItems": 1})
    sampling = Sampling(temperature=heat, top_k=top_k, top_p=top_p, repeat_penalty=penalty, seed=seed)
    mask, matcher, plain = grammar.mask(sampling), grammar.engine.matcher(grammar.source), np.random.default_rng(seed)
    noise, out = np.random.default_rng(seed + 1), []
    for _ in range(12):
        logits = noise.standard_normal(grammar.engine.tokenizer.vocab_size + 5).astype(np.float32)
        may = allowed(matcher, grammar.engine.inner.vocab_size)
        masked = np.full_like(logits, -np.inf)
        masked[: len(may)][may] = logits[: len(may)][may]
        drawn = mask(logits, out)
        free = pick(logits, sampling, out, plain)
        assert drawn == (free if np.isfinite(masked[free]) else pick(masked, sampling, out, plain))
        if drawn == STOP:
            break
        out.append(drawn)
        matcher.consume_token(drawn)


def fewest(grammar: Grammar) -> int:
    """Tokens that an answer needs, the one that ends it included."""
    way = grammar.engine.ends.nearest(grammar.engine.matcher(grammar.source), 2000)
    assert way is not None
    return len(way) + 1


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        schemas,
        st.builds(lambda x, n: {"type": "array", "items": x, "minItems": n}, scalars, st.integers(2, 30)),
        st.builds(lambda n: {"properties": {"s": {"type": "string", "minLength": n}}}, st.integers(2, 60)),
    ),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 30),
)
def test_an_answer_ends_within_its_budget_however_small(schema: Any, seed: int, heat: float, more: int) -> None:
    grammar = grammars().schema(schema)
    budget = fewest(grammar) + more
    text, stopped = said(grammar, seed, Sampling(temperature=heat, seed=seed, max_tokens=budget))
    assert stopped == "end", text
    jsonschema.validate(json.loads(text), schema)


@settings(max_examples=20, deadline=None)
@given(tools, st.sampled_from(["tags", "list", "object"]), st.integers(0, 2**32), st.integers(0, 30), st.booleans())
def test_calls_end_within_their_budget_however_small(
    given: list[tuple[str, Any]], syntax: tool_calls.Syntax, seed: int, more: int, copied: bool
) -> None:
    made = [{"name": n, "parameters": {"type": "object", "properties": {"x": s}, "required": ["x"]}} for n, s in given]
    grammar = grammars().tools(made, syntax, idle=False, words="the red car" if copied else "")
    text, stopped = said(grammar, seed, Sampling(max_tokens=fewest(grammar) + more))
    assert stopped == "end", text
    assert tool_calls.read(text.removeprefix("[TOOL_CALLS]")).calls


def test_the_way_to_an_end_is_short() -> None:
    optional = {"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "string"}}}
    needs = {**optional, "required": ["a", "b"]}
    for schema, way in ((optional, "{}"), (needs, '{"a":[],"b":""}'), ({"type": "array", "minItems": 2}, '["",""]')):
        grammar = grammars().schema(schema)
        ids = grammar.engine.ends.nearest(grammar.engine.matcher(grammar.source), 50)
        assert grammar.engine.tokenizer.decode(ids or []) == way
    grammar = grammars().tools([LIGHT], idle=False)
    ids = grammar.engine.ends.nearest(grammar.engine.matcher(grammar.source), 200)
    assert grammar.engine.tokenizer.decode(ids or []).count("<tool_call>") == 1


def test_what_is_said_well_costs_few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of the budget is left: an end is looked for only where something new is opened."""
    from edge.runtimes import grammar as module
    from edge.runtimes import nearest_end

    made = []
    whole = nearest_end.allowed
    for where in (module, nearest_end):
        monkeypatch.setattr(where, "allowed", lambda *args: made.append(1) or whole(*args))
    held = grammars().tools([LIGHT, CLOCK])
    ids = [*held.engine.tokenizer.encode(ON), STOP]
    mask = held.mask(Sampling(max_tokens=len(ids) + 2))
    for i, token in enumerate(ids):
        logits = np.zeros(300, np.float32)
        logits[token] = 1
        assert mask(logits, ids[:i]) == token
    assert len(made) < len(ids) / 4


def test_a_budget_that_no_answer_fits_changes_no_token_and_is_not_tried_at_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grammar = grammars().schema({"type": "array", "items": {"type": "integer"}, "minItems": 400})
    tried = []
    whole = grammar.engine.ends.nearest
    monkeypatch.setattr(grammar.engine.ends, "nearest", lambda *args: tried.append(1) or whole(*args))
    text, stopped = said(grammar, 1, Sampling(max_tokens=120))
    assert stopped == "length"
    assert text.startswith("[")
    assert len(tried) < 20


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
