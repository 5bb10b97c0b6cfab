"""A scraper's own way to the crops: the photos that were published, with faces found and aligned in them anew.

Nobody publishes aligned crops. Where photos are uploaded they become JPEGs, and whoever collects them has a detector of their own. Both
may move the landmarks, and with them the crop, so what a recogniser then trains on is not quite what the noise was searched for. Whoever
uses it later, on photos that nobody published, cuts the faces out with the same detector.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_table, write_table
from pipeline.config import AlignConfig, RecropConfig
from pipeline.faces.stage import align_photos
from pipeline.photos.posted import post
from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet, face_set, lay_over


def recropped_set(
    asked: RecropConfig, own: AlignConfig, table: Any, data: Path, protected: Path | None, output: Path, runtime: Runtime
) -> FaceSet:
    """What the scraper trains on: everybody's training photos, those of protected identities cut from the protected photos.

    Where JPEG or another detector changes everybody's crops, everybody's photos go that way. Photos in which no face is found any more,
    or not surely their person's, are left out, as the scraper would.

    Args:
        own: how the run found its faces. table: the split. data: `data/<dataset>`, with `photos/` and `aligned/`.
        protected: folder of the arm's `manifest.parquet` and `photos/`; None: no photo is protected.
        output: gets `photos.parquet` and `aligned/`, as the align stage writes them; in between, `posted/`.

    Raises:
        StageError: no photo has a face any more, the arm has no whole photos, or a photo can no longer be read.
    """
    train = table[table["part"] == "train"]
    looked_at = train if asked.everyone() else train[train["role"] == "protected"]
    files = {photo: data / "photos" / photo for photo in looked_at["photo"]}
    if protected is not None:
        published = read_table(protected / "manifest.parquet", ["photo", "part", "file"])
        published = published[published["part"] == "train"]
        files |= {row.photo: protected / "photos" / row.file for row in published.itertuples()}
    faces, found = cut_anew(asked, own, looked_at, files, asked.jpeg, train, data, output, runtime)
    return faces.where((~train["photo"].isin(files) | train["photo"].isin(found)).to_numpy())


def recropped_probes(asked: RecropConfig, own: AlignConfig, table: Any, data: Path, output: Path, runtime: Runtime) -> FaceSet:
    """The held-out photos as the scraper's detector cuts them, not saved as JPEG, in the order of `table`.

    Where it finds no face, or not surely its person's, the run's own crop stays: as many names are asked for as in the study.

    Args:
        output: gets `photos.parquet` and `aligned/`. The others: as in `recropped_set`.
    """
    test = table[table["part"] == "test"]
    if asked.detector == "own":
        return face_set(test, data / "aligned")
    return cut_anew(asked, own, test, {photo: data / "photos" / photo for photo in test["photo"]}, None, test, data, output, runtime)[0]


def cut_anew(
    asked: RecropConfig,
    own: AlignConfig,
    looked_at: Any,
    files: dict[str, Path],
    jpeg: int | None,
    rows: Any,
    data: Path,
    output: Path,
    runtime: Runtime,
) -> tuple[FaceSet, set[str]]:
    """The crops of `rows`, those of `looked_at` cut anew from `files` where a face is found; and the photos in which one is."""
    post(files, output / "posted", jpeg, own.max_side, runtime)
    write_table(output / "photos.parquet", looked_at[["photo", "identity"]].reset_index(drop=True))
    align_photos(aligned_by(asked, own), output, runtime, output / "posted")
    shutil.rmtree(output / "posted")
    found = read_table(output / "aligned" / "manifest.parquet", ["photo", "shard", "row"])
    crops = face_set(found.assign(label=0), output / "aligned")
    faces = lay_over(face_set(rows, data / "aligned"), rows["photo"].to_numpy(), crops, found["photo"].to_numpy())
    return faces, set(found["photo"])


def aligned_by(asked: RecropConfig, own: AlignConfig) -> AlignConfig:
    """How the scraper finds faces: as the run did, or with another detector by that one's own score."""
    if asked.detector == "own":
        return own
    theirs = {name: getattr(asked, name) for name in ("detector", "detector_pack", "detector_pack_sha256")}
    return own.model_copy(update=theirs | {"min_score": None})
