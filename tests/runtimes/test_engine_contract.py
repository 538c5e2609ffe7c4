"""What every engine promises, tested on every engine there is: a new file is tested the moment it exists.

The fake needs nothing. The others run the zoo's smollm2, exported at full precision.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge import bundle as bundles
from edge import time_spent
from edge.errors import InputError, UsageError
from edge.find import load, names
from edge.runtimes import traffic
from edge.runtimes.model import open_bundle
from edge.runtimes.session import ContextFull, Sampling, Session, generate
from tests.tiny_bundle import tiny_bundle

ENGINES = [
    pytest.param(name, marks=() if name == "echo" else pytest.mark.runtime) for name in names("edge.runtimes.engines")
]
REAL = [p for p in ENGINES if p.values != ("echo",)]

# Of more questions than these, those where the source prefers each of its 64 tokens to the next best by 0.02 and
# more of a logit: where it does not, another processor's rounding chooses another token, and proves nothing.
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "List three fruits.",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "What is 17 + 25?",
    "Give me a name for a cat.",
    "Explain recursion to a child.",
    "今日は何曜日ですか。",
    "🎉 party!",
    "Où est la gare?",
    "Summarize: The quick brown fox jumps over the lazy dog. The dog sleeps on.",
    "How do I boil an egg?",
    "What does HTTP stand for?",
    "Write a Python function that adds two numbers.",
    "Name the planets of the solar system.",
    "Write a SQL query that counts users.",
    "What is 5 times 6?",
    "What is a prime number?",
    "List the days of the week.",
)
N_NEW = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """engine -> its bundle, made when first asked for."""
    root = tmp_path_factory.mktemp("engines")
    made: dict[str, Path] = {}

    def folder(engine):
        if engine not in made:
            if engine == "echo":
                tiny_bundle(root / "echo")
                made[engine] = root / "echo"
            elif engine not in names("edge.export.formats"):
                pytest.skip(f"nothing exports {engine} yet")
            else:
                from edge.export.pipeline import export

                [done] = export("smollm2", root, formats=[engine], quantization="32bit", gate=False)
                made[engine] = done.folder
        return made[engine]

    yield folder
    shutil.rmtree(root)  # half a gigabyte for each


@pytest.fixture(scope="module")
def models(folders):
    opened = {}

    def model(engine):
        if engine not in opened:
            opened[engine] = open_bundle(folders(engine))
        return opened[engine]

    yield model
    for one in opened.values():
        one.close()


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def session(engine, models):
    session = models(engine).session
    session.rewind(0)
    return session


@pytest.fixture
def prompt(engine, models):
    return models(engine).prompt("Tell me a story about a lighthouse.")


def run(session, first, singles):
    """Logits after `first` and after each single token."""
    return [session.feed(first).copy(), *(session.feed([t]).copy() for t in singles)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_is_a_session_that_gives_float32_logits(session, prompt):
    assert isinstance(session, Session)
    assert session.position == 0
    last = session.feed(prompt).copy()
    assert (last.shape, last.dtype) == ((session.vocab_size,), np.float32)
    assert session.position == len(prompt)
    session.rewind(0)
    rows = session.feed_all(prompt)
    assert (rows.shape, rows.dtype) == ((len(prompt), session.vocab_size), np.float32)
    assert np.isfinite(rows).all()
    assert np.square(rows[-1] - last).sum() <= 1e-9 * np.square(last).sum()


def test_rewind_gives_bit_identical_continuations(session, prompt):
    words = [t.id for t in generate(session, prompt, Sampling(max_tokens=12))]
    session.rewind(0)
    fresh = run(session, prompt, words)
    # All over again, after something else was in the cache.
    session.feed(prompt[::-1])
    session.rewind(0)
    assert same(run(session, prompt, words), fresh)
    # From the end of the prompt, and from the middle of the answer.
    for keep in (0, 5, len(words) - 1):
        session.rewind(len(prompt) + keep)
        assert session.position == len(prompt) + keep
        assert same([session.feed([t]).copy() for t in words[keep:]], fresh[1 + keep :])
    # From the middle of the prompt: as a fresh session that is fed in the same two parts.
    half = len(prompt) // 2
    session.rewind(0)
    session.feed(prompt[:half])
    parts = run(session, prompt[half:], words)
    session.rewind(half)
    assert same(run(session, prompt[half:], words), parts)


def test_a_kept_cache_goes_on_bit_for_bit(session, prompt):
    words = [t.id for t in generate(session, prompt, Sampling(max_tokens=8))]
    session.rewind(0)
    fresh = run(session, prompt, words)
    session.rewind(len(prompt) + 3)
    held = [k.copy() for k in session.keep()]
    assert same([session.feed([t]).copy() for t in words[3:]], fresh[4:])
    # Into a cache that held something else, and into a new one.
    session.rewind(0)
    session.feed(prompt[::-1])
    session.restore(len(prompt) + 3, held)
    assert session.position == len(prompt) + 3
    assert same([session.feed([t]).copy() for t in words[3:]], fresh[4:])
    other = session.another()
    other.restore(len(prompt) + 3, held)
    assert same([other.feed([t]).copy() for t in words[3:]], fresh[4:])
    with pytest.raises(InputError, match="cache"):
        other.restore(len(prompt) + 3, [k[..., :-1] for k in held])
    other.close()


def test_two_sessions_on_the_same_weights_do_not_see_each_other(session, prompt):
    words = [t.id for t in generate(session, prompt, Sampling(max_tokens=8))]
    session.rewind(0)
    fresh = run(session, prompt, words)
    session.rewind(len(prompt))
    other = session.another()
    assert other.position == 0
    assert np.array_equal(other.feed(prompt), fresh[0])
    for i, token in enumerate(words):  # in turn
        assert np.array_equal(session.feed([token]), fresh[1 + i])
        assert np.array_equal(other.feed([token]), fresh[1 + i])
    other.close()
    other.close()
    session.rewind(len(prompt))
    assert np.array_equal(session.feed([words[0]]), fresh[1])


def test_a_full_context_leaves_the_session_as_it_was(session, prompt):
    fresh = run(session, prompt, prompt[:2])
    session.rewind(len(prompt))
    too_many = [prompt[0]] * (session.context_length - len(prompt) + 1)
    for feed in (session.feed, session.feed_all):
        with pytest.raises(ContextFull, match=f"{len(prompt)} tokens held, {len(too_many)} more wanted"):
            feed(too_many)
        assert session.position == len(prompt)
    assert same([session.feed([t]).copy() for t in prompt[:2]], fresh[1:])


def test_what_makes_no_sense_is_refused_and_changes_nothing(session, prompt):
    session.feed(prompt)
    for feed in (session.feed, session.feed_all):
        for bad, words in (
            ([session.vocab_size], "outside the vocabulary"),
            ([prompt[0], -1], "outside the vocabulary"),
            ([], "nothing to feed"),
        ):
            with pytest.raises(UsageError, match=words):
                feed(bad)
    for n in (-1, len(prompt) + 1):
        with pytest.raises(UsageError, match=re.escape(f"cannot rewind to {n}")):
            session.rewind(n)
    assert session.position == len(prompt)


def test_closing_twice_is_fine_and_a_closed_session_says_so(engine, folders):
    folder = folders(engine)
    session = load("edge.runtimes.engines", engine).load(folder, bundles.read(folder), threads=1)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.feed([1])
    with pytest.raises(UsageError, match="closed"):
        session.rewind(0)


def test_a_second_session_does_not_disturb_the_first(engine, folders, models, session, prompt):
    fresh = run(session, prompt, prompt[:2])
    session.rewind(len(prompt))
    folder = folders(engine)
    other = load("edge.runtimes.engines", engine).load(folder, bundles.read(folder), threads=1)
    other.feed(prompt[::-1])
    assert same([session.feed([t]).copy() for t in prompt[:2]], fresh[1:])
    other.close()
    session.rewind(len(prompt))
    assert same([session.feed([t]).copy() for t in prompt[:2]], fresh[1:])


def test_it_names_its_build_and_an_extra_that_exists(engine):
    import tomllib

    module = load("edge.runtimes.engines", engine)
    build = module.build()
    assert build
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in build.items())
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert module.EXTRA in project["optional-dependencies"]


def test_its_profiler_times_every_operator(engine, folders, prompt):
    folder = folders(engine)
    found = load("edge.runtimes.profilers", engine).record(
        folder, bundles.read(folder), list(prompt), 4, threads=1, context_length=None
    )
    assert sum(step.tokens for step in found.steps if step.phase == "prefill") == len(prompt)
    decode = [step for step in found.steps if step.phase == "decode"]
    assert len(decode) == 4
    for i, step in enumerate(decode):
        inside = [event for event in found.events if event.phase == "decode" and event.step == i]
        # Operators are within their run, and most of its time is theirs.
        assert 0 < sum(event.us for event in inside) <= 1.05 * step.us
        if engine != "echo":
            assert {event.layer for event in inside} >= set(range(30))
    if engine != "echo":
        _, answering = time_spent.phases({"recording": found.record(), "plain_prefill_s": 1.0, "plain_token_ms": 1.0})
        assert answering.operators[0].operator.startswith(("MatMul", "MUL_MAT", "Fully Connected"))


def test_what_a_token_reads_is_most_of_the_file(engine, folders):
    folder = folders(engine)
    bundle = bundles.read(folder)
    found = traffic.of(folder, bundle)
    if engine == "echo":
        assert found is None
        return
    # SmolLM2's embedding is its output matrix too: all of it is read. TFLite's file holds it twice.
    size = bundle.memory["weights_bytes"]
    assert 4 * 134.4e6 < found.weights_bytes <= size
    assert found.kv_bytes == bundle.memory["kv_bytes_per_token"]


def test_a_shorter_context_can_be_asked_for(engine, folders, prompt):
    folder = folders(engine)
    with open_bundle(folder, context_length=64) as model:
        assert model.session.context_length == 64
        assert len(list(model.generate_ids(prompt, Sampling(max_tokens=3)))) == 3
        with pytest.raises(ContextFull, match="64 fit"):
            model.session.feed([1] * 65)


# --- at full precision, all are the source


@pytest.fixture(scope="module")
def source():
    """Token ids `(n,)` -> the source's logits `(n, vocab)`, by transformers."""
    import torch

    from edge.export.reference import load_model
    from edge.export.source import open_source

    model = load_model(open_source("smollm2"))

    def logits(ids):
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].numpy()

    return logits


@pytest.mark.runtime
@pytest.mark.parametrize("name", REAL)
def test_at_full_precision_it_says_and_computes_what_the_source_does(name, models, source):
    """64 greedy tokens on 20 prompts, and the logits behind them within 1e-6 of the source's (NMSE).

    The source's own greedy tokens are those whose logits it ranks first, position by position,
    when it reads what the engine wrote; so engines that pass agree with each other as well.
    """
    model = models(name)
    error = energy = 0.0
    for question in QUESTIONS:
        prompt = model.prompt(question)
        model.session.rewind(0)
        said = [t.id for t in generate(model.session, prompt, Sampling(max_tokens=N_NEW))]
        wanted = source([*prompt, *said[:-1]])
        assert wanted[len(prompt) - 1 :].argmax(-1).tolist() == said, question
        model.session.rewind(0)
        found = model.session.feed_all([*prompt, *said[:-1]])
        error += np.square(found - wanted).sum(dtype=np.float64)
        energy += np.square(wanted).sum(dtype=np.float64)
    assert error / energy <= 1e-6
    assert len(said) == N_NEW


def test_the_questions_are_twenty_and_differ():
    assert len(set(QUESTIONS)) == 20
