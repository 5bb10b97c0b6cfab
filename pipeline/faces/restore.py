"""The way back: noise of the crop, through the inverse of the alignment, into the photo that a person publishes."""

from __future__ import annotations

import math

import numpy as np

from pipeline.faces.geometry import CROP_SIZE, finer, inverse, oversampling, to_crop, warp_crop

SAMPLES = 2**18  # of the crop put into the sparse matrix at a time
STEPS, STEPS_LARGE = 12, 4  # measured: a face larger than the crop has more pixels than the crop asks for, and 4 steps get there


def face_region(shape: tuple[int, int], matrix: np.ndarray) -> tuple[slice, slice, np.ndarray]:
    """Where the crop lies in a photo: rows, columns, and within them the mask (bool) of the pixels inside the crop's quadrilateral.

    Args:
        shape: height and width of the photo.
        matrix: 2×3, photo → crop.
    """
    low, high = -0.5, CROP_SIZE - 0.5
    corners = to_crop(np.array([[low, low], [high, low], [high, high], [low, high]]), inverse(matrix))
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (shape[1], shape[0]))
    rows, columns = slice(y0, max(y0, y1)), slice(x0, max(x0, x1))
    y, x = np.mgrid[rows, columns]
    inside = to_crop(np.stack([x.ravel(), y.ravel()], 1), matrix)
    mask = ((inside >= low) & (inside <= high)).all(1).reshape(x.shape)
    return rows, columns, mask


def sampling(matrix: np.ndarray, rows: slice, columns: slice, mask: np.ndarray):
    """`warp_crop` as a sparse matrix: 112² crop pixels × the photo's pixels inside the mask.

    Put together from bands of the crop's rows: a face as large as a phone's photo has millions of samples, most of one photo pixel.
    """
    from scipy.sparse import csr_array, vstack

    times = oversampling(matrix)
    number = np.full(mask.shape, -1, np.int32)
    number[mask] = np.arange(mask.sum(), dtype=np.int32)
    height = max(1, SAMPLES // (CROP_SIZE * times**2))
    bands = []
    for top in range(0, CROP_SIZE, height):
        end = min(CROP_SIZE, top + height)
        v, u = np.mgrid[top * times : end * times, : CROP_SIZE * times]
        place = to_crop(np.stack([u.ravel(), v.ravel()], 1), inverse(finer(matrix, times))) - (columns.start, rows.start)
        crop_pixel = ((v // times - top) * CROP_SIZE + u // times).ravel()
        weights, targets, sources = bilinear(place, crop_pixel, number)
        shape = ((end - top) * CROP_SIZE, int(mask.sum()))
        bands.append(csr_array((weights / times**2, (targets, sources)), shape=shape).astype(np.float32))
    return vstack(bands, format="csr")


def bilinear(place: np.ndarray, target: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each sample takes from the four pixels around it: weights, the sample's `target` and the pixel's `number`, (E,) each.

    Args:
        place: (S, 2) x, y in the region. target: (S,) int. number: int (H, W) of the region's pixels, -1 where a pixel does not count.
    """
    corner = np.floor(place).astype(np.int32)
    part = place - corner
    weights, targets, sources = [], [], []
    for right in (0, 1):
        for below in (0, 1):
            x, y = corner[:, 0] + right, corner[:, 1] + below
            within = (x >= 0) & (y >= 0) & (x < number.shape[1]) & (y < number.shape[0])
            pixel = number[y[within], x[within]]
            used = pixel >= 0
            weight = np.abs(1 - right - part[within, 0]) * np.abs(1 - below - part[within, 1])
            weights.append(weight[used])
            targets.append(target[within][used])
            sources.append(pixel[used])
    return np.concatenate(weights), np.concatenate(targets), np.concatenate(sources)


def protect_photo(photo: np.ndarray, matrix: np.ndarray, delta: np.ndarray, epsilon: int) -> np.ndarray:
    """Put the crop's noise on the photo, so that cropping the photo again finds it as nearly as epsilon allows.

    Solves min ‖W x − δ‖² over changes x of the photo's pixels inside the crop's quadrilateral, where W cuts the crop, by accelerated
    projected gradient steps (Beck & Teboulle, 2009: 12 get as near as 30 plain ones); x keeps within ±epsilon and within what the pixel
    has left before 0 and 255.

    Args:
        photo: uint8 H×W×3, RGB.
        matrix: 2×3, photo → crop.
        delta: int8 3×112×112, in 1/255.
        epsilon: largest change of a pixel, in 1/255.

    Returns:
        uint8 H×W×3, RGB: the photo, changed by at most epsilon inside the crop's quadrilateral and not at all outside.
    """
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, (photo.dtype, photo.shape)
    assert delta.dtype == np.int8 and delta.shape == (3, CROP_SIZE, CROP_SIZE), (delta.dtype, delta.shape)
    matrix = np.asarray(matrix, np.float64)
    rows, columns, mask = face_region(photo.shape[:2], matrix)
    result = photo.copy()
    if not mask.any():
        return result
    region = result[rows, columns]
    pixels = region[mask].astype(np.float32)
    low, high = np.maximum(-epsilon, -pixels), np.minimum(epsilon, 255 - pixels)
    cut = sampling(matrix, rows, columns, mask)
    wanted = delta.reshape(3, -1).T.astype(np.float32)
    # ‖W‖² ≤ ‖W‖₁ ‖W‖∞, and the rows of W sum to at most 1
    step = 1 / max(float(cut.sum(0).max()), 1e-6)
    change, ahead, pace, back = np.zeros_like(pixels), np.zeros_like(pixels), 1.0, cut.T
    for _ in range(STEPS if oversampling(matrix) == 1 else STEPS_LARGE):
        moved = back @ (wanted - cut @ ahead)
        moved *= step
        moved += ahead
        np.clip(moved, low, high, out=moved)
        faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = moved + (pace - 1) / faster * (moved - change)
        change, pace = moved, faster
    region[mask] = (pixels + np.rint(change)).astype(np.uint8)
    return result


def recropped_noise(photo: np.ndarray, protected: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The noise that is found when a protected photo is cropped: int16 3×112×112, in 1/255, −255..255."""
    change = warp_crop(protected, matrix).astype(np.int16) - warp_crop(photo, matrix).astype(np.int16)
    return np.ascontiguousarray(change.transpose(2, 0, 1))
