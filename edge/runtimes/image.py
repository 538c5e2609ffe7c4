"""A picture from somebody else's file to plain RGB, with limits before anything is decoded.

    picture = open_image("photo.jpg")
    picture.rgb.shape        # (height, width, 3), uint8
    picture.notes            # what had to be decided: "animated: the first of 12 frames"

What `transformers` does when it loads a picture is done here too: the orientation that a camera
noted is applied, and every mode becomes RGB. Two things are done better, and said: 16-bit
pictures are scaled down to 8 bits (Pillow cuts them off at 255), and so are those in floating point.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, UsageError, require

if TYPE_CHECKING:
    import numpy as np

EXTRA = "vision"
# Formats that are pictures and nothing else: EPS and PDF would start another program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".ico", ".tga")
MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 50_000_000  # 150 MB of RGB; a phone's picture has 12 to 50 million


@dataclass(frozen=True, eq=False)
class Picture:
    """RGB uint8 `(height, width, 3)`, what was decided on the way, and a hash of the pixels."""

    rgb: np.ndarray
    notes: tuple[str, ...]
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]


def open_image(source: str | Path | bytes) -> Picture:
    """Decode a file, its bytes, or a `data:` URI.

    Raises `UsageError` when there is no such file, `InputError` for one that is no picture, cut
    short or too large; the size is read from its header, before a pixel is decoded.
    """
    require("PIL", extra=EXTRA, purpose="looking at pictures")
    if isinstance(source, bytes):
        return _decode(source, "the picture")
    if isinstance(source, str) and source.startswith("data:"):
        return _decode(_from_uri(source), "the picture in the data: URI")
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no picture {path}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no picture needs to be")
    return _decode(path.read_bytes(), str(path))


def _from_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError("a picture's data: URI must be data:image/...;base64,...")
    if len(body) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise InputError(f"the picture in the data: URI is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InputError(f"the picture's data: URI is not sound base64: {err}") from None


def _decode(data: bytes, where: str) -> Picture:
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{where} is larger than {MAX_FILE_BYTES >> 20} MiB, which no picture needs to be")
    notes: list[str] = []
    with _quiet():
        try:
            image: Any = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise InputError(f"{where} is no picture that can be read ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError as err:
            words = f"{where} is larger than any picture needs to be ({MAX_PIXELS:,} pixels): {_words(err)}"
            raise InputError(words, hint="make it smaller first") from None
        # Pillow's readers raise whatever a damaged header makes them stumble over.
        except Exception as err:  # noqa: BLE001
            raise InputError(f"{where} is damaged: {_words(err)}") from None
        width, height = image.size
        if width < 1 or height < 1:
            raise InputError(f"{where} is empty: {width} x {height} pixels")
        if width * height > MAX_PIXELS:
            raise InputError(
                f"{where} is {width} x {height} pixels, more than {MAX_PIXELS:,}", hint="make it smaller first"
            )
        frames = _frames(image)
        if frames > 1:
            notes.append(f"animated: the first of {frames} frames")
        try:
            image.load()
            image = ImageOps.exif_transpose(image)
            image = _rgb(image, notes)
        except Exception as err:  # noqa: BLE001
            raise InputError(f"{where} is cut short or damaged: {_words(err)}") from None
    rgb = np.asarray(image, np.uint8)
    digest = hashlib.sha256(f"{rgb.shape} ".encode() + rgb.tobytes()).hexdigest()
    return Picture(rgb, tuple(notes), digest)


def _rgb(image: Any, notes: list[str]) -> Any:
    """As `convert("RGB")`, but for modes of more than 8 bits, whose range is scaled and not cut."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if image.mode == "F":
            top, words = (1.0 if high <= 1.0 else 255.0 if high <= 255.0 else high), "floating point"
        else:
            top, words = (max(high, 65535.0) if high > 255 or image.mode != "I" else 255.0), "16-bit"
        if not np.isfinite([low, high]).all():
            raise ValueError("it holds values that are not numbers")
        notes.append(f"{words}: scaled to 8 bits")
        image = Image.fromarray(np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8), "L")
    elif image.mode not in ("RGB", "L", "1", "P"):
        notes.append({"CMYK": "CMYK: converted to RGB"}.get(image.mode, f"{image.mode}: converted to RGB"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _frames(image: Any) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    # A damaged list of frames makes Pillow stumble in many ways; the first frame is all that is wanted.
    except Exception:  # noqa: BLE001
        return 1


def _words(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of large pictures and odd metadata; our own limits and words stand in for that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
