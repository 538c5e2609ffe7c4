"""Answers held to a form: JSON of a schema, or calls of given tools, whatever the model would say.

`llguidance` says which tokens may come next; what is built here from our own tokenizer is a mask for
`edge.runtimes.session.generate`, so that one grammar serves all runtimes.

grammar = Grammars.of(model).schema({"type": "object", "properties": {"age": {"type": "integer"}}})
for piece in model.generate("How old is she?", sampling, mask=grammar.mask(sampling)):
    print(piece.text, end="")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError, require
from edge.runtimes.nearest_end import Ends, allowed, reason
from edge.runtimes.session import Mask, Sampling, pick
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import ASK, NO_TOOL_FITS, Syntax

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.model import Model

# Between the parts of JSON. Without a bound, a model may write spaces for ever.
_AIRY = "[ \\n\\t]{1,20}"
_GUIDANCE = {"whitespace_pattern": " ", "lenient": True}
_MOST_CALLS = 8


@dataclass(frozen=True)
class Grammar:
    """A form of answers, for one tokenizer."""

    engine: Grammars
    source: str

    def mask(self, sampling: Sampling | None = None) -> Mask:
        """What `generate` takes, new for each answer, with the same `sampling`.

        The answer ends within its `max_tokens`, if the form can be closed in so few: no token is taken behind which
        no way to an end is known that fits.
        """
        return _Held(self, sampling or Sampling())

    def accepts(self, text: str) -> bool:
        """Whether a whole answer has the form."""
        matcher = self.engine.matcher(self.source)
        ids = self.engine.tokenizer.encode(text, parse_special=False)
        return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


class Grammars:
    """Makes grammars for one tokenizer, and the ids that end its answers. Building one takes about a second."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int]) -> None:
        """Raises `MissingError` without llguidance, `UsageError` when it cannot read the tokenizer."""
        require("llguidance", extra="act", purpose="holding answers to a form")
        import llguidance

        if not stop_ids:
            raise UsageError("this bundle names no token that ends an answer, so that no form can be complete")
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        try:
            self.inner = llguidance.LLTokenizer(tokenizer.to_json(), eos_token=list(stop_ids))
        except ValueError as err:
            raise UsageError(f"answers of this tokenizer cannot be held to a form: {_first_line(err)}") from None
        self.ends = Ends(self.inner, self.stop_ids[0])

    @classmethod
    def of(cls, model: Model) -> Grammars:
        """For an open bundle."""
        return cls(model.tokenizer, model.bundle.stop_ids)

    def schema(self, schema: Mapping[str, Any]) -> Grammar:
        """One JSON value that the schema admits.

        Raises `UsageError` for a schema that admits nothing, or that says what cannot be held.
        """
        held = {**schema, "x-guidance": {"whitespace_pattern": _AIRY}}
        return self._grammar(f"start: %json {json.dumps(held)}", "the JSON schema")

    def tools(
        self,
        tools: Sequence[Mapping[str, Any]],
        syntax: Syntax = "tags",
        *,
        idle: bool = True,
        text: bool = False,
        most: int = _MOST_CALLS,
        words: str = "",
        asks: Iterable[str] = (),
    ) -> Grammar:
        """Up to `most` calls of the tools, in the model's own syntax (`tool_calls.syntax_of`).

        With `idle`, it may also say that none of them fits, or ask for arguments, those named in
        `asks` too; with `text`, it may say anything that is no call. With `words`, free text in
        arguments is copied from them, word by word: a small model then invents nothing, and spells
        nothing wrongly. Tools are JSON Schema functions, with or without `{"type": "function",
        "function": ...}` around.
        Raises as `schema`, naming the tool.
        """
        functions = [t.get("function", t) for t in tools]
        for f in functions:
            self._grammar(f"start: %json {json.dumps(_arguments(f))}", f"the arguments of the tool {f['name']!r}")
        lines = [*_answers(functions, asks, idle=idle, text=text, calls=most > 0 and bool(functions))]
        if most > 0 and functions:
            lines += self._calls(syntax, most)
            lines += _bodies(functions, "parameters" if syntax == "object" else "arguments", words)
        return self._grammar("\n".join(lines), "the list of tools")

    def matcher(self, source: str) -> Any:
        """A new `llguidance.LLMatcher`, at the beginning of an answer."""
        import llguidance

        return llguidance.LLMatcher(self.inner, source, log_level=0)

    def _calls(self, syntax: Syntax, most: int) -> Iterable[str]:
        more = most - 1  # a repetition of none is no grammar
        if syntax == "tags":
            opening, closing = self._spelled("<tool_call>"), self._spelled("</tool_call>")
            yield "calls: call" + (f' ("\\n"? call){{0,{more}}}' if more else "")
            yield f'call: {opening} "\\n"? body "\\n"? {closing}'
        elif syntax == "list":
            rest = f'("," " "? body){{0,{more}}} ' if more else ""
            yield f'calls: {self._spelled("[TOOL_CALLS]")} " "? "[" body {rest}"]"'
        else:
            yield "calls: body"

    def _spelled(self, mark: str) -> str:
        """A mark of the syntax as the grammar names it: a control token where the tokenizer has one for it."""
        found = self.tokenizer.id_of(mark)
        return f"<[{found}]>" if found is not None and found in self.tokenizer.special_ids else json.dumps(mark)

    def _grammar(self, lark: str, what: str) -> Grammar:
        import llguidance

        source = llguidance.LLMatcher.grammar_from_lark(lark)
        wrong, notes = llguidance.LLMatcher.validate_grammar_with_warnings(source, self.inner)
        if wrong:
            raise UsageError(f"{what} cannot be held: {reason(notes[0])}", hint="simplify the schema")
        return Grammar(self, source)


class _Held:
    """The mask of one answer. It draws the tokens itself: only then is it known what each of them opens."""

    def __init__(self, grammar: Grammar, sampling: Sampling) -> None:
        import numpy as np

        self._engine = grammar.engine
        self._matcher = grammar.engine.matcher(grammar.source)
        self._read = 0
        self._sampling = sampling
        self._rng = np.random.default_rng(sampling.seed)
        self._way: list[int] | None = None  # to an end, from behind the last token
        self._seek = sampling.max_tokens  # with no more tokens left than these, a way is looked for

    def __call__(self, logits: np.ndarray, out: Sequence[int]) -> int:
        for token in out[self._read :]:
            self._matcher.consume_token(token)
        self._read = len(out)
        # As llama.cpp does: what was drawn from all is taken if it may come. That is mostly so, and one token is looked
        # at far sooner than all of them are.
        drawn = pick(logits, self._sampling, out, self._rng)
        if not self._may(drawn):
            drawn = self._drawn(logits, out)
        return drawn if drawn in self._engine.stop_ids else self._in_time(drawn, self._sampling.max_tokens - len(out))

    def _may(self, token: int) -> bool:
        if self._way and self._way[0] == token:
            return True
        # A model's vocabulary may be padded.
        return token < self._engine.inner.vocab_size and self._matcher.validate_tokens([token]) == 1

    def _drawn(self, logits: np.ndarray, out: Sequence[int]) -> int:
        """As `pick` would draw it, were the logits of all other tokens minus infinity; those are mostly many."""
        import numpy as np

        # A model's vocabulary may be padded, or end before the tokenizer's.
        may = np.flatnonzero(allowed(self._matcher, min(len(logits), self._engine.inner.vocab_size)))
        again: list[int] = []
        if self._sampling.repeat_penalty != 1:
            said = sorted(set(out))
            at = np.searchsorted(may, said).tolist()
            again = [i for i, token in zip(at, said, strict=True) if i < len(may) and may[i] == token]
        return int(may[pick(logits[may], self._sampling, again, self._rng)])

    def _in_time(self, drawn: int, left: int) -> int:
        """What was drawn, if an end can be reached behind it in `left` tokens, the one that ends included.

        Else the next token of the way to the end.
        """
        ends = self._engine.ends
        if self._way is None and left > self._seek:
            return drawn
        way = ends.after(self._matcher, drawn, left - 2, self._way)
        if way is None:
            known = ends.nearest(self._matcher, left - 1) if self._way is None else self._way
            if known is None:
                self._seek = left // 2  # it cannot end in time, and trying that at every token would take as much
                return drawn
            drawn, way = (known[0], known[1:]) if known else (self._engine.stop_ids[0], [])
        self._way = way
        return drawn


def _answers(
    functions: Sequence[Mapping[str, Any]], asks: Iterable[str], *, idle: bool, text: bool, calls: bool
) -> Iterable[str]:
    """What an answer may be, and the answers that are no calls."""
    kinds = ["calls"] if calls else []
    rules = []
    if idle:
        kinds.append("nothing")
        rules.append(f"nothing: {json.dumps(NO_TOOL_FITS)}")
        if names := sorted({*asks, *(name for f in functions for name in _arguments(f).get("properties", {}))}):
            kinds.append("asking")
            rules.append(f'asking: {json.dumps(ASK)} argument (", " argument)*')
            rules.append("argument: " + " | ".join(json.dumps(name) for name in names))
    if text or not kinds:
        kinds.append("TEXT")
        # It neither begins as a call in any syntax, nor has one in it.
        rules.append("TEXT: /[^<{\\[\\s](.|\\n)*/ & ~/(.|\\n)*<tool_call>(.|\\n)*/")
    return [f"start: {' | '.join(kinds)}", *rules]


def _bodies(functions: Sequence[Mapping[str, Any]], key: str, words: str) -> Iterable[str]:
    """The JSON object of a call of each tool. Each schema is a document for itself, for `$ref` begins at its root."""
    yield "body: " + " | ".join(f"tool_{i}" for i in range(len(functions)))
    if words:
        spelled = json.dumps(words, ensure_ascii=False)[1:-1]  # as they stand inside a string of JSON
        yield f"COPY: %regex {json.dumps({'substring_words': spelled})}"
        yield "COPIED: COPY & /[^ ]|[^ ].*[^ ]/"
    for i, f in enumerate(functions):
        named = json.dumps(f"{json.dumps(f['name'], ensure_ascii=False)},")
        yield f'tool_{i}: "{{" "\\"name\\":" " "? {named} " "? {json.dumps(json.dumps(key) + ":")} " "? given_{i} "}}"'
        schema = _arguments(f)
        if words and _is_flat(schema):
            yield from _copied(f"given_{i}", schema, len(words))
        else:
            yield f"given_{i}: %json {json.dumps(schema)}"


def _is_flat(schema: Mapping[str, Any]) -> bool:
    """Whether each property can be held for itself."""
    return schema.keys() <= {
        "type", "properties", "required", "additionalProperties", "x-guidance", "title", "description",
    } and "$ref" not in json.dumps(schema)  # fmt: skip


def _copied(rule: str, schema: Mapping[str, Any], longest: int) -> Iterable[str]:
    """An object of the properties in their order, where free text is copied.

    `longest` is how long a copy can be. `first_n` is what may follow the brace before property n, `more_n` what may
    follow another one.
    """
    properties = list(schema["properties"].items())
    required = schema.get("required", ())
    yield f'{rule}: "{{" {rule}_first_0 "}}"'
    for n, (name, about) in enumerate(properties):
        skip = "" if name in required else f" | {rule}_{{}}_{n + 1}"
        yield f"{rule}_first_{n}: {rule}_{n} {rule}_more_{n + 1}{skip.format('first')}"
        yield f'{rule}_more_{n}: "," " "? {rule}_{n} {rule}_more_{n + 1}{skip.format("more")}'
        key = json.dumps(json.dumps(name, ensure_ascii=False) + ":")
        yield f'{rule}_{n}: {key} " "? {_value(about, longest)}'
    for kind in ("first", "more"):
        yield f'{rule}_{kind}_{len(properties)}: ""'


def _value(about: Any, longest: int) -> str:
    kind = about.get("type") if isinstance(about, dict) else None
    # A pattern, an enumeration, a length that matters: the schema says more of it than that it is text.
    if (
        kind == "string"
        and about.keys() <= {"type", "description", "title", "default", "minLength", "maxLength"}
        and (about.get("minLength", 0) <= 1 and about.get("maxLength", longest) >= longest)
    ):
        return '"\\"" COPIED "\\""'
    if kind == "array" and about.keys() <= {"type", "description", "title", "items"} and about.get("items"):
        item = _value(about["items"], longest)
        return f'"[" ({item} ("," " "? {item})*)? "]"'
    return "%json " + json.dumps({**about, "x-guidance": _GUIDANCE} if isinstance(about, dict) else about)


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments as it is held: nothing that it does not name, nothing that it cannot mean.

    What a grammar cannot hold (a `format`, a sum) is left to the check of the values afterwards.
    """
    schema = dict(function.get("parameters") or {})
    schema.setdefault("type", "object")
    if not {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"} & schema.keys():
        schema.setdefault("properties", {})
        schema.setdefault("additionalProperties", False)
    return {**schema, "x-guidance": _GUIDANCE}


def _first_line(err: Exception) -> str:
    return str(err).splitlines()[0] if str(err) else type(err).__name__
