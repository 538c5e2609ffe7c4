"""The data of smollm2-act: always the same, and nothing that judges is ever trained with."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from edge.export.training.act import catalogue, disguise, invent, requests, write
from edge.export.training.act.values import Values, halves, kept_back, kinds
from edge.runtimes.tool_calls import NO_TOOL_FITS

TAUGHT, KNOWN, UNSEEN = catalogue.taught(), catalogue.known(), catalogue.unseen()


def packs(n: int, seed: str = "test") -> list[requests.Pack]:
    rng = random.Random(seed)
    return [requests.pack(rng, 6) for _ in range(n)]


def names(pack: requests.Pack) -> set[str]:
    return {t["function"]["name"] for t in pack.tools}


def test_there_are_many_tools_and_none_is_in_both_halves():
    assert len(TAUGHT) >= 150
    assert 60 <= len(KNOWN) <= 80
    assert len(UNSEEN) >= 30
    assert len({t.name for t in TAUGHT + UNSEEN}) == len(TAUGHT) + len(UNSEEN)
    assert not {t.about for t in TAUGHT} & {t.about for t in UNSEEN}


@pytest.mark.parametrize("tool", TAUGHT + UNSEEN, ids=lambda t: t.name)
def test_every_phrase_of_a_tool_gives_what_it_needs(tool):
    assert tool.train or tool.held_out
    for p in tool.parameters:
        assert p.type in {"string", "integer", "number", "boolean", "array"}
        assert not p.values.startswith("@") or p.values[1:] in kinds()
    needed = {p.name for p in tool.parameters if p.required}
    for phrase in (*tool.train, *tool.held_out):
        assert catalogue.slots(phrase) <= {p.name for p in tool.parameters}
        for seed in range(8):
            text, given = catalogue.say(phrase, tool, Values(random.Random(seed)))
            assert needed <= set(given), phrase
            assert not re.search(r"[{}\[\]|]", text), text
    for phrase in tool.incomplete:
        assert needed - set(catalogue.say(phrase, tool, Values(random.Random(0)))[1]), phrase


def wordings(phrase: str) -> set[str]:
    """Every way to say a phrase, its values left open, without courtesies and punctuation."""
    found = {phrase}
    while any(set(p) & set("([") for p in found):
        found = {option for p in found for option in one_choice(p)}
    open_slots = (re.sub(r"\{(\w+)(:[^{}]*)?\}", r"{\1}", p).strip() for p in found)
    bare = (re.sub(r"^(please|can you|could you|would you|now|ok,) | please$", "", p) for p in open_slots)
    return {re.sub(r"[\s,.:]+", " ", p).strip() for p in bare}


def one_choice(phrase: str) -> list[str]:
    group = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", phrase)
    if group is None:
        return [phrase]
    options = ["", group[2]] if group[1] is None else group[1].split("|")
    return [phrase[: group.start()] + option + phrase[group.end() :] for option in options]


@pytest.mark.parametrize("tool", KNOWN, ids=lambda t: t.name)
def test_no_wording_of_a_held_out_phrase_is_said_in_training(tool):
    said = {w for phrase in tool.train for w in wordings(phrase)}
    for phrase in tool.held_out:
        assert not wordings(phrase) & said, phrase


def test_a_request_has_one_answer():
    for split in ("known", "unseen"):
        for case in requests.held_out(split, 200):
            [made] = case.answer["tool_calls"]
            words = [v for v in made["function"]["arguments"].values() if isinstance(v, str)]
            assert len(set(words)) == len(words), words


def test_the_same_seed_gives_the_same_data():
    assert packs(20) == packs(20)
    assert packs(20) != packs(20, "another")
    assert requests.held_out("unseen", 30) == requests.held_out("unseen", 30)
    assert requests.judged() == requests.judged()


def test_training_never_sees_an_unseen_tool_or_a_held_out_phrase():
    trained = packs(400)
    assert not {n for p in trained for n in names(p)} & {t.name for t in UNSEEN}
    said = {m["content"] for p in trained for c in p.conversations for m in c if m["role"] == "user"}
    judged = {c.messages[-1]["content"] for c in requests.judged() if c.split != "ask"}
    assert not said & judged


def test_no_other_frame_makes_a_wording_that_is_kept_back():
    told = Values(random.Random(0))
    others = 0
    for tool in KNOWN:
        kept = {w.lower() for phrase in tool.held_out for w in wordings(phrase)}
        for wording in (w for phrase in tool.train for w in one_choice_each(phrase)):
            for _ in range(6):
                said = catalogue._reworded(wording, tool, told.rng)
                others += said != wording
                assert not {w.lower() for w in wordings(said)} & kept, (tool.name, said)
    assert others > 500


def one_choice_each(phrase: str) -> set[str]:
    """Every way to say a phrase, with its slots as they are."""
    found = {phrase}
    while any(set(p) & set("([") for p in found):
        found = {option for p in found for option in one_choice(p)}
    return found


def test_any_word_may_be_a_value_in_training_but_those_kept_back():
    many = [f"w{i}x" for i in range(500)]
    drawn = Values(random.Random(0), words=many)
    found = [drawn.word(kind) for kind in ("city", "room", "item") for _ in range(200)]
    assert sum(any(w in f.lower() for w in many) for f in found) > 150
    assert {"basement", "nostalgia"} <= kept_back()
    assert not set(many) & set(str(packs(50)).split())
    email = [drawn.draw("email") for _ in range(200)]
    assert not [e for e in email if " " in e]


def test_held_out_values_are_never_drawn_in_training():
    trained, kept = Values(random.Random(0)), Values(random.Random(0), held_out=True)
    for kind in ("city", "room", "first", "song", "item"):
        assert not {trained.word(kind) for _ in range(200)} & {kept.word(kind) for _ in range(200)}
    assert halves(["a", "b", "c", "d"]) == (["a", "b", "c"], ["d"])


def test_training_shows_known_tools_as_they_are_and_many_others():
    trained = packs(200)
    own = {t.name for t in KNOWN}
    shown = [n for p in trained for n in names(p)]
    assert sum(n in own for n in shown) / len(shown) > 0.3
    assert sum(n not in own for n in shown) / len(shown) > 0.4
    assert len(set(shown)) > 400


def test_a_call_names_a_tool_of_its_manifest_and_gives_all_it_requires():
    kinds_of_answer: Counter[str] = Counter()
    for pack in packs(150):
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in pack.tools}
        assert 2 <= len(schemas) <= 6
        for message in (m for c in pack.conversations for m in c if m["role"] == "assistant"):
            for made in message.get("tool_calls", ()):
                schema, arguments = schemas[made["function"]["name"]], made["function"]["arguments"]
                assert set(schema["required"]) <= set(arguments) <= set(schema["properties"])
                for name, value in arguments.items():
                    assert fits(value, schema["properties"][name]), (name, value)
                assert list(arguments) == [n for n in schema["properties"] if n in arguments]
            kinds_of_answer[kind(message)] += 1
    assert set(kinds_of_answer) == {"one", "two", "ask", "none", "said"}


def kind(message: requests.Message) -> str:
    if calls := message.get("tool_calls"):
        return "one" if len(calls) == 1 else "two"
    if message["content"] == NO_TOOL_FITS:
        return "none"
    return "ask" if message["content"].startswith("Please tell me: ") else "said"


def fits(value, schema) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    return isinstance(value, types[schema["type"]]) and (schema["type"] == "boolean") == isinstance(value, bool)


def test_a_question_back_names_what_is_missing():
    for case in requests.held_out("ask", 60):
        there = {name for t in case.tools for name in t["function"]["parameters"]["properties"]}
        asked = case.answer["content"].removeprefix("Please tell me: ").split(", ")
        assert asked != [case.answer["content"]]
        assert set(asked) <= there


def test_a_disguised_tool_keeps_its_meaning():
    for seed in range(200):
        rng = random.Random(seed)
        tool = rng.choice(TAUGHT)
        shown = disguise.disguised(tool, rng)
        assert len(set(shown.names.values())) == len(tool.parameters)
        by_name = {p.name: p for p in shown.shown.parameters}
        for p in tool.parameters:
            assert (by_name[shown.names[p.name]].about, by_name[shown.names[p.name]].type) == (p.about, p.type)


def test_invented_tools_are_told_apart_and_are_not_real_ones():
    real = {t.name for t in TAUGHT + UNSEEN}
    for seed in range(300):
        made = invent.invented(random.Random(seed), 4)
        assert len({t.name for t in made}) == 4
        assert not {t.name for t in made} & real
        for tool in made:
            needed = {p.name for p in tool.parameters if p.required}
            for phrase in tool.train:
                text, given = catalogue.say(phrase, tool, Values(random.Random(seed)))
                assert needed <= set(given), phrase
                assert not re.search(r"[{}\[\]|]", text), text


def test_what_is_refused_is_no_phrase_of_a_tool_that_is_offered():
    phrases = {t.name: t.held_out for t in KNOWN}
    for case in requests.held_out("none", 60):
        assert case.answer["content"] == NO_TOOL_FITS
        said = re.sub(r"[\s,.:]+", " ", case.messages[-1]["content"].lower())
        for tool in case.tools:
            for wording in (w for p in phrases[tool["function"]["name"]] for w in wordings(p)):
                pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(wording.lower()))
                assert not re.search(pattern, said), (said, wording)


def test_the_corpus_is_what_the_recipe_writes(tmp_path, monkeypatch):
    shipped = write._CORPUS
    monkeypatch.setattr(write, "_CORPUS", tmp_path)
    write.main()
    for name in ("tool_calls.jsonl", "tool_calibration.jsonl"):
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "tool_calls.jsonl").read_text().splitlines()]
    assert Counter(r["split"] for r in rows) == {"unseen": 40, "known": 32, "ask": 8, "none": 8, "two": 8}
