"""One chunk of photos, whole identities, to aligned crops: read, decode, detect, choose the identity's face, cut."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import sha256_of
from pipeline.config import AlignConfig
from pipeline.faces.choose import NO_FACE, choose_faces
from pipeline.faces.detect import Detections, Detector, make_detector, searched_side
from pipeline.faces.geometry import CROP_SIZE, TEMPLATE, scale_of, similarity_transform, warp_crop
from pipeline.photos.decode import PhotoError, Reduced, decode_photo, decode_reduced

ALIGNED = ""  # the reason of a photo that was not rejected
DUPLICATE, TOO_SMALL, WRONG_SIZE, GONE, FORBIDDEN = "duplicate", "too small", "not a 112×112 crop", "missing", "may not be read"
CHUNK_COLUMNS = [
    "photo", "sha256", "identity", "reason", "box", "score", "landmarks", "matrix", "shard", "row", "width", "height", "check",
]  # fmt: skip
BATCH_PIXELS = 8_000_000  # photos decoded at a time: bounds memory whatever their size
MAX_FACES = 20  # of one photo, best score first
ENOUGH = 2  # pixels of a reduced photo for one of the crop, along each side, from which on the crop is cut from it


@dataclass(frozen=True)
class Candidate:
    """One face found in a photo; coordinates in its pixels."""

    box: list[float]  # x0, y0, x1, y1
    score: float
    landmarks: list[float]  # five x, y in turn
    matrix: np.ndarray  # float64 2×3, photo → crop
    crop: np.ndarray  # uint8 112×112×3, RGB

    @property
    def size(self) -> float:
        """The longer side of the box, px."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass
class PhotoFaces:
    """What becomes of one photo."""

    photo: str
    identity: str
    sha256: str = ""
    reason: str = ALIGNED
    width: int = 0
    height: int = 0
    box: list[float] = field(default_factory=list)
    score: float = 0.0
    landmarks: list[float] = field(default_factory=list)
    matrix: list[float] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    crop: np.ndarray | None = None  # uint8 112×112×3, RGB


@dataclass(frozen=True)
class Opened:
    """A photo that has been read."""

    row: PhotoFaces
    photo: Reduced
    content: bytes  # the file, where the photo was reduced; otherwise empty


_detector: list[tuple[AlignConfig, str, Detector]] = []


def detector_of(config: AlignConfig, device: str) -> Detector:
    """This process's detector: made once."""
    if not _detector or _detector[0][:2] != (config, device):
        _detector[:] = [(config, device, make_detector(config, device=device))]
    return _detector[0][2]


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Detection runs in a process a core, each on one thread of torch's; in this process what comes after has as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def align_chunk(chunk: list[tuple[str, str]], photos: Path, config: AlignConfig, *, device: str) -> tuple[list[PhotoFaces], np.ndarray]:
    """Align the photos of some whole identities.

    Args:
        chunk: (photo, identity), the photo as a path below `photos`.
        device: where the detector runs.

    Returns:
        What became of each photo, in the order given, and the crops of those with no reason against them: uint8 N×112×112×3, RGB.
    """
    rows = look(chunk, photos, config, device=device)
    if config.face == "centre":
        take_central_faces(rows)
    elif not config.already_aligned:
        take_faces(rows, detector_of(config, device))
    kept = [row.crop for row in rows if row.reason == ALIGNED and row.crop is not None]
    assert len(kept) == sum(row.reason == ALIGNED for row in rows)
    return rows, np.stack(kept) if kept else np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)


def look(chunk: list[tuple[str, str]], photos: Path, config: AlignConfig, *, device: str) -> list[PhotoFaces]:
    """Read, decode and detect: each photo with its candidates, or a reason why there are none. Few photos are in memory at a time."""
    rows = [PhotoFaces(photo, identity) for photo, identity in chunk]
    seen: set[tuple[str, str]] = set()
    waiting: list[Opened] = []
    for row in rows:
        opened = read_photo(row, photos, config, seen)
        if opened is not None:
            waiting.append(opened)
        if sum(one.photo.pixels.size // 3 for one in waiting) >= BATCH_PIXELS:
            find_faces(waiting, config, device)
            waiting.clear()
    find_faces(waiting, config, device)
    return rows


def read_photo(row: PhotoFaces, photos: Path, config: AlignConfig, seen: set[tuple[str, str]]) -> Opened | None:
    """Read and decode a photo, reduced if it is larger than detection needs, or note in `row` why not and return None."""
    try:
        content = (photos / row.photo).read_bytes()
    except OSError as error:
        row.reason = FORBIDDEN if isinstance(error, PermissionError) else GONE
        return None
    row.sha256 = sha256_of(content)
    if (row.identity, row.sha256) in seen:
        row.reason = DUPLICATE
        return None
    try:
        least_side = config.max_side if config.already_aligned else searched_side(config)
        photo = decode_reduced(content, max_side=config.max_side, least_side=least_side)
    except PhotoError as error:
        row.reason = error.reason
        return None
    seen.add((row.identity, row.sha256))  # not before: of a broken file each copy says itself what is wrong with it
    row.height, row.width = photo.size
    return Opened(row, photo, b"" if photo.whole else content)


def find_faces(photos: list[Opened], config: AlignConfig, device: str) -> None:
    """Note in each row the faces of its photo that are large and sure enough, each with its crop."""
    if not photos:
        return
    if config.already_aligned:
        for one in photos:
            take_whole(one.row, one.photo.pixels)
        return
    wide_enough = [one for one in photos if min(one.photo.size) >= config.min_face]
    for one in photos:
        if min(one.photo.size) < config.min_face:
            one.row.reason = TOO_SMALL
    least_score = config.least_score()
    with on_one_thread():
        found_in = detector_of(config, device).detect([one.photo.pixels for one in wide_enough])
    for one, found in zip(wide_enough, found_in, strict=True):
        row, found = one.row, found.enlarged(*one.photo.times)
        sure = found.where(found.scores >= least_score)
        large = sure.where(face_sizes(sure) >= config.min_face)
        if not len(large):
            row.reason = TOO_SMALL if len(sure) else NO_FACE
            continue
        row.candidates = cut_faces(one, large, config)
        if not row.candidates:
            row.reason = NO_FACE


def cut_faces(one: Opened, faces: Detections, config: AlignConfig) -> list[Candidate]:
    """The best faces of a photo, each with its crop; from all its pixels where those of the reduced photo are too few for a face."""
    candidates = []
    photo = one.photo
    for face in range(min(len(faces), MAX_FACES)):
        try:
            matrix = similarity_transform(faces.landmarks[face])
        except ValueError:
            continue
        if not photo.whole and scale_of(of_reduced(matrix, photo)) * ENOUGH > 1:
            photo = Reduced(decode_photo(one.content, max_side=config.max_side), photo.size)
        crop = warp_crop(photo.pixels, of_reduced(matrix, photo))
        box, landmarks = faces.boxes[face].tolist(), faces.landmarks[face].ravel().tolist()
        candidates.append(Candidate(box, float(faces.scores[face]), landmarks, matrix, crop))
    return candidates


def of_reduced(matrix: np.ndarray, photo: Reduced) -> np.ndarray:
    """The transform to the crop from the pixels of a reduced photo, given that from the whole photo; 2×3 float64."""
    if photo.whole:
        return matrix
    times = np.array(photo.times)
    return np.hstack([matrix[:, :2] * times, (matrix[:, :2] @ ((times - 1) / 2) + matrix[:, 2])[:, None]])


def face_sizes(found: Detections) -> np.ndarray:
    """The longer side of each face's box, px, float32 N."""
    return np.maximum(found.boxes[:, 2] - found.boxes[:, 0], found.boxes[:, 3] - found.boxes[:, 1])


def take_whole(row: PhotoFaces, photo: np.ndarray) -> None:
    """A photo that is an aligned crop already."""
    if photo.shape != (CROP_SIZE, CROP_SIZE, 3):
        row.reason = WRONG_SIZE
        return
    whole = [0.0, 0.0, float(CROP_SIZE), float(CROP_SIZE)]
    take(row, Candidate(whole, 1.0, TEMPLATE.ravel().tolist(), np.eye(2, 3), photo))


def take_faces(rows: list[PhotoFaces], detector: Detector) -> None:
    """Choose the identity's face in each photo that has candidates; `rows` are of some whole identities."""
    found = [row for row in rows if row.candidates]
    described = [np.empty((1, 0), np.float32)] * len(found)
    if any(len(row.candidates) > 1 for row in found):
        together = detector.describe(np.stack([face.crop for row in found for face in row.candidates]))
        described = np.split(together, np.cumsum([len(row.candidates) for row in found])[:-1])
    by_identity: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(found):
        by_identity[row.identity].append(index)
    for some in by_identity.values():
        sizes = [np.array([face.size for face in found[index].candidates]) for index in some]
        for index, choice in zip(some, choose_faces([described[index] for index in some], sizes), strict=True):
            row = found[index]
            if isinstance(choice, str):
                row.reason = choice
            else:
                take(row, row.candidates[choice])


def take_central_faces(rows: list[PhotoFaces]) -> None:
    """Take the face nearest each photo's centre.

    LFW's own rule: the face that holds the central pixel is whom the photo is named after, others are background (Huang et al., *Labeled
    Faces in the Wild*, 2007).
    """
    for row in rows:
        if row.candidates:
            centre = np.array([row.width, row.height]) / 2
            take(row, min(row.candidates, key=lambda face: float(np.linalg.norm(np.reshape(face.box, (2, 2)).mean(0) - centre))))


def take(row: PhotoFaces, face: Candidate) -> None:
    """Make `face` the one of the photo."""
    row.box, row.score, row.landmarks, row.crop = face.box, face.score, face.landmarks, face.crop
    row.matrix = face.matrix.ravel().tolist()


def checksum(crop: np.ndarray) -> int:
    """CRC-32 of a crop, so that a damaged shard is noticed."""
    return zlib.crc32(crop.tobytes())


def chunk_table(rows: list[PhotoFaces], shard: str) -> Any:
    """The chunk's table, columns `CHUNK_COLUMNS`: a row a photo; `row` is −1 where there is a reason against it."""
    import pandas as pd

    numbers = iter(range(len(rows)))
    table = []
    for one in rows:
        kept = one.crop is not None and one.reason == ALIGNED
        table.append(
            {
                "photo": one.photo,
                "sha256": one.sha256,
                "identity": one.identity,
                "reason": one.reason,
                "box": one.box,
                "score": one.score,
                "landmarks": one.landmarks,
                "matrix": one.matrix,
                "shard": shard,
                "row": next(numbers) if kept else -1,
                "width": one.width,
                "height": one.height,
                "check": checksum(one.crop) if kept and one.crop is not None else 0,
            }
        )
    return pd.DataFrame(table, columns=CHUNK_COLUMNS)
