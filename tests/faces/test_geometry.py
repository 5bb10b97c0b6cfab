from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.geometry import TEMPLATE, finer, inverse, overlaps, oversampling, scale_of, similarity_transform, to_crop, warp_crop


def alignment(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    """A photo → crop similarity that puts the photo's point (x, y) in the middle of the crop."""
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([turn, (np.array([55.5, 55.5]) - turn @ [x, y])[:, None]])


alignments = st.builds(alignment, st.floats(0.3, 3), st.floats(-180, 180), st.floats(-50, 400), st.floats(-50, 400))


@given(alignments)
def test_landmarks_that_fit_the_template_give_its_transform_back(matrix: np.ndarray) -> None:
    landmarks = to_crop(TEMPLATE, inverse(matrix))
    assert np.allclose(similarity_transform(landmarks), matrix, atol=1e-6)


@given(alignments, st.lists(st.floats(-1000, 1000), min_size=2, max_size=2))
def test_inverse_after_forward_is_identity(matrix: np.ndarray, point: list[float]) -> None:
    assert np.allclose(to_crop(to_crop(np.array([point]), matrix), inverse(matrix)), [point], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore")
def test_as_insightface_has_it(seed: int) -> None:
    from insightface.utils.face_align import estimate_norm

    landmarks = TEMPLATE * 1.7 + 40 + np.random.default_rng(seed).normal(size=(5, 2)) * 4
    assert np.allclose(similarity_transform(landmarks), estimate_norm(landmarks.astype(np.float32)), atol=1e-3)


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_landmarks_in_one_place_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one place"):
        similarity_transform(landmarks)


def test_a_matrix_without_inverse_is_refused() -> None:
    for matrix in (np.zeros((2, 3)), np.full((2, 3), np.nan)):
        with pytest.raises(ValueError, match="inverted"):
            inverse(matrix)


def test_the_identity_cuts_the_photo_itself() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    assert (warp_crop(photo, np.eye(2, 3)) == photo).all()


def test_a_large_face_is_averaged_not_aliased() -> None:
    photo = np.zeros((896, 896, 3), np.uint8)
    photo[::2] = 255  # stripes that a bilinear sample would turn black or white
    matrix = alignment(1 / 8, 0, 447.5, 447.5)
    assert oversampling(matrix) == 8 and scale_of(finer(matrix, 8)) == pytest.approx(1)
    assert np.abs(warp_crop(photo, matrix).astype(int) - 128).max() <= 1


@given(alignments, st.integers(1, 8))
def test_a_finer_crop_averages_to_the_same_place(matrix: np.ndarray, times: int) -> None:
    fine = to_crop(np.array([[30.0, 40.0]]), finer(matrix, times))
    assert np.allclose((fine + 0.5) / times - 0.5, to_crop(np.array([[30.0, 40.0]]), matrix), atol=1e-6)


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    others = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 15, 15]])
    assert np.allclose(overlaps(boxes, others), [[1, 0, 25 / 175], [1 / 3, 0, 1 / 3]])
    assert overlaps(boxes, np.empty((0, 4))).shape == (2, 0)
