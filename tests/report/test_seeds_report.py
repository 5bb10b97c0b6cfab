"""`python -m pipeline seeds`, which ends `make study SEEDS="0 1"`: the finished reports of single seeds become one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json, write_json
from pipeline.report.words import percent
from tests.report.sample import NASTY, seeded_metrics


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of two finished reports, whose protected people are named in 3.75% and 9.75% of photos."""
    monkeypatch.setattr("pipeline.evaluation.seeds.RESAMPLES", 200)
    folders = [tmp_path / f"study-s{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        write_json(folder / "metrics.json", seeded_metrics(seed, 0.06 * seed))
    return [str(folder) for folder in folders]


def test_two_seeds_become_one_report_of_their_means(reports: list[str], tmp_path: Path) -> None:
    output = tmp_path / "study-s0-1"
    assert main(["seeds", "--runs", *reports, "--output", str(output)]) == 0
    joined = read_json(output / "metrics.json")
    mine: dict[str, Any] = joined["arms"]["error-min"]["protected"]
    assert (joined["run"], joined["provenance"]["seeds"]) == ("study-s0-1", [0, 1])
    assert (mine["final"], mine["by_seed"]) == (pytest.approx(0.0675), [0.0375, 0.0975])
    page = (output / "index.html").read_text(encoding="utf-8")
    assert percent(0.0675) in page and "study-s0-1" in page and NASTY not in page
    frame = pd.read_csv(output / "metrics.csv")
    rows = frame.query("arm == 'error-min' and group == 'protected' and metric == 'accuracy'")
    assert rows["value"].iloc[0] == pytest.approx(0.0675)


def test_what_is_no_other_seed_of_the_study_is_not_joined(reports: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "study-s0-0"
    assert main(["seeds", "--runs", reports[0], reports[0], "--output", str(output)]) == 1
    assert "seeds [0, 0]: each run must have another one" in capsys.readouterr().err
    assert main(["seeds", "--runs", reports[0], str(tmp_path / "missing"), "--output", str(output)]) == 1
    assert "missing" in capsys.readouterr().err
    assert not output.exists()
