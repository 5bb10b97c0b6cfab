"""Accuracy with intervals, verification, visibility, checks and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.config import EvaluateConfig
from pipeline.evaluation import verification
from pipeline.evaluation.accuracy import group_accuracy, interval_by_identity
from pipeline.evaluation.checks import arm_checks, verdict
from pipeline.evaluation.imperceptibility import change_of, summarise
from pipeline.evaluation.trials import early_stopping
from pipeline.evaluation.verification import draw_pairs, verify


def test_interval_resamples_identities_not_photos() -> None:
    # 20 identities, half of them always right: by photo the interval would be far too narrow.
    label = np.repeat(np.arange(20), 50)
    low, high = interval_by_identity(label % 2 == 0, label, resamples=1000, seed=0) or (0, 0)
    assert 0.2 < low < 0.4
    assert 0.6 < high < 0.8
    assert interval_by_identity(label % 2 == 0, label, resamples=1000, seed=0) == [low, high]
    assert interval_by_identity(label >= 0, label, resamples=100, seed=0) == [1.0, 1.0]
    assert interval_by_identity(label[:100] >= 0, label[:100], resamples=100, seed=0) is None


def test_group_record() -> None:
    history = [{"epoch": 1, "protected": 0.5}, {"epoch": 2, "protected": None}, {"epoch": 3, "protected": 0.25}]
    record = group_accuracy(history, "protected", np.array([1, 0, 0, 0], bool), np.array([0, 0, 1, 1]), ["a", "b"], resamples=100, seed=0)
    assert record is not None
    assert (record["final"], record["peak"], record["peak_epoch"]) == (0.25, 0.5, 1)
    assert record["by_epoch"] == [0.5, None, 0.25]
    assert record["per_identity"] == {"a": 0.5, "b": 0.0}
    assert group_accuracy(history, "protected", np.array([], bool), np.array([], int), [], resamples=100, seed=0) is None


def test_verification_knows_same_from_different() -> None:
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(30), 4)
    centres = generator.normal(size=(30, 64))
    embedding = centres[label] + 0.3 * generator.normal(size=(120, 64))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    good = verify(embedding.astype(np.float32), label, max_pairs=20000, seed=0)
    noise = generator.normal(size=(120, 64))
    bad = verify((noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32), label, max_pairs=20000, seed=0)
    assert good is not None
    assert bad is not None
    assert good["auc"] > 0.99
    assert good["eer"] < 0.05
    assert 0.4 < bad["auc"] < 0.6
    assert bad["tar_at_far"]["0.01"] < 0.1
    assert verify(embedding[:4].astype(np.float32), label[:4], max_pairs=100, seed=0) is None


def test_pairs_scored_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.repeat(np.arange(9), 6)
    embedding = np.random.default_rng(0).normal(size=(54, 16)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    whole = verify(embedding, label, max_pairs=500, seed=0)
    monkeypatch.setattr(verification, "PAIRS", 7)
    assert verify(embedding, label, max_pairs=500, seed=0) == whole


def test_pairs_are_capped_and_seeded() -> None:
    label = np.repeat(np.arange(40), 10)
    pairs, same = draw_pairs(label, max_pairs=1000, seed=0)
    assert len(pairs) == 1000
    assert same.sum() == 500
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert ((label[pairs[:, 0]] == label[pairs[:, 1]]) == same).all()


def test_change_is_measured() -> None:
    original = np.full((2, 32, 32, 3), 100, np.uint8)
    changed = original.copy()
    changed[1, 0, 0, 0] = 87
    measures = change_of(original, changed)
    assert measures["linf"].tolist() == [0, 13]
    assert measures["psnr_db"][0] == 100
    assert measures["psnr_db"][1] == pytest.approx(10 * np.log10(255**2 / (13**2 / 3072)))
    assert measures["ssim"][0] == pytest.approx(1, abs=1e-6)
    assert summarise(measures)["linf"] == 13


def arm_of(final: float, peak: float, others: float, *, noise: bool) -> dict[str, Any]:
    group = {"final": final, "peak": peak}
    arm: dict[str, Any] = {
        "protected": group,
        "others": {"final": others, "peak": others},
        "training": {"recipe": "r", "kind": "from scratch"},
    }
    if noise:
        arm |= {"noise": {"converged": True, "rounds": 3, "error": 0.05}, "imperceptibility": {"linf": 16}, "photos": {"linf": 16}}
    return arm


NO_TRIALS: dict[str, Any] = {"countermeasures": {}, "trainers": {}, "shares": {}, "trial_titles": {}}


def say(arms: dict[str, Any], trials: dict[str, Any] = NO_TRIALS) -> tuple[str, str]:
    config = EvaluateConfig()
    checks = arm_checks(arms, config, 16, {f"p{i}" for i in range(50)})
    return verdict(arms, checks, config, trials, identities=50, classes=150, chance=0.0067)


def judge(arms: dict[str, Any]) -> str:
    return say(arms)[1]


def test_verdicts() -> None:
    clean = arm_of(0.9, 0.9, 0.9, noise=False)
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.12, 0.89, noise=True)}) == "holds"
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.5, 0.89, noise=True)}) == "fails"
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.12, 0.7, noise=True)}) == "fails"
    assert judge({"clean": clean}) == "invalid"
    assert judge({"error-min": arm_of(0.05, 0.12, 0.89, noise=True)}) == "invalid"
    assert judge({"clean": arm_of(0.3, 0.3, 0.9, noise=False), "error-min": arm_of(0.05, 0.1, 0.9, noise=True)}) == "invalid"
    too_much = arm_of(0.05, 0.12, 0.89, noise=True) | {"photos": {"linf": 17}}
    assert judge({"clean": clean, "error-min": too_much}) == "invalid"
    other_recipe = arm_of(0.05, 0.12, 0.89, noise=True) | {"training": {"recipe": "bent", "kind": "from scratch"}}
    assert judge({"clean": clean, "error-min": other_recipe}) == "invalid"


def test_verdict_names_what_it_lost_to_and_what_it_held_against() -> None:
    arms = {"clean": arm_of(0.9, 0.9, 0.9, noise=False), "error-min": arm_of(0.05, 0.12, 0.89, noise=True)}

    def trial(clean: float, mine: float) -> dict[str, Any]:
        return {"clean": {"protected": clean, "others": 0.9}, "error-min": {"protected": mine, "others": 0.9}}

    trials = {
        "countermeasures": {"jpeg-50": trial(0.85, 0.6), "grey": trial(0.85, 0.1), "blur-9.0": trial(0.2, 0.2)},
        "trainers": {"resnet18": trial(0.8, 0.04)},
        "shares": {},
        "trial_titles": {"jpeg-50": "JPEG, quality 50", "resnet18": "ResNet-18", "grey": "greyscale"},
    }
    sentence, state = say(arms, trials)
    assert state == "holds"
    assert "Lost to: JPEG, quality 50 (60%)." in sentence
    assert "Held against: ResNet-18 (4%), greyscale (10%)." in sentence
    assert "blur" not in sentence, "where nobody learns, nothing was resisted"


def test_early_stopping_takes_the_best_epoch_for_the_protected() -> None:
    record = {"protected": {"peak": 0.4, "peak_epoch": 2}, "others": {"by_epoch": [0.2, 0.6, 0.9]}}
    assert early_stopping({"random": record}) == {"random": {"protected": 0.4, "others": 0.6}}
