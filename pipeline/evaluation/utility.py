"""The utility that must stay: does the owner's own software still find and know the face on a protected photo?

A protection that hides the face from a phone's photo search would not be used. The same numbers say what noise against training does not
do: it does not stop a recogniser that exists already.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import read_table
from pipeline.config import AlignConfig
from pipeline.errors import StageError
from pipeline.evaluation.lfw_protocol import Embed, embed_crops
from pipeline.evaluation.tested import spread_evenly
from pipeline.evaluation.verification import whole_identities
from pipeline.faces.detect import searched_side
from pipeline.faces.geometry import overlaps, to_crop
from pipeline.faces.stage import detection_workers
from pipeline.noise.protect import read_original
from pipeline.photos.decode import PhotoError, decode_photo
from pipeline.photos.pool import spread
from pipeline.shards import crop_table

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

MOST_MATCHED = 1000  # photos embedded, before and after
MOST_LOOKED_AT = 300  # whole photos in which the face is looked for again
FALSE_ACCEPTS = 0.001
OVERLAP = 0.5  # intersection over union with the face that was protected, from which on it is that face
CHUNK = 10  # photos a detector is given at a time


def match_owner(embed: Embed, clean: np.ndarray, protected: np.ndarray, label: np.ndarray) -> dict[str, Any] | None:
    """How often a photo is matched to another, clean photo of its owner, before and after protection.

    Args:
        embed: a recogniser's embeddings of crops. clean, protected: uint8 (N, 112, 112, 3), RGB, of the same photos. label: int (N,).

    Returns:
        {"clean", "protected"}: shares of genuine pairs above the similarity that only `FALSE_ACCEPTS` of the pairs of two clean photos
        of different people reach; "far", "pairs" (genuine ones), "impostor_pairs", "photos". None where the pairs are too few for that.
    """
    before, after = embed_crops(clean, embed), embed_crops(protected, embed)
    same = label[:, None] == label[None]
    genuine = np.triu(same, 1)
    impostor = np.triu(~same, 1)
    if not genuine.any() or impostor.sum() * FALSE_ACCEPTS < 1:
        return None
    among_clean = before @ before.T
    wrong = np.sort(among_clean[impostor])[::-1]
    threshold = wrong[int(len(wrong) * FALSE_ACCEPTS)]
    # Both orders, since a protected photo meets a clean one; its own clean version says nothing about the person.
    mixed = (after @ before.T)[same & ~np.eye(len(label), dtype=bool)]
    return {
        "clean": round(float((among_clean[genuine] > threshold).mean()), 4),
        "protected": round(float((mixed > threshold).mean()), 4),
        "far": FALSE_ACCEPTS,
        "pairs": int(genuine.sum()),
        "impostor_pairs": int(impostor.sum()),
        "photos": len(label),
    }


def matched(models: dict[str, Embed], aligned: Path, protected: Path, table: Any, seed: int) -> dict[str, Any]:
    """`match_owner` of each recogniser, on about `MOST_MATCHED` of an arm's protected crops: of whole identities, for the sake of pairs.

    Args:
        aligned: folder of the clean crops. protected: folder of the arm's `manifest.parquet` and crops. table: the split.
    """
    rows = read_table(protected / "manifest.parquet", ["photo", "identity", "shard", "row"]).sort_values("photo")
    rows = rows[rows["identity"].isin(whole_identities(rows["identity"], MOST_MATCHED, seed=seed))]
    clean = table.set_index("photo").loc[rows["photo"]]
    after, before = crops_of(protected, rows), crops_of(aligned, clean)
    label = clean["label"].to_numpy()
    return {name: match_owner(embed, before, after, label) for name, embed in models.items()}


def crops_of(folder: Path, rows: Any) -> np.ndarray:
    """The crops that `rows` (columns `shard` and `row`) name: uint8 (N, 112, 112, 3), RGB."""
    return crop_table(rows, folder).crops(np.arange(len(rows)))


def found_again(config: AlignConfig, aligned: Path, protected: Path, runtime: Runtime) -> dict[str, Any] | None:
    """In how many protected photos the detector still finds the face, and how far its landmarks moved.

    Args:
        config: what the faces were found with at first. aligned: folder of the clean photos' manifest. protected: folder of the arm's.

    Returns:
        {"photos", "found" (share), "landmarks_px" (median over photos of the landmarks' mean distance, px of the crop; None where no face
        was found)}. The photos are those in which the same detector finds the face without noise when it is shown them as the protected
        ones are, with all their pixels, so without noise the share is 1 and nothing moved. None where there are none, for an arm
        without whole photos, and for photos that were crops already.
    """
    rows = read_table(protected / "manifest.parquet", ["photo"])
    if "file" not in rows or config.already_aligned:
        return None
    columns = ["photo", "box", "landmarks", "matrix", "width", "height", "sha256"]
    before = read_table(aligned / "manifest.parquet", columns)[columns]
    rows = rows.sort_values("photo").merge(before, on="photo", validate="one_to_one")
    rows = rows.iloc[spread_evenly(len(rows), MOST_LOOKED_AT)]
    reduced = 2 * searched_side(config)  # from this side on a JPEG may have been searched at a part of its size
    jobs = [
        Again(
            np.asarray(row.box, np.float64),
            np.asarray(row.landmarks, np.float64).reshape(5, 2),
            np.asarray(row.matrix, np.float64).reshape(2, 3),
            protected / "photos" / row.file,
            (aligned.parent / "photos" / row.photo, row.sha256) if max(row.width, row.height) >= reduced else None,
        )
        for row in rows.itertuples()
    ]
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    one = partial(look_again, config=config, device=runtime.device)
    moved = [distance for _, some in spread(one, chunks, workers=detection_workers(runtime)) for distance in some]
    shifts = [distance for distance in moved if distance is not None]
    if not moved:
        return None
    return {
        "photos": len(moved),
        "found": round(len(shifts) / len(moved), 4),
        "landmarks_px": round(float(np.median(shifts)), 2) if shifts else None,
    }


@dataclass(frozen=True)
class Again:
    """A face to look for again. `original`: the photo before and its SHA-256, where it may have been searched at a part of its size."""

    box: np.ndarray  # float64 (4,), px of the photo
    landmarks: np.ndarray  # float64 (5, 2), px of the photo
    matrix: np.ndarray  # float64 (2, 3), photo → crop
    protected: Path
    original: tuple[Path, str] | None


def look_again(chunk: list[Again], *, config: AlignConfig, device: str) -> list[float | None]:
    """How far the landmarks of each photo's face moved (px of the crop), or None where the face is not found any more.

    A photo whose original was searched at a part of its size, and not found now with all its pixels, is left out.
    """
    boxes = [one.box for one in chunk]
    after = landmarks_in([read_protected(one.protected, config.max_side) for one in chunk], boxes, config, device)
    before: list[np.ndarray | None] = [one.landmarks for one in chunk]
    reduced = [place for place, one in enumerate(chunk) if one.original is not None]
    originals = [read_original(*one.original, config.max_side)[0] for one in chunk if one.original is not None]
    for place, found in zip(reduced, landmarks_in(originals, [boxes[place] for place in reduced], config, device), strict=True):
        before[place] = found
    return [
        None if now is None else float(np.linalg.norm(to_crop(now, one.matrix) - to_crop(then, one.matrix), axis=1).mean())
        for one, then, now in zip(chunk, before, after, strict=True)
        if then is not None
    ]


def read_protected(path: Path, max_side: int) -> np.ndarray:
    """A photo that the protect stage wrote, uint8 H×W×3, RGB; `StageError` if it is gone or damaged."""
    try:
        return decode_photo(path.read_bytes(), max_side=max_side)
    except (OSError, PhotoError):
        made = next(folder for folder in path.parents if folder.name == "photos").parent
        raise StageError(f"{path}: cannot be read any more; delete {made} and run again") from None


def landmarks_in(photos: list[np.ndarray], boxes: list[np.ndarray], config: AlignConfig, device: str) -> list[np.ndarray | None]:
    """In each photo (uint8 H×W×3, RGB) the landmarks, float64 (5, 2), px, of the face in its box (4,); None where none is found there."""
    from pipeline.faces.align import detector_of, on_one_thread

    found: list[np.ndarray | None] = []
    with on_one_thread():
        faces = detector_of(config, device).detect(photos)
    for box, seen in zip(boxes, faces, strict=True):
        sure = seen.where(seen.scores >= config.least_score())
        overlap = overlaps(box[None], sure.boxes)[0]
        there = len(sure) > 0 and overlap.max() >= OVERLAP
        found.append(sure.landmarks[int(overlap.argmax())].astype(np.float64) if there else None)
    return found
