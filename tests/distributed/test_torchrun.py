"""`torchrun` starts the stages: the files are those of one process, and a stage that cannot share its work says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import read_json, write_array, write_json, write_table
from pipeline.config import NoiseConfig, StageConfig, TrainConfig, dump
from pipeline.noise.table import load_noise
from tests.conftest import toy_faces
from tests.training.test_matrix import runs

ROOT = Path(__file__).resolve().parents[2]
IN_TWO = ("--standalone", "--nproc-per-node", "2", "-m", "--", "pipeline")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", *IN_TWO)
TOGETHER = (sys.executable, "-m", "pipeline.together", *IN_TWO)  # as `make` starts it
ONE = (sys.executable, "-m", "pipeline")
pytestmark = pytest.mark.slow


def run_folder(folder: Path) -> Path:
    """Aligned toy crops with their split, 4 protected people and 2 others, and snapshots of a small search and a small training.

    The search learns slowly: in float32 a network of this depth on so few photos is chaotic (in float64 it is compared at full speed).
    """
    faces = toy_faces(identities=6, photos=6)
    write_array(folder / "aligned" / "crops-0.npy", np.asarray(faces.shards[0]))
    identity = [f"person {label}" for label in faces.label]
    photo = [f"{name}/{number % 6}.png" for number, name in enumerate(identity)]
    role = np.where(faces.label < 4, "protected", "other")
    part = np.where(faces.row % 6 == 0, "test", "train")
    table = pd.DataFrame(
        {"photo": photo, "identity": identity, "label": faces.label, "role": role, "part": part, "shard": "crops-0.npy", "row": faces.row}
    )
    write_table(folder / "split.parquet", table)
    write_json(folder / "split.json", {})
    snapshot(folder, "noise-error-min", NoiseConfig(arm="error-min", rounds=1, batches=2, batch=8, input_size=75, dropout=0.3, lr=1e-4))
    snapshot(folder, "train", TrainConfig(epochs=2, batch=8, lr=0.005, model="mobilefacenet", input_size=75))
    return folder


def snapshot(folder: Path, name: str, config: StageConfig) -> None:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / f"{name}.yaml").write_text(dump(config), encoding="utf-8")


def words(stage: str, folder: Path, arm: str) -> list[str]:
    return [stage, "--data", str(folder), "--run", str(folder), "--arm", arm, "--device", "cpu", "--precision", "fp32"]


def run(start: tuple[str, ...], *stage: str, code: int = 0) -> str:
    """What the command said on stderr; it must end with `code`."""
    done = subprocess.run([*start, *stage], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "clean" / "model" / "history.jsonl").read_text().splitlines()]


def test_noise_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    one, two = run_folder(tmp_path / "one"), run_folder(tmp_path / "two")
    run(ONE, *words("noise", one, "error-min"))
    said = run(TORCHRUN, *words("noise", two, "error-min"))
    assert said.count("round 1 of at most 1") == 1, "each process says progress"
    (wanted, facts), (found, others) = load_noise(one / "error-min"), load_noise(two / "error-min")
    assert np.abs(wanted.delta).max() > 0
    assert (np.sign(found.delta) == np.sign(wanted.delta)).mean() >= 0.99
    assert others["error"] == facts["error"]
    assert others["history"][0]["loss"] == pytest.approx(facts["history"][0]["loss"], abs=1e-3)


def training(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A long training in two processes that has come through an epoch, and the two."""
    snapshot(folder, "train", TrainConfig(epochs=200, batch=8, lr=0.005, model="mobilefacenet", input_size=75))
    started = subprocess.Popen([*TOGETHER, *words("train", folder, "clean")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    assert any(": loss" in line for line in started.stderr)
    both = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text(encoding="ascii").split()
    assert len(both) == 2
    return started, [int(one) for one in both]


def ended(pids: list[int]) -> bool:
    """Whether all have ended, at the latest in a while."""
    deadline = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(runs, pids))


def test_a_process_that_is_killed_ends_the_other_and_is_told_of(tmp_path: Path) -> None:
    started, both = training(run_folder(tmp_path))
    os.kill(both[1], signal.SIGKILL)
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 1 and ended(both)
    assert said.splitlines()[-1].startswith("process 1 was killed (SIGKILL), perhaps for want of memory; the same command goes on")
    assert "Traceback" not in said


def test_processes_end_with_the_torchrun_that_started_them(tmp_path: Path) -> None:
    """They would go on, and one that waits for another which was stopped would keep its GPU for half an hour."""
    started, both = training(run_folder(tmp_path))
    started.kill()
    started.communicate(timeout=60)
    assert ended(both)


def test_a_mistake_is_told_in_one_line_by_two_processes_too(tmp_path: Path) -> None:
    said = run(TOGETHER, *words("train", tmp_path, "none"), code=2)
    assert "train: ARMS=none: allowed are " in said and "Traceback" not in said, said


def test_a_killed_training_goes_on_in_two_processes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    snapshot(folder, "train", TrainConfig(epochs=6, batch=8, lr=0.005, model="mobilefacenet", input_size=75))
    started = subprocess.Popen([*TORCHRUN, *words("train", folder, "clean")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if "epoch 2 of" in line:
            started.send_signal(signal.SIGTERM)
            break
    started.communicate(timeout=120)
    model = folder / "clean" / "model"
    assert (model / "checkpoint.pt").exists() and not (model / "history.jsonl").exists()
    said = run(TORCHRUN, *words("train", folder, "clean"))
    resumed = [line for line in said.splitlines() if "epoch" in line and "loss" in line]
    assert len(resumed) < 6 and "epoch 1 of" not in said and "epoch 6 of" in said
    assert len(history(folder)) == 6
    assert read_json(model / "train.json")["processes"] == 2
    assert sorted(path.name for path in model.iterdir()) == ["history.jsonl", "train.json", "weights.safetensors"]


def test_a_stage_that_cannot_share_its_work_says_so(tmp_path: Path) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [*ONE, "split", "--data", str(tmp_path), "--run", str(tmp_path)],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "split runs in one process" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("raised", ["StageError('the disk is full')", "ValueError('a bug')"])
def test_a_process_on_a_gpu_that_fails_does_not_wait_for_the_others(raised: str) -> None:
    """With an NCCL that is not there, and that waits for ever when a group is left before its sums are done."""
    code = f"""
import sys, time
from unittest import mock
import torch, torch.distributed as dist
from pipeline.distributed import Ranks, joined
from pipeline.errors import StageError
with mock.patch.object(dist, "init_process_group"), mock.patch.object(torch.cuda, "set_device"):
    with mock.patch.object(dist, "destroy_process_group", lambda: time.sleep(1000)):
        try:
            with joined(Ranks(0, 2), torch.device("cuda:0")):
                raise {raised}
        except StageError as error:
            print("noise:", error, file=sys.stderr)
            sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert raised.split("'")[1] in done.stderr.splitlines()[-1] and ("Traceback" in done.stderr) == raised.startswith("ValueError")
