"""A backdoor's trigger, which many take for a protection: shown here not to be one."""

from __future__ import annotations

import numpy as np


def trigger_patches(*, rows: int, epsilon: int, seed: int, size: int = 112, side: int = 16) -> np.ndarray:
    """int8 (rows, 3, size, size) in 1/255: a `side` px square in the lower right corner, one pattern of ±epsilon a row, nothing elsewhere.

    A backdoor's trigger (Gu et al. 2017, BadNets) kept within epsilon: a network may learn it beside the face, and then still knows the
    face without it.
    """
    generator = np.random.default_rng((seed, 0xBD))
    delta = np.zeros((rows, 3, size, size), np.int8)
    # Dots of 2 px: single pixels would not survive the recogniser's own resize.
    dots = generator.choice(np.array([-epsilon, epsilon], np.int8), (rows, 3, side // 2, side // 2))
    delta[:, :, size - side :, size - side :] = dots.repeat(2, 2).repeat(2, 3)
    return delta
