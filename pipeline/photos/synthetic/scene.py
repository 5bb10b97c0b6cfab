"""How one photo shows a person: all that varies from photo to photo, drawn once and then only read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.photos.synthetic.identity import Colour, Identity

HAIR_STYLES = ("short", "fringe", "long", "long_fringe", "buzz", "bald", "curly")
_HAIR_ODDS = (0.28, 0.17, 0.2, 0.1, 0.1, 0.05, 0.1)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
_BEARD_ODDS = (0.45, 0.22, 0.1, 0.11, 0.12)


@dataclass(frozen=True, slots=True)
class Light:
    direction: tuple[float, float, float]  # unit vector toward the light, in the picture's frame
    colour: Colour


@dataclass(frozen=True, slots=True)
class Glasses:
    radius_x: float
    radius_y: float
    power: float  # 2 round … 5 square
    thickness: float
    colour: Colour
    tint: float  # 0 clear … 1 black


@dataclass(frozen=True, slots=True)
class Scene:
    # pose, radians
    yaw: float
    pitch: float
    roll: float
    # where the face is: pixels a unit and the origin's position, as fractions of the picture's side
    scale: float
    centre: tuple[float, float]
    # expression
    smile: float  # -0.4 … 1
    mouth_open: float  # 0..1
    brow_raise: float
    squint: float
    gaze: tuple[float, float]
    # light
    key: Light
    fill: Light
    ambient: Colour
    shadow_edge: tuple[float, float, float, float] | None  # angle, offset, softness, depth of a shadow across the face
    # looks
    hair_style: str
    hair: Colour
    hair_volume: float
    hair_part: float
    hair_length: float
    beard: str
    beard_density: float
    beard_colour: Colour
    glasses: Glasses | None
    lip_tint: Colour
    blush: float
    cloth: Colour
    # camera
    exposure: float
    contrast: float
    saturation: float
    white_balance: Colour
    blur: float
    motion: float
    noise: float
    vignette: float
    jpeg: int
    texture_seed: int  # background, strands, sensor noise


def draw_scene(person: Identity, *, seed: int, identity: int, photo: int) -> Scene:
    """The photo of that number: a pure function of the three, given the person they name."""
    rng = np.random.default_rng([0x5C, seed, identity, photo])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def normal(sigma: float, limit: float) -> float:
        return float(np.clip(rng.normal(0.0, sigma), -limit, limit))

    def tint(spread: float) -> Colour:
        return _level(math.exp(normal(spread, 2.5 * spread)), 1.0, math.exp(normal(spread, 2.5 * spread)))

    smile = max(-0.35, min(1.0, uniform(-0.5, 1.1)))
    dyed = rng.random() < 0.35
    hair = _dye(rng) if dyed else _scaled(person.hair, uniform(0.7, 1.5))
    side = 1.0 if rng.random() < 0.5 else -1.0
    return Scene(
        yaw=math.radians(normal(13, 25)),
        pitch=math.radians(normal(6, 13)),
        roll=math.radians(normal(6, 15)),
        scale=uniform(0.205, 0.262),
        centre=(0.5 + normal(0.035, 0.08), 0.46 + normal(0.03, 0.07)),
        smile=smile,
        mouth_open=max(0.0, uniform(-0.9, 0.8)),
        brow_raise=normal(0.025, 0.05),
        squint=max(0.0, uniform(-0.3, 0.35)),
        gaze=(normal(0.25, 0.5), normal(0.15, 0.3)),
        key=Light(_direction(side * uniform(0, 62), uniform(-10, 55)), _scaled(tint(0.16), uniform(0.55, 1.15))),
        fill=Light(_direction(-side * uniform(20, 80), uniform(-25, 40)), _scaled(tint(0.25), uniform(0.0, 0.4))),
        ambient=_scaled(tint(0.14), uniform(0.22, 0.5)),
        shadow_edge=(uniform(-3.1, 3.1), uniform(-0.5, 0.7), uniform(0.05, 0.5), uniform(0.25, 0.65)) if rng.random() < 0.35 else None,
        hair_style=HAIR_STYLES[int(rng.choice(len(HAIR_STYLES), p=_HAIR_ODDS))],
        hair=hair,
        hair_volume=uniform(0.04, 0.3),
        hair_part=normal(0.25, 0.5),
        hair_length=uniform(0.9, 2.1),
        beard=BEARDS[int(rng.choice(len(BEARDS), p=_BEARD_ODDS))] if person.bearded else "none",
        beard_density=uniform(0.35, 0.85),
        beard_colour=_scaled(person.brow if not dyed else hair, uniform(0.6, 1.3)),
        glasses=_glasses(rng) if rng.random() < 0.3 else None,
        lip_tint=_lip_tint(rng),
        blush=max(0.0, uniform(-0.5, 0.6)),
        cloth=_muted(uniform(0.05, 1), uniform(0.05, 1), uniform(0.05, 1), uniform(0.05, 0.6)),
        # The camera meters the face, in part.
        exposure=math.exp(normal(0.22, 0.5)) * (1.2 / sum(person.skin)) ** 0.45,
        contrast=uniform(0.85, 1.25),
        saturation=uniform(0.5, 1.3),
        white_balance=tint(0.10),
        blur=uniform(0.35, 0.95),
        motion=max(0.0, uniform(-4.0, 1.8)),
        noise=uniform(0.002, 0.018),
        vignette=uniform(0.0, 0.35),
        jpeg=int(rng.integers(62, 96)),
        texture_seed=int(rng.integers(1 << 30)),
    )


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Toward a light that many degrees right of and above the camera; y points down, as in the picture."""
    right, up = math.radians(azimuth), math.radians(elevation)
    return math.sin(right) * math.cos(up), -math.sin(up), math.cos(right) * math.cos(up)


def _glasses(rng: np.random.Generator) -> Glasses:
    grey = float(rng.uniform(0.0, 0.08))
    colour = (grey, grey, grey) if rng.random() < 0.7 else (0.25, float(rng.uniform(0.02, 0.2)), 0.04)
    return Glasses(
        radius_x=float(rng.uniform(0.26, 0.36)),
        radius_y=float(rng.uniform(0.17, 0.29)),
        power=float(rng.uniform(2.0, 5.0)),
        thickness=float(rng.uniform(0.012, 0.035)),
        colour=colour,
        tint=float(max(0.0, rng.uniform(-0.3, 0.25))),
    )


def _lip_tint(rng: np.random.Generator) -> Colour:
    """Bare lips in most photos, lipstick in some: a factor on the person's own colour."""
    if rng.random() < 0.7:
        return 1.0, 1.0, 1.0
    return float(rng.uniform(0.7, 1.2)), float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.3, 0.9))


def _dye(rng: np.random.Generator) -> Colour:
    depth = float(rng.uniform(0.08, 0.8)) ** 2
    warm = float(rng.uniform(0.35, 1.0))
    return depth, depth * warm * 0.8, depth * warm**2 * 0.7


def _level(red: float, green: float, blue: float) -> Colour:
    """The same hue at a mean of one, so that a tint does not also change the exposure."""
    mean = (red + green + blue) / 3
    return red / mean, green / mean, blue / mean


def _muted(red: float, green: float, blue: float, depth: float) -> Colour:
    """Cloth is rarely a pure hue."""
    grey = 0.5 * (red + green + blue) / 3
    return (0.5 * red + grey) * depth, (0.5 * green + grey) * depth, (0.5 * blue + grey) * depth


def _scaled(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by
