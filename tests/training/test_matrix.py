"""Which trials a matrix runs, which it leaves alone, and what it says of those that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageError
from pipeline.runtime import Runtime
from pipeline.training import matrix


def test_only_what_is_missing_is_run_and_a_failure_is_named(
    tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, ran = {("clean", "grey")}, []

    def run_one(arm: str, trial: str, *_: Any) -> int:
        ran.append((arm, trial))
        if trial == "mixup":
            return 1
        done.add((arm, trial))
        return 0

    monkeypatch.setattr(matrix, "is_current", lambda arm, trial, _run: (arm, trial) in done)
    monkeypatch.setattr(matrix, "run_one", run_one)
    with pytest.raises(StageError, match=r"2 trials failed, (clean|error-min), mixup for one"):
        matrix.run_matrix(["clean", "error-min"], ["grey", "mixup"], tmp_path, tmp_path, cpu, jobs=2)
    assert sorted(ran) == [("clean", "mixup"), ("error-min", "grey"), ("error-min", "mixup")], "one failure stops no other"
    assert "1 of 4 trainings done before" in capsys.readouterr().err
    ran.clear()
    matrix.run_matrix(["clean", "error-min"], ["grey"], tmp_path, tmp_path, cpu, jobs=1)
    assert ran == []


def test_trainings_that_can_say_nothing_are_not_run() -> None:
    pairs = matrix.pairs_of(["clean", "removed", "random"], ["grey", "last-layer-refit", "share-60", "recropped"])
    assert [arm for arm, trial in pairs if trial == "grey"] == ["clean", "random"]
    assert [arm for arm, trial in pairs if trial == "last-layer-refit"] == ["clean", "removed", "random"]
    assert [arm for arm, trial in pairs if trial == "share-60"] == ["random"], "nothing of the clean arm is protected"
    assert not [arm for arm, trial in pairs if trial == "recropped"], "nobody publishes photos with random noise"
    assert matrix.pairs_of(["clean", "error-min"], ["recropped"]) == [("error-min", "recropped")]
