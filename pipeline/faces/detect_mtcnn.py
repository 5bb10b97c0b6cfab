"""MTCNN (Zhang et al., 2016) with facenet-pytorch's weights: what it is asked to look for, and how photos are put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.faces.describe import describe_hog, whiten
from pipeline.faces.detect import LEAST_SHARE, WORK_SIDE, Detections, detections
from pipeline.runtime import allow_tf32

BATCH_PIXELS = {"cpu": 1_000_000, "cuda": 16_000_000}  # looked at together, whatever their sizes
NOTHING = detections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))


@contextmanager
def exactly() -> Iterator[None]:
    """Products on a GPU without TF32, torch's own default for convolutions, which moves boxes; these are rounded to whole pixels."""
    matmul, conv = allow_tf32(matmul=False, conv=False)
    try:
        yield
    finally:
        allow_tf32(matmul=matmul, conv=conv)


class Mtcnn:
    """The cascade on one device."""

    def __init__(self, *, min_face: int, device: str) -> None:
        """`min_face`: the smallest face looked for, px of the photo."""
        import torch

        from pipeline.faces.cascade import Cascade

        self.min_face = min_face
        self.cascade = Cascade(device=torch.device(device))

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """The faces in each photo (uint8 H×W×3, RGB)."""
        found: list[Detections] = [NOTHING] * len(photos)
        waiting: list[tuple[int, np.ndarray, float]] = []
        for index in sorted(range(len(photos)), key=lambda index: photos[index].shape):  # photos of one size share their levels
            photo = photos[index]
            assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, (photo.dtype, photo.shape)
            height, width = photo.shape[:2]
            scale = min(1.0, WORK_SIDE / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            least = max(self.min_face * scale, max(size) * LEAST_SHARE)
            if min(size) < least:
                continue  # no room for a face that large
            waiting.append((index, photo if scale == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA), least))
            if sum(photo.size // 3 for _, photo, _ in waiting) >= BATCH_PIXELS[self.cascade.device.type]:
                self.search(waiting, photos, found)
                waiting.clear()
        self.search(waiting, photos, found)
        return found

    def search(self, waiting: list[tuple[int, np.ndarray, float]], photos: list[np.ndarray], found: list[Detections]) -> None:
        """Put into `found` what is in some photos: (index, the photo at the size that is searched, the smallest face there)."""
        if not waiting:
            return
        with exactly():
            faces = self.cascade.find([photo for _, photo, _ in waiting], [least for _, _, least in waiting])
        for (index, photo, _), (boxes, landmarks) in zip(waiting, faces, strict=True):
            height, width = photos[index].shape[:2]
            found[index] = detections(boxes[:, :4], boxes[:, 4], landmarks).enlarged(width / photo.shape[1], height / photo.shape[0])

    def describe(self, crops: np.ndarray) -> np.ndarray:
        """Descriptors without weights, for there is no recogniser at hand: HOG, whitened over these crops."""
        return whiten(describe_hog(crops))
