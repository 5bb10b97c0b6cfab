"""Several seeds joined into one set of metrics."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageError
from pipeline.evaluation.seeds import interval_by_seed_and_identity, join_seeds
from pipeline.report.render import build_page
from tests.report.sample import sample_metrics


def seeded(seed: int, shift: float) -> dict[str, Any]:
    metrics = sample_metrics()
    metrics["provenance"]["seeds"] = [seed]
    metrics["provenance"]["config"]["train"]["seed"] = seed
    mine = metrics["arms"]["error-min"]["protected"]
    mine["final"] = round(mine["final"] + shift, 4)
    mine["by_epoch"] = [round(value + shift, 4) for value in mine["by_epoch"]]
    return metrics


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
    assert len(mine["per_identity"]) == 150
    assert joined["provenance"]["seeds"] == [0, 1, 2]
    assert joined["trainers"]["resnet18"]["clean"]["protected"] == 0.7011
    assert len(joined["checks"]) == 9
    both = {row["group"]: row["identities"] for row in joined["paired"] if (row["arm"], row["against"]) == ("error-min", "clean")}
    assert both == {"protected": 150, "others": 300}, "people of all seeds are compared"
    found = {one["claim"]: one["holds"] for one in joined["orderings"]}
    assert found["error-min protects"] and found["random peaks far above error-min"]
    assert joined["verdict"].startswith("Holds against training from scratch on unprocessed crops, over 3 seeds; lost to JPEG, quality 50")
    assert "6.8% ± 3.0%" in joined["verdict"]
    assert joined["lost_to"][0]["trial"] == "jpeg-50"
    assert joined["countermeasures"]["jpeg-50"]["error-min"]["protected_sd"] == 0
    page = build_page(joined)
    assert "± 3.0" in page


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
    failing = seeded(1, 0.3) | {"verdict_state": "fails"}
    assert join_seeds([seeded(0, 0.0), failing], name="two")["verdict_state"] == "fails"


def test_only_seeds_may_differ() -> None:
    other = seeded(1, 0.0)
    other["provenance"]["config"]["train"]["epochs"] = 9
    with pytest.raises(StageError, match="in more than the seed"):
        join_seeds([seeded(0, 0.0), other], name="x")
    with pytest.raises(StageError, match="another one"):
        join_seeds([seeded(0, 0.0), seeded(0, 0.0)], name="x")
    fewer = seeded(1, 0.0)
    del fewer["arms"]["random"]
    with pytest.raises(StageError, match="has arms"):
        join_seeds([seeded(0, 0.0), fewer], name="x")


def test_the_interval_knows_of_seeds() -> None:
    generator = np.random.default_rng(0)
    alike = [list(generator.normal(0.5, 0.1, 50)) for _ in range(3)]
    apart = [list(np.asarray(one) + shift) for one, shift in zip(alike, (-0.2, 0.0, 0.2), strict=True)]
    narrow, wide = interval_by_seed_and_identity(alike), interval_by_seed_and_identity(apart)
    assert narrow[1] - narrow[0] < 0.08
    assert wide[1] - wide[0] > 0.2
