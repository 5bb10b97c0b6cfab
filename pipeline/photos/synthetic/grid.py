"""The canonical plane on which a head is built and painted: seen straight from the front, in units."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

# About one texel to an output pixel at 250 px: finer would only cost time.
TEXELS = 66
LEFT, RIGHT, TOP, BOTTOM = -1.56, 1.56, -1.9, 1.98
WIDTH, HEIGHT = round((RIGHT - LEFT) * TEXELS) + 1, round((BOTTOM - TOP) * TEXELS) + 1

X_1W = (np.arange(WIDTH, dtype=np.float32) / TEXELS + LEFT)[None, :]
Y_H1 = (np.arange(HEIGHT, dtype=np.float32) / TEXELS + TOP)[:, None]

Window = tuple[slice, slice]


def window(cx: float, cy: float, rx: float, ry: float) -> tuple[Window, np.ndarray, np.ndarray]:
    """The texels within ``rx``, ``ry`` of a point: where they are, and their x (1, w) and y (h, 1) from that point.

    Small features are painted in their own window: most of a face's features cover a hundredth of it.
    """
    left, right = (min(max(int((x - LEFT) * TEXELS), 0), WIDTH) for x in (cx - rx, cx + rx + 1 / TEXELS))
    top, bottom = (min(max(int((y - TOP) * TEXELS), 0), HEIGHT) for y in (cy - ry, cy + ry + 1 / TEXELS))
    where = (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
    return where, X_1W[:, where[1]] - cx, Y_H1[where[0]] - cy


def bell(x: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-x²/2σ²)."""
    return np.exp(x * x * (-0.5 / sigma**2))


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at ``low``, 1 at ``high`` (which may be the lower one), smooth between."""
    t = np.clip((x - low) * (1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def inside(distance: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Coverage of the texels whose signed distance (units, negative inside) is given; ``soft`` texels of edge."""
    return np.clip(0.5 - distance * (TEXELS / soft), 0.0, 1.0)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by ``sigma`` units."""
    return cv2.GaussianBlur(image, (0, 0), sigma * TEXELS)


def tinted(plane: np.ndarray, colour: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """``plane`` (h, w) times a colour: float32 (h, w, 3). Numpy would take a loop of three for every texel."""
    red, green, blue = colour
    if red == green == blue == 1.0:
        return cv2.merge((plane, plane, plane))
    return cv2.merge((plane * float(red), plane * float(green), plane * float(blue)))


@functools.cache
def _noise_tile(kind: str) -> np.ndarray:
    """512 × 512 of normal noise, float32: 'fine', 'speck' (a texel or two), 'soft' (blobs), 'strand' (along y)."""
    white = np.random.default_rng([0x7E, len(kind)]).standard_normal((512, 512), dtype=np.float32)
    sigmas = {"fine": None, "soft": (9.0, 9.0), "strand": (1.0, 16.0), "speck": (0.8, 0.8)}[kind]
    tile = white
    if sigmas is not None:
        tile = cv2.GaussianBlur(white, (0, 0), sigmas[0], sigmaY=sigmas[1], borderType=cv2.BORDER_REFLECT)
        tile = tile / tile.std()
    tile.flags.writeable = False  # shared by every photo of the process
    return tile


def noise(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random cut of a fixed noise tile, float32 (height, width), mean 0 and deviation 1: cheap, and read-only."""
    tile = _noise_tile(kind)
    if height > 512 or width > 512:
        tile = np.tile(tile, (-(-height // 512) + 1, -(-width // 512) + 1))
    top = int(rng.integers(tile.shape[0] - height + 1))
    left = int(rng.integers(tile.shape[1] - width + 1))
    return tile[top : top + height, left : left + width]
