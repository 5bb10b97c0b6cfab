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
    assert found == {"error-min protects": True, "random peaks far above error-min": True}
    assert "Over 3 seeds (3 holds)" in joined["verdict"] and "6.8% ± 3.0%" in joined["verdict"]
    page = build_page(joined)
    assert "± 3.0" in page


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
