import json

import pytest

from edge.errors import InputError, UsageError
from edge.runtimes.conversation import Conversation
from edge.runtimes.model import open_bundle
from edge.runtimes.session import ContextFull, Sampling
from tests.tiny_bundle import TEMPLATE, tiny_bundle

STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system prompts here') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
    "{% endfor %}" + TEMPLATE
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    tiny_bundle(tmp_path / "tiny", context_length=100)
    with open_bundle(tmp_path / "tiny") as model:
        yield model


@pytest.fixture
def strict(tmp_path):
    tiny_bundle(tmp_path / "strict", template=STRICT)
    with open_bundle(tmp_path / "strict") as model:
        yield model


def answer(conversation, text, sampling=None):
    return "".join(p.text for p in conversation.say(text, sampling))


def roles(conversation):
    return [m["role"] for m in conversation.messages]


def test_both_sides_are_remembered(model):
    conversation = Conversation(model, system="be kind")
    assert answer(conversation, "one") == "one"
    assert answer(conversation, "two") == "two"
    assert conversation.messages == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "two"},
    ]
    assert conversation.seen[0] == {"role": "system", "content": "be kind"}
    conversation.reset()
    assert conversation.messages == []
    assert conversation.system == "be kind"


def test_the_oldest_turns_leave_when_it_is_full_and_the_system_prompt_stays(model):
    conversation = Conversation(model, system="SYS")
    dropped = []
    for word in ("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"):
        assert answer(conversation, word) == word
        dropped.append(conversation.dropped)
    # Each turn takes 28 of 100 tokens and an answer gets 25: the third question does not fit any
    # more, and the conversation is cut to half of the context at once.
    assert dropped == [0, 0, 2, 0]
    assert len(conversation.messages) == 8
    assert [m["content"][0] for m in conversation.seen] == ["S", "c", "c", "d", "d"]
    assert model.stats.reused_tokens > 0
    conversation.reset()
    assert conversation.first == 0


def test_what_fits_not_even_alone_changes_nothing(model):
    conversation = Conversation(model)
    answer(conversation, "one")
    with pytest.raises(ContextFull, match="100 fit"):
        answer(conversation, "x" * 200)
    assert roles(conversation) == ["user", "assistant"]
    assert conversation.first == 0
    assert answer(conversation, "two") == "two"
    assert model.stats.reused_tokens > 10


def test_a_question_of_just_the_contexts_length_leaves_no_room_for_an_answer(model):
    conversation = Conversation(model)
    with pytest.raises(ContextFull):
        answer(conversation, "x" * 93)  # 100 with its headers
    assert answer(conversation, "x" * 92) == "xx"  # the second fills the last place, and is not fed
    assert model.stats.stopped_by == "context"


def test_a_stopped_answer_is_remembered_as_far_as_it_came(strict):
    conversation = Conversation(strict)
    pieces = conversation.say("abcdef")
    next(pieces), next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": "ab"}
    assert answer(conversation, "go on") == "go on"


def test_a_question_whose_answer_never_began_is_forgotten(strict):
    def stop(done, total):
        raise KeyboardInterrupt

    conversation = Conversation(strict)
    answer(conversation, "one")
    with pytest.raises(KeyboardInterrupt):
        list(conversation.say("x" * 600, reading=stop))
    assert roles(conversation) == ["user", "assistant"]
    assert answer(conversation, "two", Sampling(max_tokens=0)) == ""
    assert roles(conversation) == ["user", "assistant"] * 2


def test_a_system_prompt_that_the_template_refuses_is_refused_at_once(strict):
    with pytest.raises(UsageError, match="no system prompts here"):
        Conversation(strict, system="be kind")
    conversation = Conversation(strict)
    with pytest.raises(UsageError, match="no system prompts here"):
        conversation.system = "be kind"
    assert conversation.system is None
    assert answer(conversation, "hi") == "hi"


def test_without_a_template_every_text_stands_alone(tmp_path):
    tiny_bundle(tmp_path / "plain", template=None)
    with open_bundle(tmp_path / "plain") as model:
        conversation = Conversation(model)
        assert answer(conversation, "one") == "one"
        assert answer(conversation, "two") == "two"
        assert model.stats.prompt_tokens == 3
        with pytest.raises(UsageError, match="no chat template"):
            conversation.system = "be kind"


def test_saved_conversations_go_on(model, tmp_path):
    one = Conversation(model, system="sys")
    answer(one, "é🎉\x1b")
    one.save(tmp_path / "talk.json")
    assert [p.name for p in tmp_path.glob("*talk*")] == ["talk.json"]
    other = Conversation(model)
    answer(other, "something else")
    other.load(tmp_path / "talk.json")
    assert (other.messages, other.system) == (one.messages, "sys")
    assert answer(other, "two") == "two"
    empty = Conversation(model)
    empty.save(tmp_path / "empty.json")
    other.load(tmp_path / "empty.json")
    assert (other.messages, other.system) == ([], None)


def test_another_bundles_conversation_is_refused_unless_asked_for(model, tmp_path):
    conversation = Conversation(model)
    answer(conversation, "one")
    conversation.save(tmp_path / "talk.json")
    tiny_bundle(tmp_path / "other", name="other")
    with open_bundle(tmp_path / "other") as other:
        fresh = Conversation(other)
        with pytest.raises(UsageError, match=r"held with another bundle: tiny(.|\n)*--any-bundle"):
            fresh.load(tmp_path / "talk.json")
        assert fresh.messages == []
        fresh.load(tmp_path / "talk.json", any_bundle=True)
        assert fresh.messages == conversation.messages


GOOD = {
    "edge_conversation": 1,
    "bundle": "tiny",
    "bundle_id": "x",
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edge_conversation": 2}, "another version"),
        ({"messages": None}, "damaged"),
        ({"messages": [1, 2]}, "damaged"),
        ({"messages": GOOD["messages"][:1]}, "damaged"),
        ({"messages": GOOD["messages"][::-1]}, "damaged"),
        ({"messages": [{"role": "user", "content": ["a"]}, GOOD["messages"][1]]}, "damaged"),
        ({"messages": [{"role": "user", "content": "a", "tools": 1}, GOOD["messages"][1]]}, "damaged"),
        ({"messages": [{"role": {}, "content": "a"}, GOOD["messages"][1]]}, "damaged"),
        ({"bundle_id": 7}, "damaged"),
    ],
)
def test_what_is_no_saved_conversation_is_refused(model, tmp_path, change, words):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(InputError, match=words):
        Conversation(model).load(path, any_bundle=True)


def test_files_that_cannot_be_conversations(model, tmp_path):
    conversation = Conversation(model)
    with pytest.raises(UsageError, match="no saved conversation"):
        conversation.load(tmp_path / "none.json")
    path = tmp_path / "talk.json"
    for text in ("{", "[" * 100_000, "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match="is no saved conversation"):
            conversation.load(path)
    with path.open("wb") as f:
        f.truncate(17 << 20)
    with pytest.raises(InputError, match="larger than a conversation"):
        conversation.load(path)
