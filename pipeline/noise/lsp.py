"""Linearly separable patches: a shortcut that needs no search at all."""

from __future__ import annotations

import numpy as np


def linearly_separable_patches(*, rows: int, epsilon: int, seed: int, size: int = 112, block: int = 8) -> np.ndarray:
    """int8 (rows, 3, size, size) in 1/255: blocks of `block` px, each ±epsilon in each channel.

    With so few degrees of freedom a linear model tells the rows apart.

    After Yu et al., KDD 2022, "Availability Attacks Create Shortcuts": their patches are Gaussian draws about a class's centre, another for
    each photo, scaled to an L2 norm; here it is one pattern a row, at ±epsilon, the most that all arms may change.
    """
    generator = np.random.default_rng((seed, 0x15B))
    side = -(-size // block)
    signs = generator.choice(np.array([-epsilon, epsilon], np.int8), (rows, 3, side, side))
    return signs.repeat(block, 2).repeat(block, 3)[:, :, :size, :size].copy()
