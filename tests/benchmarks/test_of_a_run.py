"""Folders of a run from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.of_a_run import folders_asked_for


def test_folders_that_are_not_of_a_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    words = ["--data", str(data), "--run", str(run)]
    (data / "aligned").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        folders_asked_for("what it does", words)
    assert ended.value.code == 2 and f"{run / 'split.parquet'} is missing; give the folders of a run" in capsys.readouterr().err
    run.mkdir()
    (run / "split.parquet").touch()
    assert folders_asked_for("what it does", words) == (data, run)
