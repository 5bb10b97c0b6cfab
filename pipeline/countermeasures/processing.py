"""What a trainer's own preprocessing does to photos, before training and before use: deterministic, no label needed.

Each function takes crops, uint8 (N, H, W, 3) RGB, and gives new ones of the same shape and dtype. All but `bits` are OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.countermeasures.compression import each


def grey(crops: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.601) in all three channels (*Image Shortcut Squeezing*, Liu et al., ICML 2023)."""
    return each(crops, lambda crop: cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def blur(crops: np.ndarray, *, sigma: float) -> np.ndarray:
    """Gaussian blur of `sigma` px, kernel of ±3 sigma, mirrored at the border."""
    return each(crops, lambda crop: cv2.GaussianBlur(crop, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def resize(crops: np.ndarray, *, size: int) -> np.ndarray:
    """Shrunk to size×size px by area means, and back up bicubically: what is finer than the smaller grid is gone."""
    height, width = crops.shape[1:3]

    def change(crop: np.ndarray) -> np.ndarray:
        small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    return each(crops, change)


def bits(crops: np.ndarray, *, count: int) -> np.ndarray:
    """Bit-depth reduction to `count` bits a colour: the nearest of 2^count levels (*Feature Squeezing*, Xu et al., NDSS 2018)."""
    levels = 2**count - 1
    table = np.rint(np.rint(np.arange(256) / 255 * levels) / levels * 255).astype(np.uint8)
    return each(crops, lambda crop: table[crop])
