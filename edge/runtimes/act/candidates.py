"""Which tools a request may mean, the likeliest first: a small model reads a few tools better than many.

By words alone, with their endings cut: names weigh more than descriptions, rare words more than common ones. The
order is never a decision: tools that come late are shown later, not left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge.runtimes.act import clauses

# Everyday words that mean the same thing to tools; each line is one thing.
_SAME = """
lamp light bulb lighting
meeting appointment event calendar agenda schedule engagement
note memo jot
timer countdown
alarm wake
file document text
folder directory
delete remove erase trash cancel drop scrap clear wipe
list show read see what which tell
find search look locate where
add create new make put write append save store keep
change move reschedule rename postpone
heating thermostat heat warm temperature warmth
blind shutter curtain shade
music song play track
volume loud quiet
lock unlock door bolt
free disk storage space
battery charge power
memory ram
time clock hour
date day today
"""
_GROUPS = {word: words.split()[0] for words in _SAME.strip().splitlines() for word in words.split()}
_LITTLE = "a an the of to in on at for and or is are be my me it that this with from by as i you please"
_LITTLE += " some something any can could would"
_STOP = frozenset(_LITTLE.split())
_ENDINGS = ("ing", "ies", "es", "ed", "s")


def looks(request: str, functions: Sequence[Mapping[str, Any]], most: int, *, near: float) -> list[list[int]]:
    """The numbers of `functions` in lists of at most `most`, in the order in which they are worth a look.

    First those that fit the words about as well as the best (at least `near` of its weight), then the best alone, which
    a small model may overlook among others, then the rest.
    """
    weights = _scores(request, functions)
    order = sorted(range(len(functions)), key=lambda n: (-weights[n], n))
    if not order:
        return []
    best = weights[order[0]]
    first = [n for n in order if weights[n] >= near * best][:most] if best else order[:most]
    rest = [n for n in order if n not in first]
    alone = [order[:1]] if best and len(first) > 1 else []
    return [first, *alone, *(rest[i : i + most] for i in range(0, len(rest), most))]


def names_tool(words: str, functions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `words` have one that the name of a tool has: they may be a wish without a verb."""
    named = {word for f in functions for word in _words(f.get("function", f)["name"])}
    return not named.isdisjoint(_words(words))


def left_over(request: str, function: Mapping[str, Any], known: Iterable[str]) -> set[str]:
    """Words of a request that neither the tool nor `known` explains: they must be values."""
    return set(_words(request)) - set(_weights(function)) - {_stem(word) for word in known} - set(known)


def unexplained(request: str, function: Mapping[str, Any], values: str, known: Iterable[str]) -> set[str]:
    """Words of a request that neither the tool, nor `known`, nor the `values` it is called with account for."""
    return left_over(request, function, known) - set(_words(f"{values} {' '.join(known)}"))


def swallowed(values: str, quoted: str, function: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> set[str]:
    """Words of `values` that stand in the names of `others`, unless they are `quoted` or `function` is about them."""
    named = {word for f in others for word in _words(f["name"])}
    return (set(_words(values)) & named) - set(_words(quoted)) - set(_weights(function))


def copies(values: str, request: str, function: Mapping[str, Any]) -> bool:
    """Whether all words of `values` stand in the request, and `function` explains none of them."""
    return set(_words(values)) <= set(_words(request)) - set(_weights(function))


def kin(request: str, functions: Sequence[Mapping[str, Any]], name: str, *, near: float) -> list[int]:
    """The numbers of tools that a request may mean instead of the one called `name`, the likeliest first.

    They fit its words about as well (at least `near` of that tool's weight), or have a word of it in their names too.
    """
    weights = _scores(request, functions)
    names = [set(_words(f.get("function", f)["name"])) for f in functions]
    at = next(n for n, f in enumerate(functions) if f.get("function", f)["name"] == name)
    shared = names[at] & set(_words(request))
    bound = near * weights[at]
    fits = [weight > 0 and weight >= bound for weight in weights]
    found = [n for n in range(len(functions)) if n != at and (fits[n] or names[n] & shared)]
    return sorted(found, key=lambda n: (-weights[n], n))


def rank(request: str, functions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of `functions` (with or without `{"function": ...}` around), the likeliest first."""
    weights = _scores(request, functions)
    return sorted(range(len(functions)), key=lambda n: (-weights[n], n))


def _scores(request: str, functions: Sequence[Mapping[str, Any]]) -> list[float]:
    texts = [_weights(f.get("function", f)) for f in functions]
    seen = Counter(word for text in texts for word in text)

    # Who says the very name of a tool means it.
    said = set(re.findall(r"\w+", request.lower()))
    names = [f.get("function", f)["name"].lower() for f in functions]
    if any(literally := [name in said and "_" in name for name in names]):
        return [float(is_said) for is_said in literally]

    def fitting(words: str) -> list[float]:
        wanted = set(_words(words))
        return [
            sum(weight * math.log(1 + len(texts) / seen[word]) for word, weight in text.items() if word in wanted)
            for text in texts
        ]

    # What stands in quotation marks is a value, whatever it is about.
    outside = fitting(clauses.QUOTED.sub(" ", request))
    return outside if any(outside) else fitting(request)


def verbs(functions: Sequence[Mapping[str, Any]]) -> set[str]:
    """Words that a request for one of these tools may begin with."""
    found = set()
    for f in (f.get("function", f) for f in functions):
        found.add(re.split(r"[_\-.\s]", f["name"])[0].lower())
        if words := re.findall(r"[A-Za-z]+", f.get("description") or ""):
            found.add(words[0].lower())
    return found


def _weights(function: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}

    def add(text: str, weight: float) -> None:
        for word in _words(text):
            found[word] = max(found.get(word, 0.0), weight)

    add(function["name"], 3)
    add(function.get("description") or "", 2)
    for name, about in ((function.get("parameters") or {}).get("properties") or {}).items():
        add(name, 1)
        if isinstance(about, Mapping):
            add(about.get("description") or "", 1)
            add(" ".join(str(v) for v in about.get("enum", ())), 1)
    return found


def _words(text: str) -> list[str]:
    """Words without endings, those of one meaning as one word."""
    spread = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    words = [word for word in re.findall(r"[^\W_]+", spread.lower()) if word not in _STOP]
    return [next((_GROUPS[form] for form in _forms(word) if form in _GROUPS), _stem(word)) for word in words]


def _forms(word: str) -> list[str]:
    """What a word may be a form of: notes of not, of note."""
    bare = [word.removesuffix(ending) for ending in _ENDINGS if word.endswith(ending) and len(word) > len(ending) + 2]
    return [word, *(form for b in bare for form in (f"{b}e", b))]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    return word.removesuffix("e") if len(word) > 3 else word
