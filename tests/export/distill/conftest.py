"""A tiny checkpoint with real words, and texts of its own and to judge by."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random Llama of three layers with SmolLM2's kind of tokenizer."""
    from edge.export.source import open_source
    from tests.checkpoints import smollm2

    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    folder.mkdir()
    smollm2.make(folder)
    return open_source(folder)


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Two files: what to learn from, what to judge by."""
    from tests.checkpoint_parts import texts as all_texts

    folder = tmp_path_factory.mktemp("texts")
    (folder / "text.txt").write_text("\n".join(all_texts()[:40]), encoding="utf-8")
    (folder / "held.txt").write_text("\n".join(all_texts()[-24:]), encoding="utf-8")
    return folder
