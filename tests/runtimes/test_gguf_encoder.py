"""Vision parts in GGUF that do not belong to their bundle: refused by their header, before llama.cpp sees them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge.errors import InputError
from edge.runtimes.encoders import gguf as encoder

pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")
HIDDEN, SIDE = 64, 36


def mmproj(folder, *, architecture="clip", width=HIDDEN, side=SIDE):
    writer = gguf.GGUFWriter(str(folder / "mmproj.gguf"), architecture)
    writer.add_uint32("clip.vision.projection_dim", width)
    writer.add_uint32("clip.vision.image_size", side)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"architecture": "llama"}, "is no vision encoder"),
        ({"width": 96}, "makes features of 96, the text model takes 64"),
        ({"side": 48}, "takes pictures of 48 pixels, this bundle makes them of 36"),
    ],
)
def test_a_vision_part_of_another_model_is_refused_by_its_header(tmp_path, other, words):
    mmproj(tmp_path, **other)
    bundle = SimpleNamespace(parts={"vision": "mmproj.gguf"}, image={"kind": "whole", "height": SIDE})
    with pytest.raises(InputError, match=words):
        encoder.load(tmp_path, bundle, SimpleNamespace(hidden_size=HIDDEN))
