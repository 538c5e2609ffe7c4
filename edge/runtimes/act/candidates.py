"""Which tools a request may mean, the likeliest first: a small model reads a few tools better than many.

By words alone, with their endings cut: names weigh more than descriptions, rare words more than common ones. The
order is never a decision: tools that come late are shown later, not left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# Everyday words that mean the same thing to tools; each line is one thing.
_SAME = """
lamp light bulb lighting
meeting appointment event calendar agenda schedule engagement
note memo jot
timer countdown
alarm wake
file document text
folder directory
delete remove erase trash cancel drop scrap
list show read see what which tell
find search look locate where
add create new make put write append
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
_STOP = frozenset(_LITTLE.split())


def rank(request: str, functions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of `functions` (with or without `{"function": ...}` around), the likeliest first."""
    texts = [_weights(f.get("function", f)) for f in functions]
    seen = Counter(word for text in texts for word in text)
    wanted = set(_words(request))

    def score(n: int) -> float:
        return sum(w * math.log(1 + len(texts) / seen[word]) for word, w in texts[n].items() if word in wanted)

    return sorted(range(len(functions)), key=lambda n: (-score(n), n))


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
    found = []
    for word in re.findall(r"[^\W_]+", spread.lower()):
        if word in _STOP:
            continue
        stem = _stem(word)
        found.append(_GROUPS.get(word) or _GROUPS.get(stem) or stem)
    return found


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word
