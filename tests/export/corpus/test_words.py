"""The list of words of English chat is what its program writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edge.export.corpus import words

LIST = Path(words.__file__).with_name("english_chat_words.txt")


def test_the_list_has_the_form_that_the_program_gives_it():
    text = LIST.read_text(encoding="utf-8")
    found = Counter({word: int(n) for word, _, n in (line.partition(" ") for line in text.splitlines())})
    assert words.listed(found) == text
    assert len(found) > 5_000


def test_words_are_counted_where_somebody_says_them():
    told = [
        "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nIs it? It is!<|im_end|>\n<|im_start|>assistant\nit"
    ]
    assert words.count(told) == {"Is": 1, "it": 2, "It": 1, "is": 1}


def test_what_was_written_once_is_left_out():
    assert words.listed(Counter(b=2, a=2, c=3, d=1)) == "c 3\na 2\nb 2\n"
