"""A request in one breath, cut where one wish ends and the next begins.

A small model is surer of one wish at a time. English only: what is not understood stays together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_WISHES = """
add adjust append arm ask book bring call cancel change charge check clean clear close copy count create cut
decrease delete dim disable drop email empty enable erase feed fetch file fill find fetch forget get give go have
heat hide increase keep let list load lock log look lower make mark message mix mount move mute note open order
park pause pay pick play plan post power print put raise read record reduce remember remind remove rename repeat
replace reply reschedule reserve reset resume run save say schedule scan search see send set show shut skip snooze start
stop
store switch take tell text tidy toggle trash turn tweet unlock unmute update upload wake warm wash water wipe write
"""
VERBS = frozenset(_WISHES.split())
_QUESTIONS = "what what's when where which who how is are do does will"
_ASKING = frozenset(_QUESTIONS.split())
_POLITE = r"(?:please|kindly|also|then|could you|can you|would you|will you|you can|you should|go ahead and"
_POLITE += r"|I want you to|I need you to|I would like(?: you)? to|I'd like(?: you)? to)"
_BARE = re.compile(rf"(?:(?:{_POLITE}|and|now)\b,?\s*)+", re.IGNORECASE)
_LEAD = re.compile(r"^((?:please|kindly|(?:could|can|would|will) you)\s+)?(?:(?:also|then|now)\b,?\s+)+", re.IGNORECASE)
_JOINT = re.compile(
    r"\s*;\s*(?:and\s+|then\s+|also\s+|after that,?\s+)*"
    r"|(?<=[^\s.])[.!?]\s+(?:and\s+|then,?\s+|also,?\s+|after that,?\s+|afterwards,?\s+|finally,?\s+|next,?\s+)*(?=\S)"
    r"|,?\s+(?:and\s+)?(?:then|also|after that|afterwards|finally|after which)\b,?\s+(?:also\s+)?"
    r"|,?\s+and\s+|,\s+",
    re.IGNORECASE,
)
_STRONG = re.compile(r"[;.!?]|\b(?:then|also|after|finally)", re.IGNORECASE)
_WISHING = re.compile(r"I (?:want|need|would like)\b|I'd like\b|make sure\b", re.IGNORECASE)
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)")


@dataclass(frozen=True)
class Clause:
    """One wish. `sure` is false when it was cut off at a mere "and" or comma, which may stand inside a value."""

    text: str
    joint: str = ""

    @property
    def sure(self) -> bool:
        return not self.joint or bool(_STRONG.search(self.joint))


def split(request: str, verbs: Iterable[str] = (), fits: Callable[[str], bool] = lambda words: False) -> list[Clause]:
    """The wishes of a request, in order.

    At "and" and at a comma it is cut only before what begins like a wish, with a verb of ours or one of `verbs`, and
    before what `fits` a tool.

    >>> [c.text for c in split("Turn on the lamp and buy milk and eggs, then lock the door")]
    ['Turn on the lamp', 'buy milk and eggs', 'lock the door']
    """
    request = request.strip()
    known = VERBS | {verb.lower() for verb in verbs} | {"buy"}
    quoted = [range(m.start(), m.end()) for m in QUOTED.finditer(request)]
    made: list[Clause] = []
    begun, joint, at = 0, "", 0
    while found := _JOINT.search(request, at):
        at = max(found.end(), at + 1)
        before, after = request[begun : found.start()], request[found.end() :]
        strong = bool(_STRONG.search(found[0]))
        inside = any(found.start() in q for q in quoted)
        # Behind a colon stand words to be kept as they are.
        told = ":" in re.sub(r"\d:\d", "", before) and not strong
        wishless = not before.strip() or _BARE.fullmatch(before.strip())  # "Please also": it goes on
        if inside or told or wishless or not _begins_wish(after, known, fits, strong=strong):
            continue
        made.append(Clause(_led(before), joint))
        begun, joint = found.end(), found[0]
    made.append(Clause(_led(request[begun:]), joint))
    return [c for c in made if c.text]


def _led(text: str) -> str:
    """Without what only joins it to what was said before."""
    return _LEAD.sub(lambda m: m[1] or "", text.strip())


def merge(clauses: Sequence[Clause], at: int) -> list[Clause]:
    """The clauses with number `at` put back onto the one before it."""
    whole = Clause(clauses[at - 1].text + clauses[at].joint + clauses[at].text, clauses[at - 1].joint)
    return [*clauses[: at - 1], whole, *clauses[at + 1 :]]


def _begins_wish(text: str, verbs: frozenset[str], fits: Callable[[str], bool], *, strong: bool) -> bool:
    bare = re.sub(rf"^(?:{_POLITE}\s+)+", "", text, flags=re.IGNORECASE)
    words = re.findall(r"[\w']+", bare.lower())
    if len(words) < 2:
        return False
    if strong or words[0] in verbs or words[0] in _ASKING:
        return True
    part = _JOINT.split(bare, maxsplit=1)[0]
    return len(part.split()) > 2 and (bool(_WISHING.match(part)) or fits(part))
