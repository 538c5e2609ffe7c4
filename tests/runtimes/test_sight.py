"""Pictures in conversations, on the echo runtime: what it repeats shows what it saw."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes import sight
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.conversation import Conversation
from edge.runtimes.model import open_bundle
from edge.runtimes.session import ContextFull, Sampling
from edge.runtimes.sight import Prompt, fitted, place, tastes
from tests.tiny_bundle import IMAGE, TEMPLATE, tiny_bundle

Image = pytest.importorskip("PIL.Image")
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS_ALONE = PARTS.replace("{% if m.content is string %}{{ m.content }}{% else %}", "{% if true %}")
PICTURE = IMAGE["token_id"]


@pytest.fixture
def pictures(tmp_path):
    """`pictures(80, 90)`: a file whose upper half is of brightness 80, whose lower half of 90."""

    def make(above, below):
        path = tmp_path / f"{above}-{below}.png"
        pixels = np.full((4, 4, 3), above, np.uint8)
        pixels[2:] = below
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def model(tmp_path):
    tiny_bundle(tmp_path / "seeing", template=PARTS, image=IMAGE)
    with open_bundle(tmp_path / "seeing") as opened:
        yield opened


def ask(words, *paths):
    return [{"role": "user", "content": [*({"type": "image", "path": p} for p in paths), text(words)]}]


def text(words):
    return {"type": "text", "text": words}


def answer(model, messages):
    return [p.token_id for p in model.generate(messages, Sampling(max_tokens=40)) if p.token_id is not None]


def test_a_picture_becomes_rows_in_the_prompt_and_the_session_is_fed_its_features(model, pictures):
    prompt = model.prompt(ask("hi", pictures(80, 90)))
    assert list(prompt).count(PICTURE) == 2
    [placed] = prompt.pictures
    assert placed.runs == ((prompt.index(PICTURE), 2),)
    assert answer(model, ask("hi", pictures(80, 90)))[:2] == [80, 90]
    assert model.stats.pictures == 1


def test_several_pictures_stay_in_their_places(model, pictures):
    messages = [{"role": "user", "content": [
        text("a"), {"type": "image", "path": pictures(80, 90)}, text("b"), {"type": "image", "path": pictures(95, 85)},
        text("c"),
    ]}]  # fmt: skip
    a, b, c = (model.tokenizer.encode(x)[0] for x in "abc")
    assert answer(model, messages) == [a, 80, 90, b, 95, 85, c]


def test_a_picture_is_encoded_once_and_a_second_turn_begins_where_the_first_ended(model, pictures):
    talk = Conversation(model)
    path = pictures(80, 90)
    assert list(talk.say("hi", images=[path]))
    held = model.session.position
    assert model.stats.encode_ms > 0
    list(talk.say("more"))
    assert model.stats.reused_tokens >= held - 1
    assert model.stats.encode_ms == model.stats.preprocess_ms == 0.0
    assert model.sight._encoder.encoded == 1


def test_another_picture_at_the_same_place_is_another_prompt(model, pictures):
    answer(model, ask("hi", pictures(80, 90)))
    assert answer(model, ask("hi", pictures(81, 90)))[:2] == [81, 90]
    begin = model.prompt(ask("hi", pictures(80, 90))).index(PICTURE)
    assert model.stats.reused_tokens == begin


def test_a_cache_is_never_cut_inside_a_picture(model, pictures):
    prompt = model.prompt(ask("hi", pictures(80, 90)))
    start = prompt.index(PICTURE)
    assert prompt.cut_before_picture(start + 1) == start
    assert prompt.cut_before_picture(start) == start
    assert prompt.cut_before_picture(start + 2) == start + 2
    assert [(b, e) for b, e, placed, _ in prompt.segments(0) if placed] == [(start, start + 2)]


def test_a_placeholder_that_somebody_types_is_words(model, pictures):
    prompt = model.prompt(ask("what is <image>?", pictures(80, 90)))
    assert list(prompt).count(PICTURE) == 2
    assert "<image>?" in model.tokenizer.decode(prompt[prompt.index(PICTURE) + 2 :])
    assert list(model.prompt("say <image>")).count(PICTURE) == 0


def test_templates_of_text_alone_get_the_picture_in_the_text(tmp_path, pictures):
    tiny_bundle(tmp_path / "text", template=TEMPLATE, image=IMAGE)
    with open_bundle(tmp_path / "text") as model:
        prompt = model.prompt(ask("hi", pictures(80, 90)))
        assert model.tokenizer.decode(prompt).startswith("<|im_start|>user\n<image><image>\nhi<|im_end|>")


def test_what_templates_like_is_found_by_trying():
    kinds = [(TEMPLATE, (True, False)), (PARTS, (True, True)), (PARTS_ALONE, (False, True))]
    for source, wanted in kinds:
        assert tastes(ChatTemplate(source), "<image>") == wanted, source
    alone = ChatTemplate(PARTS_ALONE)
    assert fitted(alone, [{"role": "user", "content": "hi"}])[0]["content"] == [{"type": "text", "text": "hi"}]
    plain = fitted(ChatTemplate(TEMPLATE), [{"role": "user", "content": [text("a"), text("b")]}])
    assert plain[0]["content"] == "ab"
    with pytest.raises(UsageError, match="a part of the kind 'video'"):
        fitted(alone, [{"role": "user", "content": [{"type": "video"}]}])


def test_a_template_that_drops_pictures_is_found_out(tmp_path, pictures):
    dropping = PARTS.replace(
        "{% for p in m.content %}", "{% for p in m.content if p.type == 'text' or m.role == 'x' %}"
    )
    twice = PARTS.replace("'<image>' if", "'<image><image>' if")
    for name, template in (("dropping", dropping), ("twice", twice)):
        tiny_bundle(tmp_path / name, template=template, image=IMAGE)
        with open_bundle(tmp_path / name) as model:
            if name == "dropping":
                assert tastes(model.template, "<image>") == (True, False)
                continue
            with pytest.raises(InputError, match="writes 2 pictures for a conversation with 1"):
                model.prompt(ask("hi", pictures(80, 90)))


def test_places_and_rows_must_agree(model, pictures):
    seen = model.prompt(ask("hi", pictures(80, 90))).pictures[0].seen
    with pytest.raises(InputError, match="has 3 places for pictures, 1 pictures need 2"):
        place([PICTURE] * 3, [seen], PICTURE)


def test_a_runtime_that_counts_one_by_one_is_not_given_rows_and_columns(tmp_path, pictures):
    tiny_bundle(tmp_path / "placed", template=PARTS, image={**IMAGE, "placed": True})
    with open_bundle(tmp_path / "placed") as model, pytest.raises(UsageError, match="places pictures in rows and col"):
        answer(model, ask("hi", pictures(80, 90)))


def test_words_must_follow_a_picture(tmp_path, pictures):
    tiny_bundle(tmp_path / "end", template="{% for m in messages %}{% for p in m.content %}"
                "{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}{% endfor %}", image=IMAGE)  # fmt: skip
    with open_bundle(tmp_path / "end") as model, pytest.raises(UsageError, match="ends with a picture"):
        model.prompt([{"role": "user", "content": [text("a"), {"type": "image", "path": pictures(80, 90)}]}])


def test_pictures_by_data_and_never_by_web_address(model, pictures):
    import base64

    data = pictures(80, 90).read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    for part in ({"type": "image", "data": data}, {"type": "image_url", "image_url": {"url": uri}}):
        assert answer(model, [{"role": "user", "content": [part, text("hi")]}])[:2] == [80, 90]
    for part, words in (
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "edge works offline"),
        ({"type": "image"}, "needs a path, its bytes, or a data: URI"),
    ):
        with pytest.raises(UsageError, match=words):
            model.prompt([{"role": "user", "content": [part, text("hi")]}])


def test_a_model_that_does_not_see_says_so(tmp_path, pictures):
    tiny_bundle(tmp_path / "blind", template=PARTS)
    with open_bundle(tmp_path / "blind") as model:
        with pytest.raises(UsageError, match="this bundle does not see"):
            model.prompt(ask("hi", pictures(80, 90)))
        with pytest.raises(UsageError, match="has no vision encoder"):
            model._encoder()
        assert answer(model, [{"role": "user", "content": [text("hi")]}])


def test_a_bad_picture_loses_nothing(model, pictures, tmp_path):
    talk = Conversation(model)
    list(talk.say("hi", images=[pictures(80, 90)]))
    before = list(talk.messages)
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures(80, 90).read_bytes()[:50])
    with pytest.raises(InputError, match="cut short or damaged"):
        list(talk.say("and this?", images=[broken]))
    assert talk.messages == before
    assert list(talk.say("go on"))


def test_pictures_that_do_not_fit_change_nothing(model, pictures):
    with pytest.raises(ContextFull):
        answer(model, ask("x" * 2000, pictures(80, 90)))
    assert model.session.position == 0


def test_features_of_another_size_or_that_are_no_numbers_are_refused(model, pictures, monkeypatch):
    prompt = model.prompt(ask("hi", pictures(80, 90)))
    encoder = model.sight._load()
    monkeypatch.setattr(model.sight, "_load", lambda: encoder)
    for rows, words in ((np.zeros((3, 1)), "gave 3 rows for a picture that takes 2"), (np.full((2, 1), np.nan), "no")):
        monkeypatch.setattr(encoder, "encode", lambda views, rows=rows: rows)
        with pytest.raises(EdgeError, match=words):
            model.sight.features(prompt.pictures[0].seen)


def test_memory_of_features_is_bounded(model, pictures, monkeypatch):
    monkeypatch.setattr(sight, "_FEATURES_BYTES", 8)
    monkeypatch.setattr(sight, "_PICTURES", 1)
    for above in (80, 81, 82):
        answer(model, ask("hi", pictures(above, 90)))
    assert len(model.sight._features) == 1
    assert len(model.sight._seen) == 1


def test_conversations_with_pictures_are_kept_and_go_on(model, pictures, tmp_path):
    talk = Conversation(model)
    path = pictures(80, 90)
    list(talk.say("hi", images=[path]))
    talk.save(tmp_path / "talk.json")
    again = Conversation(model)
    again.load(tmp_path / "talk.json")
    assert again.messages == talk.messages
    assert list(again.say("and?"))
    path.unlink()  # what was seen is still known
    assert list(again.say("still?"))
    pictures(70, 71).rename(path)
    with pytest.raises(InputError, match="is another picture than the one this conversation was about"):
        list(again.say("now?"))
    record = json.loads((tmp_path / "talk.json").read_text())
    record["messages"][0]["content"][0]["path"] = 7
    (tmp_path / "talk.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="no turns of user and assistant"):
        again.load(tmp_path / "talk.json")


def test_models_without_a_template_are_shown_no_pictures(tmp_path, pictures):
    tiny_bundle(tmp_path / "plain", template=None, image=IMAGE)
    with open_bundle(tmp_path / "plain") as model:
        talk = Conversation(model)
        with pytest.raises(UsageError, match="has no chat template, so it cannot be shown pictures"):
            list(talk.say("hi", images=[pictures(80, 90)]))
        assert talk.messages == []


def test_a_prompt_of_words_is_a_list_of_ids():
    assert Prompt([1, 2, 3]) == [1, 2, 3]
    assert Prompt([1, 2]).identity == [1, 2]
    assert list(Prompt([1, 2]).segments(1)) == [(1, 2, None, 0)]
