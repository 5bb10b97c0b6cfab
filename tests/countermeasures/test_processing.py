"""Processing: what is promised about shape and range, and what each does to a known image."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.countermeasures.catalogue import Process, countermeasure_of
from pipeline.countermeasures.names import FULL
from tests.conftest import toy_faces

PROCESSING = [name for name in FULL if countermeasure_of(name, classes=2).process]


def process_of(name: str) -> Process:
    process = countermeasure_of(name, classes=2).process
    assert process is not None
    return process


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return toy_faces(identities=3, photos=2).shards[0]


def checker(amplitude: int) -> np.ndarray:
    """One grey crop with a one-pixel checkerboard of ±amplitude: the highest frequency there is."""
    y, x = np.mgrid[:112, :112]
    return np.repeat((128 + amplitude * (1 - 2 * ((y + x) % 2))).astype(np.uint8)[None, :, :, None], 3, axis=3)


def mean_change(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before.astype(int) - after.astype(int)).mean())


@pytest.mark.parametrize("name", PROCESSING)
def test_same_shape_same_answer_input_kept(name: str, crops: np.ndarray) -> None:
    process, before = process_of(name), crops.copy()
    after = process(crops)
    assert after.shape == crops.shape
    assert after.dtype == np.uint8
    assert 0 < mean_change(crops, after) < 40
    np.testing.assert_array_equal(crops, before)
    np.testing.assert_array_equal(process(crops), after)
    np.testing.assert_array_equal(process(crops[3:4])[0], after[3])  # a photo's neighbours make no difference
    assert process(crops[:0]).shape == (0, 112, 112, 3)


def test_grey_is_luma(crops: np.ndarray) -> None:
    after = process_of("grey")(crops)
    assert (after[..., :1] == after).all()
    luma = crops @ np.array([0.299, 0.587, 0.114])  # red first: a mix-up of RGB and BGR is off by far more
    assert np.abs(after[..., 0] - luma).max() < 1


def test_jpeg_is_the_codecs_round_trip(crops: np.ndarray) -> None:
    after = process_of("jpeg-50")(crops)
    _, code = cv2.imencode(".jpg", crops[1][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(after[1], decoded[..., ::-1])
    stream = io.BytesIO()
    Image.fromarray(crops[1]).save(stream, "JPEG", quality=50)  # another build of the codec
    assert mean_change(after[1], np.asarray(Image.open(stream))) < 0.5


def test_lower_quality_changes_more(crops: np.ndarray) -> None:
    changes = [mean_change(crops, process_of(f"jpeg-{quality}")(crops)) for quality in (95, 85, 75, 50, 25, 10)]
    assert changes == sorted(changes)
    assert changes[-1] > 1.3 * changes[0]


@pytest.mark.parametrize(("name", "left"), [("blur-1.0", 0.5), ("blur-2.0", 0.5), ("resize-56", 0.5), ("blur-0.5", 6), ("resize-100", 12)])
def test_blur_and_resizing_take_out_a_checkerboard(name: str, left: float) -> None:
    noisy = checker(16)
    assert noisy.std() == 16
    assert process_of(name)(noisy).std() <= left
    flat = np.full_like(noisy, 90)
    np.testing.assert_array_equal(process_of(name)(flat), flat)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_bits_leave_two_to_the_n_levels(count: int) -> None:
    ramp = np.zeros((1, 16, 16, 3), np.uint8) + np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    after = process_of(f"bits-{count}")(ramp)
    levels = np.unique(after)
    assert len(levels) == 2**count
    assert (levels[0], levels[-1]) == (0, 255)
    assert np.abs(after.astype(int) - ramp).max() <= 128 / (2**count - 1) + 1
