"""Tiny mixtures of experts, each written once."""

from __future__ import annotations

import pytest

from tests import tiny_moe as tiny


@pytest.fixture(scope="session")
def tiny_moe(tmp_path_factory):
    """`tiny_moe(model_type)`: a random checkpoint whose experts differ, with the tokenizer of smollm2."""
    made = {}

    def get(model_type: str):
        from edge.export.source import open_source

        if model_type not in made:
            folder = tmp_path_factory.mktemp("moe") / model_type
            folder.mkdir()
            made[model_type] = open_source(tiny.write(folder, model_type, open_source("smollm2").folder))
        return made[model_type]

    return get
