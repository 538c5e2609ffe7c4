from __future__ import annotations

import os

import pytest

from edge.export import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))


def test_the_folder_appears_only_when_the_block_ends_well(tmp_path):
    with pytest.raises(RuntimeError), cache.building("k", "n") as work:
        (work / "f").write_text("half")
        raise RuntimeError
    assert cache.find("k", "n") is None
    assert list((tmp_path / "k").iterdir()) == []
    with cache.building("k", "n") as work:
        (work / "f").write_text("whole")
    found = cache.find("k", "n")
    assert found is not None
    assert (found / "f").read_text() == "whole"


def test_the_first_of_two_builders_is_kept():
    with cache.building("k", "n") as second:
        (second / "f").write_text("second")
        with cache.building("k", "n") as first:
            (first / "f").write_text("first")
    found = cache.find("k", "n")
    assert found is not None
    assert (found / "f").read_text() == "first"


def test_sweeping_spares_the_living_and_what_is_not_ours(tmp_path):
    for name in (".edge-999999999-a", f".edge-{os.getpid()}-b", ".edge-mine", ".other.999999999.x"):
        (tmp_path / name).mkdir()
    cache.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f".edge-{os.getpid()}-b", ".edge-mine", ".other.999999999.x"]
    )


def test_a_hash_is_remembered_until_the_file_changes(tmp_path):
    path = tmp_path / "f"
    path.write_text("one")
    first = cache.hash_of(path)
    assert cache.hash_of(path) == first
    path.write_text("other")
    assert cache.hash_of(path) != first


def test_the_key_of_a_stage_follows_its_code():
    assert cache.code_of("edge.export.formats.gguf") == cache.code_of("edge.export.formats.gguf")
    assert cache.code_of("edge.export.formats.gguf") != cache.code_of("edge.export.artifact")
