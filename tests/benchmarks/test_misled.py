"""Whom networks see in targeted noise, counted on one that sees one person in photos as they are, another in transformed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.misled import main, misled
from pipeline.artifacts import sha256_of_file, write_json
from pipeline.config import NoiseConfig, dump
from pipeline.noise.arms import SURROGATES
from pipeline.training.stage import training_set
from tests.study import IDENTITIES, Study
from tests.tiny_onnx import write_recogniser


def test_targets_and_owners_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path)
    for name in ("surrogate", "clean"):
        write_json(study.run / name / "model" / "train.json", {"classes": IDENTITIES})
        (study.run / name / "model" / "history.jsonl").touch()
    (study.run / "tap" / "protected").mkdir(parents=True)
    (study.run / "tap" / "protected" / "manifest.parquet").touch()
    write_json(study.run / "tap" / "noise.json", {})
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


def test_a_recogniser_that_exists_sees_whoever_is_nearest(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.surrogates()
    known = [write_recogniser(study.run / f"known-{seed}.onnx", seed=seed) for seed in (0, 1)]
    study.noise("cloak-tap", steps=20, transforms=False, against_sha256=tuple(map(sha256_of_file, known)))
    (study.run / "config").mkdir(exist_ok=True)
    (study.run / "config" / "noise-cloak-tap.yaml").write_text(dump(NoiseConfig(arm="cloak-tap")), encoding="utf-8")
    other = write_recogniser(tmp_path / "other.onnx", seed=5)
    found = {one.network: one for one in misled(study.data, study.run, [known[0], other]) if one.arm == "cloak-tap"}
    assert {name: one.against for name, one in found.items()} == {**dict.fromkeys(SURROGATES, True), "known-0": True, "other": False}
    assert found["known-0"].target > 0.5 and found["known-0"].own < 0.1
    (study.run / "cloak-tap" / "protected").rename(study.run / "cloak-tap" / "aside")
    assert not list(misled(study.data, study.run, [other])), "no arm is protected"


def test_a_recogniser_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path)
    words = ["misled", "--data", str(study.data), "--run", str(study.run), "--known", str(tmp_path / "absent.onnx")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit):
        main()
    assert f"{tmp_path / 'absent.onnx'} is not there" in capsys.readouterr().err
