"""Ctrl-C ends a matrix: its trials with it, and no other begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.training.test_matrix import runs

ROOT = Path(__file__).parents[2]
TRIALS = ["grey", "mixup", "cutmix", "cutout", "jpeg-10", "strong"]
MATRIX = """
import signal
import sys
from pathlib import Path
from pipeline.config import EvaluateConfig
from pipeline.runtime import Runtime
from pipeline.training import matrix
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit that it is ignored
folder = Path(sys.argv[1])
matrix.is_current = lambda *_: False
matrix.sys.executable = str(folder / "trial")
cpu = Runtime(device="cpu", workers=2, precision="fp32")
try:
    matrix.run_matrix(["error-min"], sys.argv[2:], folder, folder, cpu, jobs=2, limits=EvaluateConfig())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("everyone", [True, False], ids=["as a terminal does", "the matrix alone"])
def test_an_interrupted_matrix_ends_its_trials_and_begins_no_other(tmp_path: Path, everyone: bool) -> None:
    begun, trial = tmp_path / "begun", tmp_path / "trial"
    trial.write_text(f"#!/bin/sh\necho $$ >> '{begun}'\nexec sleep 60\n")
    trial.chmod(0o755)
    matrix = subprocess.Popen([sys.executable, "-c", MATRIX, str(tmp_path), *TRIALS], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not begun.exists() or len(begun.read_text().split()) < 2:
        assert matrix.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (os.killpg if everyone else os.kill)(matrix.pid, signal.SIGINT)
    try:
        assert matrix.wait(20) == 130
        trials = [int(pid) for pid in begun.read_text().split()]
        assert len(trials) == 2, "no trial begins after Ctrl-C"
        assert not [pid for pid in trials if runs(pid)]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(matrix.pid, signal.SIGKILL)
