"""The teacher's answers on disk: size, exactness, damage, and going on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edge.errors import EdgeError, InputError
from edge.export.distill import store
from edge.progress import Silent

TEXTS = [[1, 2, 3, 4], [5, 6, 7], [8, 9]]


@pytest.mark.parametrize(("k", "vocab", "kept"), [(32, 49152, 32), (32, 151_936, 24), (64, 1000, 36), (32, 20, 19)])
def test_a_record_takes_at_most_150_bytes(k, vocab, kept):
    assert store.fitting(k, vocab) == kept
    assert store.record_type(kept, vocab).itemsize <= store.MOST_BYTES


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(
        EdgeError,
        match=r"no room for the teacher's answers[\s\S]*268 MB must stay free, and 1 MB are[\s\S]*EDGE_CACHE",
    ):
        store.build(tmp_path / "s", TEXTS, lambda texts: [], k=4, vocab_size=50, progress=Silent())
    assert not list((tmp_path / "s").iterdir())


def test_no_answers_are_damaged_answers(tmp_path):
    with pytest.raises(InputError, match="holds no teacher's answers"):
        store.open_store(tmp_path)


@pytest.mark.runtime
class TestWithTorch:
    @pytest.fixture
    def asked(self):
        """A teacher of random logits, and the texts it was asked about."""
        import torch

        seen = []

        def answers(texts):
            for text in texts:
                seen.append(list(text))
                yield torch.randn(len(text), 50, generator=torch.Generator().manual_seed(text[0])) * 4

        return answers, seen

    def test_records_hold_what_the_teacher_said(self, tmp_path, asked):
        import torch

        answers, _ = asked
        made = store.build(tmp_path, TEXTS, answers, k=8, vocab_size=50, progress=Silent())
        assert (len(made), made.n_tokens, made.k) == (3, 9, 8)
        logs = next(iter(answers([TEXTS[1]]))).log_softmax(-1)
        best, ids = logs.topk(8)
        row = made[1]
        assert row["token"].tolist() == TEXTS[1]
        assert row["ids"].tolist() == ids.tolist()
        assert np.allclose(row["logs"], best, atol=0.02)
        rest = torch.log1p(-best.exp().sum(-1)).numpy()
        assert np.allclose(row["rest"], rest, atol=0.02)
        again = store.open_store(tmp_path)
        assert np.array_equal(again[2], made[2])

    def test_what_is_whole_is_not_asked_again_and_what_is_damaged_is(self, tmp_path, asked, monkeypatch):
        monkeypatch.setattr(store, "_SHARD_TEXTS", 1)
        answers, seen = asked
        first = store.build(tmp_path, TEXTS, answers, k=8, vocab_size=50, progress=Silent())
        wanted = [first[i].copy() for i in range(3)]
        seen.clear()
        damaged = bytearray((tmp_path / "shard-00001.bin").read_bytes())
        damaged[5] ^= 255
        (tmp_path / "shard-00001.bin").unlink()
        (tmp_path / "shard-00001.bin").write_bytes(damaged)
        with pytest.raises(InputError, match=r"shard-00001\.bin is damaged: its hash is not the index's"):
            store.open_store(tmp_path)
        index = json.loads((tmp_path / "index.json").read_text())
        index["shards"].pop()  # the third was not finished
        (tmp_path / "index.json").write_text(json.dumps(index))
        made = store.build(tmp_path, TEXTS, answers, k=8, vocab_size=50, progress=Silent())
        assert seen == [TEXTS[1], TEXTS[2]]
        assert all(np.array_equal(made[i], wanted[i]) for i in range(3))
