"""A scraper's own way to the crops: the photos that were published, with faces found and aligned in them anew.

Nobody publishes aligned crops. Where photos are uploaded they become JPEGs, and whoever collects them has a detector of their own. Both
may move the landmarks, and with them the crop, so what a recogniser then trains on is not quite what the noise was searched for.
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
    post(files, output / "posted", asked.jpeg, own.max_side, runtime)
    write_table(output / "photos.parquet", looked_at[["photo", "identity"]].reset_index(drop=True))
    align_photos(aligned_by(asked, own), output, runtime, output / "posted")
    shutil.rmtree(output / "posted")
    found = read_table(output / "aligned" / "manifest.parquet", ["photo", "shard", "row"])
    cut_anew = face_set(found.assign(label=0), output / "aligned")
    faces = lay_over(face_set(train, data / "aligned"), train["photo"].to_numpy(), cut_anew, found["photo"].to_numpy())
    return faces.where((~train["photo"].isin(files) | train["photo"].isin(found["photo"])).to_numpy())


def aligned_by(asked: RecropConfig, own: AlignConfig) -> AlignConfig:
    """How the scraper finds faces: as the run did, or with another detector by that one's own score."""
    if asked.detector == "own":
        return own
    theirs = {name: getattr(asked, name) for name in ("detector", "detector_pack", "detector_pack_sha256")}
    return own.model_copy(update=theirs | {"min_score": None})
