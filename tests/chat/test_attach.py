"""Paths in what a person types: files of pictures are attached, all else stays words."""

from __future__ import annotations

import pytest

from edge.chat import attach


@pytest.mark.parametrize("line", ["is ~nobody-here/cat.png one?", "file://[cat.jpg", "'a\0.png'", f"{'n' * 5000}.png"])
def test_what_looks_like_a_picture_and_is_none_stays_words(line):
    assert attach.find(line) == (line, [])


@pytest.fixture
def cat(tmp_path):
    path = tmp_path / "My Pictures" / "a cat.jpg"
    path.parent.mkdir()
    path.write_bytes(b"jpeg")
    return path


def test_paths_as_terminals_write_them_when_a_file_is_dragged(cat):
    escaped = str(cat).replace(" ", "\\ ")
    for word in (f"'{cat}'", f'"{cat}"', escaped, cat.as_uri()):
        assert attach.find(f"What is {word} ?") == ("What is ?", [cat])
        assert attach.find(f"{word} ") == ("", [cat])


def test_several_and_their_order(cat):
    other = cat.with_name("b.PNG")
    other.write_bytes(b"png")
    assert attach.find(f"'{other}' and '{cat}': which?") == ("and : which?", [other, cat])


def test_what_is_no_file_stays_in_the_line(cat):
    for line in (
        "What is a cat.jpg?",
        "don't 'quote' me",
        "it's /tmp",
        "/help",
        "a \\ b",
        "",
        "'",
        '"',
        "x" * 5000 + ".png",
    ):
        assert attach.find(line) == (line, [])
    words = cat.with_name("notes.txt")
    words.write_text("hi")
    assert attach.find(f"read '{words}'")[1] == []
