"""What an estimated pattern is worth, from estimates that are told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimated_patterns
from benchmarks.estimated_patterns import estimate


def test_an_estimate_is_held_to_what_was_put_on() -> None:
    generator = np.random.default_rng(0)
    delta = generator.integers(-16, 17, (2, 3, 8, 8)).astype(np.int8)
    estimated = np.concatenate([delta, generator.integers(-1, 2, (6, 3, 8, 8)).astype(np.int8)])
    whole = estimate(estimated, np.array([0, 1]), delta)
    assert whole.correlation == pytest.approx(1) and whole.removed == pytest.approx(1)
    assert whole.suspected == (2, 0) and whole.strength[0] > 5 > whole.strength[1]
    half = estimate(estimated // 2, np.array([0, 1]), delta)
    assert half.correlation is not None and half.correlation > 0.99
    assert half.removed == pytest.approx(0.75, abs=0.02), "half of the amplitude left is a quarter of the energy"
    nothing = estimate(estimated[::-1], np.array([0, 1]), delta)
    assert nothing.removed is not None and nothing.removed < 0.1 and nothing.suspected == (0, 2)


def test_noise_of_a_photo_has_no_pattern_to_compare_with() -> None:
    found = estimate(np.ones((3, 3, 4, 4), np.int8), np.arange(3), None)
    assert found.correlation is None and found.removed is None
    assert found.strength == (1.0, 0.0), "nobody else is there"


def test_a_run_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["estimated_patterns", "--data", str(tmp_path), "--run", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        estimated_patterns.main()
    assert "split.parquet is missing" in capsys.readouterr().err
