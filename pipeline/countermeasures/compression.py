"""JPEG, crop by crop: of all processing the one that the search for noise goes through, too (`pipeline/noise/transforms.py`).

Apart from the others, so that a new one of those has no noise made again.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def each(crops: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`change` applied to each crop, uint8 (H, W, 3) RGB, on its own."""
    assert crops.dtype == np.uint8 and crops.ndim == 4 and crops.shape[3] == 3, (crops.dtype, crops.shape)
    changed = np.empty(crops.shape, np.uint8)
    for i, crop in enumerate(crops):
        changed[i] = change(crop)
    return changed


def jpeg(crops: np.ndarray, *, quality: int) -> np.ndarray:
    """Through JPEG and back, quality 1 to 100, chroma at OpenCV's default 4:2:0 (Liu et al., ICML 2023)."""

    def change(crop: np.ndarray) -> np.ndarray:
        ok, code = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert ok
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    return each(crops, change)
