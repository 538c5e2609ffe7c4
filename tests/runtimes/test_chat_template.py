from __future__ import annotations

import json
import sys

import pytest

from edge.errors import InputError, UsageError
from edge.runtimes import chat_template
from edge.runtimes.chat_template import ChatTemplate

MESSAGES = [{"role": "user", "content": "Hi"}]


def render(source: str, **variables: object) -> str:
    return ChatTemplate(source, variables).render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {{- m.role }}: {{ m['content'] }}\n{% endfor %}", "user: Hi\n"),
        ("{{ bos_token ~ messages|length }}", "<s>1"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ {'a': '<ü>'}|tojson }}", '{"a": "<ü>"}'),
        ("{{ messages|tojson(indent=1) }}", json.dumps(MESSAGES, indent=1)),
        ("{% macro hi(a) %}[{{ a }}]{% endmacro %}{{ hi('b') }}", "[b]"),
        ("{% set a, b = 1, [2] %}{{ a }}{{ b }}", "1[2]"),
        ("{{ messages[0].content.split('i')[0] ~ ' x '.strip() }}", "Hx"),
        ("{{ tools is none }}{{ documents is defined }}{{ add_generation_prompt }}", "TrueTrueTrue"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(',') }}", "Hi"),
    ],
)
def test_what_real_templates_use(source, text):
    assert render(source, bos_token="<s>") == text


HOSTILE = {
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "repeated text": "{{ 'a' * 10**10 }}",
    "padding by a filter": "{{ 'a'|center(10**10) }}",
    "padding by a method": "{{ 'a'.ljust(10**10) }}",
    "padding by format": "{{ '{:>999999999}'.format(1) }}",
    "padding by percent": "{{ '%999999999d' % 1 }}",
    "padding by a named percent": "{{ '%(a)999999999d' % {'a': 1} }}",
    "powers": "{{ 10 ** 10 ** 10 }}",
    "doubling with plus": "{% set n=namespace(s='a') %}{% for i in range(99) %}{% set n.s=n.s+n.s %}{% endfor %}",
    "doubling with tilde": "{% set n=namespace(s='a') %}{% for i in range(99) %}{% set n.s=n.s~n.s %}{% endfor %}",
    "doubling with replace": (
        "{% set n=namespace(s='a') %}{% for i in range(99) %}{% set n.s=n.s|replace('a','aa') %}{% endfor %}"
    ),
    "doubling with blocks": (
        "{% set n=namespace(s='a') %}{% for i in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}"
    ),
    "lists that hold themselves twice": (
        "{% set n=namespace(l=[1]) %}{% for i in range(60) %}{% set n.l=[n.l,n.l] %}{% endfor %}{{ n.l|string }}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "joining": "{{ ('a' * 100000)|list|join('a' * 1000) }}",
    "long output": "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "Python's classes": "{{ ''.__class__.__mro__ }}",
    "Python's globals": "{{ cycler.__init__.__globals__ }}",
    "changing the messages": "{{ messages.append(1) }}",
    "an unknown name's attribute": "{{ nothing.at.all }}",
    "division by nothing": "{{ 1 / 0 }}",
    "broken syntax": "{% for %}",
    "other files": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_stopped(name):
    with pytest.raises(InputError, match=r"chat template (was stopped|fails|does not compile)") as stopped:
        render(HOSTILE[name])
    assert "\n" not in stopped.value.message


def test_a_slow_template_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_TIME_S", 0.0)
    with pytest.raises(InputError, match="it takes more than 0 s"):
        render("{% for i in range(999) %}{{ i }}{% endfor %}")


def test_a_template_may_refuse_a_conversation():
    with pytest.raises(UsageError, match="refuses this conversation: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_tracing_is_left_as_it_was():
    before = sys.gettrace()
    render("{{ messages }}")
    with pytest.raises(InputError):
        render("{{ 1 / 0 }}")
    assert sys.gettrace() is before


def test_where_templates_are_found(tmp_path):
    assert ChatTemplate.load(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "A{{ eos_token }}", "eos_token": {"content": "</s>"}}))
    found = ChatTemplate.load(tmp_path)
    assert found is not None
    assert found.render(MESSAGES) == "A</s>"
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.load(tmp_path).render(MESSAGES) == "D"  # type: ignore[union-attr]
    (tmp_path / "chat_template.jinja").write_text("F")
    assert ChatTemplate.load(tmp_path).render(MESSAGES) == "F"  # type: ignore[union-attr]


def test_files_that_are_no_templates(tmp_path):
    path = tmp_path / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        ChatTemplate.load(tmp_path)
    path.write_bytes(b"x" * (1 << 20) + b"x")
    with pytest.raises(InputError, match="is longer than a template can be"):
        ChatTemplate.load(tmp_path)
    with pytest.raises(InputError, match="is longer than a template can be"):
        ChatTemplate("x" * (1 << 20) + "x")


def test_the_hash_is_of_the_text():
    assert ChatTemplate("a").sha256 == ChatTemplate("a").sha256 != ChatTemplate("b").sha256


@pytest.mark.runtime
def test_rendering_is_transformers_own():
    from transformers import AutoTokenizer

    from edge.export.source import open_source

    folder = open_source("smollm2").folder
    reference = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = ChatTemplate.load(folder)
    assert ours is not None
    conversations = [
        MESSAGES,
        [{"role": "system", "content": "Be brief.\n"}, *MESSAGES],
        [*MESSAGES, {"role": "assistant", "content": " Hello <b>\u00fc</b> "}, {"role": "user", "content": "{{ 1 }}"}],
    ]
    for messages in conversations:
        for prompt in (True, False):
            wanted = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            assert ours.render(messages, add_generation_prompt=prompt) == wanted
