"""What programs are told, on the echo runtime, over a real socket."""

import base64
import importlib.util
import io
import json

import openai
import pytest
from PIL import Image

from edge.errors import InputError
from edge.runtimes.engines.echo import EchoSession
from tests.serve.conftest import HTTP, ask, serving
from tests.tiny_bundle import IMAGE, TEMPLATE, tiny_bundle

NAME = "tiny-echo-none"


def _png():
    held = io.BytesIO()
    Image.new("RGB", (48, 32), "teal").save(held, "PNG")
    return base64.b64encode(held.getvalue()).decode()


PNG = _png()
TOOL = {
    "type": "function",
    "function": {"name": "tv", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
}
# Writes tools as real templates do: in a turn of their own.
TOOLS_TEMPLATE = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>{% endif %}" + TEMPLATE


def openai_client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=HTTP)


def events(response):
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_the_official_client_gets_an_answer(server):
    found = openai_client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "héllo 🎉"}]
    )
    assert found.choices[0].message.content == "héllo 🎉"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.completion_tokens == len("héllo 🎉".encode())
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.model == NAME


def test_the_official_client_gets_a_stream_with_usage_at_its_end(server):
    stream = openai_client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "héllo 🎉"}], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "héllo 🎉"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 11
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_a_stream_is_server_sent_events_that_end_with_done(client):
    found = client.post("/v1/chat/completions", json=ask("hi", stream=True))
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.text.endswith("data: [DONE]\n\n")
    assert "usage" not in events(found)[0]


@pytest.mark.parametrize("stop", ["lo", ["zzz", "lo"]])
@pytest.mark.parametrize("stream", [True, False])
def test_stop_texts_end_the_answer_before_them(client, stop, stream):
    found = client.post("/v1/chat/completions", json=ask("hello world", stop=stop, stream=stream))
    if stream:
        choices = [e["choices"][0] for e in events(found)]
        assert "".join(c["delta"].get("content", "") for c in choices) == "hel"
        assert choices[-1]["finish_reason"] == "stop"
    else:
        assert found.json()["choices"][0]["message"]["content"] == "hel"
        assert found.json()["usage"]["completion_tokens"] == 5


@pytest.fixture
def two_talks(tmp_path):
    """Serve with `options`; of two conversations that take turns, how much of each second question was not read."""
    folder = tmp_path / "tiny"
    tiny_bundle(folder)

    def talk(*, whole=False, **options):
        cached = []
        with serving(folder, **options) as server:
            talks = [[{"role": "user", "content": "alike " + letter * 300}] for letter in "ab"]
            for _ in range(2):
                for turns in talks:
                    done = HTTP.post(server.url + "/v1/chat/completions", json={"messages": turns}).json()
                    said = done["choices"][0]["message"]["content"]
                    assert said == turns[-1]["content"]
                    cached.append(done["usage"]["prompt_tokens_details"]["cached_tokens"])
                    turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "more"}]
            shelf = next(iter(server.house.served.values())).seats.shelf
        return cached if whole else cached[2:], len(shelf), shelf.n_bytes

    return talk


def test_conversations_that_share_a_seat_are_not_read_again(two_talks):
    cached, n, n_bytes = two_talks(shelf_bytes=1 << 20)
    assert min(cached) >= 600
    assert (n, n_bytes > 0) == (1, True)


def test_a_server_that_starts_again_goes_on_with_them(two_talks, tmp_path, caplog):
    home = tmp_path / "kept"
    home.mkdir()
    two_talks(shelf_bytes=1 << 20, keep_in=home)
    assert sorted(p.name[-8:] for p in home.iterdir()) == ["-0.cache", "-1.cache"]
    assert {p.stat().st_mode & 0o777 for p in home.iterdir()} == {0o600}
    again, _, _ = two_talks(shelf_bytes=1 << 20, keep_in=home, whole=True)
    assert min(again) >= 300
    first, second = sorted(home.iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    second.write_bytes(b"edge cache 1\n")
    again, _, _ = two_talks(shelf_bytes=1 << 20, keep_in=home, whole=True)
    assert max(again[:2]) < 100
    assert caplog.text.count("a conversation is read again") == 2


def test_conversations_that_begin_alike_have_seats_of_their_own(two_talks):
    cached, n, _ = two_talks(parallel=2)
    assert min(cached) >= 600
    assert n == 0


@pytest.mark.parametrize("shelf_bytes", [0, 100])
def test_they_are_where_there_is_no_room_for_them(two_talks, shelf_bytes):
    cached, n, n_bytes = two_talks(shelf_bytes=shelf_bytes)
    assert max(cached) < 100
    assert (n, n_bytes) == (0, 0)


def test_a_cache_that_cannot_be_brought_back_is_read_again(two_talks, monkeypatch):
    def broken(session, n_tokens, kept):
        session.rewind(0)
        raise InputError("another shape")

    monkeypatch.setattr(EchoSession, "restore", broken)
    cached, _, _ = two_talks(shelf_bytes=1 << 20)
    assert cached == [0, 0]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_that_is_cut_says_so(client, field):
    choice = client.post("/v1/chat/completions", json=ask("hello", **{field: 3})).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hel", "length")


def test_the_second_turn_reads_only_what_is_new(client):
    first = client.post("/v1/chat/completions", json=ask("a long enough beginning")).json()
    said = first["choices"][0]["message"]["content"]
    turns = [
        {"role": "user", "content": "a long enough beginning"}, {"role": "assistant", "content": said},
        {"role": "user", "content": "more"},
    ]  # fmt: skip
    usage = client.post("/v1/chat/completions", json={"messages": turns}).json()["usage"]
    new = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    assert new <= len("more") + 10


def test_the_odds_of_tokens_are_the_models_own(server):
    found = openai_client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "hi"}], logprobs=True, top_logprobs=2, temperature=0
    )
    content = found.choices[0].logprobs.content
    assert [c.token for c in content] == ["h", "i"]
    assert content[0].logprob == pytest.approx(0, abs=1e-6)
    assert content[0].top_logprobs[0].token == "h"
    assert content[0].top_logprobs[1].logprob == pytest.approx(-100, abs=1e-3)


def test_a_bias_changes_what_is_said(server, client):
    token = server.house.served[NAME].tokenizer.encode("z")[0]
    body = ask("hi", logit_bias={str(token): 100}, max_tokens=2, temperature=0)
    # As likely as what it would say: of equals, the lower id is taken; a little more tips the scale.
    body["presence_penalty"] = 0.5
    said = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert said in ("hz", "zi", "hi")
    more = client.post("/v1/chat/completions", json={**body, "logit_bias": {str(token): -100}}).json()
    assert more["choices"][0]["message"]["content"] == "hi"


def test_completions_continue_a_text_or_ids(server, client):
    found = openai_client(server).completions.create(model=NAME, prompt="again ", max_tokens=6, echo=True)
    assert found.choices[0].text == "again again "
    ids = server.house.served[NAME].tokenizer.encode("xyz")
    assert client.post("/v1/completions", json={"prompt": ids}).json()["choices"][0]["text"] == "xyz"
    stream = openai_client(server).completions.create(model=NAME, prompt="mno", stream=True)
    assert "".join(c.choices[0].text for c in stream) == "mno"


def test_models_are_listed_with_what_they_can_do(server, client):
    [model] = openai_client(server).models.list().data
    assert model.id == NAME
    assert model.edge == {
        "format": "echo", "quantization": "none", "context_length": 1024, "chat": True, "vision": False,
        "tools": False, "embeddings": 0, "proven": True,
    }  # fmt: skip
    assert openai_client(server).models.retrieve(NAME).id == NAME


def test_two_bundles_are_served_by_their_names(tiny, tmp_path):
    tiny_bundle(tmp_path / "other", name="other")
    with serving(tiny, tmp_path / "other") as server:
        client = openai_client(server)
        assert [m.id for m in client.models.list()] == [NAME, "other-echo-none"]
        found = client.chat.completions.create(model="other-echo-none", messages=[{"role": "user", "content": "a"}])
        assert found.model == "other-echo-none"


def test_what_is_not_there_is_said(server):
    client = openai_client(server)
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt' here; there are: tiny-echo-none"):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.models.retrieve("gpt")
    with pytest.raises(openai.InternalServerError, match="makes text and no embeddings"):
        client.embeddings.create(model=NAME, input="a")
    assert HTTP.get(f"{server.url}/v1/nothing").json()["error"]["message"] == "there is no GET /v1/nothing here"


def test_a_conversation_that_does_not_fit_is_refused_before_it_is_read(server):
    with pytest.raises(openai.BadRequestError, match="context is 1024 tokens") as err:
        openai_client(server).chat.completions.create(model=NAME, messages=[{"role": "user", "content": "a" * 2000}])
    assert err.value.code == "context_length_exceeded"


def test_roles_and_parts_become_what_templates_know(client):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert (
        client.post("/v1/chat/completions", json={"messages": messages}).json()["choices"][0]["message"]["content"]
        == "ab"
    )


def test_without_its_library_metrics_say_what_to_install(tiny, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "prometheus_client" else find(name, *more)
    )
    with serving(tiny) as server:
        assert HTTP.post(f"{server.url}/v1/chat/completions", json=ask("hi")).status_code == 200
        found = HTTP.get(f"{server.url}/metrics")
        assert (found.status_code, "edge-deploy[serve]" in found.text) == (501, True)


# --- tools


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acting") / "tiny"
    tiny_bundle(folder, template=TOOLS_TEMPLATE)
    with serving(folder) as running:
        yield running


CALL = '<tool_call>{"name":"tv","arguments":{"on":true}}</tool_call>'


@pytest.mark.parametrize("words", ["", "Well. "])
def test_calls_are_told_apart_from_words(acting, words):
    found = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": words + CALL}], tools=[TOOL]
    )
    [call] = found.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("tv", {"on": True})
    assert found.choices[0].finish_reason == "tool_calls"
    assert (found.choices[0].message.content or "") == words


def test_calls_are_told_apart_in_streams(acting):
    stream = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "Well. " + CALL}], tools=[TOOL], stream=True
    )
    chunks = [c.choices[0] for c in stream]
    assert "".join(c.delta.content or "" for c in chunks).strip() == "Well."
    [call] = [c.delta.tool_calls[0] for c in chunks if c.delta.tool_calls]
    assert (call.index, call.function.name) == (0, "tv")
    assert chunks[-1].finish_reason == "tool_calls"


def test_what_was_called_and_came_back_goes_into_the_prompt(acting):
    first = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": CALL}], tools=[TOOL]
    )
    reply = openai_client(acting).chat.completions.create(
        model=NAME, tools=[TOOL],
        messages=[
            {"role": "user", "content": CALL}, first.choices[0].message,
            {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "it is on"},
            {"role": "user", "content": "thanks"},
        ],
    )  # fmt: skip
    assert reply.choices[0].message.content == "thanks"


def test_a_call_that_no_client_could_read_is_told_in_words(acting):
    broken = CALL.replace("true", r'"\ud800"')
    found = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": broken}], tools=[TOOL]
    )  # fmt: skip
    assert (found.choices[0].message.tool_calls, found.choices[0].message.content) == (None, broken)


def test_with_tool_choice_none_calls_are_words(acting):
    found = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": CALL}], tools=[TOOL], tool_choice="none"
    )
    assert found.choices[0].message.content == CALL


def test_a_template_without_tools_is_not_given_any(server):
    with pytest.raises(openai.BadRequestError, match="has no place for tools"):
        openai_client(server).chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "a"}], tools=[TOOL]
        )


# --- answers of a form


PERSON = {
    "type": "object", "properties": {"name": {"enum": ["Ada", "Bo"]}, "age": {"type": "integer"}},
    "required": ["name", "age"], "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_has_the_schema_that_was_asked_for(server, stream):
    # The fake would say back what it was told.
    found = openai_client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "no JSON"}], max_tokens=60, stream=stream,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
    )  # fmt: skip
    text = "".join(c.choices[0].delta.content or "" for c in found) if stream else found.choices[0].message.content
    assert set(json.loads(text)) == {"name", "age"}


def test_an_answer_is_a_json_object(server):
    found = openai_client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "no JSON"}], response_format={"type": "json_object"},
        max_tokens=60,
    )  # fmt: skip
    assert isinstance(json.loads(found.choices[0].message.content), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "radio"}}])
def test_a_tool_that_must_be_called_is(acting, choice):
    radio = {"type": "function", "function": {"name": "radio"}}
    found = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "no call"}], tools=[TOOL, radio], tool_choice=choice,
        max_tokens=80,
    )  # fmt: skip
    [call] = found.choices[0].message.tool_calls
    assert call.function.name in (["tv", "radio"] if choice == "required" else ["radio"])
    assert found.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("said", [CALL.replace('{"on"', '{"volume":"loud","on"'), "no call"])
def test_a_strict_tool_is_called_as_its_schema_says_or_not_at_all(acting, said):
    # The fake says back what it was told: a call with an argument that the tool does not have.
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    found = openai_client(acting).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": said}], tools=[strict], max_tokens=200, temperature=0
    )
    message = found.choices[0].message
    if said == "no call":
        assert message.tool_calls is None
        assert message.content == said
    else:
        assert message.tool_calls
        for call in message.tool_calls:
            assert json.loads(call.function.arguments).keys() <= {"on"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "tv", "strict": "yes"}}]},
            "strict must be true or false",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}},
            "cannot be held",
        ),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "cannot be asked for together"),
    ],
)
def test_a_form_that_cannot_be_held_is_refused(acting, body, words):
    found = HTTP.post(f"{acting.url}/v1/chat/completions", json=ask("a", **body))
    assert (found.status_code, words in found.text) == (400, True)


# --- pictures


def picture(url):
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing") / "tiny"
    tiny_bundle(folder, image=IMAGE)
    with serving(folder) as running:
        yield running


def test_pictures_come_as_data(seeing):
    found = HTTP.post(f"{seeing.url}/v1/chat/completions", json=picture(f"data:image/png;base64,{PNG}"), timeout=20)
    assert found.json()["choices"][0]["message"]["content"].endswith("what is it?")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "/etc/passwd", "http://127.0.0.1/a.png", "https://example.com/a.png", "data:text/plain,a"],
)
def test_nothing_is_fetched(seeing, url):
    found = HTTP.post(f"{seeing.url}/v1/chat/completions", json=picture(url))
    assert found.status_code == 400
    assert "no picture is fetched from a file or an address" in found.json()["error"]["message"]


@pytest.mark.parametrize("part", [{"type": "image", "path": "/etc/passwd"}, {"type": "image", "data": "x"}])
def test_no_other_kind_of_part_reaches_the_model(seeing, part):
    found = HTTP.post(f"{seeing.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
    assert (found.status_code, "there are text and image_url" in found.text) == (400, True)


def test_what_is_no_picture_is_said(seeing):
    found = HTTP.post(f"{seeing.url}/v1/chat/completions", json=picture("data:image/png;base64,AAAA"))
    assert (found.status_code, "is no picture that can be read" in found.text) == (400, True)


def test_a_model_that_does_not_see_says_so(client):
    found = client.post("/v1/chat/completions", json=picture(f"data:image/png;base64,{PNG}"))
    assert (found.status_code, "sees no pictures" in found.text) == (400, True)
