"""Detection and alignment against facenet-pytorch as its users call it, and whether the same faces are found.

    python -m benchmarks.detect_align [--photos <folder>] [--min-face 30] [--timed 1200] [--compared 400] [--pairs 5]

Ours is the align stage itself on two processes: reading, decoding, detection, choice of the face, crops and manifest written. The other
side is one process with torch's default threads: for each photo, `Image.open`, `MTCNN(keep_all=True).detect(photo, landmarks=True)`, the
same alignment of each face of at least the score that ours accepts, all kept in memory. Both are timed after a few photos, so that imports
and weights are loaded on both sides. `--photos` is a folder with one folder an identity; without it, photos are rendered.
`DETECT_ALIGN_PHOTOS` names the folder for `make bench`, `DETECT_ALIGN_PACK` an insightface pack for SCRFD's row.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.row import Pair, Row, paired

PHOTOS_AT = "DETECT_ALIGN_PHOTOS"
PACK_AT = "DETECT_ALIGN_PACK"
WORKERS = 2
TIMED, COMPARED = 1200, 400  # photos
LEAST_RECALL = 0.995  # asked for, of facenet-pytorch's faces
MOST_DISTANCE, LEAST_DISTANCE = 2.0, 0.1  # px: asked for, of the landmarks in the median; less is no news, and no ratio to draw
RENDERED = 8  # photos an identity, where none are given


@dataclass(frozen=True)
class Photos:
    """Some photos: a folder, the names below it with their identities, and what they are."""

    root: Path
    names: list[tuple[str, str]]
    text: str
    made: tempfile.TemporaryDirectory[str] | None = None  # rendered photos go with it


@cache
def some_photos(root: Path | None, count: int) -> Photos:
    """`count` photos drawn (seed 0) from a folder with one folder an identity; of None, rendered photos."""
    if root is None:
        from pipeline.photos.synthetic import encode_photo

        made = tempfile.TemporaryDirectory(prefix="detect-align-")
        folder = Path(made.name)
        names = []
        for number in range(count):
            identity, photo = divmod(number, RENDERED)
            name = f"id{identity:04d}/{photo:04d}.jpg"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(encode_photo(seed=0, identity=identity, photo=photo))
            names.append((name, f"id{identity:04d}"))
        return Photos(folder, names, f"{count} rendered photos of 250 px", made)
    found = sorted(path for path in root.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise SystemExit(f"--photos {root}: expected is one folder an identity with photos in it")
    chosen = sorted(np.random.default_rng(0).choice(len(found), min(count, len(found)), replace=False))
    names = [(str(found[index].relative_to(root)), found[index].parent.name) for index in chosen]
    return Photos(root, names, f"{len(names)} photos of {root.name}")


def align_stage(photos: Photos, config: Any) -> float:
    """Seconds that the align stage takes over the photos on `WORKERS` processes, from `photos.parquet` to manifest."""
    import pandas as pd

    from pipeline.artifacts import write_table
    from pipeline.faces.stage import align_photos
    from pipeline.runtime import Runtime

    with tempfile.TemporaryDirectory(prefix="detect-align-") as folder:
        data = Path(folder)
        (data / "photos").symlink_to(photos.root.resolve())
        write_table(data / "photos.parquet", pd.DataFrame(photos.names, columns=["photo", "identity"]))  # type: ignore[arg-type]
        start = time.perf_counter()
        align_photos(config, data, Runtime(device="cpu", workers=WORKERS, precision="fp32"))
        return time.perf_counter() - start


@cache
def facenet_pytorch() -> Any:
    """The other side's detector, with its defaults."""
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True)


def one_at_a_time(photos: Photos, least_score: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Of each photo what facenet-pytorch finds: boxes N×4, scores N, landmarks N×5×2, and crops of those of at least `least_score`."""
    from PIL import Image

    from pipeline.faces.geometry import similarity_transform, warp_crop

    for name, _ in photos.names:
        photo = Image.open(io.BytesIO((photos.root / name).read_bytes())).convert("RGB")
        boxes, scores, landmarks = facenet_pytorch().detect(photo, landmarks=True)
        if boxes is None:
            yield np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)), []
            continue
        boxes, scores, landmarks = (np.asarray(found, np.float64) for found in (boxes, scores, landmarks))
        pixels = np.asarray(photo)
        crops = [warp_crop(pixels, similarity_transform(five)) for five in landmarks[scores >= least_score]]
        yield boxes, scores, landmarks, crops


@cache
def warm(config: Any, root: Path | None, count: int) -> None:
    """Let both sides have their first photos: imports, weights, the server that workers are forked from."""
    photos = some_photos(root, count)
    few = Photos(photos.root, photos.names[:WORKERS], "")
    list(one_at_a_time(few, config.least_score()))
    align_stage_of_two_chunks(few, config)


def align_stage_of_two_chunks(photos: Photos, config: Any) -> None:
    """The stage with a chunk for each worker, so that workers are started at all."""
    from pipeline.faces import stage

    usual, stage.CHUNK_PHOTOS = stage.CHUNK_PHOTOS, 1
    apart = [(name, f"{number}") for number, (name, _) in enumerate(photos.names)]  # one photo an identity: one a chunk
    try:
        align_stage(Photos(photos.root, apart, photos.text), config)
    finally:
        stage.CHUNK_PHOTOS = usual


def speed_pair(config: Any, root: Path | None, count: int) -> Callable[[], Pair]:
    """A `measure`: photos a second of the stage over `count` photos, and of facenet-pytorch over every third of them."""
    both = paired(partial(ours, config, root, count), partial(theirs, config, root, count), warm=False)

    def measure() -> Pair:
        warm(config, root, count)
        return both()

    return measure


def ours(config: Any, root: Path | None, count: int) -> float:
    """Photos a second of the stage."""
    photos = some_photos(root, count)
    return len(photos.names) / align_stage(photos, config)


def theirs(config: Any, root: Path | None, count: int) -> float:
    """Photos a second of facenet-pytorch on all cores, as torch takes them by itself, whatever rows before this one have left set."""
    import cv2
    import torch

    from pipeline.runtime import cores

    photos = some_photos(root, count)
    third = Photos(photos.root, photos.names[::3], photos.text)
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(cores())
    cv2.setNumThreads(cores())
    try:
        start = time.perf_counter()
        for _ in one_at_a_time(third, config.least_score()):
            pass
        return len(third.names) / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@dataclass(frozen=True)
class Agreement:
    """How far what is found is what facenet-pytorch finds; of its faces of at least the score that ours accepts."""

    faces: int
    found: int
    large: int  # of `min_face` px and more
    large_found: int
    distance: float  # median over faces of the mean distance of the five landmarks, px
    extra: int  # faces that facenet-pytorch does not have, at any score

    def __str__(self) -> str:
        """One line for people."""
        share, large_share = self.found / max(self.faces, 1), self.large_found / max(self.large, 1)
        return (
            f"of facenet-pytorch's {self.faces} faces {self.found} found ({share:.2%}); of the {self.large} of min_face and more "
            f"{self.large_found} ({large_share:.2%}); landmarks {self.distance:.3f} px apart in the median; {self.extra} faces more"
        )


@cache
def compare(config: Any, root: Path | None, count: int) -> Agreement:
    """Hold what the stage finds (before one face a photo is chosen) to what facenet-pytorch finds with its defaults."""
    from pipeline.faces.align import look
    from pipeline.faces.geometry import overlaps

    photos = some_photos(root, count)
    rows = look(photos.names, photos.root, config, device="cpu")
    faces = found = large = large_found = extra = 0
    distances = []
    for row, (boxes, scores, landmarks, _) in zip(rows, one_at_a_time(photos, config.least_score()), strict=True):
        ours = np.array([face.box for face in row.candidates]).reshape(-1, 4)
        points = np.array([face.landmarks for face in row.candidates]).reshape(-1, 5, 2)
        shared = overlaps(boxes, ours)
        extra += int((shared.max(0, initial=0) < 0.5).sum())
        for index in np.flatnonzero(scores >= config.least_score()):
            hit = shared[index].max(initial=0) >= 0.5
            size = max(boxes[index, 2:] - boxes[index, :2])
            faces, found = faces + 1, found + hit
            large, large_found = large + (size >= config.min_face), large_found + (hit and size >= config.min_face)
            if hit:
                distances.append(np.linalg.norm(points[shared[index].argmax()] - landmarks[index], axis=1).mean())
    return Agreement(faces, int(found), int(large), int(large_found), float(np.median(distances)) if distances else float("nan"), extra)


def recall(config: Any, root: Path | None, count: int) -> Pair:
    """Share of facenet-pytorch's faces that are found."""
    agreement = compare(config, root, count)
    return Pair(value=agreement.found / max(agreement.faces, 1), other=LEAST_RECALL)


def distance(config: Any, root: Path | None, count: int) -> Pair:
    """Median distance of the landmarks from facenet-pytorch's, px, `LEAST_DISTANCE` at the least."""
    return Pair(value=max(compare(config, root, count).distance, LEAST_DISTANCE), other=MOST_DISTANCE)


def rows() -> list[Row]:
    """Rows of `make bench`; of SCRFD only where `DETECT_ALIGN_PACK` names a pack."""
    from pipeline.config import AlignConfig

    root = Path(os.environ[PHOTOS_AT]) if os.environ.get(PHOTOS_AT) else None
    what = f"photos of {root.name}" if root else "rendered photos of 250 px (one face each, of more than 100 px)"
    other = "facenet-pytorch's MTCNN, one photo at a time in one process, its defaults (faces from 20 px on), and the same alignment"
    usual: Any = AlignConfig()
    fine: Any = AlignConfig(min_face=20)
    found = [
        Row(
            name="detect-align",
            unit="photos/s",
            against="facenet-pytorch",
            text=f"The align stage on {WORKERS} processes, faces from {usual.min_face} px on, {TIMED} {what}; against {other}. Asked "
            "for is speed at equal recall (detect-align-recall), not equal work: in detect-align-20 both sides look for faces as small.",
            measure=speed_pair(usual, root, TIMED),
            target=5.0,
        ),
        Row(
            name="detect-align-20",
            unit="photos/s",
            against="facenet-pytorch",
            text=f"The same work on both sides: as detect-align, but faces from 20 px on for the align stage, too, {TIMED} {what}.",
            measure=speed_pair(fine, root, TIMED),
        ),
        Row(
            name="detect-align-recall",
            unit="share",
            against=f"limit-{LEAST_RECALL:.1%}",
            text=f"Share of facenet-pytorch's faces (any size, score of {usual.least_score():g} and more) that the align stage as in "
            f"detect-align (from {usual.min_face} px on) finds in {COMPARED} {what}.",
            measure=partial(recall, usual, root, COMPARED),
            target=1.0,
        ),
        Row(
            name="detect-align-landmarks",
            unit="px",
            against=f"limit-{MOST_DISTANCE:g}px",
            text=f"Median distance of the landmarks from facenet-pytorch's, {LEAST_DISTANCE} px standing for less: {COMPARED} {what}.",
            measure=partial(distance, usual, root, COMPARED),
            lower_is_better=True,
            target=1.0,
        ),
    ]
    if os.environ.get(PACK_AT):
        config: Any = AlignConfig(detector="scrfd", detector_pack=str(Path(os.environ[PACK_AT]).resolve()))
        found.append(
            Row(
                name="detect-align-scrfd",
                unit="photos/s",
                against="facenet-pytorch",
                text=f"The align stage with SCRFD on {WORKERS} processes, faces from {config.min_face} px on, {TIMED} {what}; against "
                f"{other}.",
                measure=speed_pair(config, root, TIMED),
            )
        )
    return found


def main() -> None:
    """Print how far the two agree, then each pair of runs and the median ratio."""
    from pipeline.config import AlignConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with one folder an identity; none: rendered photos")
    parser.add_argument("--pack", type=Path, help="an insightface pack: SCRFD instead of MTCNN")
    parser.add_argument("--min-face", type=int, default=AlignConfig().min_face)
    parser.add_argument("--timed", type=int, default=TIMED, help="photos of one run")
    parser.add_argument("--compared", type=int, default=COMPARED, help="photos in which faces are compared")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    pack: dict[str, Any] = {} if options.pack is None else {"detector": "scrfd", "detector_pack": str(options.pack.resolve())}
    config: Any = AlignConfig(min_face=options.min_face, **pack)
    if options.compared:
        print(f"{some_photos(options.photos, options.compared).text}: {compare(config, options.photos, options.compared)}", flush=True)
    measure, ratios = speed_pair(config, options.photos, options.timed), []
    for number in range(options.pairs):
        pair = measure()
        assert pair.other is not None
        ratios.append(pair.value / pair.other)
        print(f"pair {number + 1}: {pair.value:.1f} photos/s, facenet-pytorch {pair.other:.1f}, ratio {ratios[-1]:.2f}", flush=True)
    if ratios:
        print(f"median ratio of {len(ratios)} pairs {median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
