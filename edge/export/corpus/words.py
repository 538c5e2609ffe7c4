"""Write `english_chat_words.txt`: python -m edge.export.corpus.words TEXTS.jsonl

The words that SmolLM2-135M-Instruct (Apache-2.0) uses when it writes both sides of conversations, and how often: it is
given nothing but the beginning of a user's message (`edge.export.distill.own_words`, seed 11). TEXTS.jsonl keeps
what it wrote; a run that was stopped goes on there. The text of `edge distill` with its seed is the same.
No other text was counted. Processors round differently, so another machine may draw other texts, and count a little
otherwise.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edge.export.distill import own_words
from edge.export.source import open_source
from edge.progress import Silent
from edge.runtimes.tokenizer import Tokenizer

TOKENS = 250_000
SEED = 11
FEWEST = 2  # what was written once may be a slip
_WORD = re.compile(r"[A-Za-z]+(?:['\u2019-][A-Za-z]+)*")
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)


def count(texts: Iterable[str]) -> Counter[str]:
    """How often each word was said by the user or the assistant; what a template says itself does not count.

    >>> count(["<|im_start|>system\\nBe good<|im_end|>\\n<|im_start|>user\\nCan't you be?<|im_end|>"])
    Counter({"Can't": 1, 'you': 1, 'be': 1})
    """
    found: Counter[str] = Counter()
    for text in texts:
        for role, said in _TURN.findall(text):
            if role != "system":
                found.update(_WORD.findall(said))
    return found


def listed(found: Counter[str]) -> str:
    """A word and how often it was used on each line, the most used first."""
    kept = sorted((-n, word) for word, n in found.items() if n >= FEWEST)
    return "".join(f"{word} {-n}\n" for n, word in kept)


def main(path: str) -> None:
    checkpoint = open_source("smollm2")
    tokenizer = Tokenizer.load(checkpoint.folder)
    texts = own_words.write(checkpoint, Path(path), n_tokens=TOKENS, seed=SEED, progress=Silent())
    target = Path(__file__).with_name("english_chat_words.txt")
    target.write_text(listed(count(tokenizer.decode(ids) for ids in texts)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
