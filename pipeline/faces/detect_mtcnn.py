"""MTCNN (Zhang et al., 2016) from facenet-pytorch, with the weights in its wheel.

Its known failures, and what is done: a grey image in a batch fails (photos are always RGB here); a batch takes equal sizes only (photos
are batched by size); candidates at the rim can make a batch fail with an index or concatenation error (its photos are then tried one by
one, and one that still fails has no face).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.faces.describe import describe_hog, whiten
from pipeline.faces.detect import Detections, detections

if TYPE_CHECKING:
    import torch

BATCH = 16  # photos of one size; more than this only costs memory on a CPU
WORK_SIDE = 1024  # larger photos are shrunk to this for detection
LEAST_SHARE = 1 / 16  # a face smaller than this share of the photo's longer side is not looked for: big photos stay quick
NOTHING = detections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))


class Mtcnn:
    """The three networks, on one device."""

    def __init__(self, *, min_face: int, device: str) -> None:
        """`min_face`: the smallest face looked for, px of the photo."""
        import torch
        from facenet_pytorch import MTCNN

        self.min_face = min_face
        self.device: torch.device = torch.device(device)
        self.networks = MTCNN(keep_all=True, device=self.device).eval()

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """The faces in each photo (uint8 H×W×3, RGB)."""
        found: list[Detections] = [NOTHING] * len(photos)
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, photo in enumerate(photos):
            assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, (photo.dtype, photo.shape)
            by_size[photo.shape].append(index)
        for (height, width, _), indices in by_size.items():
            scale = min(1.0, WORK_SIDE / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            least = max(self.min_face * scale, max(size) * LEAST_SHARE)
            if min(size) < least:
                continue  # no room for a face that large, and facenet-pytorch fails on it
            for start in range(0, len(indices), BATCH):
                some = indices[start : start + BATCH]
                stack = [photos[i] if scale == 1 else cv2.resize(photos[i], size, interpolation=cv2.INTER_AREA) for i in some]
                for index, (boxes, points) in zip(some, self.run(np.stack(stack), least), strict=True):
                    back = np.array([width / size[0], height / size[1]])
                    found[index] = detections(boxes[:, :4] * np.tile(back, 2), boxes[:, 4], points * back)
        return found

    def run(self, photos: np.ndarray, min_face: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """(boxes with scores N×5, landmarks N×5×2) of each photo in uint8 B×H×W×3; on failure photo by photo."""
        import torch
        from facenet_pytorch.models.utils.detect_face import detect_face

        net = self.networks
        try:
            with torch.inference_mode():
                boxes, points = detect_face(photos, min_face, net.pnet, net.rnet, net.onet, net.thresholds, net.factor, self.device)
        except (RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if len(photos) == 1:
                return [(np.empty((0, 5)), np.empty((0, 5, 2)))]
            return [one for photo in photos for one in self.run(photo[None], min_face)]
        return [
            (np.asarray(b, np.float64).reshape(-1, 5), np.asarray(p, np.float64).reshape(-1, 5, 2))
            for b, p in zip(boxes, points, strict=True)
        ]

    def describe(self, crops: np.ndarray) -> np.ndarray:
        """Descriptors without weights, for there is no recogniser at hand: HOG, whitened over these crops."""
        return whiten(describe_hog(crops))
