"""Face detectors by name, and what they give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.config import AlignConfig


@dataclass(frozen=True)
class Detections:
    """The faces found in one photo, best score first, in the photo's pixels."""

    boxes: np.ndarray  # float32 N×4: x0, y0, x1, y1
    scores: np.ndarray  # float32 N, 0..1
    landmarks: np.ndarray  # float32 N×5×2: left eye, right eye, nose, left and right corner of the mouth, as seen

    def __post_init__(self) -> None:
        count = len(self.boxes)
        assert self.boxes.shape == (count, 4) and self.scores.shape == (count,) and self.landmarks.shape == (count, 5, 2)

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, chosen: np.ndarray) -> Detections:
        """Those faces only; `chosen` is a mask or indices."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.landmarks[chosen])

    def enlarged(self, along_x: float, along_y: float) -> Detections:
        """The same faces in a photo of so many times the pixels along each side."""
        if along_x == along_y == 1:
            return self
        times = np.array([along_x, along_y], np.float32)
        shift = (times - 1) / 2  # a pixel's centre is the middle of the pixels it stands for
        return Detections(self.boxes * np.tile(times, 2) + np.tile(shift, 2), self.scores, self.landmarks * times + shift)


def detections(boxes: np.ndarray, scores: np.ndarray, landmarks: np.ndarray) -> Detections:
    """`Detections` from arrays of any float dtype, sorted by score; faces with a coordinate that is not finite are dropped."""
    boxes, scores, landmarks = (np.asarray(array, np.float32) for array in (boxes, scores, landmarks))
    boxes, scores, landmarks = boxes.reshape(-1, 4), scores.reshape(-1), landmarks.reshape(-1, 5, 2)
    finite = np.isfinite(boxes).all(1) & np.isfinite(landmarks).all((1, 2)) & np.isfinite(scores)
    order = np.argsort(-scores[finite], kind="stable")
    return Detections(boxes[finite][order], scores[finite][order], landmarks[finite][order])


WORK_SIDE = 1024  # larger photos are shrunk to this for detection
# A face smaller than this share of the photo's longer side is not looked for, so that big photos stay quick. Not more: where the person's
# own face is not found, a nearer bystander's is taken for it.
LEAST_SHARE = 1 / 32


def searched_side(config: AlignConfig) -> int:
    """The longer side, px, that a photo needs for the detector to find in it what it would find with all its pixels."""
    return max(WORK_SIDE, int(config.min_face / LEAST_SHARE))


class Detector(Protocol):
    """Finds faces; one a process, made by `make_detector`."""

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """The faces in each photo (uint8 H×W×3, RGB, any sizes); what is found in one does not depend on the others."""
        ...

    def describe(self, crops: np.ndarray) -> np.ndarray:
        """Descriptors of aligned crops (uint8 N×112×112×3, RGB): float32 N×D, unit norm. Their inner products say how alike faces are,
        within one call: pass all that will be compared."""
        ...


def make_detector(config: AlignConfig, *, device: str) -> Detector:
    """The detector that `config` names, on `device`, one thread.

    Raises:
        RequestError, StageError: scrfd's pack or the device is not usable.
    """
    if config.detector == "scrfd":
        from pipeline.faces.detect_scrfd import Scrfd

        return Scrfd(Path(config.detector_pack or ""), device=device)
    from pipeline.faces.detect_mtcnn import Mtcnn

    return Mtcnn(min_face=config.min_face, device=device)
