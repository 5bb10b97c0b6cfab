"""Whom networks see in targeted noise, counted on one that sees one person in photos as they are, another in transformed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.misled import misled
from pipeline.artifacts import write_json
from pipeline.config import NoiseConfig, dump
from pipeline.training.stage import training_set
from tests.study import IDENTITIES, Study


def test_targets_and_owners_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path)
    for name in ("surrogate", "clean"):
        write_json(study.run / name / "model" / "train.json", {"classes": IDENTITIES})
        (study.run / name / "model" / "history.jsonl").touch()
    (study.run / "tap" / "protected").mkdir(parents=True)
    (study.run / "tap" / "protected" / "manifest.parquet").touch()
    (study.run / "config").mkdir()
    (study.run / "config" / "noise-tap.yaml").write_text(dump(NoiseConfig(arm="tap")), encoding="utf-8")
    photos = study.table().query("role == 'protected' and part == 'train'")["label"]
    first, second = np.unique(photos)  # each one's noise shows the other
    asked: list[bool] = []  # whether photos were transformed

    def predict(_network: Any, faces: Any, _runtime: Any, *, fitted: Any) -> tuple[np.ndarray, None]:
        x_BCHW, _ = faces.batch(np.arange(len(faces)), torch.device("cpu"))
        asked.append(fitted is not None and not torch.equal(fitted.asked(x_BCHW), x_BCHW))
        return np.full(len(faces), first if fitted is None else second), None

    def clean_photos(table: Any, _arm: str, aligned: Path, run: Path) -> Any:
        return training_set(table, "clean", aligned, run)

    monkeypatch.setattr("pipeline.noise.against.network_of", lambda *_, **__: None)
    monkeypatch.setattr("pipeline.training.loop.predict", predict)
    monkeypatch.setattr("pipeline.training.stage.training_set", clean_photos)
    found = list(misled(study.data, study.run))
    assert [(one.arm, one.network, one.against) for one in found] == [("tap", "surrogate", True), ("tap", "clean", False)]
    for one in found:
        assert one.own == one.target_transformed == pytest.approx((photos == first).mean())
        assert one.target == one.own_transformed == pytest.approx((photos == second).mean())
    assert asked == [False, True] * 2, "two networks, of photos as they are and transformed"
