"""Faces found anew in protected photos: the noise comes back, a face that is gone is left out, nobody else's photos change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts import write_table
from pipeline.config import AlignConfig
from pipeline.errors import StageError
from pipeline.faces.restore import protect_photo
from pipeline.faces.stage import align_photos
from pipeline.photos.decode import decode_photo
from pipeline.photos.synthetic import encode_photo
from pipeline.runtime import Runtime
from pipeline.training.faces import face_set
from pipeline.training.recropped import recropped_set

PHOTOS = 4
CONFIG = AlignConfig(min_face=60)


def publish(data: Path, folder: Path, aligned: Any, delta: np.ndarray, *, gone: str) -> None:
    """The protected photos of id0 and their manifest, with `gone` painted over."""
    rows = []
    for row in aligned[aligned["identity"] == "id0"].itertuples():
        file = f"{row.photo}.png"
        pixels = decode_photo((data / "photos" / row.photo).read_bytes(), max_side=300)
        noisy = protect_photo(pixels, np.reshape(row.matrix, (2, 3)), delta, 16)
        (folder / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full_like(noisy, 90) if row.photo == gone else noisy).save(folder / "photos" / file)
        rows.append({"photo": row.photo, "identity": "id0", "part": "test" if row.photo.endswith("3.jpg") else "train", "file": file})
    write_table(folder / "manifest.parquet", pd.DataFrame(rows))


def test_a_scraper_cuts_the_protected_faces_out_of_the_photos(tmp_path: Path, cpu: Runtime) -> None:
    data, protected = tmp_path / "data", tmp_path / "protected"
    names = [f"id{identity}/{photo}.jpg" for identity in range(2) for photo in range(PHOTOS)]
    for name in names:
        path = data / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_photo(seed=0, identity=int(name[2]), photo=int(name[4])))
    write_table(data / "photos.parquet", pd.DataFrame({"photo": names, "identity": [name[:3] for name in names]}))
    align_photos(CONFIG, data, cpu)
    aligned = pd.read_parquet(data / "aligned" / "manifest.parquet")
    assert len(aligned) == len(names)
    delta = np.random.default_rng(0).integers(-16, 17, (3, 14, 14)).repeat(8, 1).repeat(8, 2).astype(np.int8)
    publish(data, protected, aligned, delta, gone="id0/1.jpg")
    split: Any = aligned.assign(
        label=(aligned["identity"] == "id1").astype(int),
        part=["test" if photo.endswith("3.jpg") else "train" for photo in aligned["photo"]],
        role=["protected" if identity == "id0" else "other" for identity in aligned["identity"]],
    )

    found = recropped_set(CONFIG, split, data / "aligned", protected, tmp_path / "trial", cpu)

    kept = split[(split["part"] == "train") & (split["photo"] != "id0/1.jpg")]
    assert found.label.tolist() == kept["label"].tolist()
    everyone = np.arange(len(kept))
    change = found.crops(everyone).astype(float) - face_set(kept, data / "aligned").crops(everyone)
    mine = (kept["role"] == "protected").to_numpy()
    assert mine.sum() == 2 and not change[~mine].any()
    for one in change[mine]:
        assert np.corrcoef(one.transpose(2, 0, 1).ravel(), delta.ravel())[0, 1] > 0.5
    rejected = pd.read_parquet(tmp_path / "trial" / "aligned" / "rejects.parquet")
    assert rejected["photo"].tolist() == ["id0/1.jpg.png"] and rejected["reason"].tolist() == ["no face"]


def test_an_arm_without_whole_photos_is_named(tmp_path: Path, cpu: Runtime) -> None:
    rows: Any = pd.DataFrame({"photo": ["id0/0.jpg"], "identity": ["id0"], "part": ["train"]})
    write_table(tmp_path / "manifest.parquet", rows)
    with pytest.raises(StageError, match="file"):
        recropped_set(CONFIG, rows.assign(role="protected"), tmp_path, tmp_path, tmp_path / "trial", cpu)
