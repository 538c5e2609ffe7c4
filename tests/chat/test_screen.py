import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.chat.screen import printable


@given(st.text())
def test_nothing_that_moves_or_reorders_comes_through(text):
    shown = printable(text)
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_ordinary_text_comes_through_unchanged(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", "a␛]0;title␇b"),
        ("secret\rpublic", "secretpublic"),
        ("one\r\ntwo", "one\ntwo"),
        ("back\b\b", "back␈␈"),
        ("\x9b31m", "\ufffd31m"),
        ("👩‍👩‍👧 ❤️ שלום\u200f", "👩‍👩‍👧 ❤️ שלום\u200f"),
        ("\ttab\n", "\ttab\n"),
    ],
)
def test_examples(text, shown):
    assert printable(text) == shown
