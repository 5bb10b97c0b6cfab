"""The stand-in of WebFace: its size, its files, and smaller sets of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.standin import CROP_BYTES, FEWEST, IDENTITIES, MOST, PHOTOS, photos_of_identities, plain_split, take, write_standin
from pipeline.shards import crop_table


def test_as_many_photos_of_as_many_people() -> None:
    photos = photos_of_identities()
    assert (photos.sum(), len(photos), photos.min(), photos.max()) == (PHOTOS, IDENTITIES, FEWEST, MOST)
    tenth = photos_of_identities(0.1)
    assert np.array_equal(tenth, photos[: len(tenth)])
    assert 0.09 < tenth.sum() / PHOTOS < 0.11


def test_crops_are_where_the_manifest_says(tmp_path: Path) -> None:
    manifest = write_standin(tmp_path / "large", 0.002)
    written = pd.read_parquet(tmp_path / "large" / "manifest.parquet")
    assert written["photo"].tolist() == manifest["photo"].tolist() and written["row"].tolist() == manifest["row"].tolist()
    assert manifest.groupby("identity").size().tolist() == photos_of_identities(0.002).tolist()
    crops = crop_table(manifest, tmp_path / "large").crops(np.arange(len(manifest)))
    assert len(np.unique(crops.reshape(len(crops), -1)[:, ::997], axis=0)) == len(crops), "no crop is there twice"
    take(tmp_path / "large", 0.001, tmp_path / "small")
    small = pd.read_parquet(tmp_path / "small" / "manifest.parquet")
    assert small.groupby("identity").size().tolist() == photos_of_identities(0.001).tolist()
    assert np.array_equal(crop_table(small, tmp_path / "small").crops(np.arange(len(small))), crops[: len(small)])


def test_holes_take_no_room(tmp_path: Path) -> None:
    manifest = write_standin(tmp_path, 0.001, holes=True)
    assert not crop_table(manifest, tmp_path).crops(np.arange(len(manifest))).any()
    files = [path.stat() for path in tmp_path.glob("crops-*.npy")]
    assert sum(one.st_size for one in files) > len(manifest) * CROP_BYTES
    assert sum(one.st_blocks * 512 for one in files) < len(manifest) * CROP_BYTES / 2
    split = plain_split(manifest)
    assert split["label"].nunique() == manifest["identity"].nunique()
    assert set(split["part"]) == {"train", "test"}
