"""Who is taken for whom, counted on a network that names by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.named_by_noise import named
from pipeline.artifacts import write_json
from pipeline.config import NoiseConfig, dump
from tests.study import IDENTITIES, TRAIN, Study


def test_who_is_taken_for_the_one_whose_noise_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path)
    study_arm = study.run / "tap"
    write_json(study_arm / "model" / "train.json", {"classes": IDENTITIES})
    (study_arm / "model" / "history.jsonl").touch()
    (study.run / "config").mkdir()
    (study.run / "config" / "train.yaml").write_text(dump(TRAIN), encoding="utf-8")
    (study.run / "config" / "noise-tap.yaml").write_text(dump(NoiseConfig(arm="tap")), encoding="utf-8")

    class Network:
        def to(self, **_: Any) -> Network:
            return self

    first, second = np.unique(study.table().query("role == 'protected'")["label"])
    names = {first: second, second: second}  # each shows the other; the second is named right, the first as the second

    def predict(_model: Any, faces: Any, _runtime: Any) -> tuple[np.ndarray, None]:
        return np.array([names[label] for label in faces.label]), None

    monkeypatch.setattr("pipeline.models.recognisers.load_trained", lambda *_, **__: Network())
    monkeypatch.setattr("pipeline.training.loop.predict", predict)
    from pipeline.training.stage import training_set

    monkeypatch.setattr(
        "pipeline.training.stage.training_set", lambda table, _arm, aligned, run: training_set(table, "clean", aligned, run)
    )
    ((arm, own, without, anybody, for_another),) = named(study.data, study.run)
    photos = study.table().query("role == 'protected' and part == 'train'")["label"]
    share = float((photos == first).mean())
    assert arm == "tap" and anybody == 1 and for_another == pytest.approx(share)
    assert own == without == pytest.approx(1 - share)
