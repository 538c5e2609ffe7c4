"""From RGB to what a vision encoder takes, exactly as the source's processor does it.

The rule is data: `Bundle.image`, frozen at export and compared there with the source's own
processor on a stress set of pictures. Its `kind` says how a picture is cut:

    whole    one view: resized, cropped or padded to the encoder's size (CLIP, SigLIP, Gemma 3)
    tiles    views of one size in rows and columns, then the picture as a whole (Idefics3, SmolVLM)
    patches  one view whose size follows the picture's (Qwen2-VL and its successors)

Arithmetic is that of `transformers` without torchvision: Pillow's filters on 8-bit values, then
`float32(float64(value) * scale)`, then mean and standard deviation in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, UsageError
from edge.runtimes.image import MAX_PIXELS, Picture

if TYPE_CHECKING:
    import numpy as np

KINDS = ("whole", "tiles", "patches")
_LARGEST_SIDE = 4096  # Idefics3's own limit


@dataclass(frozen=True, eq=False)
class Views:
    """What one picture becomes.

    `rgb` uint8 `(views, height, width, 3)`: after resizing, before arithmetic. `text` is what
    stands in the prompt for the picture, its placeholder token once for every row of features.
    `grid` is rows and columns of tiles, or of merged patches.
    """

    rgb: np.ndarray
    text: str
    n_tokens: int
    grid: tuple[int, int]
    rule: Mapping[str, Any]

    @property
    def values(self) -> np.ndarray:
        """float32 `(views, 3, height, width)`, rescaled and normalized."""
        import numpy as np

        x: np.ndarray = self.rgb
        if self.rule.get("scale") is not None:
            x = (x.astype(np.float64) * self.rule["scale"]).astype(np.float32)
        else:
            x = x.astype(np.float32)
        if self.rule.get("mean") is not None:
            mean, std = (np.array(self.rule[k], np.float32) for k in ("mean", "std"))
            x = (x - mean) / std
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def views(picture: Picture, rule: Mapping[str, Any]) -> Views:
    """Cut `picture` as `rule` says.

    Raises `UsageError` for a bundle that does not see, `InputError` for a picture whose shape
    would make it larger than any picture needs to be.
    """
    kind = rule.get("kind")
    if not rule:
        raise UsageError("this bundle does not see: it takes text alone", hint="export a vision-language checkpoint")
    if kind not in KINDS:
        raise InputError(f"the bundle cuts pictures into {kind!r}, which this edge does not know")
    return {"whole": _whole, "tiles": _tiles, "patches": _patches}[kind](picture.rgb, rule)


def _whole(rgb: np.ndarray, rule: Mapping[str, Any]) -> Views:
    if rule.get("pad"):
        rgb = _square(rgb, rule["pad"])
    if rule.get("resize"):
        rgb = _resize(rgb, _target(rgb, rule["resize"]), rule["resample"])
    if rule.get("crop"):
        rgb = _center(rgb, rule["crop"]["height"], rule["crop"]["width"])
    wanted = (rule["height"], rule["width"])
    if rgb.shape[:2] != wanted:
        raise InputError(f"the picture came out {rgb.shape[1]} x {rgb.shape[0]}, the encoder takes {wanted[::-1]}")
    text = f"{rule['before']}{rule['token'] * rule['n_tokens']}{rule['after']}"
    return Views(rgb[None], text, rule["n_tokens"], (1, 1), rule)


def _tiles(rgb: np.ndarray, rule: Mapping[str, Any]) -> Views:
    """Idefics3: long side to `longest`, both sides up to multiples of `tile`, cut, and the whole once more."""
    import numpy as np

    tile, resample, n = rule["tile"], rule["resample"], rule["n_tokens"]
    if rule.get("longest"):
        rgb = _resize(rgb, _longest(rgb.shape[0], rgb.shape[1], rule["longest"]), resample)
    rows = columns = 0
    if rule["split"]:
        h, w = rgb.shape[:2]
        if w >= h:
            width = math.ceil(w / tile) * tile
            height = math.ceil(int(width / (w / h)) / tile) * tile
        else:
            height = math.ceil(h / tile) * tile
            width = math.ceil(int(height * (w / h)) / tile) * tile
        rgb = _resize(rgb, (height, width), resample)
        if height > tile or width > tile:
            rows, columns = height // tile, width // tile
    if rows:
        cut = [rgb[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile] for r in range(rows) for c in range(columns)]
        cut.append(_resize(rgb, (tile, tile), resample))
    else:
        cut = [rgb if rule["split"] else _resize(rgb, (tile, tile), resample)]
    mark, image = rule["around"], rule["token"] * n
    text = ""
    for r in range(rows):
        text += "".join(f"{mark}<row_{r + 1}_col_{c + 1}>{image}" for c in range(columns)) + "\n"
    text += f"{chr(10) if rows else ''}{mark}{rule['whole']}{image}{mark}"
    return Views(np.stack(cut), text, n * len(cut), (rows, columns), rule)


def _patches(rgb: np.ndarray, rule: Mapping[str, Any]) -> Views:
    """Qwen2-VL: both sides to multiples of `factor`, the number of pixels within its bounds."""
    factor = rule["patch"] * rule["merge"]
    h, w = rgb.shape[:2]
    if max(h, w) / min(h, w) > 200:
        raise InputError(f"a picture of {w} x {h} is too long and thin for this model (at most 200 to 1)")
    height, width = round(h / factor) * factor, round(w / factor) * factor
    if height * width > rule["most"]:
        beta = math.sqrt(h * w / rule["most"])
        height = max(factor, math.floor(h / beta / factor) * factor)
        width = max(factor, math.floor(w / beta / factor) * factor)
    elif height * width < rule["least"]:
        beta = math.sqrt(rule["least"] / (h * w))
        height, width = math.ceil(h * beta / factor) * factor, math.ceil(w * beta / factor) * factor
    rgb = _resize(rgb, (height, width), rule["resample"])
    grid = (height // factor, width // factor)
    n = grid[0] * grid[1]
    return Views(rgb[None], f"{rule['before']}{rule['token'] * n}{rule['after']}", n, grid, rule)


def _resize(rgb: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """Pillow's filter of that number, to `(height, width)`."""
    import numpy as np
    from PIL import Image

    height, width = size
    if min(size) < 1:
        raise InputError(f"a picture of {rgb.shape[1]} x {rgb.shape[0]} is too long and thin for this model")
    if height * width > MAX_PIXELS:
        raise InputError(
            f"a picture of {rgb.shape[1]} x {rgb.shape[0]} would be resized to {width} x {height}, more than fits",
            hint="crop it to a shape that is less long and thin",
        )
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((width, height), resample=Image.Resampling(resample)), np.uint8)


def _target(rgb: np.ndarray, size: Mapping[str, int]) -> tuple[int, int]:
    """Height and width that `size`, in the words of a processor's configuration, asks for."""
    h, w = rgb.shape[:2]
    if "height" in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    most = size.get("longest_edge")
    if most is None:
        long = int(short * max(h, w) / min(h, w))
        return (long, short) if w <= h else (short, long)
    raw = None
    if max(h, w) / min(h, w) * short > most:
        raw = most * min(h, w) / max(h, w)
        short = round(raw)
    if min(h, w) == short:
        return h, w
    long = int((short if raw is None else raw) * max(h, w) / min(h, w))
    return (long, short) if w < h else (short, long)


def _longest(h: int, w: int, most: int) -> tuple[int, int]:
    """The long side to `most`, the short one in proportion and even."""
    ratio = w / h
    if w >= h:
        w, h = most, int(most / ratio)
        h += h % 2
    else:
        w, h = int(most * ratio), most
        w += w % 2
    h, w = max(h, 1), max(w, 1)
    ratio = w / h
    if w >= h and w > _LARGEST_SIDE:
        w, h = _LARGEST_SIDE, int(_LARGEST_SIDE / ratio)
    elif h > w and h > _LARGEST_SIDE:
        w, h = int(_LARGEST_SIDE * ratio), _LARGEST_SIDE
    return max(h, 1), max(w, 1)


def _square(rgb: np.ndarray, colour: list[int]) -> np.ndarray:
    """The picture in the middle of a square of `colour`."""
    import numpy as np

    h, w = rgb.shape[:2]
    side = max(h, w)
    if side * side > MAX_PIXELS:
        raise InputError(f"a picture of {w} x {h} would be padded to {side} x {side}, more than fits")
    out = np.empty((side, side, 3), np.uint8)
    out[:] = colour
    top, left = (side - h) // 2, (side - w) // 2
    out[top : top + h, left : left + w] = rgb
    return out


def _center(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of the picture; black around it where it is too small."""
    import numpy as np

    h, w = rgb.shape[:2]
    H, W = max(h, height), max(w, width)
    if (h, w) != (H, W):
        out = np.zeros((H, W, 3), np.uint8)
        top, left = math.ceil((H - h) / 2), math.ceil((W - w) / 2)
        out[top : top + h, left : left + w] = rgb
        # The source's own rounding: what was odd in the small picture stays odd in the large one.
        y, x = (h - height) // 2 + top, (w - width) // 2 + left
        return out[max(0, y) : min(H, y + height), max(0, x) : min(W, x + width)]
    y, x = (h - height) // 2, (w - width) // 2
    return rgb[y : y + height, x : x + width]
