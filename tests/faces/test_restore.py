from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces import restore
from pipeline.faces.geometry import warp_crop
from pipeline.faces.restore import face_region, protect_photo, recropped_noise, sampling
from tests.faces.test_geometry import alignment


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def rough(seed: int = 0, epsilon: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-epsilon, epsilon], np.int8), (3, 112, 112))


def smooth(epsilon: int = 16) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(112, 112, 3)), (0, 0), 2)
    return np.clip(noise / np.abs(noise).max() * 2 * epsilon, -epsilon, epsilon).astype(np.int8).transpose(2, 0, 1).copy()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.floats(0.3, 3), st.floats(-180, 180), st.floats(-100, 300), st.floats(-100, 300))
def test_epsilon_holds_and_nothing_else_changes(seed: int, epsilon: int, scale: float, degrees: float, x: float, y: float) -> None:
    generator = np.random.default_rng(seed)
    photo = generator.choice(np.array([0, 1, 100, 254, 255], np.uint8), (150, 210, 3))  # as close to both ends as can be
    matrix = alignment(scale, degrees, x, y)
    protected = protect_photo(photo, matrix, rough(seed % 99, epsilon), epsilon)
    assert protected.dtype == np.uint8 and protected.shape == photo.shape
    change = protected.astype(int) - photo.astype(int)
    assert np.abs(change).max() <= epsilon
    rows, columns, mask = face_region((150, 210), matrix)
    outside = np.ones((150, 210), bool)
    outside[rows, columns] = ~mask
    assert not change[outside].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.25, 2), st.floats(-180, 180))
def test_the_sparse_matrix_is_the_crop(seed: int, scale: float, degrees: float) -> None:
    photo = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (700, 700, 3), np.uint8), (0, 0), 2)
    matrix = alignment(scale, degrees, 350.3, 349.8)
    rows, columns, mask = face_region((700, 700), matrix)
    cut = sampling(matrix, rows, columns, mask)
    found = (cut @ photo[rows, columns][mask].astype(float)).reshape(112, 112, 3)
    inner = slice(2, -2)  # at the rim the crop also sees pixels outside its quadrilateral
    assert np.abs(found - warp_crop(photo, matrix))[inner, inner].max() <= 2


def test_bands_of_the_sparse_matrix_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = alignment(0.3, 20, 350.3, 349.8)
    region = face_region((700, 700), matrix)
    whole = sampling(matrix, *region)
    monkeypatch.setattr(restore, "SAMPLES", 5000)
    bands = sampling(matrix, *region)
    assert bands.shape == whole.shape and abs(bands - whole).max() == 0


def test_an_unrotated_crop_carries_the_noise_exactly() -> None:
    photo = np.random.default_rng(0).integers(16, 240, (112, 112, 3), np.uint8)
    delta = rough()
    protected = protect_photo(photo, np.eye(2, 3), delta, 16)
    assert (recropped_noise(photo, protected, np.eye(2, 3)) == delta).all()


@pytest.mark.parametrize(
    ("scale", "kind", "least"),
    [(0.6, "rough", 0.99), (1.0, "rough", 0.87), (1.7, "rough", 0.53), (0.6, "smooth", 0.99), (1.0, "smooth", 0.99), (1.7, "smooth", 0.99)],
)
def test_the_noise_is_found_again(scale: float, kind: str, least: float) -> None:
    """A photo with fewer pixels than the crop cannot carry noise as fine as the crop's."""
    photo = np.random.default_rng(0).integers(60, 200, (330, 330, 3), np.uint8)
    matrix = alignment(scale, 10, 165.3, 164.8)
    delta = rough() if kind == "rough" else smooth()
    found = recropped_noise(photo, protect_photo(photo, matrix, delta, 16), matrix)
    assert found.dtype == np.int16 and found.shape == (3, 112, 112)
    assert correlation(found, delta) >= least


@pytest.mark.parametrize(("scale", "plain_steps"), [(1.7, 30), (1.0, 30), (0.6, 30), (0.4, 5), (0.2, 5)])
def test_accelerated_steps_come_as_near_as_more_plain_ones(scale: float, plain_steps: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    matrix, delta = alignment(scale, 10, 350.3, 349.8), smooth()
    rows, columns, mask = face_region((700, 700), matrix)
    cut, pixels = sampling(matrix, rows, columns, mask), photo[rows, columns][mask].astype(float)
    wanted = delta.reshape(3, -1).T.astype(float)
    plain = np.zeros_like(pixels)
    for _ in range(plain_steps):
        plain += cut.T @ (wanted - cut @ plain) / cut.sum(0).max()
        plain = np.clip(plain, np.maximum(-16, -pixels), np.minimum(16, 255 - pixels))
    ours = protect_photo(photo, matrix, delta, 16)[rows, columns][mask] - pixels
    far, as_far = (float(((cut @ change - wanted) ** 2).mean()) for change in (ours, np.rint(plain)))
    assert far <= 1.01 * as_far


def test_no_noise_and_a_face_outside_change_nothing() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    assert (protect_photo(photo, alignment(1, 5, 40, 40), np.zeros((3, 112, 112), np.int8), 16) == photo).all()
    assert (protect_photo(photo, alignment(1, 5, 900, 900), rough(), 16) == photo).all()


def test_the_photo_given_is_left_alone() -> None:
    photo = np.full((120, 120, 3), 100, np.uint8)
    protect_photo(photo, alignment(1, 0, 60, 60), rough(), 16)
    assert (photo == 100).all()


@pytest.mark.parametrize("asked", [7, -7])
def test_a_change_that_is_solved_for_is_rounded_to_the_nearest(asked: int) -> None:
    """Noise that is the same everywhere asks for that change everywhere; the steps come as near from below as from above."""
    photo, matrix = np.full((300, 300, 3), 128, np.uint8), alignment(1.0, 20, 150.3, 149.8)
    changed = protect_photo(photo, matrix, np.full((3, 112, 112), asked, np.int8), 16).astype(int) - 128
    rows, columns, mask = face_region((300, 300), matrix)
    found = changed[rows, columns][mask]
    assert (found == asked).mean() > 0.9, "all but the rim"
