"""A bundle is given another that guesses for it, if that pays here; what was found is remembered."""

import itertools
import json
from types import SimpleNamespace

import pytest

import edge
from edge import bundle as bundles
from edge.errors import UsageError
from edge.runtimes import ahead, draft, drafting
from edge.runtimes.draft import Draft, Tried
from edge.runtimes.drafting import guess_for
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling
from tests import parity
from tests.peeking import Peeking
from tests.tiny_bundle import STOP, tiny_bundle


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A bundle, and a smaller one of the same words."""
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    for name in ("large", "small"):
        tiny_bundle(tmp_path / name, name=name)
    return tmp_path / "large", tmp_path / "small"


@pytest.fixture
def seconds(monkeypatch):
    """Whatever is done takes so many seconds by the clock of the trial; one by that of answers."""
    takes = SimpleNamespace(draft=1.0)
    count = itertools.count()
    monkeypatch.setattr(ahead, "time", SimpleNamespace(perf_counter=count.__next__))
    feed, guess = Peeking.feed, draft.Draft.guess
    clock = SimpleNamespace(now=0.0)

    def slow(takes_s, work):
        def timed(*args):
            clock.now += takes_s()
            return work(*args)

        return timed

    monkeypatch.setattr(Peeking, "feed", slow(lambda: 1.0, feed))
    monkeypatch.setattr(Peeking, "peek", slow(lambda: -2.0, Peeking.peek))  # four are fed within
    monkeypatch.setattr(draft.Draft, "guess", slow(lambda: takes.draft, guess))
    monkeypatch.setattr(draft, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return takes


@pytest.fixture
def model(folders):
    large, _ = folders
    bundle = bundles.read(large)
    with Model(large, bundle, Peeking(bundle.vocab_size, bundle.context_length, STOP)) as model:
        yield model


def said(model, words):
    return "".join(piece.text for piece in model.generate(words))


def test_what_pays_guesses_ahead_and_changes_nothing(model, folders, seconds):
    words = guess_for(model, folders[1])
    assert words.startswith("small guesses ahead: ")
    assert words.endswith(" tokens in the time of one, as tried on this machine")
    assert said(model, "a sentence that says no word of it twice") == "a sentence that says no word of it twice"
    assert model.stats.accepted_tokens > 20
    with model.another() as second:
        assert said(second, "and one more for the second seat") == "and one more for the second seat"
        assert second.stats.accepted_tokens > 10


def test_what_does_not_pay_is_closed_and_not_opened_again(model, folders, seconds, monkeypatch):
    seconds.draft = 20.0
    closed = []
    close = Model.close
    monkeypatch.setattr(Model, "close", lambda self: closed.append(self.bundle.name) or close(self))
    words = guess_for(model, folders[1])
    assert words.startswith("small is not used: its guesses would give 0.")
    assert closed == ["small"]
    monkeypatch.setattr(drafting, "open_bundle", lambda *_, **__: pytest.fail("it was tried before"))
    assert guess_for(model, folders[1]) == words
    assert said(model, "word for word") == "word for word"


def test_a_trial_is_remembered(model, folders, seconds, monkeypatch, tmp_path):
    first = guess_for(model, folders[1])
    assert len(list(tmp_path.glob("cache/draft/*"))) == len(list(tmp_path.glob("cache/ahead/*"))) == 1
    monkeypatch.setattr(drafting, "trial", lambda *_: pytest.fail("it was tried before"))
    assert guess_for(model, folders[1]) == first
    [note] = tmp_path.glob("cache/draft/*")
    note.write_text(json.dumps({"chances": "?"}))
    with pytest.raises(pytest.fail.Exception):
        guess_for(model, folders[1])


def test_the_one_that_guesses_is_closed_with_the_model(model, folders, seconds):
    guess_for(model, folders[1])
    guesser = model._guesser
    model.close()
    with pytest.raises(UsageError, match="closed"):
        guesser.session.feed([1])


def test_a_model_that_cannot_check_takes_no_guesses(folders):
    with open_bundle(folders[0]) as model, pytest.raises(UsageError, match="nothing can guess for large") as told:
        guess_for(model, folders[1])
    assert "--kv 8bit" in str(told.value)


def test_one_of_other_words_cannot_guess(model, folders):
    path = folders[1] / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"] = {f"x{word}": id for word, id in told["model"]["vocab"].items()}
    told["model"]["merges"] = []
    path.write_text(json.dumps(told))
    with pytest.raises(UsageError, match=r"small cannot guess for large: only .* of its words"):
        guess_for(model, folders[1], check=False)


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("format_name", "quantization", "kv"),
    [("gguf", "q8_0", "8bit"), ("onnx", "int8", "8bit"), ("tflite", "int8", None)],
)
def test_answers_stay_the_same_on_every_runtime(tmp_path, monkeypatch, format_name, quantization, kv):
    """The same source in full precision guesses, on another runtime than that of the model that checks."""
    monkeypatch.setattr(ahead, "_SHARE", 1.0)  # answers are short here
    checkpoint = parity.make("llama_3_2", tmp_path)
    options = {"context_length": 256, "gate": False}
    [done] = edge.export(checkpoint, tmp_path, formats=[format_name], quantization=quantization, kv=kv, **options)
    other = ("onnx", "fp32") if format_name == "gguf" else ("gguf", "f32")
    [small] = edge.export(checkpoint, tmp_path, formats=[other[0]], quantization=other[1], **options)
    with edge.open(done.folder) as model:
        prompt = list(range(3, 40))
        samplings = [Sampling(max_tokens=120), Sampling(max_tokens=120, temperature=0.5, seed=1)]
        model.looks_up = False
        wanted = [[p.token_id for p in model.generate_ids(prompt, sampling)] for sampling in samplings]
        guesser = open_bundle(small.folder)
        given = Draft.between(guesser.session, guesser.tokenizer, model.tokenizer)
        model.draft_with(guesser, given, Tried(tuple(0.9**k for k in range(1, 8)), cost=0.01, reading=0.01))
        model.looks_up = True
        for sampling, tokens in zip(samplings, wanted, strict=True):
            model.session.rewind(0)
            model.hold([])
            assert [p.token_id for p in model.generate_ids(prompt, sampling)] == tokens
        assert guesser.session.position > len(prompt)
