"""Who a person is: everything that stays the same in all of their photos.

Lengths are in *units* of half a face's width (about 7 cm); x runs right, y down, z toward the viewer, and the origin
lies between the eyes. Faces are mirror-symmetric but for their marks, so that a flipped photo is still that person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # linear light, RGB, 0..1

# From, to: drawn uniformly, because a population that crowds around its mean would be hard for no good reason.
_SHAPE_RANGES: dict[str, tuple[float, float]] = {
    "face_width": (0.90, 1.10),
    "jaw_power": (1.75, 3.3),
    "chin_y": (1.42, 1.76),
    "chin_ball": (0.0, 0.16),
    "chin_dimple": (0.0, 1.0),
    "cheekbone": (0.0, 0.14),
    "hairline_y": (-0.98, -0.76),
    "eye_x": (0.385, 0.50),
    "eye_width": (0.185, 0.26),
    "eye_open": (0.065, 0.13),
    "eye_tilt": (-0.22, 0.24),
    "eye_round": (1.7, 3.2),
    "iris": (0.076, 0.104),
    "crease": (0.03, 0.10),
    "eye_bag": (0.0, 1.0),
    "lash": (0.25, 1.0),
    "brow_gap": (0.17, 0.34),
    "brow_thick": (0.025, 0.085),
    "brow_length": (0.21, 0.34),
    "brow_arch": (-0.01, 0.11),
    "brow_tilt": (-0.22, 0.24),
    "brow_inset": (-0.07, 0.05),
    "brow_density": (0.55, 1.0),
    "nose_y": (0.48, 0.72),
    "nose_width": (0.14, 0.29),
    "nose_height": (0.22, 0.36),
    "bridge_width": (0.055, 0.115),
    "bridge_hump": (-0.05, 0.07),
    "nose_tip": (0.075, 0.13),
    "nostril": (0.3, 1.0),
    "mouth_gap": (0.29, 0.46),
    "mouth_width": (0.26, 0.45),
    "mouth_curve": (-0.035, 0.05),
    "upper_lip": (0.03, 0.105),
    "lower_lip": (0.045, 0.135),
    "bow": (0.0, 1.0),
    "philtrum": (0.0, 1.0),
    "folds": (0.0, 1.0),
    "forehead_lines": (-1.0, 1.0),
    "ear": (0.8, 1.25),
}

# sRGB anchors, dark to light; a person lies between two neighbours.
_SKINS = ((98, 64, 48), (126, 84, 62), (158, 108, 80), (196, 146, 114), (222, 176, 148), (236, 196, 172))
_IRISES = ((48, 28, 18), (84, 54, 28), (112, 92, 50), (84, 108, 84), (84, 120, 150), (120, 132, 140))
_HAIRS = ((18, 15, 14), (36, 26, 20), (66, 42, 28), (104, 72, 44), (150, 112, 68), (128, 60, 34), (140, 136, 132))


@dataclass(frozen=True, slots=True)
class Shape:
    """The face's measures, in units or as strengths; ranges in ``_SHAPE_RANGES``."""

    face_width: float
    jaw_power: float  # 1.7 pointed … 3.4 square
    chin_y: float
    chin_ball: float
    chin_dimple: float
    cheekbone: float
    hairline_y: float
    eye_x: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    eye_round: float
    iris: float
    crease: float
    eye_bag: float
    lash: float
    brow_gap: float
    brow_thick: float
    brow_length: float
    brow_arch: float
    brow_tilt: float
    brow_inset: float
    brow_density: float
    nose_y: float
    nose_width: float
    nose_height: float
    bridge_width: float
    bridge_hump: float
    nose_tip: float
    nostril: float
    mouth_gap: float
    mouth_width: float
    mouth_curve: float
    upper_lip: float
    lower_lip: float
    bow: float
    philtrum: float
    folds: float
    forehead_lines: float
    ear: float


@dataclass(frozen=True, slots=True)
class Identity:
    shape: Shape
    skin: Colour
    lip: Colour
    iris: Colour
    brow: Colour
    hair: Colour  # the natural colour; a photo may show a dyed one
    bearded: bool  # whether a photo may show a beard at all
    freckles: float  # 0..1
    moles: tuple[tuple[float, float, float], ...]  # x, y, radius
    skin_seed: int  # where this person's freckles are


def draw_identity(*, seed: int, identity: int) -> Identity:
    """The person of that number: a pure function of both."""
    rng = np.random.default_rng([0x1D, seed, identity])
    shape = Shape(**{name: float(rng.uniform(low, high)) for name, (low, high) in _SHAPE_RANGES.items()})
    skin = _between(_SKINS, rng)
    hair = _between(_HAIRS, rng)
    redness = float(rng.uniform(0.35, 1.0))
    lip = (skin[0] * (0.95 - 0.15 * redness), skin[1] * (0.72 - 0.30 * redness), skin[2] * (0.78 - 0.25 * redness))
    # Brows are read before anything else: never lighter than half the skin they are on.
    shade = float(rng.uniform(0.45, 0.95)) * min(1.0, 0.5 * sum(skin) / sum(hair))
    return Identity(
        shape=shape,
        skin=skin,
        lip=lip,
        iris=_between(_IRISES, rng),
        brow=(hair[0] * shade, hair[1] * shade, hair[2] * shade),
        hair=hair,
        bearded=bool(rng.random() < 0.5),
        freckles=float(max(0.0, rng.uniform(-1.0, 1.0))),
        moles=_moles(shape, rng),
        skin_seed=int(rng.integers(1 << 30)),
    )


def _moles(shape: Shape, rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Up to three moles, kept off the eyes and the mouth where they would only be noise to either."""
    moles = []
    for _ in range(int(rng.integers(0, 4))):
        side = 1.0 if rng.random() < 0.5 else -1.0
        x = side * float(rng.uniform(0.08, 0.72))
        y = float(rng.uniform(-0.65, shape.chin_y - 0.15))
        if abs(y) < 0.16 and abs(abs(x) - shape.eye_x) < 0.3:
            y += 0.35
        moles.append((x, y, float(rng.uniform(0.020, 0.044))))
    return tuple(moles)


def _between(anchors: tuple[tuple[int, int, int], ...], rng: np.random.Generator) -> Colour:
    at = float(rng.uniform(0, len(anchors) - 1))
    low = min(int(at), len(anchors) - 2)
    mixed = [a + (b - a) * (at - low) for a, b in zip(anchors[low], anchors[low + 1], strict=True)]
    red, green, blue = ((value / 255) ** 2 for value in mixed)
    return red, green, blue
