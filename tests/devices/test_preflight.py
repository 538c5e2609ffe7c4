"""What is refused before anything is copied."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from edge.devices import preflight
from tests import tiny_bundle


def facts(**of_profile):
    profile = SimpleNamespace(**{"ram_bytes": 1 << 30, "page_bytes": 4096, **of_profile})
    return SimpleNamespace(profile=profile, state=None, bits=64)


def bundle(tmp_path, **memory):
    return replace(
        tiny_bundle.tiny_bundle(tmp_path), memory={"weights_bytes": 10 << 20, "kv_bytes_per_token": 1024, **memory}
    )


def test_weights_that_a_runtime_unpacks_count_unpacked(tmp_path):
    fits = preflight.check(bundle(tmp_path), facts(), send_bytes=0, free_bytes=1 << 30)
    assert not fits.against
    verdict = preflight.check(bundle(tmp_path, unpacked_bytes=2 << 30), facts(), send_bytes=0, free_bytes=1 << 30)
    assert verdict.against[0].startswith("memory: ")
    assert verdict.ram_bytes - fits.ram_bytes == 2 << 30
