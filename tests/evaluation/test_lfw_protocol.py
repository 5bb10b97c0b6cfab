"""LFW's protocol on scores and photos made up so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import write_array, write_table
from pipeline.errors import StageError
from pipeline.evaluation.lfw_protocol import best_threshold, embed_crops, embedder_of, lfw_result, pair_rows, verify_lfw
from pipeline.models.recognisers import make_recogniser
from pipeline.photos.lfw import Pair, read_pairs
from pipeline.runtime import Runtime

FOLD = np.repeat(np.arange(10), 40)
SAME = np.tile(np.repeat([True, False], 20), 10)


def test_perfect_and_shuffled_scores() -> None:
    score = SAME + np.random.default_rng(0).uniform(-0.4, 0.4, 400)
    found = lfw_result(score, SAME, FOLD)
    assert found is not None
    assert (found["accuracy"], found["standard_error"], found["auc"], found["eer"]) == (1.0, 0.0, 1.0, 0.0)
    assert found["tar_at_far"] == {"0.01": 1.0, "0.001": None}, "200 different pairs say nothing of one in a thousand"
    assert (found["pairs"], found["pairs_left_out"]) == (400, 0)
    guessed = lfw_result(np.random.default_rng(0).permutation(score), SAME, FOLD)
    assert guessed is not None
    assert 0.4 < guessed["accuracy"] < 0.6


def test_threshold_has_most_right_answers_and_is_the_middle_one() -> None:
    score = np.array([0.1, 0.3, 0.5, 0.9])
    assert best_threshold(score, np.array([False, False, True, True])) == pytest.approx(0.4)
    # 0.15, 0.35 and 0.55 are each right on four of six.
    assert best_threshold(np.arange(1, 7) / 10, np.tile([False, True], 3)) == pytest.approx(0.35)
    assert best_threshold(score, np.ones(4, bool)) < 0.1
    assert best_threshold(score, np.zeros(4, bool)) > 0.9
    # Equal scores cannot be parted, however their answers lie: no threshold is 0.5 itself.
    tied = best_threshold(np.array([0.5, 0.5, 0.5, 0.2]), np.array([False, True, True, False]))
    assert tied == pytest.approx(0.35)


def test_threshold_is_not_chosen_on_the_tested_fold() -> None:
    # Fold 1's scores are 10 higher: its own best threshold would be right on every pair, fold 0's is wrong on half of them.
    score = np.array([0.0, 1.0, 10.0, 11.0])
    same = np.array([False, True, False, True])
    found = lfw_result(score, same, np.array([0, 0, 1, 1]))
    assert found is not None
    assert found["accuracy"] == 0.5


def test_standard_error_is_of_the_folds_mean() -> None:
    # Fold 0 errs on one of four pairs, the others on none: folds score .75, 1, 1, 1.
    same = np.tile([True, True, False, False], 4)
    score = np.where(same, 1.0, 0.0)
    score[0] = -1.0
    found = lfw_result(score, same, np.repeat(np.arange(4), 4))
    assert found is not None
    assert found["accuracy"] == 0.9375
    assert found["standard_error"] == pytest.approx(0.125 / 2)


def test_pairs_without_a_score_are_left_out_and_counted() -> None:
    score = SAME.astype(float)
    score[:3] = np.nan
    found = lfw_result(score, SAME, FOLD)
    assert found is not None
    assert (found["pairs"], found["pairs_left_out"], found["accuracy"]) == (397, 3, 1.0)
    assert lfw_result(np.full(400, np.nan), SAME, FOLD) is None
    assert lfw_result(score[SAME], SAME[SAME], FOLD[SAME]) is None
    assert lfw_result(score[FOLD == 3], SAME[FOLD == 3], FOLD[FOLD == 3]) is None
    with pytest.raises(ValueError, match="one length"):
        lfw_result(score[1:], SAME, FOLD)


def test_pairs_find_their_photos_by_name() -> None:
    folds = [[Pair("A/A_0001.jpg", "A/A_0002.jpg", True)], [Pair("A/A_0001.jpg", "B_C/B_C_0010.jpg", False)]]
    rows, same, fold = pair_rows(folds, ["B_C/B_C_0010.png", "A/A_0001.jpg"])
    assert rows.tolist() == [[1, -1], [1, 0]]
    assert (same.tolist(), fold.tolist()) == ([True, False], [0, 1])
    with pytest.raises(StageError, match="same name"):
        pair_rows(folds, ["A/A_0001.jpg", "B/A_0001.png"])


def grey_level(crops: np.ndarray) -> np.ndarray:
    """An embedding that knows a crop's brightness on the left and on the right."""
    half = crops.shape[2] // 2
    return np.stack([crops[:, :, :half].mean((1, 2, 3)), crops[:, :, half:].mean((1, 2, 3))], 1).astype(np.float32)


def test_from_pairs_file_and_crops_to_figures(tmp_path: Path) -> None:
    # A is bright on the left, B on the right; B's second photo was not aligned, and no pair names Z.
    (tmp_path / "pairs.txt").write_text("2\t1\nA 1 2\nA 1 B 1\nA 2 3\nA 3 B 2\n")
    crops = np.zeros((4, 112, 112, 3), np.uint8)
    crops[:3, :, :56] = np.array([200, 150, 250])[:, None, None, None]
    crops[3, :, 56:] = 200
    write_array(tmp_path / "crops-a.npy", crops[[3, 0]])
    write_array(tmp_path / "crops-b.npy", crops[[2, 1]])
    write_array(tmp_path / "crops-z.npy", crops[[0]])
    photos = ["Z/Z_0001.jpg", "B/B_0001.jpg", "A/A_0001.jpg", "A/A_0003.jpg", "A/A_0002.jpg"]
    shards = ["crops-z.npy"] + ["crops-a.npy"] * 2 + ["crops-b.npy"] * 2
    write_table(tmp_path / "manifest.parquet", pd.DataFrame({"photo": photos, "shard": shards, "row": [0, 0, 1, 0, 1]}))
    found = verify_lfw(tmp_path / "pairs.txt", tmp_path, grey_level)
    assert found is not None
    assert (found["pairs"], found["pairs_left_out"], found["auc"]) == (3, 1, 1.0)
    (tmp_path / "crops-b.npy").unlink()
    with pytest.raises(StageError, match=r"crops-b\.npy"):
        verify_lfw(tmp_path / "pairs.txt", tmp_path, grey_level)


def test_own_recogniser_as_embedder(cpu: Runtime) -> None:
    model = make_recogniser(classes=2, input_size=80, dropout=0.0, normalise=True, seed=0, model="mobilefacenet")
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    found = embed_crops(crops, embedder_of(model, cpu))
    assert found.shape == (3, 512) and found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_all_pairs_of_lfw_are_found_among_its_photos(shared: Path) -> None:
    root = shared / "data" / "lfw-deepfunneled"
    if not root.is_dir():
        pytest.skip(f"no LFW at {root}")
    folds = read_pairs(root / "pairs.txt")
    named = sorted({photo for fold in folds for pair in fold for photo in (pair.first, pair.second)})
    rows, same, fold = pair_rows(folds, named)
    assert rows.min() == 0 and len(rows) == 6000 and same.sum() == 3000
    assert np.bincount(fold).tolist() == [600] * 10
    assert named[rows[0, 0]] == "Abel_Pacheco/Abel_Pacheco_0001.jpg"
