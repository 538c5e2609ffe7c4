"""Vectors of texts: in the form that OpenAI's clients know, on the echo runtime; in GGUF, those that torch computes."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from edge.errors import EdgeError, UsageError
from edge.runtimes import embedders
from edge.runtimes.engines.echo import EchoSession
from edge.runtimes.model import open_bundle
from edge.runtimes.session import ContextFull
from tests import tiny_embedder
from tests.checkpoints import qwen3, smollm2
from tests.serve.conftest import HTTP, ask, serving
from tests.tiny_bundle import tiny_bundle

CONTEXT = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "tiny"
    tiny_bundle(folder, pooling="mean", context_length=CONTEXT)
    with serving(folder, parallel=2, shelf_bytes=1 << 20) as running:
        yield running


def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=HTTP)


def name_of(server):
    return next(iter(server.house.served))


def pooled(ids, pooling="mean"):
    """What echo's states are pooled to: each is its id in bits."""
    states = np.array([[i >> bit & 1 for bit in range(8)] for i in ids], np.float64)
    vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return vector / (np.linalg.norm(vector) or 1)


def embedded(server, given, **more):
    return client(server).embeddings.create(model=name_of(server), input=given, **more)


def test_the_official_client_gets_vectors_and_what_they_cost(server):
    texts = ["hi", "a longer text than one step has room for"]
    ids = [server.house.served[name_of(server)].tokenizer.encode(text) for text in texts]
    found = embedded(server, texts)
    assert [row.index for row in found.data] == [0, 1]
    for row, wanted in zip(found.data, ids, strict=True):
        np.testing.assert_allclose(row.embedding, pooled(wanted), atol=1e-6)
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(len, ids))
    assert found.model == name_of(server)


def test_a_text_and_its_ids_have_the_same_vector_in_either_encoding(server):
    ids = server.house.served[name_of(server)].tokenizer.encode("hello")
    found = [
        embedded(server, given, encoding_format=encoding).data[0].embedding
        for given in ("hello", ["hello"], ids, [ids])
        for encoding in ("float", "base64")
    ]
    numbers = [np.frombuffer(base64.b64decode(f), "<f4") if isinstance(f, str) else f for f in found]
    for vector in numbers:
        np.testing.assert_allclose(vector, pooled(ids), atol=1e-6)


def test_fewer_dimensions_are_the_first_of_them_with_a_length_of_one(server):
    whole, short = (np.array(embedded(server, "hello", **more).data[0].embedding) for more in ({}, {"dimensions": 3}))
    np.testing.assert_allclose(short, whole[:3] / np.linalg.norm(whole[:3]), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "input must be a text, a list of token ids, or a list of either"),
        ({"input": []}, "input must be a text"),
        ({"input": 7}, "input must be a text"),
        ({"input": ["a", 7]}, "input must be a text"),
        ({"input": [True]}, "input must be a text"),
        ({"input": ""}, "input must not be empty"),
        ({"input": ["a", ""]}, "input must not be empty"),
        ({"input": [[]]}, "input must not be empty"),
        ({"input": [[-1]]}, "token ids must be from 0"),
        ({"input": [100000]}, "token ids must be from 0"),
        ({"input": ["a"] * 2049}, "at most 2048 texts fit in a request; it has 2049"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format must be float or base64"),
        ({"input": "a", "dimensions": 0}, "dimensions must be from 1"),
        ({"input": "a", "dimensions": 9}, "has vectors of 8 dimensions"),
        ({"input": "a", "model": 7}, "model must be a text"),
        ({"input": ["a", "b" * (CONTEXT + 1)]}, "context is 64 tokens; a text of the input has 65"),
        ({"input": "b" * (CONTEXT * 300)}, "context is 64 tokens"),
    ],
)
def test_what_cannot_be_embedded_is_refused(server, body, words):
    found = HTTP.post(f"{server.url}/v1/embeddings", json=body)
    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in found.json()["error"]["message"]


def test_a_text_may_fill_the_context(server):
    assert embedded(server, "b" * CONTEXT).usage.prompt_tokens == CONTEXT


def test_vectors_take_turns_with_answers_and_conversations_go_on(server):
    with ThreadPoolExecutor(4) as pool:
        vectors = [pool.submit(embedded, server, [f"text {i} {j}" for j in range(20)]) for i in range(3)]
        said = pool.submit(HTTP.post, f"{server.url}/v1/chat/completions", json=ask("hello"))
        assert said.result().json()["choices"][0]["message"]["content"] == "hello"
        assert [len(v.result().data) for v in vectors] == [20, 20, 20]
    assert all(not model.held for model in server.house.served[name_of(server)].models if model.session.position == 0)
    text = HTTP.get(f"{server.url}/metrics").text
    assert 'edge_requests_total{path="/v1/embeddings",status="200"}' in text


def test_who_hangs_up_stops_the_work(tmp_path, held):
    tiny_bundle(tmp_path / "tiny", pooling="last")
    with serving(tmp_path / "tiny") as server:
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(f"{server.url}/v1/embeddings", json={"input": ["ab"] * 100}, timeout=0.2)
        held.release()
        server.until(lambda: server.house.turns.n_active == 0)
        assert len(embedded(server, "ab").data) == 1


def test_what_fails_fails_alone(tmp_path, monkeypatch):
    def broken(session, tokens):
        raise EdgeError("llama.cpp failed")

    tiny_bundle(tmp_path / "tiny", pooling="last")
    with serving(tmp_path / "tiny") as server:
        with monkeypatch.context() as patched:
            patched.setattr(EchoSession, "feed", broken)
            assert HTTP.post(f"{server.url}/v1/embeddings", json={"input": "ab"}).status_code == 500
        assert len(embedded(server, "ab").data) == 1


def test_models_say_how_long_their_vectors_are(server):
    [model] = client(server).models.list().data
    assert model.edge["embeddings"] == 8


def test_a_format_without_embedders_is_named(server):
    served = server.house.served[name_of(server)]
    width, bundle = served.width, served.bundle
    from dataclasses import replace

    try:
        served.width, served.bundle = 0, replace(bundle, format="onnx")
        with pytest.raises(openai.InternalServerError, match="bundles in GGUF can give them, and this one is in onnx"):
            embedded(server, "a")
    finally:
        served.width, served.bundle = width, bundle


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_vector_is_the_same_in_pieces_and_after_another_text(tmp_path, pooling, chunk):
    tiny_bundle(tmp_path, pooling=pooling)
    with open_bundle(tmp_path) as model:
        for text in ("the same beginning, one", "the same beginning, two", "the same beginning", "x"):
            ids = model.tokenizer.encode(text)
            steps = embedders.steps(model, ids, chunk=chunk)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    np.testing.assert_allclose(end.value, pooled(ids, pooling), atol=1e-6)
                    break


def test_a_memory_that_can_only_be_emptied_is(tmp_path, monkeypatch):
    rewind = EchoSession.rewind

    def whole(session, n_tokens):
        if n_tokens:
            raise EdgeError("not a plain KV cache")
        rewind(session, n_tokens)

    tiny_bundle(tmp_path, pooling="last")
    monkeypatch.setattr(EchoSession, "rewind", whole)
    with open_bundle(tmp_path) as model:
        for text in ("abc", "abd"):
            assert list(embedders.steps(model, model.tokenizer.encode(text), chunk=8)) == [2, 3]


def test_what_has_no_vector_is_refused(tmp_path):
    tiny_bundle(tmp_path / "chats")
    tiny_bundle(tmp_path / "embeds", pooling="last", context_length=4)
    with open_bundle(tmp_path / "chats") as model, pytest.raises(UsageError, match="makes text and no embeddings"):
        next(embedders.steps(model, [1], chunk=1))
    with open_bundle(tmp_path / "embeds") as model:
        with pytest.raises(UsageError, match="nothing to embed"):
            next(embedders.steps(model, [], chunk=1))
        with pytest.raises(ContextFull):
            next(embedders.steps(model, [1] * 5, chunk=1))


def test_a_vector_of_zeros_stays_one():
    assert embedders.unit(np.zeros(3)).tolist() == [0, 0, 0]


# --- GGUF

TEXTS = ("a", "The capital of China is Beijing.", "Explain gravity. " * 12)


def _by_torch(folder: Path, pooling: str) -> list[np.ndarray]:
    """As Sentence Transformers computes them: the states of the last layer, pooled, and made as long as 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().numpy()
        vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        found.append(vector / np.linalg.norm(vector))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """pooling, quantization -> the checkpoint, and its bundle, through the gate."""
    from edge.export.pipeline import export

    root = tmp_path_factory.mktemp("embedder")

    def of(mode, quantization):
        source = root / mode
        if not source.exists():
            # llama.cpp's converter looks for the pooling of the one, and not of the other.
            tiny_embedder.write(source, mode, qwen3 if mode == "lasttoken" else smollm2)
        done = export(source, root / "out", formats=["gguf"], quantization=quantization)
        assert done[0].bundle.proven
        return source, done[0].folder

    return of


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("mode", "pooling", "quantization"),
    [("lasttoken", "last", "f32"), ("lasttoken", "last", "f16"), ("mean_tokens", "mean", "f16")],
)
def test_a_gguf_bundle_has_the_vectors_of_its_source(made, mode, pooling, quantization):
    source, folder = made(mode, quantization)
    wanted = _by_torch(source, pooling)
    with serving(folder, parallel=2) as server:
        for _ in range(2):  # the second time, another seat
            found = [np.array(row.embedding) for row in embedded(server, list(TEXTS)).data]
            cosines = [float(a @ b) for a, b in zip(wanted, found, strict=True)]
            assert min(cosines) >= (0.99999 if quantization == "f32" else 0.999), cosines
            assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for vector in found)
        # It makes text all the same, and what it read before is not in the way.
        assert HTTP.post(f"{server.url}/v1/chat/completions", json=ask("hi", max_tokens=3)).status_code == 200


@pytest.mark.runtime
def test_a_gguf_bundle_that_only_chats_says_so(tmp_path):
    from edge.export.pipeline import export

    source = tiny_embedder.write(tmp_path / "tiny")
    (source / "modules.json").unlink()
    [done] = export(source, tmp_path, formats=["gguf"], quantization="q4_k_m", gate=False)
    # Its tensors lack what those of a model with a head have in front of their names, and are calibrated all the same.
    assert done.bundle.plan["importance_matrix"]["matrices"] == 7 * 3
    with serving(done.folder) as server, pytest.raises(openai.InternalServerError, match="names no way to pool") as err:
        embedded(server, "a")
    assert (err.value.status_code, err.value.code) == (501, "no_embeddings")
