"""From a conversation to token ids, so that nobody can speak in another's turn.

A chat template joins roles, words and control tokens into one text. Tokenized as it is, a user
who types `<|im_end|><|im_start|>system` has ended his turn and opened another. Here control
tokens count only where the template itself wrote them:

1. Messages whose words make no control token, which is nearly all, are rendered and tokenized
   as they are: the ids are exactly those of `transformers`.
2. Otherwise a mark, a character that occurs nowhere else, is put into those messages so that no
   control token is spelled in them any more, whatever way the template cuts and joins them.
   Of the rendered text, the stretches between control tokens that hold marks are tokenized as
   plain text without the marks, and the rest as in 1.

A picture is what the template writes for it, its placeholder, replaced by as many tokens as the
picture has rows. A placeholder that somebody types is words, like every other control token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge.errors import InputError
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.sight import fitted
from edge.runtimes.tokenizer import Tokenizer

_OURS = frozenset({"role", "type"})  # set by the program, and looked at by templates
_PRIVATE = range(0xF0000, 0xFFFFE)  # Unicode's private use plane 15


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    pictures: Sequence[str] = (),
    placeholder: str = "",
) -> list[int]:
    """The ids to feed; `pictures` are the texts that stand for the pictures, in order.

    Raises what `ChatTemplate.render` raises, and `InputError` when the template has another
    number of pictures than the messages.
    """
    special = special_tokens(tokenizer)
    here = ""
    if placeholder or any(isinstance(m.get("content"), (list, tuple)) for m in messages):
        here = next(c for c in map(chr, _PRIVATE) if not any(c in words for words in _words([*messages])))
        messages = fitted(template, messages, placeholder, here)

    def filled(text: str) -> str:
        if not placeholder:
            return text
        pieces = text.replace(here, placeholder).split(placeholder)
        if len(pieces) != len(pictures) + 1:
            raise InputError(
                f"{template.where} writes {len(pieces) - 1} pictures for a conversation with {len(pictures)}",
                hint="its vision part and its template do not fit together",
            )
        return "".join(a + b for a, b in zip(pieces, [*pictures, ""], strict=True))

    hot = [_makes_control_tokens(tokenizer, m) for m in messages]
    hot_tools = [_makes_control_tokens(tokenizer, t) for t in tools or ()]
    if not any(hot) and not any(hot_tools):
        text = filled(template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt))
        return tokenizer.encode(text, parse_special=True)
    everything = [*_words([*messages, *(tools or ())]), template.source]
    mark = next(c for c in map(chr, _PRIVATE) if c != here and not any(c in words for words in everything))
    firsts = "".join({token[0] for token in special})
    text = template.render(
        [_marked(m, firsts, mark) if h else m for m, h in zip(messages, hot, strict=True)],
        tools=tools and [_marked(t, firsts, mark) if h else t for t, h in zip(tools, hot_tools, strict=True)],
        add_generation_prompt=add_generation_prompt,
    )
    return _encode_marked(tokenizer, filled(text), special, mark)


def special_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The control tokens as they are spelled, longest first."""
    spelled = {tokenizer.decode([i]) for i in tokenizer.special_ids}
    for token in spelled:
        if tokenizer.id_of(token) is None:
            raise InputError(f"the tokenizer does not know its own control token {token!r}", hint="export it again")
    return tuple(sorted(spelled - {""}, key=lambda t: (-len(t), t)))


def _words(value: Any, key: str = "") -> Iterator[str]:
    """Every text inside a message that somebody else may have written."""
    if isinstance(value, str):
        if key not in _OURS:
            yield value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _words(v, str(k))
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _words(v)


def _makes_control_tokens(tokenizer: Tokenizer, message: Mapping[str, Any]) -> bool:
    # Joined too: a template may put the parts of a message together.
    words = list(_words(message))
    texts = {"".join(words), *words}
    return any(not tokenizer.special_ids.isdisjoint(tokenizer.encode(t, parse_special=True)) for t in texts)


def _marked(value: Any, firsts: str, mark: str, key: str = "") -> Any:
    """A mark behind every character that begins a control token: none is spelled in it any more."""
    if isinstance(value, str):
        return value if key in _OURS else re.sub(f"[{re.escape(firsts)}]", lambda m: m[0] + mark, value)
    if isinstance(value, Mapping):
        return {k: _marked(v, firsts, mark, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(v, firsts, mark) for v in value]
    return value


def _encode_marked(tokenizer: Tokenizer, text: str, special: Sequence[str], mark: str) -> list[int]:
    """Ids of `text`, where stretches that hold a mark are words and nothing else.

    A tokenizer that puts a space before a text puts one before such a stretch, too.
    """
    ids: list[int] = []
    waiting = ""
    for part in re.split(f"({'|'.join(map(re.escape, special))})", text):
        if mark not in part:
            waiting += part
            continue
        if waiting:
            ids += tokenizer.encode(waiting, parse_special=True)
        ids += tokenizer.encode(part.replace(mark, ""), parse_special=False)
        waiting = ""
    return ids + (tokenizer.encode(waiting, parse_special=True) if waiting else [])
