"""From five landmarks to the aligned crop: the ArcFace template, the similarity transform, the warp.

Coordinates are (x, y), x to the right; the centre of the top left pixel is (0, 0). `matrix` is 2×3 float64, photo → crop.
"""

from __future__ import annotations

import cv2
import numpy as np

CROP_SIZE = 112

# Where eyes, nose and corners of the mouth lie in a 112×112 crop (Deng et al., ArcFace, CVPR 2019; insightface's arcface_dst).
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64)


def similarity_transform(landmarks: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that takes five landmarks closest to the template in the sense of least squares.

    In the plane Umeyama's solution without reflection is one complex division, so it is written here rather than asked of
    scikit-image (whose estimate insightface uses, and which warns of its own future) or of OpenCV (which draws random samples).

    Args:
        landmarks: 5×2, px of the photo: left eye, right eye, nose, left and right corner of the mouth, as seen.

    Returns:
        2×3 float64, photo → crop.

    Raises:
        ValueError: the landmarks are not finite or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    assert points.shape == (5, 2), points.shape
    source = points[:, 0] + 1j * points[:, 1]
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    centred = source - source.mean()
    spread = float((abs(centred) ** 2).sum())
    if not np.isfinite(spread) or spread < 1e-6:
        raise ValueError("the landmarks are all in one place")
    turn = (centred.conj() * (target - target.mean())).sum() / spread
    shift = target.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def scale_of(matrix: np.ndarray) -> float:
    """Crop pixels a photo pixel, along each side."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def oversampling(matrix: np.ndarray) -> int:
    """How many samples a crop pixel averages along each side: a face more than twice as large as the crop would alias otherwise."""
    return min(64, max(1, int(1 / max(scale_of(matrix), 1e-6) + 1e-6)))


def finer(matrix: np.ndarray, times: int) -> np.ndarray:
    """The transform to a crop of `times` as many pixels along each side, that averages to the same crop."""
    result = matrix * times
    result[:, 2] += (times - 1) / 2
    return result


def warp_crop(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Cut the aligned crop: bilinear, averaged where the face is much larger than the crop, black outside the photo.

    Args:
        photo: uint8 H×W×3, RGB.
        matrix: 2×3, photo → crop.

    Returns:
        uint8 112×112×3, RGB.
    """
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, (photo.dtype, photo.shape)
    matrix = np.asarray(matrix, np.float64)
    assert matrix.shape == (2, 3), matrix.shape
    times = oversampling(matrix)
    side = CROP_SIZE * times
    crop = cv2.warpAffine(photo, finer(matrix, times), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cv2.resize(crop, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA) if times > 1 else crop


def to_crop(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points N×2 (x, y) of the photo in the crop's pixels, N×2 float64."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The transform crop → photo, 2×3 float64; `ValueError` if there is none."""
    if not np.isfinite(matrix).all() or scale_of(np.asarray(matrix)) < 1e-6:
        raise ValueError("the alignment cannot be inverted")
    turn = np.linalg.inv(np.asarray(matrix, np.float64)[:, :2])
    return np.hstack([turn, -(turn @ matrix[:, 2])[:, None]])


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of `boxes` N×4 with each of `others` M×4, x0 y0 x1 y1: float64 N×M."""
    first, second = (np.asarray(some, np.float64).reshape(-1, 4) for some in (boxes, others))
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared_NM = (high - low).clip(0).prod(2)
    area_N, area_M = ((some[:, 2:] - some[:, :2]).prod(1) for some in (first, second))
    return shared_NM / np.maximum(area_N[:, None] + area_M - shared_NM, 1e-12)
