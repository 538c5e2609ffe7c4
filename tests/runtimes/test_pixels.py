"""Cutting pictures: what can be worked out by hand, and bit for bit what the source's processors do."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import InputError, UsageError
from edge.runtimes.image import Picture
from edge.runtimes.pixels import views

pytest.importorskip("PIL")
WHOLE = {
    "kind": "whole", "token": "<i>", "n_tokens": 4, "before": "", "after": "", "resample": 3, "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pad": None, "crop": None,
    "resize": {"height": 8, "width": 8}, "height": 8, "width": 8,
}  # fmt: skip
TILES = {
    "kind": "tiles", "token": "<i>", "n_tokens": 2, "resample": 1, "scale": 1 / 255, "mean": [0.5] * 3,
    "std": [0.5] * 3, "longest": 32, "tile": 16, "split": True, "around": "<f>", "whole": "<g>",
}  # fmt: skip
PATCHES = {
    "kind": "patches", "token": "<i>", "resample": 3, "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3,
    "patch": 4, "merge": 2, "least": 64, "most": 4096, "before": "<s>", "after": "<e>",
}  # fmt: skip


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Picture(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (), "")


def test_a_picture_of_the_right_size_is_only_scaled():
    shown = picture(8, 8)
    found = views(shown, WHOLE)
    assert np.array_equal(found.rgb[0], shown.rgb)
    assert found.text == "<i><i><i><i>"
    wanted = ((shown.rgb / 255).astype(np.float32) - np.float32(0.5)) / np.float32(0.5)
    assert np.array_equal(found.values[0], wanted.transpose(2, 0, 1))


def test_without_rescaling_and_normalizing_values_are_those_of_the_picture():
    shown = picture(8, 8)
    found = views(shown, {**WHOLE, "scale": None, "mean": None})
    assert np.array_equal(found.values[0], shown.rgb.transpose(2, 0, 1).astype(np.float32))


def test_tiles_go_row_by_row_and_the_whole_comes_last():
    found = views(picture(32, 16), TILES)
    assert found.rgb.shape == (3, 16, 16, 3)
    assert found.text == "<f><row_1_col_1><i><i><f><row_1_col_2><i><i>\n\n<f><g><i><i><f>"
    assert found.n_tokens == 6
    assert views(picture(32, 16), {**TILES, "split": False}).text == "<f><g><i><i><f>"


def test_patches_follow_the_shape_of_the_picture():
    found = views(picture(40, 24), PATCHES)
    assert (found.grid, found.n_tokens, found.rgb.shape) == ((3, 5), 15, (1, 24, 40, 3))
    assert found.text == "<s>" + "<i>" * 15 + "<e>"
    assert views(picture(400, 400), PATCHES).n_tokens <= 4096 // 64
    assert views(picture(1, 1), PATCHES).n_tokens >= 1


def test_what_is_refused():
    cases = [
        ({}, (8, 8), UsageError, "this bundle does not see"),
        ({"kind": "rings"}, (8, 8), InputError, "cuts pictures into 'rings'"),
        ({**WHOLE, "resize": None}, (8, 9), InputError, r"came out 8 x 9, the encoder takes \(8, 8\)"),
        ({**WHOLE, "resize": {"shortest_edge": 3000}}, (20000, 1), InputError, "would be resized to 60000000 x 3000"),
        ({**WHOLE, "resize": {"shortest_edge": 8, "longest_edge": 9}}, (1000, 2), InputError, "too long and thin"),
        ({**WHOLE, "pad": [0, 0, 0]}, (10000, 1), InputError, "would be padded to 10000 x 10000"),
        (PATCHES, (2000, 2), InputError, "too long and thin for this model"),
    ]
    for rule, (width, height), kind, words in cases:
        with pytest.raises(kind, match=words):
            views(picture(width, height), rule)


def test_small_pictures_are_padded_to_a_crop_and_odd_ones_stay_in_the_middle():
    rule = {**WHOLE, "resize": None, "crop": {"height": 8, "width": 8}}
    found = views(picture(5, 3), rule).rgb[0]
    assert found.shape == (8, 8, 3)
    assert np.array_equal(found.any(-1).sum(), 15)
    large = picture(11, 9)
    assert np.array_equal(views(large, rule).rgb[0], large.rgb[0:8, 1:9])


SIZES = ((1, 1), (1, 7), (7, 1), (35, 36), (36, 36), (37, 35), (96, 130), (200, 50), (333, 500), (641, 480))


def _processors():
    import transformers as t

    square = {"resize": {"height": 36, "width": 36}, "height": 36, "width": 36}
    small = {"crop": {"height": 32, "width": 32}, "height": 32, "width": 32}
    crop = {"crop_size": {"height": 32, "width": 32}}
    yield t.SiglipImageProcessorPil(size={"height": 36, "width": 36}), {**WHOLE, **square}
    yield (
        t.CLIPImageProcessorPil(size={"shortest_edge": 32}, **crop),
        {**WHOLE, **small, "resize": {"shortest_edge": 32}},
    )
    edges = {"shortest_edge": 32, "longest_edge": 50}
    yield t.CLIPImageProcessorPil(size=edges, **crop), {**WHOLE, **small, "resize": edges}
    yield t.CLIPImageProcessorPil(do_resize=False, **crop), {**WHOLE, **small, "resize": None}
    padded = t.LlavaImageProcessorPil(size={"shortest_edge": 32}, do_pad=True, **crop)
    grey = [int(m * 255) for m in padded.image_mean]
    yield padded, {**WHOLE, **small, "resize": {"shortest_edge": 32}, "pad": grey}
    yield t.Gemma3ImageProcessorPil(size={"height": 36, "width": 36}), {**WHOLE, **square}
    for split in (True, False):
        tiles = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}, "do_image_splitting": split}
        yield t.Idefics3ImageProcessorPil(**tiles), {**TILES, "longest": 64, "split": split}


@pytest.mark.runtime
def test_bit_for_bit_what_the_source_s_processors_do():
    from PIL import Image

    for processor, rule in _processors():
        own = processor.to_dict()
        rule = {**rule, "resample": int(own["resample"]), "mean": own["image_mean"], "std": own["image_std"]}  # noqa: PLW2901
        for width, height in SIZES:
            shown = picture(width, height)
            wanted = np.asarray(processor(Image.fromarray(shown.rgb), return_tensors="np")["pixel_values"])
            found = views(shown, rule).values
            assert np.array_equal(found, wanted.reshape(found.shape)), (type(processor).__name__, width, height)
