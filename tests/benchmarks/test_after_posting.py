"""What is left of noise in posted photos, with a detector that says where the face is."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import after_posting
from benchmarks.after_posting import noise_found, posted
from pipeline.faces.detect import Detections
from pipeline.faces.geometry import CROP_SIZE, TEMPLATE
from pipeline.faces.restore import protect_photo

SIDE = 2 * CROP_SIZE  # of the photo: the face fills it


class Told:
    """Finds the face where it is told to, in a photo of `share` of `SIDE`; `shift` px aside."""

    def __init__(self, share: float, shift: float = 0.0) -> None:
        self.share, self.shift = share, shift

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        times = self.share * SIDE / CROP_SIZE
        landmarks = ((TEMPLATE + 0.5) * times - 0.5 + self.shift).astype(np.float32)
        box = np.array([0, 0, SIDE, SIDE], np.float32) * self.share + self.shift
        return [Detections(box[None], np.ones(1, np.float32), landmarks[None]) for _ in photos]

    def describe(self, crops: np.ndarray) -> np.ndarray:
        raise AssertionError


def left(share: float, quality: int | None, shift: float = 0.0) -> tuple[float, float] | None:
    generator = np.random.default_rng(0)
    photo = cv2.GaussianBlur(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (0, 0), 3)
    delta = np.sign(cv2.GaussianBlur(generator.normal(size=(CROP_SIZE, CROP_SIZE, 3)), (0, 0), 3))
    delta = np.ascontiguousarray((16 * delta).astype(np.int8).transpose(2, 0, 1))
    matrix = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])
    before, after = (posted(one, share, quality) for one in (photo, protect_photo(photo, matrix, delta, 16)))
    return noise_found(Told(share, shift), before, after, np.array([0, 0, SIDE, SIDE]) * share, delta)


def test_less_is_left_the_smaller_the_photo_and_the_coarser_the_jpeg() -> None:
    whole, small, both, aside = left(1, None), left(0.25, None), left(0.25, 50), left(1, None, shift=8)
    assert whole is not None and small is not None and both is not None and aside is not None
    assert whole[0] > 0.95 and 0.9 < whole[1] < 1.05
    assert whole[0] > small[0] > both[0] > 0 and whole[1] > small[1]
    assert aside[0] < whole[0], "a face that is cut elsewhere"


def test_a_face_elsewhere_is_not_the_one() -> None:
    assert left(1, None, shift=SIDE) is None


def test_a_run_without_photos_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["after_posting", "--data", str(tmp_path), "--run", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        after_posting.main()
    assert "run/error-min/protected/photos is missing" in capsys.readouterr().err
