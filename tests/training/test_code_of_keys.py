"""No result outlives an edit to the code that it was made with, or another way of drawing its intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts import write_json, write_text
from pipeline.config import EvaluateConfig, RecropConfig, TrainConfig, dump
from pipeline.training import keys
from pipeline.training.keys import code_that_trains, trial_key
from pipeline.training.matrix import is_current
from tests.test_setup import ROOT, imported, make

SHARED = imported("config.py", "runtime.py", "artifacts.py")  # an edit to what all stages share makes nothing anew by itself
GIVEN = {"pipeline/split.py"}  # its table is an input


def names(paths: list[Path]) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in paths}


def test_a_training_belongs_to_all_code_that_it_runs() -> None:
    code = names(code_that_trains(TrainConfig()))
    assert set(make("--eval=show: ; @echo $(CODE_train)", "show").stdout.split()) <= code
    needed = imported("training/stage.py") - SHARED - GIVEN
    assert {path for path in needed if "countermeasures" not in path} <= code
    assert needed <= names(code_that_trains(TrainConfig(countermeasure="grey")))


def test_a_trial_belongs_to_all_code_that_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "split.parquet", "")
    write_json(tmp_path / "split.json", {})
    hashed: list[list[Path]] = []
    monkeypatch.setattr(keys, "sha256_of_files", lambda files: hashed.append(list(files)) or "")
    config = TrainConfig(countermeasure="grey", recropped=RecropConfig(jpeg=75))
    trial_key(config, EvaluateConfig(), "clean", tmp_path, tmp_path / "split.parquet")
    assert imported("training/trial.py") - SHARED - GIVEN <= names(hashed[1])


def test_a_trial_belongs_to_what_its_intervals_are_drawn_with(tmp_path: Path) -> None:
    write_text(tmp_path / "split.parquet", "")
    write_json(tmp_path / "split.json", {})
    config, scoring = TrainConfig(), EvaluateConfig(bootstrap=200)
    write_text(tmp_path / "config" / "trials" / "resnet18.yaml", dump(config))
    key = trial_key(config, scoring, "clean", tmp_path, tmp_path / "split.parquet")
    write_json(tmp_path / "clean" / "trials" / "resnet18" / "result.json", {"key": key})
    for values, current in (({}, True), ({"bootstrap": 300}, False), ({"seed": 1}, False), ({"clean_floor": 0.6}, True)):
        write_text(tmp_path / "config" / "evaluate.yaml", dump(scoring.model_copy(update=values)))
        assert is_current("clean", "resnet18", tmp_path) == current, values
