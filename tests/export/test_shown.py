"""Calibration of models that see: conversations with pictures, through the whole source, beside the text."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest

from edge.errors import InputError, UsageError
from edge.export import calibrate, order, shown
from edge.export.calibrate import Calibration
from edge.export.corpus.pictures import draw, picture
from edge.export.planner import sensitivity
from edge.export.source import open_source
from edge.export.texts import texts_for
from edge.export.vision import conversation
from edge.export.vision.conversation import Conversation, Eyes
from edge.export.vision.tower import features
from edge.progress import Silent
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer
from tests import tiny_vlm

pytestmark = pytest.mark.runtime
KINDS = ("llava", "smolvlm", "gemma3", "qwen2_5_vl")


class Opened:
    """A tiny source that sees, and what calibration takes of it."""

    def __init__(self, folder):
        self.checkpoint = open_source(folder)
        self.sight = order.sight_of(self.checkpoint)
        self.text = self.sight.split.text
        self.eyes = Eyes(self.checkpoint, self.sight.rule)
        self.tokenizer, self.template = Tokenizer.load(folder), ChatTemplate.load(folder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    made = {}

    def get(kind: str) -> Opened:
        if kind not in made:
            made[kind] = Opened(getattr(tiny_vlm, kind)(tmp_path_factory.mktemp(kind)))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def llava(opened):
    return opened("llava")


@pytest.fixture(scope="module")
def shipped(llava):
    return calibrate.default_calibration(llava.tokenizer, llava.template, llava.eyes)


def png(scene=None, size=(40, 30)) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    (draw(scene) if scene else Image.new("RGB", size, (200, 30, 30))).save(file, "PNG")
    return file.getvalue()


def asking(picture, words="What is this?") -> list[dict]:
    parts = [picture, {"type": "text", "text": words}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": "It is something red. " * 30}]


def written(folder, *rows) -> object:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_ships_is_text_and_as_many_tokens_about_pictures(llava, shipped):
    text = calibrate.default_calibration(llava.tokenizer, llava.template)
    assert shipped.windows == text.windows
    assert shipped.sha256 != text.sha256
    assert shipped == calibrate.default_calibration(llava.tokenizer, llava.template, llava.eyes)
    about = sum(map(len, shipped.shown))
    assert text.n_tokens <= about < text.n_tokens * 1.1
    record = shipped.record()
    assert record["pictures"] == len(shipped.shown) >= shown.FEWEST
    assert record["picture_tokens"] == 9 * record["pictures"]
    assert record["tokens"] == text.n_tokens + about == shipped.n_tokens
    assert text.record() == {**record, "source": text.source, "sha256": text.sha256, "pictures": 0,
                             "tokens": text.n_tokens, "picture_tokens": 0}  # fmt: skip
    half = shipped.passages[: len(shipped.passages) // 2]
    assert abs(2 * sum(isinstance(p, Conversation) for p in half) - len(shipped.shown)) <= 2


def test_no_picture_that_ships_is_one_that_is_judged_by(shipped):
    shown.check_apart(shipped.shown, "what ships")


def test_a_picture_that_is_judged_by_is_found_when_it_was_scaled_or_saved_again(llava, tmp_path):
    judged = draw(picture(3, held_out=True))
    for change in (lambda i: i, lambda i: i.resize((200, 180)), lambda i: i.convert("RGB")):
        change(judged).save(tmp_path / "a.jpg", quality=80)
        own = calibrate.from_file(
            written(tmp_path, {"messages": asking({"type": "image", "path": "a.jpg"})}),
            llava.tokenizer, eyes=llava.eyes,
        )  # fmt: skip
        with pytest.raises(UsageError, match=r"own\.jsonl shows a picture that is judged by"):
            calibrate.check_disjoint(own, Calibration(((1, 2, 3),), "", "judged"))


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_the_text_part_are_those_of_the_whole_source(opened, kind, monkeypatch):
    monkeypatch.setattr(shown, "MOST", 2)
    one = opened(kind)
    both = calibrate.default_calibration(one.tokenizer, one.template, one.eyes)
    alone = Calibration(both.windows[:2], "", "")
    within = Calibration(both.windows[:2], "", "", (), one.checkpoint)
    seeing = Calibration(both.windows[:2], "", "", both.shown, one.checkpoint)
    plain, same, found = (calibrate._measure(one.text, c, Silent()) for c in (alone, within, seeing))
    assert list(plain) == list(same) == list(found)  # under the names that the text part has alone
    for name, values in plain.items():
        np.testing.assert_allclose(same[name], values, rtol=2e-3, atol=1e-6)
    assert any(np.abs(found[name] / plain[name] - 1).max() > 0.05 for name in plain)


def test_the_decoder_is_fed_with_the_towers_features(llava, shipped):
    import torch

    model = conversation.text_part(llava.checkpoint)
    [about, *_] = shipped.shown
    inputs = model.inputs(about)
    fed = []
    handle = model.model.layers[0].register_forward_pre_hook(lambda _, given: fed.append(given[0]))
    with torch.inference_mode():
        assert conversation.run(model, about).shape == (len(about), 1024)
        assert conversation.predicted(model, about).shape == (conversation.n_predicted(about), 1024)
    handle.remove()
    assert conversation.n_predicted(about) == len(about) - 9
    rows = np.flatnonzero(np.array(about) == about.token_id)
    from edge.export.reference import load_model

    wanted = features(load_model(llava.checkpoint), inputs["pixel_values"].numpy())
    np.testing.assert_allclose(fed[0][0][rows].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_hessians_and_sensitivities_see_the_pictures(llava, shipped):
    few = Calibration(shipped.windows[:1], "", "", shipped.shown[:1], llava.checkpoint)
    statistics = calibrate._measure(llava.text, few, Silent())
    hessians = {}
    calibrate.activation_hessians(llava.text, few, hessians.__setitem__)
    assert list(hessians) == list(statistics)
    for name, squares in statistics.items():
        np.testing.assert_allclose(np.diag(hessians[name]), squares, rtol=1e-3, atol=1e-6)
    text = Calibration(few.windows, "", "")
    found, alone = (sensitivity._measured(llava.text, c, Silent()) for c in (few, text))
    assert found.keys() == alone.keys()
    assert not np.allclose(found["trials"], alone["trials"])


def test_own_conversations_name_pictures_beside_them(llava, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.png").write_bytes(png())
    uri = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    chat = {"messages": [{"role": "user", "content": "hello " * 200}]}
    beside = {"messages": asking({"type": "image"}), "images": ["below/a.png"]}
    path = written(
        tmp_path,
        {"messages": asking({"type": "image", "path": "below/a.png"})},
        {"messages": asking({"type": "image_url", "image_url": {"url": uri}})},
        beside,
        chat,
    )
    found = calibrate.from_file(path, llava.tokenizer, eyes=llava.eyes)
    assert [c.n_rows for c in found.shown] == [9, 9, 9]
    assert found.windows == calibrate.from_file(written(tmp_path, chat), llava.tokenizer).windows
    assert found.record()["source"] == "own.jsonl"
    calibrate.check_disjoint(found, Calibration(((1, 2, 3),), "", "judged"))
    said = tuple(found.shown[0][-40:])
    with pytest.raises(UsageError, match="shares text with own"):
        calibrate.check_disjoint(found, Calibration((said,), "", "judged"))


def test_what_own_conversations_lack_comes_from_what_ships(llava, shipped, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    path = written(tmp_path, *[{"messages": asking({"type": "image", "path": "a.png"})}] * 2)
    found = texts_for(llava.checkpoint, path, None, True, llava.sight).calibration
    assert found.windows == shipped.windows
    assert found.source == "own.jsonl and edge's text"
    assert len(found.shown) == 2
    assert found.seer == llava.checkpoint
    path = written(tmp_path, {"text": "Words of my own. " * 200})
    found = texts_for(llava.checkpoint, path, None, True, llava.sight).calibration
    assert found.shown == shipped.shown
    assert found.source == "own.jsonl and edge's pictures"
    assert found.windows != shipped.windows
    assert texts_for(llava.checkpoint, path, None, True, None).calibration.shown == ()
    assert texts_for(llava.checkpoint, None, None, False, llava.sight).calibration is None


def test_another_picture_makes_another_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    parts = [{"type": "image", "path": "a.png"}, {"type": "image", "path": "data:" + "x" * 9000}, {"type": "image"}]
    path = written(tmp_path, *({"messages": asking(part)} for part in parts), [1], {"messages": 3})
    found = {shown.hash_of(path)}
    for data in (png(), png(size=(30, 40))):
        (tmp_path / "a.png").write_bytes(data)
        found.add(shown.hash_of(path))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image", "path": "none.png"}, r"own\.jsonl:1: none\.png: .*no such file"),
        ({"type": "image", "path": "../out.png"}, r"\.\./out\.png: .*not beneath the folder"),
        ({"type": "image", "path": "/etc/hostname"}, "not beneath the folder"),
        ({"type": "image", "path": "link.png"}, "leads out of the folder"),
        ({"type": "image", "path": "below"}, r"own\.jsonl:1: below: .*is a directory"),
        ({"type": "image", "path": "short.png"}, r"own\.jsonl:1: short\.png: .*(damaged|cut short)"),
        ({"type": "image", "path": "words.png"}, r"words\.png: .*no picture that can be read"),
        ({"type": "image", "url": "https://example.org/a.png"}, "works offline"),
        ({"type": "image"}, "a picture needs a path"),
    ],
)
def test_a_picture_that_cannot_be_taken_is_named_with_the_way_out(llava, tmp_path, part, words):
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "out.png").write_bytes(png())
    (folder / "below").mkdir()
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "short.png").write_bytes(png(picture(1))[:900])
    (folder / "words.png").write_text("words")
    path = written(folder, {"messages": asking(part)})
    with pytest.raises((UsageError, InputError), match=words) as caught:
        calibrate.from_file(path, llava.tokenizer, eyes=llava.eyes)
    assert caught.value.hint


def test_what_does_not_see_refuses_pictures(llava, tmp_path):
    path = written(tmp_path, {"messages": asking({"type": "image", "path": "a.png"})})
    with pytest.raises(UsageError, match="shows a picture, and text alone is read here"):
        calibrate.from_file(path, llava.tokenizer)


def test_pictures_are_bounded(llava, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    path = written(tmp_path, {"messages": asking({"type": "image", "path": "a.png"})})
    monkeypatch.setattr(conversation, "LONGEST", 30)
    with pytest.raises(UsageError, match="at least 256 are needed"):  # what comes later is left out
        calibrate.from_file(path, llava.tokenizer, eyes=llava.eyes)
    monkeypatch.setattr(conversation, "LONGEST", 8)
    with pytest.raises(UsageError, match="more than 8 tokens before its last picture ends"):
        calibrate.from_file(path, llava.tokenizer, eyes=llava.eyes)
    monkeypatch.setattr(shown, "FILES_BYTES", 10)
    with pytest.raises(UsageError, match="its pictures take more than 0 MiB with this one"):
        calibrate.from_file(path, llava.tokenizer, eyes=llava.eyes)


def test_a_conversation_that_was_cut_runs(llava, monkeypatch):
    import torch

    monkeypatch.setattr(conversation, "LONGEST", 30)
    cut = llava.eyes.take(asking({"type": "image"}), [png()], "here")
    assert len(cut) == 30
    with torch.inference_mode():
        assert conversation.run(conversation.text_part(llava.checkpoint), cut).shape[0] == 30


def test_words_that_spell_a_picture_and_models_without_a_template_are_refused(llava, monkeypatch):
    with pytest.raises(InputError, match="has 1 pictures, and 2 places for them"):
        llava.eyes.take(asking({"type": "image"}, "what is an <image>?"), [png()], "here")
    monkeypatch.setattr(llava.eyes, "_template", None)
    with pytest.raises(UsageError, match=r"here shows a picture, but .* has no chat template"):
        llava.eyes.take(asking({"type": "image"}), [png()], "here")
