"""The split: by seed, whole groups of near-duplicates on one side, clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import split as split_module
from pipeline.artifacts import read_json, write_array, write_table
from pipeline.config import SplitConfig
from pipeline.errors import RequestError
from pipeline.shards import crop_table
from pipeline.split import hashes_of, hold_out, near_duplicates, perceptual_hash, split_photos


def aligned_folder(folder: Path, photos: dict[str, int], duplicates: int = 0) -> Path:
    """A folder as the align stage leaves it, of noise crops; the first `duplicates` photos of each identity are one photo recompressed."""
    generator = np.random.default_rng(0)
    crops, rows = [], []
    for identity, count in photos.items():
        for photo in range(count):
            if photo == 0 or photo >= duplicates:
                small = generator.integers(0, 256, (14, 14, 3), dtype=np.uint8)
                crop = np.kron(small, np.ones((8, 8, 1), np.uint8))
            else:
                crop = np.clip(crops[-1].astype(int) + generator.integers(-2, 3, crops[-1].shape), 0, 255).astype(np.uint8)
            rows.append({"photo": f"{identity}/{photo:02d}.jpg", "identity": identity, "shard": "crops-a.npy", "row": len(crops)})
            crops.append(crop)
    write_array(folder / "crops-a.npy", np.stack(crops))
    write_table(folder / "manifest.parquet", pd.DataFrame(rows))
    return folder


def split(tmp_path: Path, aligned: Path, **values: object) -> Any:
    split_photos(SplitConfig.model_validate({"identities": 3, "auxiliary": 4} | values), aligned, tmp_path / "split.parquet")
    return pd.read_parquet(tmp_path / "split.parquet")


def test_roles_and_parts(tmp_path: Path) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 10 for i in range(9)} | {"few": 3})
    table = split(tmp_path, aligned)
    roles = table.drop_duplicates("identity")["role"].value_counts()
    assert dict(roles) == {"protected": 3, "auxiliary": 4, "other": 2}
    assert "few" not in set(table["identity"])
    assert (table[table["part"] == "test"].groupby("identity").size() == 2).all()
    assert sorted(table["label"].unique()) == list(range(9))
    pd.testing.assert_frame_equal(table, split(tmp_path, aligned))
    other = split(tmp_path, aligned, seed=1)
    assert set(other.loc[other["role"] == "protected", "identity"]) != set(table.loc[table["role"] == "protected", "identity"])


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 10 for i in range(5)}, duplicates=4)
    table = split(tmp_path, aligned, identities=2)
    copies = table[table["photo"].str[-6:-4].astype(int) < 4]
    assert (copies.groupby("identity")["part"].nunique() == 1).all()
    assert read_json(tmp_path / "split.json")["duplicates_moved"] > 0
    assert (table.groupby("identity")["part"].nunique() == 2).all()


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 5))
def test_no_group_is_on_both_sides(groups: list[int], seed: int) -> None:
    codes = np.array(groups)
    test, moved = hold_out(codes, 0.2, np.random.default_rng(seed))
    assert not set(codes[test]) & set(codes[~test]) or not test.any()
    assert 0 <= moved <= len(codes)
    assert test.sum() <= max(1, round(0.2 * len(codes)))


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_hash_sees_through_recompression(seed: int) -> None:
    generator = np.random.default_rng(seed)
    crop = np.kron(generator.integers(0, 256, (14, 14, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    similar = np.clip(crop.astype(int) + generator.integers(-3, 4, crop.shape), 0, 255).astype(np.uint8)
    hashes = np.stack([perceptual_hash(crop), perceptual_hash(similar), perceptual_hash(crop[::-1].copy())])
    assert list(near_duplicates(hashes, 6)) == [0, 0, 2]


@pytest.mark.parametrize(
    ("identities", "message"),
    [(10, "IDENTITIES=10: only 9 identities"), (("p1", "nobody"), "'nobody' is not among the 9 identities")],
)
def test_impossible_requests(tmp_path: Path, identities: object, message: str) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 10 for i in range(9)})
    with pytest.raises(RequestError, match=message):
        split(tmp_path, aligned, identities=identities)
    assert not (tmp_path / "split.parquet").exists()


def test_full_setting_protects_everyone(tmp_path: Path) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 10 for i in range(5)})
    table = split(tmp_path, aligned, setting="full", identities=1000)
    assert set(table["role"]) == {"protected"}
    assert table["identity"].nunique() > 2


@given(st.integers(0, 1000), st.integers(0, 24), st.integers(1, 60))
def test_groups_are_what_is_linked_by_near_hashes(seed: int, bits: int, at_once: int) -> None:
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2, (generator.integers(1, 25), 64)).astype(bool)
    hashes[generator.random(len(hashes)) < 0.5] = hashes[0]
    hashes ^= generator.random(hashes.shape) < 0.08
    linked = (hashes[:, None] != hashes[None]).sum(2) <= bits
    for _ in range(len(hashes)):
        linked = (linked.astype(int) @ linked) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_module, "DISTANCES", at_once)
        assert near_duplicates(hashes, bits).tolist() == linked.argmax(1).tolist()


def test_hashes_are_read_in_parts_from_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (9, 14, 14, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    write_array(tmp_path / "a.npy", crops[:5])
    write_array(tmp_path / "b.npy", crops[5:])
    order = np.array([7, 0, 8, 3, 1, 6, 2, 5, 4])
    table = pd.DataFrame({"shard": ["a.npy" if i < 5 else "b.npy" for i in order], "row": [i if i < 5 else i - 5 for i in order]})
    monkeypatch.setattr(split_module, "READ", 4)
    assert np.array_equal(hashes_of(crop_table(table, tmp_path)), np.stack([perceptual_hash(crop) for crop in crops[order]]))
