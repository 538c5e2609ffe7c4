import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.chat.markdown import Blocks, Rendered
from edge.errors import MissingError

LINES = st.lists(st.sampled_from(["a", "", "```", "```py", "~~~", "- b", "  ", "````"]), max_size=12)


def cut(text, size):
    blocks = Blocks()
    found = []
    for i in range(0, len(text), size):
        found += blocks.push(text[i : i + size])
    return [b for b in [*found, blocks.flush()] if b]


@given(LINES)
def test_blocks_do_not_depend_on_how_the_stream_is_cut(lines):
    text = "\n".join(lines)
    assert cut(text, 1) == cut(text, 3) == cut(text, max(1, len(text)))


@given(LINES)
def test_only_blank_lines_are_lost(lines):
    text = "\n".join(lines)
    kept = [line for block in cut(text, 2) for line in block.split("\n") if line.strip()]
    assert kept == [line for line in text.split("\n") if line.strip()]


def test_a_fence_is_one_block_with_its_blank_lines():
    assert cut("a\n\n```py\nx\n\n\ny\n```\nb", 4) == ["a\n", "```py\nx\n\n\ny\n```\n", "b"]
    assert cut("```\nnever\n\nclosed", 4) == ["```\nnever\n\nclosed"]


def test_links_are_spelled_out_and_the_block_is_shown_when_complete(capsys):
    rendered = Rendered()
    rendered.push("# Title\n\nsee [this](http://example.org/x) **now**")
    assert "Title" in capsys.readouterr().out
    rendered.flush()
    out = capsys.readouterr().out
    assert "http://example.org/x" in out
    assert "\x1b]8" not in out
    assert "**" not in out


def test_without_rich_it_names_the_install_line(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "rich" else find(name, *a))
    with pytest.raises(MissingError, match=r"showing Markdown needs(.|\n)*edge-deploy\[chat\]"):
        Rendered()
