"""The embedding that has learnt nothing sees light and dark, and nothing of how bright or strong they are."""

from __future__ import annotations

import numpy as np

from benchmarks.lfw_floor import SIDE, grey_levels


def test_grey_levels_are_unit_vectors_whatever_the_light() -> None:
    ramp = np.broadcast_to(np.arange(112, dtype=np.uint8)[:, None, None], (112, 112, 3))
    crops = np.stack([ramp, ramp + np.uint8(100), ramp * np.uint8(2), ramp[::-1], np.full_like(ramp, 77)])
    found = grey_levels(crops)
    assert found.shape == (5, SIDE * SIDE) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found[:4], axis=1), 1, atol=1e-5)
    assert np.allclose(found[0] @ found[1:4].T, [1, 1, -1], atol=1e-4)
    assert not found[4].any()  # a blank crop is like nothing
