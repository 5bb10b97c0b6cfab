"""A scraper's own way to the crops: the photos that were published, with faces found and aligned in them anew.

Nobody publishes aligned crops. Noise may move the landmarks that a detector finds, and with them the crop, so what a recogniser then
trains on is not quite what the noise was searched for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import read_table, write_table
from pipeline.config import AlignConfig
from pipeline.faces.stage import align_photos
from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet, face_set, lay_over


def recropped_set(config: AlignConfig, table: Any, aligned: Path, protected: Path, output: Path, runtime: Runtime) -> FaceSet:
    """What the scraper trains on: everybody's training photos, those of protected identities cut from the protected photos.

    Photos of protected identities in which no face is found any more, or not surely theirs, are left out, as the scraper would.

    Args:
        config: how the run found its faces. table: the split. aligned: folder of the clean crops. protected: folder of the arm's
            `manifest.parquet` and `photos/`.
        output: gets `photos.parquet` and `aligned/`, as the align stage writes them.

    Raises:
        StageError: no photo has a face any more, or the arm has no whole photos.
    """
    train = table[table["part"] == "train"]
    published = read_table(protected / "manifest.parquet", ["photo", "identity", "part", "file"])
    published = published[published["part"] == "train"]
    write_table(output / "photos.parquet", published[["identity"]].assign(photo=published["file"]))
    align_photos(config, output, runtime, protected / "photos")
    found = read_table(output / "aligned" / "manifest.parquet", ["photo", "shard", "row"])
    found = found.rename(columns={"photo": "file"}).merge(published[["photo", "file"]], on="file", validate="one_to_one")
    cut_anew = face_set(found.assign(label=0), output / "aligned")
    faces = lay_over(face_set(train, aligned), train["photo"].to_numpy(), cut_anew, found["photo"].to_numpy())
    return faces.where(((train["role"] != "protected") | train["photo"].isin(found["photo"])).to_numpy())
