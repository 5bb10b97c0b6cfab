"""What estimated noise is worth, from estimates that are told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimated_patterns
from benchmarks.estimated_patterns import estimate

LABEL = np.repeat(np.arange(4), 2)  # two photos each; the first two people are protected


def carried() -> np.ndarray:
    noise = np.random.default_rng(0).integers(-16, 17, (8, 3, 8, 8)).astype(np.int8)
    noise[4:] = 0
    return noise


def test_an_estimate_is_held_to_what_was_put_on() -> None:
    noise = carried()
    whole = estimate(noise, noise, LABEL)
    assert whole.correlation == pytest.approx(1) and whole.removed == pytest.approx(1)
    assert whole.suspected == (2, 0) and whole.strength[0] > 5 and whole.strength[1] == 0
    half = estimate(noise // 2, noise, LABEL)
    assert half.correlation is not None and half.correlation > 0.99
    assert half.removed == pytest.approx(0.75, abs=0.02), "half of the amplitude left is a quarter of the energy"


def test_what_is_found_on_the_wrong_photos_tells_nothing() -> None:
    noise = carried()
    found = estimate(noise[::-1], noise, LABEL)
    assert found.correlation is None and found.removed == 0
    assert found.suspected == (0, 2) and found.strength[1] > 5


def test_one_photo_in_three_gives_nobody_away() -> None:
    noise = np.random.default_rng(0).integers(1, 17, (6, 3, 8, 8)).astype(np.int8)
    found = noise.copy()
    found[[1, 2]] = 0
    assert estimate(found, noise, np.repeat([0, 1], 3)).suspected == (1, 0)


def test_a_run_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "aligned").mkdir()
    monkeypatch.setattr(sys, "argv", ["estimated_patterns", "--data", str(tmp_path), "--run", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        estimated_patterns.main()
    assert "split.parquet is missing" in capsys.readouterr().err
