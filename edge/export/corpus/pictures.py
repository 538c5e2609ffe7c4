"""Pictures that are drawn, not collected: one to three coloured things on a background.

A thing is a shape or a digit in one of eight colours at one of nine places; its size, angle and exact
spot vary, and so do the background, its clutter, the blur and the noise. Everything follows from a seed.

Each thing has one colour in which no training picture shows it (`UNSEEN`); every held-out picture
shows at least one thing in that colour. Digits are drawn in the font inside Pillow (Aileron, CC0).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.errors import require

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 96  # pixels, both ways
COLOURS = {
    "red": (215, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 50),
    "green": (45, 160, 75),
    "blue": (40, 90, 215),
    "purple": (135, 55, 175),
    "black": (25, 25, 28),
    "white": (243, 243, 243),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
DIGITS = tuple("0123456789")
THINGS = SHAPES + DIGITS
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
UNSEEN = {thing: tuple(COLOURS)[(3 * i + 1) % len(COLOURS)] for i, thing in enumerate(THINGS)}

_CELL = SIZE / 3
_FINE = 3  # drawn this much larger, then scaled down: smooth edges
_CONTRAST = 105  # least distance in RGB between a thing and what is behind it


@dataclass(frozen=True)
class Thing:
    """One thing: what it is, and how it is drawn (centre and radius in pixels, angle in degrees)."""

    colour: str
    name: str
    place: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    """A scene in reading order; `draw` makes pixels of it."""

    seed: int
    things: tuple[Thing, ...]
    background: tuple[tuple[int, int, int], tuple[int, int, int]]


def picture(seed: int, *, held_out: bool = False, any_colour: bool = False) -> Picture:
    """The scene of this seed.

    A training picture shows no thing in its unseen colour, a held-out picture at least one. With `any_colour`
    each thing of a training picture has whatever colour, far from its unseen one, and its `colour` says nothing:
    that teaches what a shape is, whatever its colour.
    """
    rng = random.Random(f"{'held out' if held_out else 'any colour' if any_colour else 'training'} {seed}")
    while True:
        n = rng.choice((1, 2, 2, 3))
        kinds = [(rng.choice(tuple(COLOURS)), _a_thing(rng)) for _ in range(n)]
        if held_out:
            at, thing = rng.randrange(n), _a_thing(rng)
            kinds[at] = (UNSEEN[thing], thing)
        elif any(UNSEEN[thing] == colour for colour, thing in kinds):
            continue
        if len(set(kinds)) != n:
            continue
        cells = sorted(rng.sample(range(len(PLACES)), n))
        things = [_put(rng, *kind, cell) for kind, cell in zip(kinds, cells, strict=True)]
        if any_colour:
            things = [replace(t, rgb=_far_from(COLOURS[UNSEEN[t.name]], rng)) for t in things]
        ends = (_a_background(rng), _a_background(rng))
        middle = tuple((a + b) / 2 for a, b in zip(*ends, strict=True))
        if _apart(things) and all(math.dist(t.rgb, b) > _CONTRAST for t in things for b in (*ends, middle)):
            return Picture(seed, tuple(things), ends)


def _far_from(unseen: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    while True:
        rgb = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if math.dist(rgb, unseen) > _CONTRAST:
            return rgb


def _a_thing(rng: random.Random) -> str:
    """Shapes and digits equally often."""
    return rng.choice(rng.choice((SHAPES, DIGITS)))


def _put(rng: random.Random, colour: str, name: str, cell: int) -> Thing:
    radius = rng.uniform(9, 15)
    row, column = divmod(cell, 3)

    def spot(index: int) -> float:
        return min(max((index + 0.5) * _CELL + rng.uniform(-6, 6), radius), SIZE - radius)

    turn = 12 if name in DIGITS else 20
    r, g, b = (min(max(c + rng.randint(-16, 16), 0), 255) for c in COLOURS[colour])
    return Thing(colour, name, PLACES[cell], spot(column), spot(row), radius, rng.uniform(-turn, turn), (r, g, b))


def _a_background(rng: random.Random) -> tuple[int, int, int]:
    grey = rng.randint(0, 255)
    r, g, b = (min(max(grey + rng.randint(-30, 30), 0), 255) for _ in range(3))
    return r, g, b


def _apart(things: list[Thing]) -> bool:
    return all(
        math.dist((a.x, a.y), (b.x, b.y)) > a.radius + b.radius + 1 for i, a in enumerate(things) for b in things[:i]
    )


def draw(scene: Picture) -> Image:
    """The picture as 96x96 RGB; the same bytes each time with one version of Pillow and NumPy."""
    require("PIL", extra="vision", purpose="drawing pictures")
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    rng = np.random.default_rng([scene.seed, len(scene.things)])
    angle, steps = rng.uniform(0, 2 * math.pi), np.linspace(-0.5, 0.5, SIZE)
    way = np.clip(0.5 + math.cos(angle) * steps[None, :] + math.sin(angle) * steps[:, None], 0, 1)[..., None]
    first, last = np.array(scene.background)
    image = Image.fromarray((first * (1 - way) + last * way).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):  # faint thin lines, which mean nothing
        ink = tuple(int(c) for c in np.clip(first + rng.integers(-28, 29, 3), 0, 255))
        pen.line([float(v) for v in rng.uniform(0, SIZE, 4)], fill=ink)
    for thing in scene.things:
        _paste(image, thing)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
    noise = rng.normal(0, rng.uniform(0, 9), (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.rint(np.asarray(image) + noise), 0, 255).astype(np.uint8))


def _paste(image: Image, thing: Thing) -> None:
    """Draw the thing large on a mask of its own, scale that down, and fill it with the colour."""
    from PIL import Image, ImageDraw, ImageFont

    left, top = (math.floor(c - thing.radius) - 4 for c in (thing.x, thing.y))
    side = 2 * math.ceil(thing.radius) + 10
    mask = Image.new("L", (side * _FINE, side * _FINE), 0)
    pen = ImageDraw.Draw(mask)
    x, y, r = (thing.x - left) * _FINE, (thing.y - top) * _FINE, thing.radius * _FINE
    if thing.name in DIGITS:
        font = ImageFont.load_default(size=2.3 * r)
        box = pen.textbbox((0, 0), thing.name, font=font, stroke_width=3)
        at = (x - (box[0] + box[2]) / 2, y - (box[1] + box[3]) / 2)
        pen.text(at, thing.name, fill=255, font=font, stroke_width=3)
        mask = mask.rotate(thing.angle, center=(x, y), resample=Image.Resampling.BILINEAR)
    elif thing.name == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    else:
        cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
        pen.polygon([(x + r * (cos * u - sin * v), y + r * (sin * u + cos * v)) for u, v in _OUTLINES[thing.name]], 255)
    image.paste(thing.rgb, (left, top), mask.resize((side, side), Image.Resampling.BOX))


def _star() -> list[tuple[float, float]]:
    turns = [math.pi * (k / 5 - 0.5) for k in range(10)]
    return [
        ((0.42 if k % 2 else 1.05) * math.cos(t), (0.42 if k % 2 else 1.05) * math.sin(t)) for k, t in enumerate(turns)
    ]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * k / 48 for k in range(48)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in turns
    ]


# Within the circle of radius 1, y downwards.
_OUTLINES = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1.0), (0.92, 0.7), (-0.92, 0.7)],
    "star": _star(),
    "heart": _heart(),
    "cross": [
        (-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32),
        (0.32, 1), (-0.32, 1), (-0.32, 0.32), (-1, 0.32), (-1, -0.32), (-0.32, -0.32),
    ],
}  # fmt: skip
