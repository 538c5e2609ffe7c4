"""Calls under the grammar, and plans, as the gate counts them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.export.gate import held_calls
from edge.export.gate.tool_calls import Case
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.engines.echo import EchoSession
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import NO_TOOL_FITS, Answer, ToolCall, write
from tests.runtimes.act.test_mind import SHOWS
from tests.tiny_bundle import STOP, tiny_bundle

LIGHT = {"type": "function", "function": {"name": "light", "parameters": {"properties": {"on": {"type": "boolean"}}}}}
ON, OFF = ToolCall("light", {"on": True}), ToolCall("light", {"on": False})


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    tiny_bundle(tmp_path, template=SHOWS)
    return Tokenizer.load(tmp_path)


def case(request: str, *calls: ToolCall, split: str = "known") -> Case:
    return Case(split, request, (7, 8), Answer(calls, "" if calls else NO_TOOL_FITS), (LIGHT,))


def test_only_what_has_not_the_form_is_made_anew(tokenizer, monkeypatch):
    asked = [case("on", ON), case("off", OFF), case("sing")]
    good = [tokenizer.encode(t) for t in (write([ON]), write([OFF]), NO_TOOL_FITS)]
    broken = [good[0], tokenizer.encode('<tool_call>{"name":"light","arguments":{"on":perhaps}}</tool_call>'), good[2]]
    again = held_calls.Asking(EchoSession(vocab_size=tokenizer.vocab_size), [STOP])
    found = held_calls.compare(asked, good, broken, tokenizer, ChatTemplate(SHOWS), (again, again))
    assert found is not None
    assert found["made_anew"] == {"source": 0, "export": 1}
    assert found["source"]["exact"] == 1
    assert found["export"]["json"] == 1  # whatever the echo says, it has the form
    assert held_calls.judge(found) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert held_calls.compare(asked, good, broken, tokenizer, ChatTemplate(SHOWS), (again, again)) is None


def test_an_answer_that_cannot_be_read_under_the_grammar_fails():
    [failure] = held_calls.judge({"export": {"json": 0.99}})
    assert failure == "under the grammar 99.0% of the answers can be read: all must be"
    assert held_calls.judge(None) == []


def test_a_plan_is_right_when_all_its_calls_are(tokenizer):
    asked = [case("lights on; then lights off", ON, OFF, split="two"), case("on", ON)]
    [plan] = held_calls.plans(asked, tokenizer, ChatTemplate(SHOWS))
    assert [tokenizer.decode(p, skip_special=True) for p in plan] == [
        "user\nlights onassistant\n",
        "user\nlights offassistant\n",
    ]
    on, off = (tokenizer.encode(write([c])) for c in (ON, OFF))
    assert held_calls.planned(asked, [[on, off]], tokenizer) == 1
    assert held_calls.planned(asked, [[off, on]], tokenizer) == 0
    assert held_calls.planned(asked[1:], [], tokenizer) is None


@pytest.mark.runtime
def test_the_source_is_asked_like_any_session():
    class Model:
        """Says the number after the last one; remembers nothing else."""

        def __call__(self, ids: Any, **how: Any) -> Any:
            import torch  # the double speaks its language

            logits = torch.zeros(1, 1, 10)
            logits[0, 0, (int(ids[0, -1]) + 1) % 10] = 5
            return SimpleNamespace(logits=logits, past_key_values="kept")

    ask = held_calls.Asking(held_calls.Reference(Model), [6])
    assert ask([1, 2]) == [3, 4, 5]

    def no_four(logits: np.ndarray, out: Any) -> np.ndarray:
        logits = logits.copy()
        logits[4], logits[6] = -np.inf, 4
        return logits

    assert ask([1, 2], no_four) == [3]
