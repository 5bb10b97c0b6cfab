"""Several seeds joined into one set of metrics."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import write_text
from pipeline.errors import RequestError, StageError
from pipeline.evaluation.accuracy import group_accuracy
from pipeline.evaluation.seeds import interval_by_seed_and_identity, join_group, join_seeds, mean_of
from pipeline.evaluation.summary import configs, seconds
from pipeline.report.render import build_page, content_of
from pipeline.report.table import metrics_frame
from tests.report.sample import seeded_metrics as seeded


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are asked for their width in tests of their own; everywhere else they only cost time."""
    monkeypatch.setattr("pipeline.evaluation.seeds.RESAMPLES", 200)


def test_means_deviations_and_identities_of_every_seed() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.03), seeded(2, 0.06)]
    before = copy.deepcopy(runs)
    joined = join_seeds(runs, name="three")
    assert runs == before
    mine = joined["arms"]["error-min"]["protected"]
    assert mine["final"] == pytest.approx(0.0375 + 0.03, abs=1e-4)
    assert mine["sd"] == pytest.approx(0.03, abs=1e-4)
    assert mine["by_seed"] == [run["arms"]["error-min"]["protected"]["final"] for run in runs]
    assert mine["by_epoch"][0] == pytest.approx(0.018 + 0.03, abs=1e-4)
    assert len(mine["per_identity"]) == len(mine["test_photos"]) == 150
    assert joined["provenance"]["seeds"] == [0, 1, 2]
    assert joined["trainers"]["resnet18"]["clean"]["protected"] == 0.7011
    assert len(joined["checks"]) == 9
    both = {row["group"]: row["identities"] for row in joined["paired"] if (row["arm"], row["against"]) == ("error-min", "clean")}
    assert both == {"protected": 150, "others": 300}, "people of all seeds are compared"
    assert {row["p"] for row in joined["paired"]} == {None}, "three seeds are too few"
    found = {one["claim"]: one["holds"] for one in joined["orderings"]}
    assert found["error-min leaves at most half of the clean accuracy"] and found["random peaks far above error-min"]
    assert joined["verdict"].startswith("Holds against training from scratch on unprocessed crops, over 3 seeds; lost to JPEG, quality 50")
    assert "6.8% ± 3.0%" in joined["verdict"]
    others, before = (joined["arms"][arm]["others"] for arm in ("error-min", "clean"))
    assert f"The others are named on {others['final']:.1%} ± 0.0% (without {before['final']:.1%} ± 0.0%)." in joined["verdict"]
    searched, unprotected = (joined["arms"][arm]["identification"]["own"]["rank1"] for arm in ("error-min", "clean"))
    assert f"puts the right person first in {searched:.1%} of searches ({unprotected:.1%} without)." in joined["verdict"]
    assert joined["lost_to"][0]["trial"] == "jpeg-50"
    assert joined["countermeasures"]["jpeg-50"]["error-min"]["protected_sd"] == 0
    page = build_page(content_of(joined))
    assert "± 3.0" in page


def test_a_measure_that_the_first_seed_lacks_is_that_of_the_others() -> None:
    assert mean_of([{"rank1": 0.5}, {"rank1": 0.6, "rank5": 0.9}, None]) == {"rank1": 0.55, "rank5": 0.9}


def test_a_measure_that_is_new_is_a_mean_too_and_not_the_first_seeds() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.03)]
    for run, value in zip(runs, (0.0, 0.5), strict=True):
        run["arms"]["error-min"] |= {"confidence": {"protected": value}, "margin": value}
    joined = join_seeds(runs, name="two")["arms"]["error-min"]
    assert joined["confidence"] == {"protected": 0.25} and joined["margin"] == 0.25
    assert joined["noise"] == runs[0]["arms"]["error-min"]["noise"]


def test_reports_of_an_earlier_version_are_joined() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.03)]
    for run in runs:
        run["provenance"]["config"]["evaluate"] = {"protected_at_most": 0.16, "real_faces": False}
    assert "over 2 seeds" in join_seeds(runs, name="two")["verdict"]


def test_an_interval_that_is_not_joined_is_said_to_be_in_each_report() -> None:
    tables = build_page(content_of(join_seeds([seeded(0, 0.0), seeded(1, 0.03)], name="two")))
    for key in ("verification", "identification"):
        (table,) = re.findall(rf'<table id="{key}".*?</table>', tables, re.DOTALL)
        assert "in each seed’s report" in table


def test_every_measure_is_of_all_seeds() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.0)]
    other = runs[1]["arms"]["error-min"]
    other["verification"]["groups"]["others"]["auc"] += 0.01
    other["verification"]["tar_at_far"]["0.01"] = None
    other["identification"]["own"]["rank1"] += 0.1
    other["imperceptibility"] |= {"linf": 15, "psnr_db": 27.83}
    other["utility"]["detector"]["found"] = 0.9733
    mine, first = join_seeds(runs, name="two")["arms"]["error-min"], runs[0]["arms"]["error-min"]
    assert mine["verification"]["groups"]["others"]["auc"] == pytest.approx(first["verification"]["groups"]["others"]["auc"] + 0.005)
    assert mine["verification"]["tar_at_far"]["0.01"] == first["verification"]["tar_at_far"]["0.01"], "measured in one seed only"
    assert mine["identification"]["own"]["rank1"] == pytest.approx(first["identification"]["own"]["rank1"] + 0.05)
    assert mine["identification"]["own"]["rank1_ci95"] is None, "intervals have no mean"
    assert (mine["imperceptibility"]["linf"], mine["imperceptibility"]["psnr_db"]) == (16, 28.83)
    assert mine["utility"]["detector"]["found"] == pytest.approx(0.9833)
    assert mine["utility"]["match"]["pretrained"] is None


def test_an_invalid_seed_leaves_no_number_in_the_verdict() -> None:
    invalid = seeded(1, 0.0) | {"verdict_state": "invalid", "verdict": "No claim: clean arm learned failed."}
    joined = join_seeds([seeded(0, 0.0), invalid], name="two")
    assert joined["verdict_state"] == "invalid" and joined["lost_to"] == []
    assert joined["verdict"] == "No claim: 1 of 2 seeds are invalid. Seed 1: No claim: clean arm learned failed."
    bad_arm = seeded(1, 0.0)
    bad_arm["arms"]["random"]["invalid"] = ["epsilon kept on disk: largest change 17/255 of 16/255"]
    joined = join_seeds([seeded(0, 0.0), bad_arm], name="two")
    assert joined["arms"]["random"]["invalid"] == ["seed 1: epsilon kept on disk: largest change 17/255 of 16/255"]
    assert not any("random" in (row["arm"], row["against"]) for row in joined["paired"])


def test_one_failing_seed_is_a_failure() -> None:
    fair = seeded(0, 0.0) | {"fails_by": None}
    costly = seeded(1, 0.3) | {"verdict_state": "fails", "fails_by": "others"}
    named = seeded(2, 0.3) | {"verdict_state": "fails", "fails_by": "naming"}
    joined = join_seeds([fair, costly], name="two")
    assert (joined["verdict_state"], joined["fails_by"]) == ("fails", "others")
    assert join_seeds([costly, named, fair], name="three")["fails_by"] == "naming", "the worst of any seed"
    assert join_seeds([fair, seeded(1, 0.0)], name="two")["fails_by"] is None
    assert join_seeds([costly, seeded(0, 0.0) | {"verdict_state": "invalid"}], name="two")["fails_by"] is None


def test_what_one_seed_s_verdict_says_the_joined_one_says_too() -> None:
    costly: list[dict[str, Any]] = [seeded(seed, 0.0) | {"verdict_state": "fails", "fails_by": "others"} for seed in (0, 1)]
    for run in costly:
        run["arms"]["error-min"]["noise"]["against"] = [{"name": "known.onnx", "sha256": "0"}]
    said = join_seeds(costly, name="two")["verdict"]
    assert said.startswith("Does not hold, over 2 seeds, though few are named after training from scratch on unprocessed crops; lost to")
    assert "The cloak was made against known: what it does to these says little of another recogniser." in said
    assert "was tried" not in said
    for run in costly:
        run |= {"lost_to": [], "held_against": [], "silent": []}
    assert join_seeds(costly, name="two")["verdict"].endswith("No other trainer or countermeasure was tried.")
    for run in costly:
        for arm in ("clean", "error-min"):
            run["arms"][arm] |= {"others": None, "lfw": None}
            run["arms"][arm]["verification"] = run["arms"][arm]["verification"] | {"auc": 0.9 if arm == "clean" else 0.6, "groups": {}}
        run |= {"verdict_state": "holds", "fails_by": None}
    assert "Comparing two faces, the recogniser reaches an AUC of 0.600 (0.900 without)." in join_seeds(costly, name="two")["verdict"]


def test_why_a_seed_fails_is_said_and_the_mean_does_not_hide_it() -> None:
    """Others −5.0 points in one seed, +5.0 in the next: the mean says nothing of it."""
    runs = [seeded(0, 0.0) | {"verdict_state": "fails", "fails_by": "others"}, seeded(1, 0.0), seeded(2, 0.0)]
    for run, loss in zip(runs, (0.05, -0.05, 0.0), strict=True):
        before = run["arms"]["clean"]["others"]["final"]
        run["arms"]["error-min"]["others"] |= {"final": before - loss}
        run["lost_to"] = []
    joined = join_seeds(runs, name="three")
    said = joined["verdict"]
    assert said.startswith("Holds in only 2 of 3 seeds against training from scratch on unprocessed crops; held against")
    assert "in seed 0 the protected are safe, but other people’s accuracy falls by 5.0 points (4 are allowed)." in said
    assert "error-min noise are named on" in said
    content = content_of(joined)
    assert content["heading"] == "Protected, but in 1 of 3 seeds others are recognised less well"
    fails = " ".join(dict(content["answers"])["When does it fail?"])
    assert "less well in 1 of 3 seeds (0), more than allowed; over all seeds person by person" in fails
    runs[0]["arms"]["error-min"]["verification"]["groups"]["others"]["auc"] = 0.9531  # of 0.9831: 0.01 less in the mean
    fails = " ".join(dict(content_of(join_seeds(runs, name="three"))["answers"])["When does it fail?"])
    assert "over all seeds comparing two of their photos, the recogniser has an AUC of 0.973 instead of 0.983; in naming, person" in fails
    runs[1] |= {"verdict_state": "fails", "fails_by": "peak"}
    runs[2] |= {"verdict_state": "fails", "fails_by": "naming"}
    peak, final = runs[1]["arms"]["error-min"]["protected"]["peak"], runs[2]["arms"]["error-min"]["protected"]["final"]
    joined = join_seeds(runs, name="three")
    assert joined["verdict"].startswith("Does not hold against")
    assert f"in seed 1 they are named on {peak:.1%} at its best epoch; in seed 2 they are named on {final:.1%}." in joined["verdict"]
    assert content_of(joined)["heading"] == "Not protected in 2 of 3 seeds"


def test_best_epochs_of_several_seeds_have_an_epoch_where_they_agree() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.0)]
    assert join_seeds(runs, name="two")["arms"]["error-min"]["protected"]["peak_epoch"] == 3
    mine = runs[1]["arms"]["error-min"]["protected"]
    mine |= {"peak_epoch": 5, "by_epoch": [*mine["by_epoch"][:2], 0.0, 0.0, 0.1425, *mine["by_epoch"][5:]]}
    joined = join_seeds(runs, name="two")
    assert joined["arms"]["error-min"]["protected"]["peak_epoch"] is None
    content = content_of(joined)
    assert ("Protected people, best epoch", "14.2%", "mean of the seeds’ own", "protected") in content["key_numbers"]
    assert "peak 11.2%, epoch 5" in content["curves"]["error-min"], "of the mean curve, which is another number"
    said = "the peak of a mean is at most the mean of the peaks, which tables and verdict have"
    assert said in build_page(content) and said not in build_page(content_of(runs[0]))


def test_rows_of_seeds_carry_their_numbers() -> None:
    frame = metrics_frame(join_seeds([seeded(4, 0.0), seeded(7, 0.1)], name="two"))
    mine = frame.query("arm == 'error-min' and group == 'protected'")
    values = dict(zip(mine["metric"], mine["value"], strict=True))
    assert values["accuracy of seed 7"] == pytest.approx(values["accuracy of seed 4"] + 0.1)


def test_a_report_alone_and_one_of_several_seeds_are_refused() -> None:
    two = join_seeds([seeded(4, 0.0), seeded(7, 0.1)], name="two")
    for runs, message in (([seeded(4, 0.0)], "alone has nothing to be joined with"), ([two, seeded(9, 0.0)], "two is of several seeds")):
        with pytest.raises(RequestError, match=rf"^RUNS: .*{message}.*; allowed are reports of two or more seeds, one each$"):
            join_seeds(runs, name="more")


def test_commits_that_differ_are_said() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.0)]
    assert "other seeds" not in str(content_of(join_seeds(runs, name="two"))["provenance"])
    runs[1]["provenance"]["commit"] = "f" * 40
    assert "other seeds were made by another commit" in str(content_of(join_seeds(runs, name="two"))["provenance"])


def test_nothing_is_ordered_where_a_clean_arm_did_not_learn() -> None:
    runs = [seeded(0, 0.0), seeded(1, 0.0)]
    assert join_seeds(runs, name="two")["orderings"]
    runs[1]["checks"] = [{"name": "clean arm learned", "ok": False, "detail": "", "arm": None}]
    assert join_seeds(runs, name="two")["orderings"] == []


def test_times_are_those_of_the_arms_asked_for(tmp_path: Path) -> None:
    for name in ("data/timings/align", "run/timings/noise-tap", "run/timings/train-surrogate", "run/timings/train-error-min"):
        write_text(tmp_path / f"{name}.json", '{"seconds": 1.5}')
    assert set(seconds(tmp_path / "data", tmp_path / "run", ["clean", "error-min"])) == {"align", "train-error-min"}
    assert set(seconds(tmp_path / "data", tmp_path / "run", ["tap"])) == {"align", "noise-tap", "train-surrogate"}


def lost(trial: str, accuracy: float, *, peak: bool = False) -> dict[str, Any]:
    return {"trial": trial, "title": f"title of {trial}", "accuracy": accuracy, "peak": peak}


def judging(seed: int, **rows: list[dict[str, Any]]) -> dict[str, Any]:
    return seeded(seed, 0.0) | {"lost_to": [], "held_against": [], "silent": []} | rows


def test_a_trial_lost_in_one_seed_is_lost() -> None:
    runs = [
        judging(0, lost_to=[lost("jpeg-50", 0.6), lost("mixup", 0.3, peak=True)], held_against=[lost("grey", 0.02), lost("cutout", 0.1)]),
        judging(1, lost_to=[lost("svm", 0.9)], held_against=[lost("jpeg-50", 0.1), lost("mixup", 0.05), lost("grey", 0.04)]),
        judging(2, lost_to=[lost("jpeg-50", 0.5), lost("svm", 0.8)], held_against=[lost("grey", 0.03)]),
    ]
    joined = join_seeds(runs, name="three")
    assert joined["lost_to"] == [
        lost("svm", 0.85) | {"title": "title of svm, judged in 2 of 3 seeds"},
        lost("jpeg-50", 0.55) | {"title": "title of jpeg-50, in 2 of 3 seeds"},
        lost("mixup", 0.3, peak=True) | {"title": "title of mixup, judged in 2 of 3 seeds and lost in 1"},
    ]
    assert joined["held_against"] == [lost("cutout", 0.1) | {"title": "title of cutout, judged in 1 of 3 seeds"}, lost("grey", 0.03)]
    assert "; lost to title of svm, judged in 2 of 3 seeds (85.0%), title of jpeg-50, in 2 of 3 seeds (55.0%)" in joined["verdict"]
    invalid = judging(3) | {"verdict_state": "invalid"}
    assert not any(join_seeds([*runs, invalid], name="four")[key] for key in ("lost_to", "held_against", "silent"))


def test_a_trial_is_silent_where_no_seed_judges_it() -> None:
    def says_nothing(trial: str, clean: float | None) -> dict[str, Any]:
        return {"trial": trial, "title": trial, "clean": clean}

    runs = [
        judging(0, silent=[says_nothing("blur-9", 0.1), says_nothing("grey", None), says_nothing("mixup", 0.1), says_nothing("svm", 0.1)]),
        judging(1, silent=[says_nothing("blur-9", 0.2)], held_against=[lost("mixup", 0.1)], lost_to=[lost("svm", 0.4)]),
    ]
    joined = join_seeds(runs, name="two")
    assert joined["silent"] == [says_nothing("blur-9", 0.15), says_nothing("grey", None)]
    assert [row["title"] for row in joined["held_against"] + joined["lost_to"]] == [
        f"title of {trial}, judged in 1 of 2 seeds" for trial in ("mixup", "svm")
    ]


def test_a_trial_that_not_every_seed_tried_stays_in_the_tables() -> None:
    runs = [seeded(seed, 0.0) for seed in range(3)]
    del runs[0]["trainers"]["resnet18"]
    del runs[0]["trial_titles"]["resnet18"]
    runs[1]["countermeasures"]["jpeg-50"] = {"clean": {"protected": 0.1, "others": 0.1}}  # where the other arms were spared it
    runs[2]["trainers"]["resnet18"]["clean"]["protected"] += 0.2
    for run in runs[:2]:
        del run["shares"]["share-60"]
    joined = join_seeds(runs, name="three")
    assert joined["trainers"]["resnet18"]["clean"]["protected"] == pytest.approx(0.8011)
    assert joined["trial_titles"]["resnet18"] == "ResNet-18, from scratch, in 2 of 3 seeds"
    tried = joined["countermeasures"]["jpeg-50"]
    assert (tried["clean"]["protected"], tried["error-min"]["protected"]) == (0.8811, 0.6123), "of the same seeds in every arm"
    assert "protected_sd" not in joined["shares"]["share-60"]["error-min"], "one seed has no deviation"
    assert joined["trial_titles"]["early-stopping"] == "early stopping"


def test_only_seeds_may_differ() -> None:
    other = seeded(1, 0.0)
    other["provenance"]["config"]["train"]["epochs"] = 9
    with pytest.raises(StageError, match="in more than the seed"):
        join_seeds([seeded(0, 0.0), other], name="x")
    with pytest.raises(StageError, match="another one"):
        join_seeds([seeded(0, 0.0), seeded(0, 0.0)], name="x")
    fewer = seeded(1, 0.0)
    del fewer["arms"]["random"]
    with pytest.raises(StageError, match="has arms") as refused:
        join_seeds([seeded(0, 0.0), fewer], name="x")
    assert 'random; study-s1 has arms clean error-min: run make study SEEDS="0 1" ARMS="clean error-min"' in str(refused.value)
    turned = seeded(1, 0.0)
    turned["arms"] = dict(reversed(turned["arms"].items()))
    with pytest.raises(StageError, match="study-s1"):
        join_seeds([seeded(0, 0.0), turned], name="x")


def test_snapshots_of_arms_that_are_not_reported_do_not_matter(tmp_path: Path) -> None:
    """Seeds are joined by the configuration in their reports, so those of arms of an earlier request must not stand there."""
    for name in ("split", "train", "evaluate", "report", "surrogate", "noise-error-min", "noise-tap", "noise-random"):
        write_text(tmp_path / "run" / "config" / f"{name}.yaml", f"of: {name}")
    for name in ("data", "align"):
        write_text(tmp_path / f"{name}.yaml", f"of: {name}")
    reported = configs(tmp_path, tmp_path / "run", ["clean", "error-min"])
    assert list(reported) == ["data", "align", "evaluate", "noise-error-min", "split", "train"]
    assert all(values == {"of": name} for name, values in reported.items())
    assert {"surrogate", "noise-tap"} <= set(configs(tmp_path, tmp_path / "run", ["clean", "tap"]))
    runs = [seeded(seed, 0.0) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        run["provenance"]["config"] |= {"noise-error-min": {"seed": seed, "rounds": 9 + seed}}
    with pytest.raises(StageError, match="in more than the seed"):
        join_seeds(runs, name="x")


def test_the_interval_knows_of_seeds() -> None:
    generator = np.random.default_rng(0)
    alike = [generator.normal(50, 10, 50) for _ in range(3)]
    photos = np.full(50, 100.0)
    narrow = interval_by_seed_and_identity([(one, photos) for one in alike])
    wide = interval_by_seed_and_identity([(one + shift, photos) for one, shift in zip(alike, (-20, 0, 20), strict=True)])
    assert narrow is not None and narrow[1] - narrow[0] < 0.08
    assert wide is not None and wide[1] - wide[0] > 0.2
    nobody = interval_by_seed_and_identity([(np.zeros(50), np.full(50, 4.0))] * 3)
    assert nobody == [0.0, 0.0711], "50 people of whom none was named, who may be the same in each seed, are no proof of 0"


def test_the_interval_is_that_of_the_accuracy_beside_it() -> None:
    # Half of the people have nine photos, all recognised, the others one that is not: of photos 90 %, of people half.
    def record(people: int) -> dict[str, Any]:
        label = np.concatenate([np.repeat(np.arange(0, people, 2), 9), np.arange(1, people, 2)])
        history = [{"epoch": 1, "protected": 0.9}]
        names = [f"id{i}" for i in range(people)]
        found = group_accuracy(history, "protected", label % 2 == 0, label, names, resamples=100, seed=0)
        assert found is not None
        return found

    joined = join_group([record(40), record(60)], [0, 1])
    assert joined["final"] == 0.9
    low, high = joined["ci95"]
    assert 0.8 < low < 0.9 < high < 0.96
    apart = [(np.full(40, hits), np.full(40, 10.0)) for hits in (9.0, 5.0)]
    assert interval_by_seed_and_identity(apart) == [0.0, 1.0], "two trainings so far apart say nothing"
    assert joined["test_photos"]["id0 (seed 1)"] == 9
    assert join_group([record(40), record(18)], [0, 1])["ci95"] is None, "18 people are too few"
    bare = record(40)
    del bare["test_photos"]
    assert join_group([record(40), bare], [0, 1])["ci95"] is None
