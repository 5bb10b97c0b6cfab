"""The ROC that the report draws, against hand-counted points and scikit-learn's curve."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.verification import ROC_POINTS, roc_measures, roc_points, verify


def test_points_counted_by_hand() -> None:
    # Four impostors at .1 .2 .3 .4; with k of them accepted the threshold lies above the next one.
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.05, 0.25, 0.35, 0.9])
    same = np.arange(8) >= 4
    assert roc_points(score, same) == {"far": [0.25, 0.5, 0.75, 1.0], "tar": [0.5, 0.75, 0.75, 1.0]}
    # Accepting none but the tied impostor would need a threshold above the tie: nobody at the tie is accepted either.
    tied = roc_points(np.array([0.5, 0.5, 0.1, 0.5, 0.9]), np.array([False, False, False, True, True]))
    assert tied["tar"] == [0.5, 1.0, 1.0]


def test_curve_is_short_monotone_and_scikit_learns() -> None:
    from sklearn.metrics import roc_curve

    generator = np.random.default_rng(0)
    same = np.arange(60_000) < 20_000
    score = generator.normal(same * 1.5, 1)
    found = roc_points(score, same)
    far, tar = np.array(found["far"]), np.array(found["tar"])
    assert 40 < len(far) <= ROC_POINTS and len(tar) == len(far)
    assert (far[0], far[-1], tar[-1]) == (2.5e-5, 1.0, 1.0)
    assert (np.diff(far) > 0).all() and (np.diff(tar) >= 0).all()
    false_accept, true_accept, _ = roc_curve(same, score, drop_intermediate=False)
    for rate, reached in zip(far, tar, strict=True):
        assert reached == pytest.approx(true_accept[false_accept <= rate * 1.0001].max(), abs=1e-4 + 5e-4)
    assert roc_measures(score, same)["auc"] == pytest.approx(0.8556, abs=0.01)  # Φ(1.5/√2)


def test_verify_carries_the_curve() -> None:
    embedding = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    found = verify(embedding, np.repeat(np.arange(10), 4), of="", max_pairs=10_000, seed=0)
    assert found is not None
    assert set(found) == {"auc", "auc_ci95", "eer", "tar_at_far", "pairs", "identities", "of", "roc"}
    impostors = 40 * 39 // 2 - 10 * 6
    assert found["roc"]["far"][0] == pytest.approx(1 / impostors, rel=1e-3)
