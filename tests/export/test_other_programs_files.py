"""What other programs want to find in a bundle: small things without which they do not run."""

from __future__ import annotations

import json

from edge.export import pack
from edge.export.packings.litertlm import taking_parts
from edge.runtimes.chat_template import ChatTemplate

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ ' ' + message['content'] }}{% endfor %}"


def rendered(template, content):
    return ChatTemplate(template).render([{"role": "user", "content": content}], add_generation_prompt=False)


def test_a_template_that_adds_words_takes_parts_too():
    changed = taking_parts(TEMPLATE)
    assert rendered(changed, "Hi") == rendered(TEMPLATE, "Hi") == "<user> Hi"
    assert rendered(changed, [{"type": "text", "text": "Hi"}]) == "<user> Hi"
    assert "words(message.content)" in taking_parts("{{ message.content }}")


def test_a_template_that_looks_at_parts_itself_stays():
    for own in ("{% if message['content'] is string %}x{% endif %}", "no content at all"):
        assert taking_parts(own) == own


def test_the_template_stands_in_the_tokenizers_configuration_too(tmp_path):
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"eos_token": "</s>"}))
    pack._repeat_in_config(path, TEMPLATE)
    assert json.loads(path.read_text()) == {"eos_token": "</s>", "chat_template": TEMPLATE}
    pack._repeat_in_config(path, "another")
    assert json.loads(path.read_text())["chat_template"] == TEMPLATE
    pack._repeat_in_config(tmp_path / "missing.json", TEMPLATE)
    assert not (tmp_path / "missing.json").exists()


def test_the_processor_of_pictures_stands_in_a_file_of_its_own_too(tmp_path):
    pack._repeat_picture_processor(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 36}}))
    pack._repeat_picture_processor(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    assert json.loads(path.read_text()) == {"size": 36}
    path.write_text("{}")
    pack._repeat_picture_processor(tmp_path)
    assert path.read_text() == "{}"
