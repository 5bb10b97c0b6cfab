"""A description of an aligned face that needs no trained weights, good enough to tell one person's face from a neighbour's."""

from __future__ import annotations

import cv2
import numpy as np

CELL, BINS = 8, 9
INNER = slice(8, 104)  # the crop without its rim, where background and hair are
RIDGE = 0.5  # of the mean variance, added to each direction's when whitening


def describe_hog(crops: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), square-rooted; OpenCV 5 has them no more.

    Args:
        crops: uint8 N×112×112×3, RGB, aligned.

    Returns:
        float32 N×D, unit norm; inner products say how alike.
    """
    assert crops.dtype == np.uint8 and crops.ndim == 4 and crops.shape[3] == 3, (crops.dtype, crops.shape)
    cells = (INNER.stop - INNER.start) // CELL
    found = np.empty((len(crops), (cells - 1) ** 2 * 4 * BINS), np.float32)
    for row, crop in enumerate(crops):
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        x, y = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, ksize=1)[INNER, INNER] for dx in (1, 0))
        size, place = np.hypot(x, y), np.arctan2(y, x) % np.pi * (BINS / np.pi)
        histograms = np.empty((cells, cells, BINS), np.float32)
        for number in range(BINS):  # each gradient is shared between the two bins beside its direction
            away = np.abs(place - number)
            share = size * np.maximum(0, 1 - np.minimum(away, BINS - away))
            histograms[:, :, number] = cv2.resize(share, (cells, cells), interpolation=cv2.INTER_AREA)
        corners = histograms[:-1, :-1], histograms[:-1, 1:], histograms[1:, :-1], histograms[1:, 1:]
        blocks = np.concatenate(corners, 2)
        found[row] = np.ravel(blocks / (blocks.sum(2, keepdims=True) + 1.0))
    found = np.sqrt(found)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def whiten(described: np.ndarray) -> np.ndarray:
    """Descriptors relative to each other: less the mean face, each direction divided by its spread (with a ridge), unit norm.

    What all faces share says nothing of who it is; `benchmarks/face_choice.py` measures what the choice in group photos gains by it.

    Args:
        described: float32 N×D of the faces that will be compared, of several identities.

    Returns:
        float32 N×min(N, D); as they are with fewer than 20 faces, which say too little of the spread.
    """
    if len(described) < 20:
        return described
    centred = described.astype(np.float64) - described.mean(0)
    # the principal components by the smaller Gram matrix: a singular value decomposition took longer than all detection in these photos
    if len(centred) <= centred.shape[1]:
        variance, basis = np.linalg.eigh(centred @ centred.T)
        variance = np.maximum(variance, 0)
        components = basis * np.sqrt(variance)
    else:
        variance, directions = np.linalg.eigh(centred.T @ centred)
        components = centred @ directions
    found = components / np.sqrt(variance + RIDGE * variance.mean() + 1e-12)
    return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)
