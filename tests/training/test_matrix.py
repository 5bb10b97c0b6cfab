"""Which trials a matrix runs, which it leaves alone, and what it says of those that fail."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import write_json
from pipeline.config import EvaluateConfig
from pipeline.errors import StageError
from pipeline.runtime import Runtime
from pipeline.training import matrix


def test_only_what_is_missing_is_run_and_a_failure_is_named(
    tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, ran = {("clean", "grey")}, []
    write_json(matrix.result_of("clean", "grey", tmp_path), {"seconds": 600.0})

    def run_one(arm: str, trial: str, *_: Any) -> int:
        ran.append((arm, trial))
        if trial == "mixup":
            return 1
        done.add((arm, trial))
        write_json(matrix.result_of(arm, trial, tmp_path), {"seconds": 600.0})
        return 0

    monkeypatch.setattr(matrix, "is_current", lambda arm, trial, _run: (arm, trial) in done)
    monkeypatch.setattr(matrix, "run_one", run_one)
    with pytest.raises(StageError, match="not done: clean, mixup; error-min, mixup: see the messages above"):
        matrix.run_matrix(["clean", "error-min"], ["grey", "mixup"], tmp_path, tmp_path, cpu, jobs=2, limits=EvaluateConfig())
    assert sorted(ran) == [("clean", "mixup"), ("error-min", "grey"), ("error-min", "mixup")], "one failure stops no other"
    told = capsys.readouterr().err
    assert "1 of 4 trainings done before" in told
    assert "matrix: 1 of 3 done, about 10 min left" in told, "two at a time, as long as the one that was done before"
    ran.clear()
    matrix.run_matrix(["clean", "error-min"], ["grey"], tmp_path, tmp_path, cpu, jobs=1, limits=EvaluateConfig())
    assert ran == []


@pytest.mark.parametrize(
    ("own", "tried", "ran_on"),
    [
        (0.9, 0.1, ["clean"]),
        (0.9, 0.6, ["clean", "error-min", "random"]),
        (0.9, 0.3, ["clean", "error-min", "random"]),  # too little to hold against, enough to lose to
        (0.1, 0.1, ["clean", "error-min", "random"]),
    ],
)
def test_what_teaches_nothing_without_noise_is_not_tried_on_other_arms(
    tmp_path: Path,
    cpu: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: float,
    tried: float,
    ran_on: list[str],
) -> None:
    ran: list[str] = []

    def run_one(arm: str, trial: str, *_: Any) -> int:
        ran.append(arm)
        write_json(matrix.result_of(arm, trial, tmp_path), {"protected": {"final": tried, "peak": tried}, "seconds": 1.0})
        return 0

    write_json(tmp_path / "clean" / "metrics.json", {"protected": {"final": own}})
    monkeypatch.setattr(matrix, "is_current", lambda arm, trial, run: (run / arm / "trials" / trial / "result.json").exists())
    monkeypatch.setattr(matrix, "run_one", run_one)
    for _ in range(2):  # nor when the same is asked again
        matrix.run_matrix(["error-min", "clean", "random"], ["ueraser"], tmp_path, tmp_path, cpu, jobs=2, limits=EvaluateConfig())
        assert ran[0] == "clean" and sorted(ran) == ran_on
        told = capsys.readouterr().err
        assert ("ueraser teaches too little without noise" in told) == (len(ran_on) == 1)
    matrix.run_matrix(["clean", "error-min"], ["share-20"], tmp_path, tmp_path, cpu, jobs=1, limits=EvaluateConfig())
    assert ran[len(ran_on) :] == ["error-min"], "a share needs no clean arm"


def test_what_is_left_is_told_by_what_each_trial_took() -> None:
    took = [("adversarial-4", 300.0), ("adversarial-4", 340.0), ("grey", 100.0)]
    assert matrix.seconds_of(["grey", "grey", "adversarial-4"], took) == 520
    assert matrix.seconds_of(["mixup"], took) == 210, "one that nobody saw yet: the mean of the trials, not of the trainings"
    assert matrix.seconds_of(["mixup"], []) == matrix.seconds_of([], took) == 0


def test_trainings_that_can_say_nothing_are_not_run() -> None:
    pairs = matrix.pairs_of(["clean", "removed", "random"], ["grey", "last-layer-refit", "share-60", "recropped"])
    assert [arm for arm, trial in pairs if trial == "grey"] == ["clean", "random"]
    assert [arm for arm, trial in pairs if trial == "last-layer-refit"] == ["clean", "removed", "random"]
    assert [arm for arm, trial in pairs if trial == "share-60"] == ["random"], "nothing of the clean arm is protected"
    assert not [arm for arm, trial in pairs if trial == "recropped"], "nobody publishes photos with random noise"
    assert matrix.pairs_of(["clean", "error-min"], ["recropped"]) == [("error-min", "recropped")]
    both = matrix.pairs_of(["clean", "removed", "random", "error-min"], ["recropped-jpeg-75"])
    assert [arm for arm, _ in both] == ["clean", "error-min"], "JPEG changes what is learned without noise, too"


MATRIX = """
import subprocess, sys, os
child = "import sys, time; from pipeline.training.matrix import end_with; end_with(int(sys.argv[1])); print(1, flush=True); time.sleep(60)"
trial = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.PIPE, text=True)
trial.stdout.readline()
print(trial.pid, flush=True)
trial.wait()
"""


def runs(pid: int) -> bool:
    """Whether the process still works; one that has ended stays a zombie where nobody takes its exit code, as in some containers."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_trials_end_with_their_matrix() -> None:
    root = Path(__file__).parents[2]
    running = subprocess.Popen([sys.executable, "-c", MATRIX], cwd=root, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    trial = int(running.stdout.readline())
    assert runs(trial)
    running.kill()
    running.communicate()
    deadline = time.monotonic() + 30
    while runs(trial) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(trial)
