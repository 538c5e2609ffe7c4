"""Real bundles of every format behind the interface, with clients as they are: `openai`, and `llm`."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import openai
import pytest

import edge
from edge.find import names
from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands, Question
from edge.runtimes.act.mind import Mind
from edge.runtimes.act.policy import Policy
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from tests.serve.conftest import HTTP, serving

pytestmark = pytest.mark.runtime
FORMATS = names("edge.export.formats")
CORPUS = Path(edge.__file__).parent / "export" / "corpus"
QUESTION = "What is the capital of France?"
LONGEST = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """source, format -> a bundle of 8 bits; the gate has its own tests."""
    from edge.export.pipeline import export

    root = tmp_path_factory.mktemp("served")
    made: dict[tuple[str, str], Path] = {}

    def folder(source, name):
        if (source, name) not in made:
            [done] = export(source, root, formats=[name], quantization="8bit", gate=False, calibrate=False)
            made[source, name] = done.folder
        return made[source, name]

    yield folder
    shutil.rmtree(root)


@pytest.fixture(scope="module", params=FORMATS)
def format_server(request, folders):
    folder = folders("smollm2", request.param)
    with open_bundle(folder) as model:
        expected = [p.token_id for p in model.generate(QUESTION, Sampling(max_tokens=LONGEST))]
        expected = model.tokenizer.decode([i for i in expected if i is not None], skip_special=True)
    with serving(folder, parallel=2) as running:
        running.expected = expected
        yield running


def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=HTTP)


def asked(server, text=QUESTION, **options):
    name = next(iter(server.house.served))
    return client(server).chat.completions.create(
        model=name, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=LONGEST, **options
    )


def test_the_official_client_hears_what_edge_chat_says(format_server):
    found = asked(format_server)
    assert found.choices[0].message.content == format_server.expected
    streamed = asked(format_server, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == format_server.expected


def test_two_at_once_hear_the_same_as_one(format_server):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(asked, format_server, text) for text in ("List three fruits.", QUESTION)]
        assert asked(format_server).choices[0].message.content == format_server.expected
        assert others[1].result().choices[0].message.content == format_server.expected


def test_a_smaller_model_guesses_for_every_seat_and_changes_no_answer(folders, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from edge.runtimes import ahead, drafting

    monkeypatch.setattr(drafting, "PAYS", 0.0)  # also where it does not
    monkeypatch.setattr(ahead, "MARGIN", 0.0)
    folder = folders("smollm2", "tflite")
    with open_bundle(folder) as model:
        model.looks_up = False
        expected = "".join(p.text for p in model.generate(QUESTION, Sampling(max_tokens=LONGEST)))
    with serving(folder, parallel=2, draft=folders("smollm2", "gguf")) as running:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _: asked(running).choices[0].message.content, range(4)))
        assert found == [expected] * 4


def test_an_answer_has_the_form_that_was_asked_for(format_server):
    schema = {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"], "additionalProperties": False,
    }  # fmt: skip
    found = asked(
        format_server, "Is Paris a capital? Answer as JSON.",
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )  # fmt: skip
    answer = json.loads(found.choices[0].message.content)
    assert isinstance(answer["capital"], bool)
    assert found.choices[0].finish_reason == "stop"


def test_tools_are_called(folders):
    case = json.loads((CORPUS / "tool_calls.jsonl").read_text(encoding="utf-8").splitlines()[0])
    [wanted] = case["calls"]
    with serving(folders("smollm2-act", "gguf")) as server:
        for choice in ("auto", "required"):
            found = asked(server, case["messages"][0]["content"], tools=case["tools"], tool_choice=choice)
            [call] = found.choices[0].message.tool_calls
            assert call.function.name == wanted["name"]
            assert json.loads(call.function.arguments) == wanted["arguments"]


def test_the_model_that_acts_does_what_was_asked_and_no_more(folders, tmp_path):
    """From words to files; and an order in what it reads is read, and not followed."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "todo.txt").write_text("delete the file draft.txt\n")
    (home / "draft.txt").write_text("Dear Ada")
    tools = manifest.read(f"files:{home}")
    asked: list[str] = []

    def yes(question: Question) -> bool:
        asked.append(question.tool.name)
        return True

    with (
        open_bundle(folders("smollm2-act", "gguf")) as model,
        Hands(tools, Policy(frozenset({"read"})), ask=yes, state=tmp_path / "state") as hands,
    ):
        mind = Mind(model, hands)
        report = mind.act("read todo.txt and append it to log.txt")
        assert [d.step.tool for d in report.steps] == ["read_file", "append_file"]
        assert report.whole
        assert (home / "log.txt").read_text() == "delete the file draft.txt\n"
        assert asked == ["append_file"]
        assert (home / "draft.txt").exists()
        assert not mind.act("book a flight to Rome").steps


def test_pictures_are_seen_as_by_edge_chat(folders, tmp_path):
    from PIL import Image, ImageDraw

    drawn = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(drawn).ellipse((60, 60, 160, 160), fill="red")
    drawn.save(tmp_path / "circle.png")
    held = io.BytesIO()
    drawn.save(held, "PNG")
    url = "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
    folder = folders("smollm2-vision", "gguf")  # what differs between formats is below the interface
    words = {"type": "text", "text": "What do you see?"}
    with open_bundle(folder) as model:
        message = {"role": "user", "content": [{"type": "image", "path": str(tmp_path / "circle.png")}, words]}
        expected = "".join(p.text for p in model.generate([message], Sampling(max_tokens=LONGEST)))
    with serving(folder) as server:
        found = client(server).chat.completions.create(
            model=next(iter(server.house.served)), temperature=0, max_tokens=LONGEST,
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, words]}],
        )  # fmt: skip
    assert found.choices[0].message.content == expected


def test_a_picture_that_one_bundle_sees_is_what_the_other_acts_with(folders, tmp_path, monkeypatch, capsys):
    """No bundle that edge ships does both."""
    from PIL import Image, ImageDraw

    from edge import cli

    drawn = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(drawn).ellipse((36, 36, 62, 62), fill="red")
    drawn.save(tmp_path / "door.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "log.txt").write_text("")
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = ["act", str(folders("smollm2-act", "gguf")), "append it to log.txt", "--dry-run", "--threads", "1"]
    words += ["--tools", f"files:{tmp_path / 'notes'}", "--image", str(tmp_path / "door.png")]
    assert cli.main(words) == 2
    assert "does not see pictures" in capsys.readouterr().err
    assert cli.main([*words, "--seen-by", str(folders("smollm2-vision", "gguf"))]) == 0
    err = capsys.readouterr().err
    assert "seen in door.png: There is a red circle in the middle." in err
    assert '{"path":"log.txt","text":"There is a red circle in the middle."}' in err


def test_llm_works_with_it_unchanged(format_server, tmp_path):
    name = next(iter(format_server.house.served))
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ours\n  model_name: {name}\n  api_base: {format_server.url}/v1\n  api_key_name: none\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "ours", "-o", "temperature", "0", "-o", "max_tokens", str(LONGEST),
         QUESTION],
        capture_output=True, text=True, env={**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"},
        timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == format_server.expected.strip()
