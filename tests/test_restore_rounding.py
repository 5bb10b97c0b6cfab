"""A photo has whole numbers: the change that was solved for is rounded to the nearest, not towards the photo as it was."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.restore import face_region, protect_photo
from tests.faces.test_geometry import alignment


@pytest.mark.parametrize("asked", [7, -7])
def test_a_change_that_is_solved_for_is_rounded_to_the_nearest(asked: int) -> None:
    """Noise that is the same everywhere asks for that change everywhere; the steps come as near from below as from above."""
    photo, matrix = np.full((300, 300, 3), 128, np.uint8), alignment(1.0, 20, 150.3, 149.8)
    changed = protect_photo(photo, matrix, np.full((3, 112, 112), asked, np.int8), 16).astype(int) - 128
    rows, columns, mask = face_region((300, 300), matrix)
    found = changed[rows, columns][mask]
    assert (found == asked).mean() > 0.9, "all but the rim"
