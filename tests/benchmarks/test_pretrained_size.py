"""What is named on embeddings of a run's photos, and what the command refuses before anything is read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pretrained_size
from benchmarks.lfw_floor import grey_levels
from tests.study import Study


def test_blobs_are_named_on_what_shows_them_and_not_on_what_does_not(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.noise("random")

    def blind(crops: np.ndarray) -> np.ndarray:
        return np.ones((len(crops), 4), np.float32) / 2

    found = list(pretrained_size.named(grey_levels, study.data, study.run, ["clean", "random"]))
    assert [row[:2] for row in found] == [(arm, fit) for arm in ("clean", "random") for fit in ("linear SVM", "nearest photo")]
    assert all(shares == {"protected": 1, "others": 1} for arm, _, shares in found if arm == "clean")
    blindly = list(pretrained_size.named(blind, study.data, study.run, ["clean"]))
    assert all(sum(share for share in shares.values() if share is not None) < 1 for _, _, shares in blindly)  # one name for everybody


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to ask about"),
        (["--lfw", "here"], "--lfw goes with --lfw-aligned"),
        (["--data", "here", "--run", "nowhere"], "nowhere is missing"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "w.safetensors"
    weights.touch()
    monkeypatch.setattr(sys, "argv", ["pretrained_size", "--weights", str(weights), *arguments])
    with pytest.raises(SystemExit):
        pretrained_size.main()
    assert message in capsys.readouterr().err
