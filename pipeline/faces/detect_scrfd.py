"""SCRFD (Guo et al., 2021) and ArcFace from a local insightface pack, on onnxruntime. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from pipeline.errors import RequestError
from pipeline.faces.describe import describe_hog, whiten
from pipeline.faces.detect import Detections, detections
from pipeline.onnx_session import open_session

FLOOR = 0.3  # detections below this are not even reported; `min_score` decides
SMALL = 400  # photos up to this side are searched at 320 px, larger ones at 640; all at 128 for faces that fill the photo
EMBED_BATCH = 32


def pack_models(pack: Path) -> tuple[Path, Path | None]:
    """The detector (`det_*.onnx` or `scrfd*.onnx`) and the recogniser (`w600k*.onnx`, `glint*.onnx`), None without one, of a pack.

    Raises:
        RequestError: there is no such folder, or no detector in it.
    """
    if not pack.is_absolute() or not pack.is_dir():
        raise RequestError(f"DETECTOR_PACK={pack}: no such folder; DETECTOR=scrfd needs the absolute path of a local insightface pack")
    finders = sorted(pack.glob("det_*.onnx")) + sorted(pack.glob("scrfd*.onnx"))
    if not finders:
        raise RequestError(f"DETECTOR_PACK={pack}: holds no detector; expected is a det_*.onnx")
    recognisers = sorted(pack.glob("w600k*.onnx")) + sorted(pack.glob("glint*.onnx"))
    return finders[0], recognisers[0] if recognisers else None


class Scrfd:
    """Detector and, where the pack has one, recogniser."""

    def __init__(self, pack: Path, *, device: str) -> None:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        from insightface.model_zoo.scrfd import SCRFD

        finder, recogniser = pack_models(pack)
        # One session for all sizes: insightface would open another one, with its own threads, for each.
        self.finder = SCRFD(str(finder), session=open_session(finder, device), static_shape_sessions=False)
        self.finder.prepare(0, det_thresh=FLOOR)
        self.recogniser = None if recogniser is None else ArcFaceONNX(str(recogniser), session=open_session(recogniser, device))

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """The faces in each photo (uint8 H×W×3, RGB)."""
        return [self.detect_one(photo) for photo in photos]

    def detect_one(self, photo: np.ndarray) -> Detections:
        """The faces in a photo, at two sizes joined by non-maximum suppression."""
        assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, (photo.dtype, photo.shape)
        if min(photo.shape[:2]) < 8 or max(photo.shape[:2]) > 50 * min(photo.shape[:2]):
            return detections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))  # insightface fails on a strip
        large = 320 if max(photo.shape[:2]) <= SMALL else 640
        bgr = np.ascontiguousarray(photo[:, :, ::-1])
        boxes, landmarks = cast(tuple[np.ndarray, np.ndarray], self.finder.detect(bgr, input_size=[(128, 128), (large, large)]))
        return detections(boxes[:, :4], boxes[:, 4], landmarks)

    def describe(self, crops: np.ndarray) -> np.ndarray:
        """ArcFace embeddings, float32 N×512, unit norm; whitened HOG where the pack has no recogniser."""
        if self.recogniser is None:
            return whiten(describe_hog(crops))
        parts: list[np.ndarray] = [np.empty((0, 512), np.float32)]
        for start in range(0, len(crops), EMBED_BATCH):
            bgr = [np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops[start : start + EMBED_BATCH]]
            parts.append(np.asarray(self.recogniser.get_feat(bgr)))
        found = np.concatenate(parts).astype(np.float32)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
