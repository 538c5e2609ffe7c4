"""A text that a model hardly understands is named; its own languages and kinds are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge.commands import export
from edge.export import foreign

CHAT = (6.6, 0.416)  # SmolLM2-135M's perplexity of English chat, and nats of each byte


@pytest.mark.parametrize(
    ("text", "cost", "strange"),
    [
        ("an English story", (22.0, 0.670), False),
        ("a Python program", (16.8, 0.878), False),
        ("a German story", (64.5, 1.540), True),
        ("a Chinese story", (15.6, 1.645), True),  # pieces of characters are guessed more easily than English words
        ("a Finnish story", (91.7, 2.061), True),
    ],
)
def test_other_languages_are_told_from_other_texts(text, cost, strange):
    said = foreign.warning(SimpleNamespace(name="SmolLM2"), SimpleNamespace(source=text), cost, CHAT)
    assert said.startswith(f"SmolLM2 hardly understands {text}: {cost[1]:.2f} nats a byte") == strange
    assert bool(said) == strange


def test_what_was_said_of_texts_is_repeated_when_piped():
    assert export._warnings(None) == []
    assert export._warnings({"warning": "a", "distilled": {"warning": "b"}}) == ["a", "b"]
    assert export._warnings({"distilled": {}}) == []
