"""MTCNN's cascade (Zhang et al., 2016): P-Net over a pyramid, then R-Net and O-Net on the crops that are left.

It finds what facenet-pytorch's `detect_face` finds, with its thresholds, its pyramid and its rounding to whole pixels, at a fraction of
the cost: see `pipeline/faces/area.py` and `mtcnn_networks.py`. Two differences are meant. A box that misses the photo altogether is
dropped, where facenet-pytorch then fails or takes one box's crop for another's. And O-Net does not look at all boxes of a sure face, see
`FIRST_LOOK`. Boxes and their suppression are numpy's and OpenCV's, on the CPU; pixels and networks are on the device.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.faces.area import IntegralImages
from pipeline.faces.geometry import overlaps
from pipeline.faces.mtcnn_networks import ONET_SIDE, PNET_CELL, PNET_STRIDE, RNET_SIDE, CropNet, PNet

if TYPE_CHECKING:
    import torch

DEFAULT_LEAST = 20.0  # px: facenet-pytorch's smallest face
FACTOR = 0.709  # from one level of the pyramid to the next
THRESHOLDS = 0.6, 0.7, 0.7  # of the three networks
LEVEL_OVERLAP, OVERLAP = 0.5, 0.7  # boxes that overlap more than this are one: within a level, and within a photo
# facenet-pytorch has O-Net look at nine boxes a face. Here, of boxes that overlap more than `FIRST_LOOK` the best is looked at first, and
# where it is a face of at least the probability `SURE`, the others are passed over: four boxes a face. No face is lost by it. Sometimes
# one of the others would have scored highest: half the faces have the very same landmarks, nine in ten have them within 1.6 px (LFW).
FIRST_LOOK, SURE = 0.8, 0.99
# Batches that stay near a core's caches; a GPU wants all at once.
LEVEL_PIXELS = {"cpu": 50_000, "cuda": 16_000_000}
RNET_CROPS, ONET_CROPS = {"cpu": 64, "cuda": 8192}, {"cpu": 16, "cuda": 4096}


@dataclass
class Boxes:
    """Boxes in some photos, in any order."""

    photo: np.ndarray  # int64 N: which photo
    place: np.ndarray  # float32 N×4: x0, y0, x1, y1 in facenet-pytorch's sense, where pixel 1 is the first
    odds: np.ndarray  # float32 N: log-odds of a face

    def __len__(self) -> int:
        return len(self.photo)

    def where(self, chosen: np.ndarray) -> Boxes:
        """Those boxes only; `chosen` is a mask or indices."""
        return Boxes(self.photo[chosen], self.place[chosen], self.odds[chosen])


class Cascade:
    """The three networks on one device."""

    def __init__(self, *, device: torch.device, first_look: float = FIRST_LOOK) -> None:
        """Loads the weights; raises StageError where facenet-pytorch is not installed.

        `first_look`: of boxes that overlap more than this (intersection over union) O-Net looks only at the best where that is surely a
        face; at 1 it looks at all, as facenet-pytorch does.
        """
        self.pnet = PNet(device=device)
        self.rnet, self.onet = CropNet("rnet", device=device), CropNet("onet", device=device)
        self.device = device
        self.first_look = first_look

    def find(self, photos: list[np.ndarray], least: list[float]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The faces in each photo.

        Args:
            photos: uint8 H×W×3, RGB, any sizes; all of them are in memory at 16 bytes a pixel.
            least: of each photo, the smallest face looked for, px, at least 12.

        Returns:
            Of each photo, boxes and probabilities float32 N×5 (x0, y0, x1, y1, p) and landmarks float32 N×5×2, px.
        """
        import torch

        with torch.inference_mode():
            images = IntegralImages(photos, device=self.device)
            boxes = self.propose(images, least)
            boxes = self.refine(images, boxes)
            boxes, landmarks = self.conclude(images, boxes)
        found = []
        probability = 1 / (1 + np.exp(-boxes.odds))
        for photo in range(len(photos)):
            mine = boxes.photo == photo
            found.append((np.column_stack([boxes.place[mine], probability[mine]]), landmarks[mine]))
        return found

    def propose(self, images: IntegralImages, least: list[float]) -> Boxes:
        """P-Net's boxes, squared, at all levels of each photo's pyramid."""
        import torch

        levels: dict[tuple[float, tuple[int, int], tuple[int, int]], list[int]] = defaultdict(list)
        for photo, (size, smallest) in enumerate(zip(images.sizes, least, strict=True)):
            for scale in pyramid(size, smallest):
                levels[scale, size, (int(size[0] * scale + 1), int(size[1] * scale + 1))].append(photo)
        by_scale: dict[float, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        least_odds = log_odds(THRESHOLDS[0])
        for (scale, _, size), photos in levels.items():
            batch = max(1, LEVEL_PIXELS[self.device.type] // (size[0] * size[1]))
            for start in range(0, len(photos), batch):
                some = photos[start : start + batch]
                features = self.pnet.features(images.level(some, size))
                odds = torch.nn.functional.linear(features, *self.pnet.odds).squeeze(3)
                places = (odds >= least_odds).nonzero(as_tuple=True)
                shifts = torch.nn.functional.linear(features[places], *self.pnet.box)
                index = torch.stack(places, 1).cpu().numpy()
                index[:, 0] = np.asarray(some)[index[:, 0]]
                by_scale[scale].append((index, torch.cat([odds[places][:, None], shifts], 1).cpu().numpy()))
        kept: list[tuple[Boxes, np.ndarray]] = []
        for scale, parts in by_scale.items():
            index, outputs = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
            corner = (PNET_STRIDE * index[:, :0:-1]).astype(np.float32)
            place = np.floor(np.hstack([corner + 1, corner + PNET_CELL]) / np.float32(scale))
            boxes = Boxes(index[:, 0], place, outputs[:, 0])
            chosen = suppress(boxes, LEVEL_OVERLAP)
            kept.append((boxes.where(chosen), outputs[chosen, 1:]))
        if not kept:
            return Boxes(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32))
        boxes = join([one for one, _ in kept])
        chosen = suppress(boxes, OVERLAP)
        boxes, shifts = boxes.where(chosen), np.concatenate([some for _, some in kept])[chosen]
        sides = np.tile(boxes.place[:, 2:] - boxes.place[:, :2], 2)
        return Boxes(boxes.photo, square(boxes.place + shifts * sides), boxes.odds)

    def refine(self, images: IntegralImages, boxes: Boxes) -> Boxes:
        """R-Net's boxes, squared."""
        boxes, outputs = self.look_closer(self.rnet, images, boxes, RNET_SIDE, RNET_CROPS[self.device.type], THRESHOLDS[1])
        chosen = suppress(boxes, OVERLAP)
        boxes, outputs = boxes.where(chosen), outputs[chosen]
        return Boxes(boxes.photo, square(moved(boxes.place, outputs[:, 1:5])), boxes.odds)

    def conclude(self, images: IntegralImages, boxes: Boxes) -> tuple[Boxes, np.ndarray]:
        """O-Net's boxes, and the landmarks N×5×2."""
        first = np.zeros(len(boxes), bool)
        first[suppress(boxes, self.first_look)] = True
        look = partial(self.look_closer, self.onet, images, side=ONET_SIDE, batch=ONET_CROPS[self.device.type], threshold=THRESHOLDS[2])
        best, their_outputs = look(boxes.where(first))
        others = boxes.where(~first)
        passed_over = overlapping(others, best.where(best.odds >= log_odds(SURE)), self.first_look)
        others, other_outputs = look(others.where(~passed_over))
        boxes, outputs = join([best, others]), np.concatenate([their_outputs, other_outputs])
        sides = boxes.place[:, None, 2:] - boxes.place[:, None, :2] + 1
        landmarks = outputs[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1) * sides + boxes.place[:, None, :2] - 1
        boxes = Boxes(boxes.photo, moved(boxes.place, outputs[:, 1:5]), boxes.odds)
        chosen = suppress_nested(boxes, OVERLAP)
        return boxes.where(chosen), landmarks[chosen]

    def look_closer(
        self, network: CropNet, images: IntegralImages, boxes: Boxes, side: int, batch: int, threshold: float
    ) -> tuple[Boxes, np.ndarray]:
        """The boxes that the network takes for faces, with its odds, and all its outputs for them."""
        sizes = np.array(images.sizes, np.int64).reshape(-1, 2)[boxes.photo]
        whole = np.clip(np.trunc(boxes.place), -(2**30), 2**30).astype(np.int64)  # wide of the mark is wide enough
        cut = np.hstack([np.maximum(whole[:, :2], 1) - 1, np.minimum(whole[:, 2:], sizes[:, ::-1])])
        inside = np.asarray((cut[:, 2:] > cut[:, :2]).all(1))
        boxes, cut = boxes.where(inside), cut[inside]
        parts = [np.empty((0, len(network.heads[1])), np.float32)]
        for start in range(0, len(boxes), batch):
            some = slice(start, start + batch)
            parts.append(network.outputs(images.crops(boxes.photo[some], cut[some], side)).cpu().numpy())
        outputs = np.concatenate(parts)
        sure = outputs[:, 0] > log_odds(threshold)
        outputs = outputs[sure]
        return Boxes(boxes.photo[sure], boxes.place[sure], outputs[:, 0]), outputs


def pyramid(size: tuple[int, int], least: float) -> list[float]:
    """The scales at which a photo (height, width) is searched for faces of at least `least` px: none below P-Net's window.

    They are those of facenet-pytorch's default, a smallest face of 20 px, without the ones that `least` makes needless: a pyramid of its
    own would find the same faces a pixel away. Below 20 px it begins at `least`.
    """
    scale = PNET_CELL / min(least, DEFAULT_LEAST)
    while scale * FACTOR * least >= PNET_CELL:
        scale *= FACTOR
    shorter, scales = min(size) * scale, []
    while shorter >= PNET_CELL:
        scales.append(scale)
        scale, shorter = scale * FACTOR, shorter * FACTOR
    return scales


def log_odds(probability: float) -> float:
    """ln p/(1 − p)."""
    return float(np.log(probability / (1 - probability)))


def square(place: np.ndarray) -> np.ndarray:
    """Boxes N×4 as squares about their centres, of their longer sides."""
    sides = place[:, 2:] - place[:, :2]
    longer = sides.max(1, keepdims=True)
    corner = place[:, :2] + sides * 0.5 - longer * 0.5
    return np.hstack([corner, corner + longer])


def moved(place: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Boxes N×4 with their corners moved by `shifts` N×4, shares of their sides."""
    return place + shifts * np.tile(place[:, 2:] - place[:, :2] + 1, 2)


def suppress(boxes: Boxes, overlap: float) -> np.ndarray:
    """Indices of the boxes that overlap no better one of the same photo by more than `overlap`, their intersection over their union."""
    if not len(boxes):
        return np.empty(0, np.int64)
    corners = boxes.place[:, :2].astype(np.float64)
    rectangles = np.hstack([corners, boxes.place[:, 2:] - corners])
    # all log-odds are above 0 here, so none is below the least score
    kept = cv2.dnn.NMSBoxesBatched(rectangles, boxes.odds, boxes.photo.astype(np.int32), 0.0, overlap)  # pyright: ignore
    return np.asarray(kept, np.int64).reshape(-1)


def join(parts: list[Boxes]) -> Boxes:
    """All boxes of `parts`, at least one, in their order."""
    return Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("photo", "place", "odds")))


def overlapping(boxes: Boxes, others: Boxes, overlap: float) -> np.ndarray:
    """Of each box, whether it overlaps one of `others` in the same photo by more than `overlap`, as in `suppress`: bool N."""
    return ((boxes.photo[:, None] == others.photo) & (overlaps(boxes.place, others.place) > overlap)).any(1)


def suppress_nested(boxes: Boxes, overlap: float) -> np.ndarray:
    """Indices as of `suppress`, but the intersection is measured against the smaller box: of nested boxes one is left."""
    x0, y0, x1, y1 = boxes.place.T
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    kept: list[int] = []
    for index in np.argsort(-boxes.odds, kind="stable"):
        others = [other for other in kept if boxes.photo[other] == boxes.photo[index]]
        if others:
            width = np.minimum(x1[others], x1[index]) - np.maximum(x0[others], x0[index]) + 1
            height = np.minimum(y1[others], y1[index]) - np.maximum(y0[others], y0[index]) + 1
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            if (shared / np.minimum(area[others], area[index]) > overlap).any():
                continue
        kept.append(int(index))
    return np.array(kept, np.int64)
