"""The split: by seed, whole groups of near-duplicates on one side, clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import split as split_module
from pipeline.artifacts import read_json, write_array, write_table
from pipeline.config import SplitConfig
from pipeline.errors import RequestError
from pipeline.evaluation.stage import people_held_out
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


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.sampled_from([0.2, 0.5, 0.95]), st.integers(0, 5))
def test_no_group_is_on_both_sides_and_none_is_empty(groups: list[int], fraction: float, seed: int) -> None:
    codes = np.array(groups)
    assume(len(set(groups)) > 1)
    test, moved = hold_out(codes, fraction, np.random.default_rng(seed))
    assert not set(codes[test]) & set(codes[~test])
    assert test.any() and not test.all()
    assert 0 <= moved <= len(codes)
    smallest = min(groups.count(group) for group in groups)
    assert test.sum() <= max(smallest, round(fraction * len(codes)))


def test_where_every_group_is_larger_than_the_draw_the_smallest_is_held_out(tmp_path: Path) -> None:
    for seed in range(9):
        test, _ = hold_out(np.repeat([0, 3, 7], (5, 2, 3)), 0.1, np.random.default_rng(seed))
        assert test.tolist() == [False] * 5 + [True] * 2 + [False] * 3


def test_who_has_near_duplicates_alone_is_left_out_and_another_drawn(tmp_path: Path) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {"p0": 6, "p1": 6}, duplicates=6)
    others = aligned_folder(tmp_path / "more", {f"q{i}": 6 for i in range(4)})
    both = [pd.read_parquet(folder / "manifest.parquet") for folder in (aligned, others)]
    write_array(aligned / "crops-b.npy", np.load(others / "crops-a.npy"))
    write_table(aligned / "manifest.parquet", pd.concat([both[0], both[1].assign(shard="crops-b.npy")], ignore_index=True))
    for seed in range(4):  # whoever is drawn first
        table = split(tmp_path, aligned, identities=3, auxiliary=0, seed=seed)
        assert set(table["identity"]) == {f"q{i}" for i in range(4)}
        assert table.loc[table["role"] == "protected", "identity"].nunique() == 3
        assert (table.groupby("identity")["part"].nunique() == 2).all()
        assert sorted(table["label"].unique()) == list(range(4))
    assert read_json(tmp_path / "split.json")["left_out"] == {
        "identities": 2, "too_few_photos": 0, "near_duplicates_only": 2, "for_verification": 0,
    }  # fmt: skip
    left_out = pd.read_csv(tmp_path / "left_out.csv")
    assert left_out.to_dict("list") == {
        "identity": ["p0", "p1"], "photos": [6, 6], "reason": ["near-duplicates of one photo only"] * 2,
    }  # fmt: skip
    with pytest.raises(RequestError, match="the 6 aligned photos of 'p1' are near-duplicates of one another"):
        split(tmp_path, aligned, identities=("q0", "p1"))
    with pytest.raises(RequestError, match="IDENTITIES=5: only 4 identities have at least 5 aligned photos that are not all near-dup"):
        split(tmp_path, aligned, identities=5)


def test_everybody_left_out_is_listed_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 6 for i in range(4)} | {"few": 3})
    rejects = pd.DataFrame({"photo": ["p0/x", "none/x"], "identity": ["p0", "none"], "reason": "no face"})
    write_table(aligned / "rejects.parquet", rejects)

    def reasons() -> dict[str, tuple[int, str]]:
        left_out = pd.read_csv(tmp_path / "left_out.csv", keep_default_na=False)
        return {row.identity: (row.photos, row.reason) for row in left_out.itertuples()}  # type: ignore[misc]

    too_few = {"few": (3, "fewer than 5 aligned photos"), "none": (0, "fewer than 5 aligned photos")}
    split(tmp_path, aligned, identities=2)
    assert reasons() == too_few
    assert f"2 identities are left out of training; {tmp_path / 'left_out.csv'} says why" in capsys.readouterr().err
    split(tmp_path, aligned, identities=2, max_identities=3)
    (other,) = reasons().keys() - too_few.keys()
    assert reasons()[other] == (6, "not drawn: 3 identities are used at most")
    split(tmp_path, aligned, setting="full", identities=("p1", "p2"))
    assert reasons() == too_few | dict.fromkeys(("p0", "p3"), (6, "not among those asked for"))
    split(tmp_path, aligned, identities=2, min_photos=2)
    assert set(reasons()) == {"none"}


def test_some_are_kept_out_of_training_where_too_few_are_left_out_anyway(tmp_path: Path) -> None:
    people = {f"p{i:02d}": 6 for i in range(13)} | {"few": 3, "lone": 1}
    aligned = aligned_folder(tmp_path / "aligned", people)

    def strangers(**values: object) -> set[str]:
        used = set(split(tmp_path, aligned, **values)["identity"])
        left_out = pd.read_csv(tmp_path / "left_out.csv")
        kept = set(left_out.loc[left_out["reason"] == "kept out of training, to verify the recognisers on", "identity"])
        assert used | set(left_out["identity"]) == set(people) and not used & set(left_out["identity"])
        assert read_json(tmp_path / "split.json")["left_out"]["for_verification"] == len(kept)
        return kept

    assert strangers(strangers=1) == set(), "few can be verified on"
    two = strangers(strangers=3)
    assert len(two) == 2 and two == strangers(strangers=3) and not two & {"few", "lone"}
    assert len(strangers(strangers=9)) == 2, "a fifth of the ten who are not protected"
    assert strangers(strangers=5, max_identities=9) == set(), "four are not drawn, and few has photos enough for this"
    assert strangers(strangers=9, setting="full") == set(), "who asks for everybody's protection gets it"
    named = ("p01", "p02", "p03")
    assert not strangers(strangers=9, identities=named) & set(named)


def test_near_duplicates_are_nobody_to_verify_on(tmp_path: Path) -> None:
    """Two crops of one shot are a pair that any recogniser knows: it says nothing of what was learned."""
    aligned = aligned_folder(tmp_path / "aligned", {f"one{i}": 6 for i in range(4)}, duplicates=6)
    several = aligned_folder(tmp_path / "more", {f"two{i}": 6 for i in range(12)} | {"few": 4}, duplicates=2)
    both = [pd.read_parquet(folder / "manifest.parquet") for folder in (aligned, several)]
    write_array(aligned / "crops-b.npy", np.load(several / "crops-a.npy"))
    write_table(aligned / "manifest.parquet", pd.concat([both[0], both[1].assign(shard="crops-b.npy")], ignore_index=True))
    table = split(tmp_path, aligned, strangers=3)
    facts = read_json(tmp_path / "split.json")
    assert facts["left_out"]["for_verification"] == 1, "few and one of nine others: a fifth of them, since those of one shot are nobody"
    held_out = people_held_out(table, aligned, 0, facts["duplicate_bits"])
    assert held_out is not None
    assert sorted(np.bincount(held_out.label)) == [3, 5], "of their near-duplicates one"
    assert people_held_out(table, aligned, 0, 64) is None, "all photos of anybody are alike"


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
    [
        (10, "IDENTITIES=10: only 9 identities"),
        (
            9,
            "IDENTITIES: all 9 identities would be protected, .*; allowed are 1 to 8, or SETTING=full",
        ),
        (tuple(f"p{i}" for i in range(9)), "IDENTITIES: all 9 identities would be protected"),
        (("p1", "nobody"), r"'nobody' is not among the 9 identities.*; aligned/rejects\.csv, in the data folder, has each of their photos"),
        (("p1", "few"), r"'few' has 3 aligned photos, at least 5 are needed \(min_photos in .* sets that\); aligned/rejects\.csv"),
    ],
)
def test_impossible_requests(tmp_path: Path, identities: object, message: str) -> None:
    aligned = aligned_folder(tmp_path / "aligned", {f"p{i}": 10 for i in range(9)} | {"few": 3})
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
