import json
import os
import time

import pytest

from edge import cache, quantity, room
from edge.cli import main
from edge.errors import EdgeError, UsageError
from edge.export import preflight
from edge.export.artifact import Need

HOUR_S = 3600


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


def keep(kind, name, *, n_bytes=1 << 20, unused_h=0.0):
    with cache.building(kind, name) as folder:
        (folder / "data").write_bytes(os.urandom(n_bytes))
    then = time.time() - unused_h * HOUR_S
    os.utime(cache.root() / kind / name, (then, then))


def test_what_took_a_network_or_hours_is_never_chosen():
    for kind in ("packs", "sources", "students", "distilling", "optimum", "hashes"):
        keep(kind, "one", unused_h=1000)
    keep("gguf-full", "one")
    assert [(one.kind, one.made_again) for one in room.chosen()] == [("gguf-full", True)]


def test_the_longest_unused_goes_first_until_enough_is_gone():
    for name, unused_h in (("old", 30), ("older", 40), ("new", 1)):
        keep("onnx-quantized", name, unused_h=unused_h)
    assert [one.name for one in room.chosen()] == ["older", "old", "new"]
    assert [one.name for one in room.chosen(unused_s=2 * HOUR_S)] == ["older", "old"]
    assert [one.name for one in room.chosen(at_most_bytes=2 << 20)] == ["older"]
    assert room.remove(room.chosen(at_most_bytes=2 << 20)) == 1 << 20
    assert cache.find("onnx-quantized", "older") is None


def test_a_removal_that_is_cut_short_leaves_no_half(monkeypatch):
    keep("gguf-full", "one")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            room.remove(room.kept())
    assert cache.find("gguf-full", "one") is None
    assert room.kept() == []
    cache.discard("gguf-full", "one")  # what is not there is not missed
    cache.discard("nothing", "one")


def test_what_leads_nowhere_is_no_error():
    keep("checkpoints", "one")
    (cache.root() / "checkpoints" / "lost").symlink_to("nowhere")
    assert {one.name for one in room.kept()} == {"one", "lost"}


def test_asking_for_a_thing_makes_it_the_newest():
    keep("gguf-full", "asked", unused_h=50)
    keep("gguf-full", "other", unused_h=40)
    assert cache.find("gguf-full", "asked")
    assert [one.name for one in room.chosen()] == ["other", "asked"]


def test_a_file_that_a_bundle_shares_frees_nothing(tmp_path):
    keep("gguf-quantized", "one")
    os.link(cache.root() / "gguf-quantized" / "one" / "data", tmp_path / "model.gguf")
    [one] = room.kept()
    assert one.n_bytes == 0
    room.remove([one])
    assert (tmp_path / "model.gguf").stat().st_size == 1 << 20


def test_what_is_being_built_is_not_seen():
    with cache.building("gguf-full", "one"):
        assert room.kept() == []


def test_an_export_that_lacks_disk_takes_it_from_the_cache(tmp_path, monkeypatch):
    keep("gguf-full", "old", unused_h=5)
    keep("gguf-full", "new", unused_h=1)
    free = preflight.shutil.disk_usage(tmp_path).free
    usage = preflight.shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    preflight.check(Need(0, free + (1 << 20), 0), tmp_path)
    assert [one.name for one in room.kept()] == ["new"]


def test_nothing_goes_when_it_would_not_be_enough(tmp_path):
    keep("gguf-full", "old", unused_h=5)
    with pytest.raises(EdgeError, match="not enough disk at"):
        preflight.check(Need(0, 1 << 60, 0), tmp_path)
    assert [one.name for one in room.kept()] == ["old"]


def test_the_command_shows_and_clears(capsys):
    keep("gguf-full", "one", unused_h=72)
    keep("packs", "one")
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert "3 days ago" in shown
    assert "made again when needed" in shown
    assert "stays" in shown
    assert main(["cache", "--clear", "--unused", "1d", "--dry-run"]) == 0
    assert "gguf-full/one" in capsys.readouterr().out
    assert main(["cache", "--clear", "--unused", "1d", "--keep", "0.5MB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["gguf-full/one"], "freed_bytes": 1 << 20}
    assert main(["cache", "--json"]) == 0
    assert [kind["kind"] for kind in json.loads(capsys.readouterr().out)["kinds"]] == ["packs"]


def test_an_empty_cache_is_no_error(capsys):
    assert main(["cache"]) == 0
    assert main(["cache", "--clear"]) == 0
    assert "0 removed" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [["--keep", "1GB"], ["--unused", "1d"], ["--dry-run"]])
def test_ways_to_clear_need_clear(asked, capsys):
    assert main(["cache", *asked]) == 2
    assert "say how to clear" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "MB", "12 parsecs", "-1MB", "1e3MB", "nan"])
def test_what_is_no_amount(text):
    with pytest.raises(UsageError, match="is not a size"):
        quantity.n_bytes(text)
    with pytest.raises(UsageError, match="is not a length of time"):
        quantity.seconds(text)
