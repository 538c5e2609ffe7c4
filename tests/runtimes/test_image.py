"""Pictures from hostile and odd files: RGB or a clear refusal, never a traceback or a full memory."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest

from edge.errors import InputError, UsageError
from edge.runtimes import image
from edge.runtimes.image import open_image

PIL = pytest.importorskip("PIL.Image")
RED = np.full((4, 6, 3), (200, 10, 30), np.uint8)


def file(picture, kind="PNG", **options):
    out = io.BytesIO()
    (PIL.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(out, kind, **options)
    return out.getvalue()


def bomb(width, height):
    """A PNG of a few hundred bytes whose header promises a wall of pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_a_plain_picture():
    found = open_image(file(RED))
    assert np.array_equal(found.rgb, RED)
    assert found.size == (6, 4)
    assert found.notes == ()


def test_the_same_pixels_have_the_same_hash_whatever_the_file():
    assert open_image(file(RED)).sha256 == open_image(file(RED, "BMP")).sha256 == open_image(file(RED, "TIFF")).sha256
    assert open_image(file(RED)).sha256 != open_image(file(RED[:, ::-1] // 2)).sha256


def test_one_pixel():
    assert open_image(file(RED[:1, :1])).rgb.shape == (1, 1, 3)


def test_the_first_frame_of_an_animation_and_it_says_so():
    frames = [PIL.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 120, 240)]
    found = open_image(file(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.notes == ("animated: the first of 3 frames",)
    assert found.rgb.max() < 30


def test_cmyk_becomes_rgb_and_it_says_so():
    found = open_image(file(PIL.fromarray(RED).convert("CMYK"), "TIFF"))
    assert found.notes == ("CMYK: converted to RGB",)
    assert np.abs(found.rgb.astype(int) - RED).max() <= 2


def test_sixteen_bits_are_scaled_and_not_cut():
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    found = open_image(file(PIL.fromarray(deep)))
    assert found.notes == ("16-bit: scaled to 8 bits",)
    assert np.array_equal(found.rgb[..., 0], np.rint(deep / 257).astype(np.uint8))
    assert open_image(file(PIL.fromarray(deep // 4))).rgb.max() == 64


def test_floating_point_is_scaled():
    bright = PIL.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    found = open_image(file(bright, "TIFF"))
    assert found.rgb[0, :, 0].tolist() == [0, 128, 255]
    assert found.notes == ("floating point: scaled to 8 bits",)
    with pytest.raises(InputError, match="cut short or damaged: it holds values that are not numbers"):
        open_image(file(PIL.fromarray(np.array([[0.0, np.nan]], np.float32)), "TIFF"))


def test_a_camera_s_orientation_is_applied():
    exif = PIL.Exif()
    exif[0x0112] = 6
    assert open_image(file(RED, "JPEG", exif=exif)).size == (4, 6)


def test_other_modes():
    for mode in ("L", "1", "P", "RGBA", "LA"):
        assert open_image(file(PIL.fromarray(RED).convert(mode))).rgb.shape == (4, 6, 3)


@pytest.mark.parametrize("keep", [0, 7, 30, 60])
def test_files_cut_short(keep):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"no picture that can be read|is damaged|cut short or damaged"):
        open_image(file(noise)[:keep])
    with pytest.raises(InputError, match="cut short or damaged"):
        open_image(file(noise)[:-2000])


def test_damaged_files_never_end_in_a_traceback():
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        sound = file(RED, kind)
        for _ in range(60):
            data = bytearray(sound)
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(0, 256)
            try:
                assert open_image(bytes(data)).rgb.dtype == np.uint8
            except InputError:
                pass


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(InputError, match=r"is 9000 x 9000 pixels, more than 50,000,000"):
        open_image(bomb(9000, 9000))
    with pytest.raises(InputError, match=r"larger than any picture needs to be"):
        open_image(bomb(60000, 60000))


def test_what_starts_other_programs_is_no_picture():
    with pytest.raises(InputError, match="no picture that can be read"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    with pytest.raises(InputError, match="no picture that can be read"):
        open_image(b"<svg xmlns='http://www.w3.org/2000/svg'/>")


def test_paths_and_their_absence(tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(file(RED))
    assert open_image(path).sha256 == open_image(str(path)).sha256
    with pytest.raises(UsageError, match="there is no picture"):
        open_image(tmp_path / "blue.png")


def test_files_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "MAX_FILE_BYTES", 50)
    path = tmp_path / "red.png"
    path.write_bytes(file(RED))
    with pytest.raises(InputError, match="which no picture needs to be"):
        open_image(path)
    with pytest.raises(InputError, match="which no picture needs to be"):
        open_image(path.read_bytes())
    with pytest.raises(InputError, match=r"in the data: URI is larger than"):
        open_image("data:image/png;base64," + "A" * 200)


def test_data_uris():
    uri = "data:image/png;base64," + base64.b64encode(file(RED)).decode()
    assert np.array_equal(open_image(uri).rgb, RED)
    with pytest.raises(InputError, match="must be data:image"):
        open_image("data:image/png,rawbytes")
    with pytest.raises(InputError, match="is not sound base64"):
        open_image("data:image/png;base64,@@@")
