"""Caches of conversations in files: taken back by what made them, and by nothing else."""

import json

import numpy as np
import pytest

from edge import cli
from edge.errors import InputError
from edge.runtimes import kept
from edge.runtimes.engines import echo
from edge.runtimes.model import open_bundle
from tests.tiny_bundle import tiny_bundle

FIRST = "a beginning that is long enough to be worth keeping, and then some more of it, so that it is " * 2


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def answer(model, *turns):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return "".join(p.text for p in model.generate(messages))


@pytest.fixture
def path(folder, tmp_path):
    with open_bundle(folder) as model:
        assert answer(model, FIRST) == FIRST
        assert kept.keep(model, tmp_path / "talk.cache")
    assert (tmp_path / "talk.cache").stat().st_mode & 0o777 == 0o600
    return tmp_path / "talk.cache"


def test_what_was_kept_is_not_read_again(folder, path):
    with open_bundle(folder) as model:
        n = kept.restore(model, path)
        assert n == model.session.position > len(FIRST)
        assert answer(model, FIRST, FIRST, "and now?") == "and now?"
        assert model.stats.reused_tokens == n


def test_nothing_is_kept_of_what_is_read_in_no_time(folder, tmp_path, path):
    with open_bundle(folder) as model:
        answer(model, "short")
        assert not kept.keep(model, path)
        assert not path.exists()
        assert kept.restore(model, path) == 0


def test_another_bundle_or_runtime_does_not_take_it(folder, tmp_path, path, monkeypatch):
    tiny_bundle(tmp_path / "other", name="other")
    with open_bundle(tmp_path / "other") as model, pytest.raises(InputError, match="is of another bundle"):
        kept.restore(model, path)
    with open_bundle(folder, context_length=100) as model, pytest.raises(InputError, match="and 100 fit"):
        kept.restore(model, path)
    monkeypatch.setattr(echo, "build", lambda: {"echo": "2"})
    with open_bundle(folder) as model, pytest.raises(InputError, match="is of another runtime"):
        kept.restore(model, path)


def test_damage_anywhere_is_found(folder, path):
    whole = path.read_bytes()
    with open_bundle(folder) as model:
        for at in range(0, len(whole), max(1, len(whole) // 97)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            with pytest.raises(InputError, match=r"no kept cache|damaged|of another|and 1024 fit"):
                kept.restore(model, path)
        for size in (0, 5, 13, 45, 60, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match=r"no kept cache|cut short or damaged"):
                kept.restore(model, path)
        assert answer(model, "fine") == "fine"


def test_headers_that_lie_are_refused(folder, path):
    arrays = (
        '"O", "shape": [1]',
        '"f4,(", "shape": [1]',
        '"u1", "shape": [Infinity]',
        '"u1", "shape": [9, 0]',
        '"V", "shape": [9]',
    )
    lies = [f'{{"arrays": [{{"dtype": {array}}}], "held": []}}'.encode() for array in arrays]
    for header in (b"[]", b"{}", b"\xff", *lies):
        path.write_bytes(b"edge cache 1\n" + bytes(32) + len(header).to_bytes(8, "little") + header + b"x" * 8)
        with open_bundle(folder) as model, pytest.raises(InputError, match="cut short or damaged"):
            kept.restore(model, path)


@pytest.mark.parametrize("arrays", [[], ["text"], [3.5]])
def test_what_no_session_keeps_is_refused(folder, path, monkeypatch, arrays):
    monkeypatch.setattr(echo.EchoSession, "keep", lambda self: [np.array(a) for a in arrays])
    with open_bundle(folder) as model:
        answer(model, FIRST)
        assert kept.keep(model, path)
        with pytest.raises(InputError, match="is not what the model keeps"):
            kept.restore(model, path)


def test_a_saved_chat_goes_on_where_it_was(folder, tmp_path, capsys):
    talk = tmp_path / "talk.json"
    assert cli.main(["chat", str(folder), "-p", FIRST, "--save", str(talk)]) == 0
    assert kept.beside(talk).is_file()
    capsys.readouterr()
    args = ["chat", str(folder), "-p", "and now?", "--resume", str(talk), "--save", str(talk), "--json"]
    assert cli.main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == "and now?"
    assert found["stats"]["reused_tokens"] > 2 * len(FIRST)
    kept.beside(talk).write_bytes(b"something else")
    assert cli.main(args) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["stats"]["reused_tokens"] == 0
    assert "is no kept cache; the conversation is read again" in err
