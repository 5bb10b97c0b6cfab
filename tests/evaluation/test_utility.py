"""What goes on working on protected photos: matching by recognisers that exist, and detection."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.artifacts import write_array, write_table
from pipeline.config import AlignConfig
from pipeline.errors import StageError
from pipeline.evaluation import utility
from pipeline.evaluation.tested import spread_evenly
from pipeline.evaluation.utility import found_again, match_owner, matched
from pipeline.evaluation.verification import whole_identities
from pipeline.faces.detect import make_detector, searched_side
from pipeline.faces.geometry import similarity_transform
from pipeline.faces.stage import align_photos
from pipeline.photos.synthetic import render_photo
from pipeline.runtime import Runtime

CPU = Runtime(device="cpu", workers=1, precision="fp32")


def embed(crops: np.ndarray) -> np.ndarray:
    """A recogniser that knows a crop by its mean colours."""
    found = crops.astype(np.float32).mean((1, 2)) - 128
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def coloured(identities: int, photos: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (identities, 3)).repeat(photos, 0) + random.normal(0, 0.5, (identities * photos, 3))
    crops = np.broadcast_to(colours.clip(0, 255).astype(np.uint8)[:, None, None], (identities * photos, 112, 112, 3))
    return crops, np.arange(identities).repeat(photos)


def test_a_photo_is_matched_until_its_face_is_another() -> None:
    crops, label = coloured(30, 4)
    same = match_owner(embed, crops, crops, label)
    assert same is not None
    assert same["clean"] == same["protected"] > 0.5
    assert (same["pairs"], same["impostor_pairs"], same["photos"]) == (30 * 6, 120 * 119 // 2 - 180, 120)
    hidden = match_owner(embed, crops, np.roll(crops, 8, axis=0), label)
    assert hidden is not None
    assert hidden["clean"] == same["clean"]
    assert hidden["protected"] < 0.1


def test_few_pairs_say_nothing() -> None:
    crops, label = coloured(5, 2)
    assert match_owner(embed, crops, crops, label) is None
    assert match_owner(embed, crops, crops, np.arange(10)) is None


def test_of_many_people_some_are_matched_with_all_their_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One photo of each of a thousand people would leave nobody with a second one to be matched to."""
    crops, label = coloured(60, 4)
    write_array(tmp_path / "crops-00000.npy", crops)
    rows = pd.DataFrame({"photo": [f"{one:03}/{place}" for place, one in enumerate(label)], "identity": [f"{one:03}" for one in label]})
    rows = rows.assign(shard="crops-00000.npy", row=np.arange(len(rows)), label=label)
    write_table(tmp_path / "manifest.parquet", rows)
    monkeypatch.setattr("pipeline.evaluation.utility.MOST_MATCHED", 50)
    monkeypatch.setattr("pipeline.evaluation.utility.FALSE_ACCEPTS", 0.01)
    (found,) = matched({"by colour": embed}, tmp_path, tmp_path, rows, seed=0).values()
    assert (found["photos"], found["pairs"]) == (48, 12 * 6)
    assert len(whole_identities(rows["identity"], 3, seed=0)) == 1, "one at the least"
    assert whole_identities(rows["identity"], 50, seed=0) != whole_identities(rows["identity"], 50, seed=1), "who they are is drawn"
    assert whole_identities(rows["photo"], 100, seed=0) == set(), "nobody has two"


def test_photos_are_taken_evenly() -> None:
    assert spread_evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(101, 3).tolist() == [0, 50, 100]
    assert spread_evenly(0, 3).size == 0


def test_faces_are_found_again_unless_they_are_gone(tmp_path: Path) -> None:
    config = AlignConfig(min_face=60)
    photos = [render_photo(seed=0, identity=0, photo=number, size=250) for number in range(4)]
    rows = []
    for number, found in enumerate(make_detector(config, device="cpu").detect(photos)):
        assert len(found)
        matrix = similarity_transform(found.landmarks[0])
        row = {"photo": f"a/{number}.jpg", "box": found.boxes[0].tolist(), "landmarks": found.landmarks[0].ravel().tolist()}
        rows.append(row | {"matrix": matrix.ravel().tolist(), "file": f"a/{number}.png", "width": 250, "height": 250, "sha256": ""})
    (tmp_path / "protected" / "photos" / "a").mkdir(parents=True)
    photos[3] = np.full_like(photos[3], 127)
    for row, photo in zip(rows, photos, strict=True):
        cv2.imwrite(str(tmp_path / "protected" / "photos" / row["file"]), photo[:, :, ::-1])
    table = pd.DataFrame(rows)
    write_table(tmp_path / "aligned" / "manifest.parquet", table.drop(columns="file"))
    write_table(tmp_path / "protected" / "manifest.parquet", table[["photo", "file"]])
    found = found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU)
    assert found == {"photos": 4, "found": 0.75, "landmarks_px": pytest.approx(0, abs=0.05)}
    (tmp_path / "protected" / "photos" / "a" / "1.png").write_bytes(b"no picture")
    with pytest.raises(StageError, match=r"1\.png: cannot be read"):
        found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU)
    write_table(tmp_path / "protected" / "manifest.parquet", table[["photo"]])
    assert found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU) is None, "crops only"


def test_without_noise_nothing_moves_in_large_photos_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large JPEG is searched at half its size when it is aligned, the PNG that is published at its own."""
    config = AlignConfig(min_face=60)
    side = 2 * searched_side(config)
    photo = cv2.resize(render_photo(seed=0, identity=0, photo=0, size=250), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 40, (side, side, 1)).repeat(3, 2)
    photo = (photo + grain).clip(0, 255).astype(np.uint8)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "photos" / "a" / "0.jpg"), photo[:, :, ::-1])
    write_table(tmp_path / "photos.parquet", pd.DataFrame({"photo": ["a/0.jpg"], "identity": ["a"]}))
    torch.set_num_threads(2)
    align_photos(config, tmp_path, CPU)
    assert torch.get_num_threads() == 2, "what comes after detection has its threads"
    torch.set_num_threads(1)
    decoded = cv2.imread(str(tmp_path / "photos" / "a" / "0.jpg"))
    (tmp_path / "protected" / "photos" / "a").mkdir(parents=True)
    assert decoded is not None and cv2.imwrite(str(tmp_path / "protected" / "photos" / "a" / "0.jpg.png"), decoded)
    write_table(tmp_path / "protected" / "manifest.parquet", pd.DataFrame({"photo": ["a/0.jpg"], "file": ["a/0.jpg.png"]}))
    assert found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU) == {"photos": 1, "found": 1.0, "landmarks_px": 0.0}
    real = utility.landmarks_in
    monkeypatch.setattr(
        utility, "landmarks_in", lambda photos, *rest: [None] if (photos[0] == decoded[:, :, ::-1]).all() else real(photos, *rest)
    )
    assert found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU) is None, "not found without noise either"
    monkeypatch.undo()
    original = tmp_path / "photos" / "a" / "0.jpg"
    original.write_bytes(original.read_bytes()[:5000])
    with pytest.raises(StageError, match=r"photos/a/0\.jpg: changed since it was aligned") as caught:
        found_again(config, tmp_path / "aligned", tmp_path / "protected", CPU)
    assert "delete" not in str(caught.value), "it is a person's own photo"
