"""Accuracy with intervals, verification, visibility, checks and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pipeline.config import EvaluateConfig
from pipeline.evaluation import verification
from pipeline.evaluation.accuracy import group_accuracy, interval_by_identity, interval_of_few
from pipeline.evaluation.checks import arm_checks
from pipeline.evaluation.imperceptibility import change_of, similarity, summarise
from pipeline.evaluation.trials import early_stopping
from pipeline.evaluation.verdict import verdict
from pipeline.evaluation.verification import auc_interval, draw_pairs, verify, verify_people


def test_interval_resamples_identities_not_photos() -> None:
    # 20 identities, half of them always right: by photo the interval would be far too narrow.
    label = np.repeat(np.arange(20), 50)
    low, high = interval_by_identity(label % 2 == 0, label, resamples=1000, seed=0) or (0, 0)
    assert 0.2 < low < 0.4
    assert 0.6 < high < 0.8
    assert interval_by_identity(label % 2 == 0, label, resamples=1000, seed=0) == [low, high]
    assert interval_by_identity(label >= 0, label, resamples=100, seed=0) == [0.8316, 1.0], "Clopper and Pearson's of 20 in 20"
    assert interval_by_identity(label[:950] % 2 == 0, label[:950], resamples=100, seed=0) is None, "19 people are too few"


@pytest.mark.parametrize("true", [0.01, 0.05, 0.15, 0.9])
def test_an_interval_holds_the_truth_in_nineteen_of_twenty_studies(true: float) -> None:
    # 50 people of whom some are never named and some often, as recognisers do; what a bootstrap alone misses in a third of studies at 1 %.
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(50), 4)
    missed = 0
    for _ in range(100):
        right = generator.random(200) < generator.beta(2 * true, 2 * (1 - true), 50)[label]
        low, high = interval_by_identity(right, label, resamples=200, seed=0) or (0, 0)
        missed += not low <= true <= high
    assert missed <= 10


def test_an_interval_of_one_photo_a_person_is_the_exact_one() -> None:
    from scipy.stats import binomtest

    hits = np.arange(40) < 3
    low, high = interval_of_few(hits.astype(float), np.ones(40), people=40)
    exact = binomtest(3, 40).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.01)
    # Several photos of people who are named all or never are no more than their people.
    assert interval_of_few(5.0 * hits, np.full(40, 5.0), people=40) == pytest.approx((low, high), abs=0.01)


def test_group_record() -> None:
    history = [{"epoch": 1, "protected": 0.5}, {"epoch": 2, "protected": None}, {"epoch": 3, "protected": 0.25}]
    record = group_accuracy(history, "protected", np.array([1, 0, 0, 0], bool), np.array([0, 0, 1, 1]), ["a", "b"], resamples=100, seed=0)
    assert record is not None
    assert (record["final"], record["peak"], record["peak_epoch"]) == (0.25, 0.5, 1)
    assert record["by_epoch"] == [0.5, None, 0.25]
    assert record["per_identity"] == {"a": 0.5, "b": 0.0}
    three = group_accuracy(history, "protected", np.array([1, 0, 0], bool), np.array([0, 1, 1]), ["a", "b"], resamples=100, seed=0)
    assert three is not None and three["test_photos"] == {"a": 1, "b": 2}, "whose accuracies weigh how much"
    assert group_accuracy(history, "protected", np.array([], bool), np.array([], int), [], resamples=100, seed=0) is None


def test_verification_knows_same_from_different() -> None:
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(30), 4)
    centres = generator.normal(size=(30, 64))
    embedding = centres[label] + 0.3 * generator.normal(size=(120, 64))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    good = verify(embedding.astype(np.float32), label, of="", max_pairs=20000, seed=0)
    noise = generator.normal(size=(120, 64))
    bad = verify((noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32), label, of="", max_pairs=20000, seed=0)
    assert good is not None
    assert bad is not None
    assert good["auc"] > 0.99
    assert good["eer"] < 0.05
    assert 0.4 < bad["auc"] < 0.6
    assert bad["tar_at_far"]["0.01"] < 0.1
    assert verify(embedding[:4].astype(np.float32), label[:4], of="", max_pairs=100, seed=0) is None
    assert good["identities"] == 30
    for one in (good, bad):
        low, high = one["auc_ci95"]
        assert low <= one["auc"] <= high
    assert bad["auc_ci95"][1] - bad["auc_ci95"][0] > good["auc_ci95"][1] - good["auc_ci95"][0]


def test_the_interval_of_an_auc_resamples_people_not_pairs() -> None:
    # Half of the people are always told apart, half never: so much depends on who is drawn, however many pairs there are.
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(20), 200)
    other = np.where(np.arange(4000) % 2, identity, generator.permutation(identity))
    same = identity == other
    score = np.where(identity < 10, same, generator.random(4000))
    found = auc_interval(score, same, np.stack([identity, other], 1), seed=0)
    assert found is not None and found[1] - found[0] > 0.1
    assert auc_interval(score, same, np.stack([identity % 19, other % 19], 1), seed=0) is None, "19 people are too few"


def test_people_never_trained_on_come_first_and_groups_are_apart() -> None:
    generator = np.random.default_rng(0)

    def people(count: int, spread: float) -> np.ndarray:
        embedding = generator.normal(size=(count, 32))[np.repeat(np.arange(count), 4)] + spread * generator.normal(size=(4 * count, 32))
        return (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).astype(np.float32)

    label, protected = np.repeat(np.arange(60), 4), np.repeat([True, False], [120, 120])
    embedding = np.concatenate([people(30, 100.0), people(30, 0.1)])  # the protected are not told apart, the others are
    held_out = people(25, 0.5)
    found = verify_people(embedding, label, protected, held_out, np.repeat(np.arange(25), 4), max_pairs=10000, seed=0)
    assert found is not None
    assert (found["identities"], found["of"]) == (25, "people never trained on")
    assert found["groups"]["protected"]["auc"] < 0.6 and found["groups"]["others"]["auc"] > 0.99
    assert "roc" in found and "roc" not in found["groups"]["others"]
    few = verify_people(embedding, label, protected, held_out[:76], np.repeat(np.arange(19), 4), max_pairs=10000, seed=0)
    assert few is not None and few["identities"] == 60, "19 strangers are too few"
    nobody = np.empty((0, 32), np.float32)
    full = verify_people(embedding[:120], label[:120], protected[:120], nobody, np.empty(0, int), max_pairs=10000, seed=0)
    assert full is not None and full["groups"]["others"] is None


def test_pairs_scored_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.repeat(np.arange(9), 6)
    embedding = np.random.default_rng(0).normal(size=(54, 16)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    whole = verify(embedding, label, of="test photos", max_pairs=500, seed=0)
    monkeypatch.setattr(verification, "PAIRS", 7)
    assert verify(embedding, label, of="test photos", max_pairs=500, seed=0) == whole


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


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (39, 59, 40, 60), (12, 3, 13, 4), (4, 5, 33, 50), (0, 0, 40, 60)])
def test_similarity_is_measured_where_something_changed_and_is_that_of_the_whole(box: tuple[int, int, int, int]) -> None:
    random = np.random.default_rng(0)
    before = random.integers(0, 256, (40, 60, 3), np.uint8)
    after, (top, left, bottom, right) = before.copy(), box
    after[top:bottom, left:right] ^= random.integers(1, 64, (bottom - top, right - left, 3), np.uint8)
    whole: Any = structural_similarity(
        before.astype(np.float32), after.astype(np.float32),
        data_range=255.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert similarity(before, after) == pytest.approx(float(whole), abs=1e-7)


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


def trials_of(**sections: Any) -> dict[str, Any]:
    return {"countermeasures": {}, "trainers": {}, "shares": {}, "trial_titles": {}} | sections


def say(arms: dict[str, Any], trials: dict[str, Any] | None = None, *, identities: int = 50) -> dict[str, Any]:
    config = EvaluateConfig()
    checks = arm_checks(arms, config, 16, {f"p{i}" for i in range(identities)})
    return verdict(arms, checks, config, trials or trials_of(), identities=identities, classes=150)


def judge(arms: dict[str, Any], **values: Any) -> str:
    return say(arms, **values)["verdict_state"]


def test_verdicts() -> None:
    clean = arm_of(0.9, 0.9, 0.9, noise=False)
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.12, 0.89, noise=True)}) == "holds"
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.5, 0.89, noise=True)}) == "fails"
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.12, 0.7, noise=True)}) == "fails"
    assert judge({"clean": clean, "error-min": arm_of(0.05, 0.12, 0.86, noise=True)}) == "holds", "0.9 - 0.86 is a little above 0.04"
    assert judge({"clean": arm_of(0.9, 0.9, 0.6, noise=False), "error-min": arm_of(0.05, 0.12, 0.9, noise=True)}) == "holds"
    assert judge({"clean": clean}) == "invalid"
    other_recipe = arm_of(0.05, 0.12, 0.89, noise=True) | {"training": {"recipe": "bent", "kind": "from scratch"}}
    assert judge({"clean": clean, "error-min": other_recipe}) == "invalid"


def test_why_it_fails_is_told_apart() -> None:
    def judged(final: float, peak: float, others: float) -> dict[str, Any]:
        return say({"clean": arm_of(0.9, 0.9, 0.9, noise=False), "error-min": arm_of(final, peak, others, noise=True)})

    assert judged(0.5, 0.6, 0.9)["fails_by"] == "naming"
    assert judged(0.05, 0.5, 0.9)["fails_by"] == "peak"
    assert judged(0.05, 0.1, 0.7)["fails_by"] == "others"
    assert judged(0.05, 0.1, 0.9)["fails_by"] is None
    assert "but other people’s accuracy falls by 20.0 points (4 are allowed)" in judged(0.05, 0.1, 0.7)["verdict"]


def test_where_everybody_is_protected_the_recogniser_must_not_tell_people_apart() -> None:
    def judged(auc: float, named: float = 0.0) -> dict[str, Any]:
        clean, mine = arm_of(0.9, 0.9, 0.9, noise=False), arm_of(named, 0.05, 0.0, noise=True)
        return say({
            name: arm | {"others": None, "verification": {"auc": found}}
            for name, arm, found in (("clean", clean, 0.9), ("error-min", mine, auc))
        })  # fmt: skip

    assert (judged(0.7)["verdict_state"], judged(0.7)["fails_by"]) == ("holds", None), "at the limit, half of the lead over a guess"
    assert (judged(0.71)["verdict_state"], judged(0.71)["fails_by"]) == ("fails", "verification")
    why = "but the recogniser tells people apart all the same (AUC 0.710 for 0.900; at most 0.700 is allowed)"
    assert f"nobody is named after training from scratch on unprocessed crops, {why}" in judged(0.71)["verdict"]
    assert f"2.0% of photos are named after training from scratch on unprocessed crops, {why}" in judged(0.71, 0.02)["verdict"]


def test_a_difference_at_its_limit_is_within_it() -> None:
    """Fractions of photos and rounded AUCs have no exact differences: 0.97 - 0.95 is a little above 0.02."""

    def judged(auc: float) -> dict[str, Any]:
        arms = {"clean": arm_of(0.9, 0.9, 0.9, noise=False), "error-min": arm_of(0.05, 0.1, 0.9, noise=True)}
        for name, found in (("clean", 0.97), ("error-min", auc)):
            arms[name]["verification"] = {"groups": {"others": {"auc": found}}}
        return say(arms)

    assert judged(0.95)["fails_by"] is None
    assert judged(0.9499)["fails_by"] == "others"


def test_what_makes_a_result_invalid_is_said_instead_of_its_numbers() -> None:
    clean, good = arm_of(0.9, 0.9, 0.9, noise=False), arm_of(0.0512, 0.1234, 0.89, noise=True)
    unconverged = good | {"noise": {"converged": False, "rounds": 9, "error": 0.4}}
    for arms, identities, why in (
        ({"error-min": good}, 50, "no clean arm"),
        ({"clean": arm_of(0.3, 0.3, 0.9, noise=False), "error-min": good}, 50, "the check “clean arm learned” failed"),
        ({"clean": clean, "error-min": unconverged}, 50, "the check “error-min: noise converged” failed (did not converge in 9 rounds"),
        (
            {"clean": clean, "error-min": good | {"photos": {"linf": 17}}},
            50,
            "the check “error-min: epsilon kept on disk” failed (largest change 17/255",
        ),
        ({"clean": clean, "error-min": good}, 19, "the check “enough identities for intervals” failed (19 protected"),
    ):
        found = say(arms, identities=identities)
        assert found["verdict_state"] == "invalid" and why in found["verdict"], found
        assert "5.1%" not in found["verdict"] and "12.3%" not in found["verdict"]
    # Another arm's noise that did not converge is that arm's matter.
    assert judge({"clean": clean, "error-min": good, "error-min-samplewise": unconverged}) == "holds"


def trial(clean: float, mine: float, peak: float | None = None) -> dict[str, Any]:
    return {"clean": {"protected": clean, "others": 0.9}, "error-min": {"protected": mine, "others": 0.9, "protected_peak": peak or mine}}


def test_verdict_names_what_it_lost_to_and_what_it_held_against() -> None:
    arms = {"clean": arm_of(0.9, 0.9, 0.9, noise=False), "error-min": arm_of(0.05, 0.12, 0.89, noise=True)}
    countermeasures = {
        "early-stopping": {"clean": {"protected": 0.9, "others": 0.9}, "error-min": {"protected": 0.12, "others": 0.7}},
        "jpeg-50": trial(0.85, 0.6),
    }
    countermeasures |= {"grey": trial(0.85, 0.1), "blur-9.0": trial(0.15, 0.15), "mixup": trial(0.8, 0.1, 0.33)}
    titles = {"jpeg-50": "JPEG, quality 50", "fine-tune": "fine-tuning", "grey": "greyscale", "early-stopping": "early stopping"}
    titles |= {"mixup": "MixUp", "share-60": "only 60% of each person’s photos protected"}
    trials = trials_of(
        countermeasures=countermeasures,
        trainers={"fine-tune": trial(0.8, 0.2), "resnet18": trial(0.8, 0.04)},
        shares={"share-60": {"error-min": {"protected": 0.5, "others": 0.9}}},
        trial_titles=titles,
    )
    found = say(arms, trials)
    assert found["verdict_state"] == "holds"
    assert found["verdict"].startswith(
        "Holds against training from scratch on unprocessed crops; lost to JPEG, quality 50 (60.0%), only 60% of each person’s photos "
        "protected (50.0%), MixUp (33.0% at its best epoch) and 1 more; held against early stopping (12.0%, when others are named on "
        "70.0%), greyscale (10.0%) and resnet18 (4.0%). "
    ), found["verdict"]
    assert "blur" not in found["verdict"], "where nobody learns, nothing was resisted"
    assert found["silent"] == [{"trial": "blur-9.0", "title": "blur-9.0", "clean": 0.15}]
    undone = say(arms, trials_of(countermeasures={"adversarial-4": trial(0.45, 0.4), "blur-9.0": trial(0.45, 0.1)}))
    assert [row["trial"] for row in undone["lost_to"]] == ["adversarial-4"], "a weak clean arm hides no loss"
    assert [row["trial"] for row in undone["silent"]] == ["blur-9.0"], "and proves no hold"
    elsewhere = say(arms, trials_of(countermeasures={"grey": {"clean": {"protected": 0.8}}}))
    assert "No other trainer or countermeasure was tried." in elsewhere["verdict"], "not on the arm with noise"
    spared = say(arms, trials_of(countermeasures={"ueraser": {"clean": {"protected": 0.0}}}))
    assert spared["silent"] == [{"trial": "ueraser", "title": "ueraser", "clean": 0.0}], "not tried with noise, and the report says why"
    assert "taught a recogniser too little to say anything." in spared["verdict"]
    collapsed = {"clean": {"protected": 0.9, "others": 0.9}, "error-min": {"protected": 0.0, "others": 0.1, "protected_peak": 0.05}}
    found_nothing = say(arms, trials_of(trainers={"resnet18": collapsed}))
    assert found_nothing["silent"] == [{"trial": "resnet18", "title": "resnet18", "clean": 0.9, "others": 0.1}], "it names nobody at all"
    collapsed["error-min"]["protected"] = 0.5
    assert [row["trial"] for row in say(arms, trials_of(trainers={"resnet18": collapsed}))["lost_to"]] == ["resnet18"]
    costly = {"clean": {"protected": 0.9, "others": 0.9}, "error-min": {"protected": 0.02, "others": 0.8}}
    assert "held against resnet18 (2.0%, when others are named on 80.0%)" in say(arms, trials_of(trainers={"resnet18": costly}))["verdict"]
    shares = trials_of(shares={"share-60": {"error-min": {"protected": 0.1, "others": 0.9}}})
    assert "No other trainer or countermeasure was tried." in say(arms, shares)["verdict"], "how much is published is the owner's matter"
    alone = trials_of(countermeasures={"grey": {"error-min": {"protected": 0.1}}, "recropped": {"error-min": {"protected": 0.1}}})
    assert [row["trial"] for row in say(arms, alone)["silent"]] == ["grey"]
    assert [row["trial"] for row in say(arms, alone)["held_against"]] == ["recropped"], "of the clean arm it is the study itself"
    assert [row["trial"] for row in found["lost_to"]] == ["jpeg-50", "share-60", "mixup", "fine-tune"]
    many = {f"jpeg-{quality}": trial(0.9, quality / 100) for quality in range(20, 60)}
    assert "and 37 more" in say(arms, trials_of(countermeasures=many))["verdict"]


def test_the_best_epoch_is_a_countermeasure_of_its_own() -> None:
    clean = arm_of(0.9, 0.9, 0.9, noise=False)
    stopped = {"early-stopping": {"clean": {"protected": 0.9}, "error-min": {"protected": 0.25}}}
    titled = {"early-stopping": "early stopping"}
    found = say(
        {"clean": clean, "error-min": arm_of(0.05, 0.25, 0.89, noise=True)}, trials_of(countermeasures=stopped, trial_titles=titled)
    )
    assert found["verdict_state"] == "fails"
    assert "at its last epoch only (named on 25.0% at its best); lost to early stopping (25.0%)." in found["verdict"]
    assert "No other trainer or countermeasure was tried." in found["verdict"]
    stopped = {"early-stopping": {"clean": {"protected": 0.9}, "error-min": {"protected": 0.18}}}
    found = say({"clean": clean, "error-min": arm_of(0.17, 0.18, 0.89, noise=True)}, trials_of(countermeasures=stopped))
    assert (found["fails_by"], found["held_against"]) == ("naming", []), "stopping early names more than what it lost to"


def test_others_must_be_verified_as_before_and_everybody_less_well_in_the_full_setting() -> None:
    def verified(arm: dict[str, Any], others: float | None, everyone: float) -> dict[str, Any]:
        return arm | {"verification": {"auc": everyone, "groups": {"others": None if others is None else {"auc": others}}}}

    clean = verified(arm_of(0.9, 0.9, 0.9, noise=False), 0.97, 0.95)
    kept = say({"clean": clean, "error-min": verified(arm_of(0.05, 0.12, 0.89, noise=True), 0.96, 0.94)})
    assert kept["verdict_state"] == "holds" and "AUC" not in kept["verdict"]
    fallen = say({"clean": clean, "error-min": verified(arm_of(0.05, 0.12, 0.89, noise=True), 0.94, 0.94)})
    assert fallen["verdict_state"] == "fails" and "verification of other people gets worse" in fallen["verdict"]
    nobody_else = {"others": None}
    full = {"clean": clean | nobody_else, "error-min": verified(arm_of(0.05, 0.12, 0.9, noise=True), None, 0.61) | nobody_else}
    assert "comparing two faces, the recogniser reaches an AUC of 0.610 (0.950 without)" in say(full)["verdict"]


def test_a_recogniser_that_searches_better_than_it_names_is_told_of() -> None:
    def searched(arm: dict[str, Any], rank1: float | None) -> dict[str, Any]:
        return arm | {"identification": {"own": {"rank1": rank1}}}

    clean, arm = searched(arm_of(0.9, 0.9, 0.9, noise=False), 0.925), arm_of(0.05, 0.12, 0.89, noise=True)
    found = say({"clean": clean, "error-min": searched(arm, 0.545)})["verdict"]
    assert "its recogniser puts the right person first in 54.5% of searches (92.5% without)." in found
    for rank1 in (0.1, None):
        assert "face search" not in say({"clean": clean, "error-min": searched(arm, rank1)})["verdict"]


def test_early_stopping_takes_the_best_epoch_for_the_protected() -> None:
    record = {"protected": {"peak": 0.4, "peak_epoch": 2}, "others": {"by_epoch": [0.2, 0.6, 0.9]}}
    assert early_stopping({"random": record}) == {"random": {"protected": 0.4, "others": 0.6}}
