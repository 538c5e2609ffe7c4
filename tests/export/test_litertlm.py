"""What is not packed for LiteRT-LM is refused."""

from __future__ import annotations

import pytest

from edge.errors import UsageError
from edge.export.packings import litertlm
from tests.tiny_bundle import IMAGE, tiny_bundle


def test_a_model_that_sees_is_not_packed_blind(tmp_path):
    draft = tiny_bundle(tmp_path / "seeing", image=IMAGE)
    with pytest.raises(UsageError, match="its vision part is not packed for LiteRT-LM yet"):
        litertlm.write(tmp_path / "seeing", draft, {})
    assert not (tmp_path / "seeing" / "model.litertlm").exists()
