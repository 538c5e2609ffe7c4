"""Matrices of a long stage, kept as they are made: read again, made again when damaged, and there after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge import bundle
from edge.export import cache
from edge.export.pieces import Pieces, Rows
from tests import parity

# An export whose conversion is streamed, and which is killed when it makes its n-th matrix (0: never).
PROGRAM = """
import os, signal, sys
from edge.export import blocks, pipeline
from edge.export.formats import onnx
onnx._LARGE_PARAMETERS = 0
made, quantize, last = 0, blocks.quantize, int(sys.argv[3])
def counted(*args, **options):
    global made
    made += 1
    if made == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return quantize(*args, **options)
blocks.quantize = counted
pipeline.export(sys.argv[1], sys.argv[2], formats=["onnx"], quantization=sys.argv[4], gate=False)
print(made)
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never():
    raise AssertionError("it was there")


def test_a_piece_is_made_once_and_mapped(own_cache):
    pieces = Pieces("made", "key")
    first = pieces.get("a/b", lambda: {"blocks": np.arange(6).reshape(2, 3), "scales": np.ones(2, np.float32)})
    again = Pieces("made", "key").get("a/b", never)
    assert isinstance(again["blocks"], np.memmap)
    for name in ("blocks", "scales"):
        assert again[name].dtype == first[name].dtype
        assert np.array_equal(again[name], first[name])
    assert "a/b" in pieces
    assert "a" not in pieces
    pieces.discard()
    assert "a/b" not in pieces


@pytest.mark.parametrize("n_bytes", [0, 40, 130])
def test_a_piece_that_was_cut_short_is_made_again(own_cache, n_bytes):
    pieces = Pieces("made", "key")
    pieces.get("a", lambda: {"blocks": np.arange(9)})
    [file] = own_cache.rglob("*.npy")
    os.truncate(file, n_bytes)
    assert "a" not in pieces
    assert np.array_equal(pieces.get("a", lambda: {"blocks": np.arange(9) + 1})["blocks"], np.arange(9) + 1)
    assert "a" in pieces


def test_rows_are_put_together_when_they_are_read():
    parts = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 3), np.float32)]
    rows = Rows(parts)
    assert (rows.shape, rows.ndim, rows.size, rows.nbytes, len(rows)) == ((3, 3), 2, 9, 36, 3)
    assert np.array_equal(np.asarray(rows), np.concatenate(parts))
    assert np.asarray(rows, np.float16).dtype == np.float16


@pytest.mark.runtime
@pytest.mark.parametrize("quantization", ["int4-rtn-32", "int4"])
def test_an_export_killed_in_its_streamed_conversion_goes_on_with_the_next_matrix(own_cache, tmp_path, quantization):
    source = parity.make("mistral", tmp_path / "source")

    def run(out: str, last: int) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PROGRAM, str(source), str(tmp_path / out), str(last), quantization]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    killed = run("out", 9)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = [p for p in own_cache.glob("onnx-pieces/*/*") if not p.name.startswith(".")]
    assert len(kept) == 8
    assert not list((tmp_path / "out").glob("*/" + bundle.MANIFEST))
    after = run("out", 0)
    assert after.returncode == 0, after.stderr
    cache.discard("onnx-full", "")
    cache.discard("onnx-quantized", "")
    whole = run("whole", 0)
    assert int(after.stdout) == int(whole.stdout) - 8
    assert not list(own_cache.glob("onnx-pieces/*"))
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def weights(out: Path) -> bytes:
    [data] = out.glob("*/onnx/*_data")
    bundle.check(data.parents[1])
    return data.read_bytes()
