"""No held-out photo decides noise: what a protection is measured on, the search for it has not seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import write_array
from pipeline.noise import against, searched
from pipeline.noise.arms import ARMS
from pipeline.noise.error_min import SearchResult
from pipeline.training.faces import FaceSet
from tests.study import Study

PAINT = (255, 0, 255)


def painted(faces: FaceSet) -> int:
    """How many crops of a set are of one colour, `PAINT`."""
    return int((faces.crops(np.arange(len(faces))) == PAINT).all(axis=(1, 2, 3)).sum())


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Its held-out crops are painted; its surrogates have weights, though they have learned nothing."""
    made = Study(tmp_path)
    test = made.table().query("part == 'test'")
    crops = np.load(made.aligned / "crops-00000.npy")
    crops[test["row"]] = PAINT
    write_array(made.aligned / "crops-00000.npy", crops)
    made.surrogates()
    return made


@pytest.mark.parametrize(
    ("arm", "values", "asked"),
    [
        ("error-min", {}, {"search_noise"}),
        ("error-min", {"search": "all"}, {"search_noise"}),
        ("error-min-samplewise", {}, {"search_noise"}),
        ("error-max", {}, {"descend"}),
        ("tap", {}, {"descend"}),
        ("tap-robust", {}, {"descend"}),
        ("tap-ensemble", {}, {"descend"}),
        ("fawkes", {}, {"predict", "descend"}),
        ("cloak", {}, {"embeddings_by", "descend"}),
        ("cloak-error-min", {}, {"search_noise", "embeddings_by", "descend"}),
        ("cloak-tap", {}, {"embeddings_by", "descend"}),
    ],
)
def test_no_held_out_photo_reaches_a_search(
    study: Study, monkeypatch: pytest.MonkeyPatch, arm: str, values: dict[str, Any], asked: set[str]
) -> None:
    seen: dict[str, list[FaceSet]] = {}

    def nothing_found(*_: Any, rows: int, **__: Any) -> np.ndarray:
        return np.zeros((rows, 3, 112, 112), np.float32)

    def search_noise(_config: Any, _make: Any, _faces: Any, _row_N: Any, **named: Any) -> SearchResult:
        return SearchResult(nothing_found(**named), rounds=1, converged=True, error=0.0, seconds=0.0, history=[])

    def watched(name: str, call: Any, *given: Any, **named: Any) -> Any:
        seen.setdefault(name, []).extend(one for one in given if isinstance(one, FaceSet))
        return call(*given, **named)

    def descend(*_: Any, **named: Any) -> tuple[np.ndarray, float]:
        return nothing_found(**named), 0.0

    monkeypatch.setattr(searched, "search_noise", partial(watched, "search_noise", search_noise))
    calls = {"descend": descend, "predict": against.predict, "embeddings_by": against.embeddings_by}
    for name, call in calls.items():
        monkeypatch.setattr(against, name, partial(watched, name, call))
    study.noise(arm, **values)
    assert seen.keys() == asked and all(seen.values())
    if ARMS[arm].published and ARMS[arm].per == "photo":  # held-out photos, too, have noise of their own, which concerns no other
        assert all(map(painted, seen.pop("descend")))
    assert {name: sum(map(painted, sets)) for name, sets in seen.items()} == dict.fromkeys(seen, 0)
