"""What LiteRT-LM is given of a model that sees, and what it is not given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import UsageError
from edge.export.packings import _litertlm_vision as vision
from edge.export.packings import litertlm
from edge.runtimes.pixels import Views
from tests.tiny_bundle import IMAGE, tiny_bundle


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "tiles"}, "in tiles, or with words around them"),
        ({"before": "<start>"}, "in tiles, or with words around them"),
        ({"bidirectional": True}, "whose rows see each other"),
    ],
)
def test_pictures_that_litert_lm_does_not_cut_so_are_refused(tmp_path, change, words):
    pytest.importorskip("litert_lm_builder")
    draft = tiny_bundle(tmp_path / "seeing", image={**IMAGE, **change})
    with pytest.raises(UsageError, match=f"this model takes pictures {words}, which LiteRT-LM's generic model does"):
        litertlm.write(tmp_path / "seeing", draft, {})
    assert not (tmp_path / "seeing" / "model.litertlm").exists()


def test_the_encoder_normalizes_what_litert_lm_hands_it(tmp_path):
    """A picture from 0 to 1 with its channels last comes out as the source's processor makes it."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    rule = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2]}
    vision._adapter([1, 3, 4, 6], tmp_path / "nothing.tflite")  # gives what it is given
    assert vision._encoder(tmp_path / "nothing.tflite", tmp_path / "encoder.tflite", rule) == [1, 3, 4, 6]
    rgb = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)
    run = litert.Interpreter(model_path=str(tmp_path / "encoder.tflite")).get_signature_runner("vision_adapter")
    found = run(images=rgb.astype(np.float32) / 255)["features"]
    assert np.allclose(found, Views(rgb, "", 1, (1, 1), rule).values, atol=1e-6)


def test_what_stands_for_a_picture_is_said_in_its_own_letters():
    model = SimpleNamespace(start_of_image_token=SimpleNamespace(), end_of_image_token=SimpleNamespace())
    vision.describe(model, {**IMAGE, "token": "<im|age>"})
    assert (model.image_enabled, model.add_image_end) == (True, False)
    assert model.delimiter_regex == r"(<im\|age>)"
    assert (model.image_tensor_height, model.image_tensor_width) == (4, 4)
