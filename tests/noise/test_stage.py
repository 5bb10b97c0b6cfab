"""The noise stage: what it does with the values of its config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.noise.arms import ARMS
from pipeline.noise.table import load_noise
from tests.study import Study

DRAWN = [name for name, arm in ARMS.items() if arm.method not in ("none", "error-min", "cloak") and not arm.surrogates]


@pytest.mark.parametrize("epsilon", [4, 24])
def test_drawn_noise_goes_as_far_as_epsilon(tmp_path: Path, epsilon: int) -> None:
    study = Study(tmp_path)
    for arm in DRAWN:
        study.noise(arm, epsilon=epsilon)
        noise, facts = load_noise(study.run / arm)
        assert np.abs(noise.delta.astype(int)).max() == noise.epsilon == facts["epsilon"] == epsilon, arm
