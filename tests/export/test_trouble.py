"""An export that is killed, or runs out of disk: nothing half-done stays, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge import bundle
from edge.errors import EdgeError
from edge.export import cache, pipeline, preflight

pytestmark = pytest.mark.runtime

ARGV = (sys.executable, "-m", "edge", "export", "smollm2", "--quant", "q8_0", "--no-gate", "--quiet", "-o")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of its own, with what is no part of the export: the checkpoint and llama.cpp's sources."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("checkpoints", "sources", "llama.cpp", "hashes"):
        shared = cache.root() / name
        shared.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(shared)
    monkeypatch.setenv("EDGE_CACHE", str(folder))
    return folder


def stage(own_cache: Path, kind: str) -> list[Path]:
    return [p for p in (own_cache / kind).glob("*") if not p.name.startswith(".")]


def written(folder):
    """When each file of a stage was written; the folder's own time is when it was last asked for."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_killed_export_publishes_nothing_and_the_next_goes_on_where_it_was(own_cache, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([*ARGV, str(out)], start_new_session=True)
    deadline = time.monotonic() + 600
    try:
        while not stage(own_cache, "gguf-full"):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not list(out.glob("*/" + bundle.MANIFEST))
    [converted] = stage(own_cache, "gguf-full")
    before = written(converted)
    done = subprocess.run([*ARGV, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [folder] = [Path(line) for line in done.stdout.splitlines()]
    bundle.check(folder)
    assert stage(own_cache, "gguf-full") == [converted]
    assert written(converted) == before
    leftovers = [p for place in (out, *own_cache.glob("gguf-*")) for p in place.glob(".edge-*")]
    assert leftovers == []


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(own_cache, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        full = own_cache / "gguf-full"
        (disk / "stages").mkdir()
        full.symlink_to(disk / "stages")
        check = preflight.check

        def then_fill(*args, **options):
            check(*args, **options)
            with (disk / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 600 << 20)

        monkeypatch.setattr(preflight, "check", then_fill)
        with pytest.raises(EdgeError, match=r"the disk at .* is full"):
            pipeline.export("smollm2", tmp_path / "out", quantization="q8_0", gate=False)
        assert list((disk / "stages").iterdir()) == []
        assert not list((tmp_path / "out").glob("*"))
        (disk / "filler").unlink()
        monkeypatch.setattr(preflight, "check", check)
        [done] = pipeline.export("smollm2", tmp_path / "out", quantization="q8_0", gate=False)
        bundle.check(done.folder)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
