"""The plain reference itself, which the search is held to and timed against."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import toy_faces
from tests.noise.reference import reference_search
from tests.noise.test_error_min import config_of, surrogate_of


@pytest.mark.parametrize("apart", [False, True])
def test_the_reference_finds_the_same_noise_in_batches(apart: bool) -> None:
    """Two photos more than three batches hold, so the last one is smaller; one round, after which float32 would drift apart."""
    faces = toy_faces(identities=3, photos=7)
    config = config_of(batches=1, batch=21)
    (one_by_one, errors), (batched, errors_batched) = (
        reference_search(config, surrogate_of(3), faces.shards[0], faces.label, 2, apart=apart, batch=batch) for batch in (1, 4)
    )
    assert one_by_one.abs().max() > 0
    assert (np.sign(one_by_one) == np.sign(batched)).float().mean() >= 0.99
    assert errors_batched == errors
