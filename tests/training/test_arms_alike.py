"""Every arm is trained alike: what differs between two models is the photos, and nothing but the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.artifacts import read_table, write_array
from pipeline.training.stage import train_arm
from tests.study import CPU, TRAIN, Study


def test_an_arm_whose_protected_crops_are_the_clean_ones_is_the_clean_arm(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.noise("random")
    over = study.run / "random" / "protected"
    carrying, everyone = (read_table(folder / "manifest.parquet", ["photo", "row"]) for folder in (over, study.aligned))
    row = everyone.set_index("photo")["row"]
    clean = np.empty_like(np.load(over / "crops-00000.npy"))
    clean[carrying["row"]] = np.load(study.aligned / "crops-00000.npy")[row[carrying["photo"]]]
    weights = []
    for arm in ("random", "clean", "random"):
        train_arm(TRAIN, arm, study.run, study.aligned, CPU)
        weights.append((study.run / arm / "model" / "weights.safetensors").read_bytes())
        write_array(over / "crops-00000.npy", clean)
    noisy, wanted, found = weights
    assert found == wanted != noisy
