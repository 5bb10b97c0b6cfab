"""Faces found anew in published photos: the noise comes back, a face that is gone is left out, JPEG reaches everybody's photos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts import write_table
from pipeline.config import AlignConfig, RecropConfig
from pipeline.errors import StageError
from pipeline.faces.restore import protect_photo
from pipeline.faces.stage import align_photos
from pipeline.photos.decode import decode_photo
from pipeline.photos.synthetic import encode_photo
from pipeline.runtime import Runtime, decide
from pipeline.training.faces import FaceSet, face_set
from pipeline.training.recropped import aligned_by, recropped_probes, recropped_set

PHOTOS = 4
CONFIG = AlignConfig(min_face=60)


class Published(NamedTuple):
    """Two people with four photos each, the last held out; id0 is protected, and one of its faces is painted over."""

    data: Path
    protected: Path
    split: Any
    delta: np.ndarray

    def train(self) -> Any:
        return self.split[(self.split["part"] == "train") & (self.split["photo"] != "id0/1.jpg")]

    def change(self, found: FaceSet) -> tuple[np.ndarray, np.ndarray]:
        """What differs from the clean crops, of id0 and of id1: float64 (N, 112, 112, 3)."""
        everyone = np.arange(len(self.train()))
        change = found.crops(everyone).astype(float) - face_set(self.train(), self.data / "aligned").crops(everyone)
        mine = (self.train()["role"] == "protected").to_numpy()
        return change[mine], change[~mine]

    def same_face(self, found: FaceSet) -> list[float]:
        """The correlation of each crop with the clean one."""
        return likeness(found, face_set(self.train(), self.data / "aligned"))

    def noise_in(self, change: np.ndarray) -> list[float]:
        """The correlation of each crop's change (N, 112, 112, 3) with the noise."""
        return [float(np.corrcoef(one.transpose(2, 0, 1).ravel(), self.delta.ravel())[0, 1]) for one in change]


def likeness(found: FaceSet, clean: FaceSet) -> list[float]:
    """The correlation of each crop of one set with the other's."""
    everyone = np.arange(len(clean))
    pairs = zip(found.crops(everyone), clean.crops(everyone), strict=True)
    return [float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in pairs]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    data, protected = folder / "data", folder / "protected"
    names = [f"id{identity}/{photo}.jpg" for identity in range(2) for photo in range(PHOTOS)]
    for name in names:
        path = data / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_photo(seed=0, identity=int(name[2]), photo=int(name[4])))
    write_table(data / "photos.parquet", pd.DataFrame({"photo": names, "identity": [name[:3] for name in names]}))
    align_photos(CONFIG, data, decide("cpu", "1", "fp32"))
    aligned: Any = pd.read_parquet(data / "aligned" / "manifest.parquet")
    assert len(aligned) == len(names)
    delta = np.random.default_rng(0).integers(-16, 17, (3, 14, 14)).repeat(8, 1).repeat(8, 2).astype(np.int8)
    rows = []
    for row in aligned[aligned["identity"] == "id0"].itertuples():
        file = f"{row.photo}.png"
        pixels = decode_photo((data / "photos" / row.photo).read_bytes(), max_side=300)
        noisy = protect_photo(pixels, np.reshape(row.matrix, (2, 3)), delta, 16)
        (protected / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full_like(noisy, 90) if row.photo == "id0/1.jpg" else noisy).save(protected / "photos" / file)
        rows.append({"photo": row.photo, "identity": "id0", "part": "test" if row.photo.endswith("3.jpg") else "train", "file": file})
    write_table(protected / "manifest.parquet", pd.DataFrame(rows))
    split = aligned.assign(
        label=(aligned["identity"] == "id1").astype(int),
        part=["test" if photo.endswith("3.jpg") else "train" for photo in aligned["photo"]],
        role=["protected" if identity == "id0" else "other" for identity in aligned["identity"]],
    )
    return Published(data, protected, split, delta)


def test_a_scraper_cuts_the_protected_faces_out_of_the_photos(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    found = recropped_set(RecropConfig(), CONFIG, published.split, published.data, published.protected, tmp_path, cpu)

    assert found.label.tolist() == published.train()["label"].tolist()
    mine, others = published.change(found)
    assert len(mine) == 2 and not others.any()
    assert min(published.noise_in(mine)) > 0.5
    rejected = pd.read_parquet(tmp_path / "aligned" / "rejects.parquet")
    assert rejected["photo"].tolist() == ["id0/1.jpg"] and rejected["reason"].tolist() == ["no face"]
    assert not (tmp_path / "posted").exists()


def test_photos_that_became_jpegs_are_everybodys(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    asked = RecropConfig(jpeg=80)
    found = recropped_set(asked, CONFIG, published.split, published.data, published.protected, tmp_path, cpu)

    assert found.label.tolist() == published.train()["label"].tolist()
    mine, others = published.change(found)
    # Landmarks move a little, and with them all pixels of the crop.
    assert min(published.noise_in(mine)) > 0.12 and max(abs(one) for one in published.noise_in(others)) < 0.08
    assert all(np.abs(one).mean() > 0.5 for one in others), "JPEG reaches those, too"
    assert min(published.same_face(found)) > 0.7
    looked_at = pd.read_parquet(tmp_path / "photos.parquet")
    assert sorted(looked_at["photo"]) == sorted(published.split.query("part == 'train'")["photo"]), "nobody trains on held-out photos"


def test_without_protection_jpegs_are_of_the_photos_themselves(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    found = recropped_set(RecropConfig(jpeg=95), CONFIG, published.split, published.data, None, tmp_path, cpu)
    everyone = published.split.query("part == 'train'")
    assert found.label.tolist() == everyone["label"].tolist(), "the face that was painted over is there"
    clean = face_set(everyone, published.data / "aligned")
    assert min(likeness(found, clean)) > 0.8


def test_probes_are_cut_by_the_detector_of_the_training_photos(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    test: Any = published.split.query("part == 'test'")
    own = face_set(test, published.data / "aligned")
    for asked in (RecropConfig(), RecropConfig(jpeg=50)):
        same = recropped_probes(asked, CONFIG, published.split, published.data, tmp_path / "none", cpu)
        assert np.array_equal(same.crops(np.arange(2)), own.crops(np.arange(2))), "nobody posted them"
    assert not (tmp_path / "none").exists()

    data = tmp_path / "data"
    shutil.copytree(published.data, data)
    Image.fromarray(np.full((250, 250, 3), 90, np.uint8)).save(data / "photos" / "id1" / "3.jpg")
    strict = CONFIG.model_copy(update={"min_face": 61})  # so that all photos are looked at anew
    found = recropped_probes(RecropConfig(detector="mtcnn"), strict, published.split, data, tmp_path / "probes", cpu)
    aligned = pd.read_parquet(tmp_path / "probes" / "aligned" / "manifest.parquet")
    assert aligned["photo"].tolist() == ["id0/3.jpg"]
    assert found.label.tolist() == test["label"].tolist()
    assert np.array_equal(found.crops(np.array([1])), own.crops(np.array([1]))), "where no face is found, the crop is the run's own"
    cut = np.load(tmp_path / "probes" / "aligned" / aligned["shard"].iloc[0])[aligned["row"].iloc[0]]
    assert np.array_equal(found.crops(np.array([0]))[0], cut)


def test_what_was_aligned_before_a_kill_is_found_again(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    def run() -> dict[Path, int]:
        recropped_set(RecropConfig(jpeg=50), CONFIG, published.split, published.data, published.protected, tmp_path, cpu)
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "aligned").glob("crops-*")}

    before = run()
    (tmp_path / "aligned" / "manifest.parquet").unlink()
    assert before and run() == before


def test_another_detector_has_its_own_score_and_the_runs_other_values() -> None:
    own = AlignConfig(min_face=41, min_score=0.8, face="centre")
    other = aligned_by(RecropConfig(detector="scrfd", detector_pack="/pack"), own)
    assert (other.detector, other.detector_pack, other.min_face, other.face, other.least_score()) == ("scrfd", "/pack", 41, "centre", 0.5)
    assert aligned_by(RecropConfig(jpeg=50), own) == own


def test_an_arm_without_whole_photos_is_named(tmp_path: Path, cpu: Runtime) -> None:
    rows: Any = pd.DataFrame({"photo": ["id0/0.jpg"], "identity": ["id0"], "part": ["train"]})
    write_table(tmp_path / "manifest.parquet", rows)
    with pytest.raises(StageError, match="file"):
        recropped_set(RecropConfig(), CONFIG, rows.assign(role="protected"), tmp_path, tmp_path, tmp_path / "trial", cpu)


def test_a_photo_that_is_gone_is_named(published: Published, tmp_path: Path, cpu: Runtime) -> None:
    with pytest.raises(StageError, match=r"id0/0.jpg: cannot be read any more"):
        recropped_set(RecropConfig(jpeg=50), CONFIG, published.split, tmp_path / "nowhere", None, tmp_path, cpu)
