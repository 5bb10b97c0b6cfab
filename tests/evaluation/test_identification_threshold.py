"""What open-set identification must not count: a wrong person above the threshold, and a score that strangers reach too."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.identification import identify

GALLERY, LABEL = np.eye(2, dtype=np.float32), np.array([0, 1])


def tpir(probe: list[list[float]], label: list[int], stranger: list[list[float]]) -> float | None:
    found = identify(
        GALLERY, LABEL, np.array(probe, np.float32), np.array(label), np.array(stranger, np.float32), resamples=10, seed=0
    )  # fmt: skip
    assert found is not None
    return found["tpir_at_fpir"]["0.1"]


def test_the_wrong_person_above_the_threshold_is_no_hit() -> None:
    # Both probes beat all strangers, but the second is taken for identity 1.
    assert tpir([[1, 0], [0, 1]], [0, 0], [[-0.6, -0.8]] * 10) == 0.5


def test_a_score_that_too_many_strangers_reach_is_no_hit() -> None:
    # Two of ten strangers score .8, one may pass: the threshold lies above .8, however the probe was rounded.
    strangers = [[0.8, 0.6]] * 2 + [[-0.6, -0.8]] * 8
    assert tpir([[0.8, -0.6], [1, 0]], [0, 0], strangers) == 0.5
    assert tpir([[0.8, -0.6], [1, 0]], [0, 0], strangers[1:] + strangers[-1:]) == 1.0
