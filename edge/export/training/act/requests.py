"""A manifest of a few tools and what people say to it: calls, two calls, questions back, refusals.

`pack` makes training data without end from one random generator; `held_out` makes the cases that
judge. Their phrases, their values and their way of asking are never drawn in training, and neither
are the tools of the split `unseen`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.export.training.act import catalogue
from edge.export.training.act.catalogue import Tool
from edge.export.training.act.disguise import Offered, disguised, plain
from edge.export.training.act.invent import invented
from edge.export.training.act.values import IMPERATIVE, Values
from edge.runtimes.tool_calls import NO_TOOL_FITS, ask

Message = dict[str, Any]
SPLITS = ("known", "unseen", "two", "ask", "none")

# Only before a request that begins with a verb.
_BEFORE = (
    "", "", "", "", "", "", "", "please ", "please ", "can you ", "could you ", "hey, ", "ok, ", "now ", "will you ",
    "I want you to ", "I need you to ", "hi, ", "could you please ", "you should ", "I'd like you to ", "kindly ",
    "be so kind and ", "do me a favour and ", "hey there, could you ", "quickly ",
)  # fmt: skip
_AFTER = (
    "", "", "", "", "", "", "", "", "", " please", ", thanks", "!", ".", ".", ".", ", please", " thank you", " now",
    " immediately", " at once", " for me", " if you can", " as soon as possible", " quickly", ", will you",
    " and let me know", " and tell me when it is done", " straight away.", " when you get the chance", ", ok",
)  # fmt: skip
_HELD_OUT_BEFORE = ("", "", "", "", "would you ", "go ahead and ", "hello, ", "can you please ")
_HELD_OUT_AFTER = ("", "", "", "", " right away", ", thank you", ".")
_FREE = ("@sentence", "@expression", "@sql", "@task")  # values that have no clear end: nothing is said after them
_CHAT = (
    "how are you", "what is your name", "who wrote Hamlet", "tell me about your day", "what is the capital of Peru",
    "do you like music", "explain gravity", "sing a song for me", "what should I do with my life", "good morning",
    "write a poem about rain", "how old are you", "why is the sky blue", "are you a robot", "I am bored",
    "what do you think of cats", "who was Napoleon", "give me advice about love", "thanks, that was all",
    "you are funny",
)  # fmt: skip
_HELD_OUT_CHAT = ("who painted the Mona Lisa", "do you dream", "what is the meaning of life", "I feel lonely")
_RESULTS = (
    ("temperature", "@number"), ("status", "@state"), ("count", "@number"), ("name", "@title"), ("price", "@number"),
    ("time", "@time"), ("id", "@code"), ("distance", "@number"), ("battery", "@number"), ("title", "@song"),
    ("city", "@city"), ("level", "@number"), ("date", "@date"), ("result", "@number"), ("owner", "@name"),
)  # fmt: skip
_ERRORS = ("not found", "no connection", "permission denied", "timeout", "device is offline", "already exists", "busy")


@dataclass(frozen=True)
class Case:
    """Tools as chat templates take them, messages up to the request, and the message that is right."""

    split: str
    tools: tuple[dict[str, Any], ...]
    messages: tuple[Message, ...]
    answer: Message


@dataclass(frozen=True)
class Pack:
    """One manifest with several conversations about it: what shares a beginning is computed once."""

    tools: tuple[dict[str, Any], ...]
    conversations: tuple[tuple[Message, ...], ...]


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One entry of an assistant message's `tool_calls`."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def pack(rng: random.Random, n: int, words: Sequence[str] = ()) -> Pack:
    """A manifest and `n` conversations for training; values are any of `words` too."""
    offered = _manifest(rng)
    speaker = _Speaker(rng, held_out=False, words=words)
    talks = []
    for _ in range(n):
        kind = rng.choices(("call", "two", "ask", "none", "turns"), (74, 12, 5, 4, 5))[0]
        talks.append(getattr(speaker, kind)(offered))
    return Pack(tuple(o.shown.schema() for o in offered), tuple(tuple(t) for t in talks))


def held_out(split: str, n: int, seed: int = 0) -> list[Case]:
    """`n` cases of one of `SPLITS`; the same seed gives the same cases.

    >>> held_out("known", 2) == held_out("known", 2)
    True
    """
    rng = random.Random(f"{split} {seed}")
    speaker = _Speaker(rng, held_out=True)
    tools = list(catalogue.unseen() if split == "unseen" else catalogue.known())
    rng.shuffle(tools)
    if split == "ask":
        tools = [t for t in tools if t.incomplete]
    cases: list[Case] = []
    while len(cases) < n:
        tool = tools[len(cases) % len(tools)]
        offered = _judged_manifest(tool, rng)
        kind = {"known": "call", "unseen": "call"}.get(split, split)
        talk = getattr(speaker, kind)(offered, offered[0] if kind != "none" else None)
        if split == "two" and len(talk[-1]["tool_calls"]) < 2:
            tools.remove(tool)
            continue
        rng.shuffle(offered)
        schemas = tuple(o.shown.schema() for o in offered)
        cases.append(_first(split, schemas, talk))
    return cases


def judged(seed: int = 0) -> list[Case]:
    """The cases of the gate, several to a manifest, so that its tools are read once.

    Ten manifests of unseen tools with a call of each tool; eight of known tools with four calls, a
    question back, a refusal and a request for two calls.
    """
    rng = random.Random(f"judged {seed}")
    speaker = _Speaker(rng, held_out=True)
    unseen = list(catalogue.unseen())
    rng.shuffle(unseen)
    cases: list[Case] = []
    for at in range(0, len(unseen), 4):
        offered = [plain(t, rng) for t in unseen[at : at + 4]]
        schemas = tuple(o.shown.schema() for o in offered)
        cases += [_first("unseen", schemas, speaker.call(offered, o)) for o in offered]
    while len(cases) < len(unseen) + 8 * 7:
        tool = rng.choice([t for t in catalogue.known() if t.incomplete])
        offered = [plain(t, rng) for t in _neighbours(tool, catalogue.known(), 4, rng)]
        schemas = tuple(o.shown.schema() for o in offered)
        two = speaker.two(offered)
        if len(two[-1]["tool_calls"]) < 2:
            continue
        cases += [_first("known", schemas, speaker.call(offered, o)) for o in offered]
        cases += [
            _first("ask", schemas, speaker.ask(offered, offered[0])),
            _first("none", schemas, speaker.none(offered)),
            _first("two", schemas, two),
        ]
    return cases


def _first(split: str, schemas: tuple[dict[str, Any], ...], talk: Sequence[Message]) -> Case:
    """The case that a conversation's first answer is."""
    end = next(i for i, m in enumerate(talk) if m["role"] == "assistant")
    return Case(split, schemas, tuple(talk[:end]), talk[end])


def _manifest(rng: random.Random) -> list[Offered]:
    n = rng.choice((2, 3, 3, 4, 4, 5, 6))
    style = rng.random()
    if style < 0.3:
        tools, hidden = invented(rng, n), rng.choice((0.0, 0.0, 0.5))
    elif style < 0.42:
        tools, hidden = invented(rng, n - n // 2) + rng.sample(catalogue.taught(), n // 2), rng.choice((0.0, 0.0, 1.0))
    else:
        among = catalogue.known() if rng.random() < 0.65 else catalogue.taught()
        tools, hidden = _neighbours(rng.choice(among), among, n, rng), rng.choice((0.0, 0.0, 0.0, 0.0, 0.5, 1.0))
    offered = [disguised(t, rng) if rng.random() < hidden else plain(t, rng) for t in tools]
    unique = {o.shown.name: o for o in offered}
    chosen = list(unique.values())
    rng.shuffle(chosen)
    return chosen


def _judged_manifest(tool: Tool, rng: random.Random) -> list[Offered]:
    """The tool that is meant comes first; all under their own names."""
    among = catalogue.unseen() if tool.domain == "unseen" else catalogue.known()
    return [plain(t, rng) for t in _neighbours(tool, among, rng.choice((2, 3, 4, 5, 6)), rng)]


def _neighbours(tool: Tool, among: Sequence[Tool], n: int, rng: random.Random) -> list[Tool]:
    """`tool` and n - 1 others, half of them of its own domain: those are easily mistaken for it."""
    near = [t for t in among if t.domain == tool.domain and t is not tool]
    far = [t for t in among if t is not tool]
    chosen = [tool]
    while len(chosen) < n:
        other = rng.choice(near if rng.random() < 0.5 else far)
        if other not in chosen:
            chosen.append(other)
    return chosen


class _Speaker:
    """Says what people say, and knows what should be answered."""

    def __init__(self, rng: random.Random, *, held_out: bool, words: Sequence[str] = ()) -> None:
        self.rng = rng
        self.held_out = held_out
        self.values = Values(rng, held_out=held_out, words=words)

    def call(self, offered: Sequence[Offered], meant: Offered | None = None) -> list[Message]:
        text, made = self._request(meant or self.rng.choice(offered))
        return [self._user(text, made), _assistant(made)]

    def two(self, offered: Sequence[Offered], meant: Offered | None = None) -> list[Message]:
        """Two things in one breath; the first must end clearly."""
        first = meant or self.rng.choice(offered)
        if any(p.values in _FREE or p.type == "array" for p in first.tool.parameters):
            return self.call(offered, meant)
        others = [o for o in offered if o is not first] or [first]
        second = self.rng.choice(others)
        (one, made), (other, also) = self._request(first), self._request(second)
        joined = self.rng.choice((", then ", " and also ", "; after that ") if self.held_out else _JOINTS)
        return [self._user(one + joined + other, made, also), _assistant(made, also)]

    def ask(self, offered: Sequence[Offered], meant: Offered | None = None) -> list[Message]:
        """Something needed was not said: the model asks, and calls when it was told."""
        able = [o for o in offered if o.tool.incomplete]
        if not able:
            return self.call(offered, meant)
        chosen = meant or self.rng.choice(able)
        tool = chosen.tool
        text, given = catalogue.say(self.rng.choice(tool.incomplete), tool, self.values)
        missing = [p for p in tool.parameters if p.required and p.name not in given]
        names = [p.name for p in chosen.shown.parameters]
        missing.sort(key=lambda p: names.index(chosen.names[p.name]))
        talk = [
            self._user(text, _made(chosen, given)),
            {"role": "assistant", "content": ask([chosen.names[p.name] for p in missing])},
        ]
        if len(missing) == 1 and missing[0].type != "boolean" and self.rng.random() < 0.6:
            said, more = catalogue.say("{" + missing[0].name + "}", tool, self.values)
            made = _made(chosen, {**given, **more})
            return [*talk, {"role": "user", "content": said}, _assistant(made)]
        return talk

    def none(self, offered: Sequence[Offered], meant: Offered | None = None) -> list[Message]:
        """A request for something else: another tool's, or small talk."""
        refusal = {"role": "assistant", "content": NO_TOOL_FITS}
        if self.rng.random() < 0.2:
            text = self.rng.choice(_HELD_OUT_CHAT if self.held_out else _CHAT)
            return [
                {"role": "user", "content": text + self.rng.choice(("", "?" if text[0] in "whd" else "."))},
                refusal,
            ]
        domains = {o.tool.domain for o in offered}
        others = [t for t in catalogue.known() if t.domain not in domains and not _alike(t, offered)]
        if not self.held_out and self.rng.random() < 0.3:
            others = [t for t in invented(self.rng, 3) if not _alike(t, offered)] or others
        text, made = self._request(plain(self.rng.choice(others), self.rng))
        return [self._user(text, made), refusal]

    def turns(self, offered: Sequence[Offered], meant: Offered | None = None) -> list[Message]:
        """A call, its result, what the model says to it, and sometimes one more request."""
        talk = self.call(offered, meant)
        result, said = self._result()
        talk += [{"role": "tool", "content": result}, {"role": "assistant", "content": said}]
        return talk + self.call(offered) if self.rng.random() < 0.5 else talk

    def _request(self, chosen: Offered) -> tuple[str, dict[str, Any]]:
        tool = chosen.tool
        text, given = catalogue.say(self.rng.choice(tool.held_out if self.held_out else tool.train), tool, self.values)
        return text, _made(chosen, given)

    def _user(self, text: str, *made: dict[str, Any]) -> Message:
        """Dressed as people talk: polite or not, with a capital letter or not."""
        rng = self.rng
        values = [str(v) for m in made for v in m["function"]["arguments"].values()]
        before = ""
        if not any(text.startswith(v) for v in values):
            if text.split(maxsplit=1)[0].rstrip(",:") in IMPERATIVE:
                before = rng.choice(_HELD_OUT_BEFORE if self.held_out else _BEFORE)
            text = before + text
            if rng.random() < 0.5:
                text = text[0].upper() + text[1:]
        end = rng.choice(_HELD_OUT_AFTER if self.held_out else _AFTER)
        loose = any(text.endswith(v) and (self.held_out or len(v) > 12) for v in values)
        if before.startswith(_QUESTIONS) or text.lower().startswith(_QUESTIONS):
            end = rng.choice(("?", "?", ""))
        elif loose:
            end = rng.choice(("", "", "."))
        return {"role": "user", "content": text + end}

    def _result(self) -> tuple[str, str]:
        """What a tool returned, and the sentence that says it."""
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.choice(('{"ok":true}', '{"status":"ok"}', "ok", '{"success":true}', "done")), "Done."
        if kind < 0.6:
            error = self.rng.choice(_ERRORS)
            return f'{{"error":"{error}"}}', f"That did not work: {error}."
        key, source = self.rng.choice(_RESULTS)
        if source == "@number":
            value = str(self.rng.randrange(1, 400))
            return f'{{"{key}":{value}}}', f"The {key} is {value}."
        value = self.values.draw(source[1:])
        return f'{{"{key}":"{value}"}}', f"The {key} is {value}."


_JOINTS = (" and ", " and then ", ", and ", ", then also ", " and after that ", ". Then ", ". Also, ")
_QUESTIONS = (
    "what ", "how ", "who ", "when ", "where ", "is ", "am ", "do ", "did ", "will ", "are ", "which ", "has ", "can ",
    "could ", "would ", "does ",
)  # fmt: skip


def _made(chosen: Offered, given: dict[str, Any]) -> dict[str, Any]:
    """The call with the names and the order that the manifest shows."""
    shown = {chosen.names[name]: value for name, value in given.items()}
    return call(chosen.shown.name, {p.name: shown[p.name] for p in chosen.shown.parameters if p.name in shown})


def _assistant(*made: dict[str, Any]) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": list(made)}


def _alike(tool: Tool, offered: Sequence[Offered]) -> bool:
    """Another tool of the manifest could do this too: it shares a telling word."""
    words = set(tool.name.split("_")) - _COMMON
    return any(words & set(o.tool.name.split("_")) for o in offered)


_COMMON = frozenset((
    "set", "get", "add", "start", "stop", "show", "delete", "find", "list", "open", "read", "take", "log", "of", "to",
    "make", "create", "send", "close", "move", "cancel",
))  # fmt: skip
