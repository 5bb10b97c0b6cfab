"""What `python -m pipeline STAGE --help` explains, quickly."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline import __main__ as command_line
from pipeline.__main__ import main, run_arm_stage_here
from pipeline.artifacts import at_work
from pipeline.bookkeeping import MADE
from pipeline.command_line import STAGES, parser


@pytest.mark.parametrize("stage", STAGES)
def test_help_explains_a_stage(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([stage, "--help"])
    assert ended.value.code == 0
    told = "".join(capsys.readouterr().out.split())  # without the blanks, which are where lines happen to end
    brief, whole = STAGES[stage]
    assert "".join(f"{brief[0].upper()}{brief[1:]}. {whole}".split()) in told
    assert "None" not in told and "(default:)" not in told


def test_help_names_every_snapshot_that_a_stage_reads() -> None:
    """Of the stages that work on one arm, those that `run_arm_stage_here` loads."""
    source = inspect.getsource(run_arm_stage_here)
    for stage in ("noise", "protect", "train", "trial", "evaluate"):
        (body,) = re.findall(rf'args\.stage == "{stage}":\n(.*?)(?:\n    elif|\Z)', source, re.DOTALL)
        for name in re.findall(r'"([a-z]+\.yaml)"', body):
            assert name in STAGES[stage][1], (stage, name)


def test_processes_are_offered_to_stages_that_use_them(capsys: pytest.CaptureFixture[str]) -> None:
    """`make` hands them to all, so all take them."""
    for stage, offered in {"data": True, "align": True, "protect": True, "evaluate": True, "noise": False, "train": False}.items():
        with pytest.raises(SystemExit):
            parser().parse_args([stage, "--help"])
        assert ("--workers" in capsys.readouterr().out) == offered, stage
        where = ["--data", "d", *(["--run", "r", "--arm", "random"] if stage not in ("data", "align") else [])]
        assert parser().parse_args([stage, *where, "--workers", "2"]).workers == "2"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pipeline.__main__ import parser; parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "pandas", "pydantic", "cv2", "yaml"} & set(loaded)


def test_reports_are_made_without_torch() -> None:
    code = "import sys, pipeline.report.stage, pipeline.report.compare; print(*sys.modules)"
    assert "torch" not in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


OF_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.10 GiB is free. Including "
    "non-PyTorch memory, this process has 6.69 GiB memory in use. Of the allocated memory 6.02 GiB is allocated by PyTorch. If reserved …"
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError(OF_A_GPU), "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.10 GiB is free)"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later\n"), "(CUDA error: out of memory)"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "CUBLAS_STATUS_ALLOC_FAILED"),
        (MemoryError(), "no more is given"),
    ],
)
@pytest.mark.parametrize("while_recording", [False, True])
def test_want_of_memory_is_told_in_one_line(
    error: Exception, told: str, while_recording: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph whose recording memory ended cannot be closed either, and that is what is raised last."""

    def fail(_args: object) -> None:
        try:
            raise error
        finally:
            if while_recording:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(command_line, "run_stage", fail)
    assert command_line.main(["train", "--data", "none", "--run", "none", "--arm", "clean"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("train: too little memory (") and told in said and "DEVICE=cpu" in said
    assert said.count("\n") == 1 and len(said) < 400


def test_a_bug_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_args: object) -> None:
        raise RuntimeError("the shapes differ")

    monkeypatch.setattr(command_line, "run_stage", fail)
    with pytest.raises(RuntimeError, match="the shapes differ"):
        command_line.main(["train", "--data", "none", "--run", "none", "--arm", "clean"])


def words_for(stage: str, root: Path) -> list[str]:
    """The arguments of a stage on `root/data` and `root/run`, which are made."""
    (root / "data").mkdir(exist_ok=True)
    (root / "run").mkdir(exist_ok=True)
    words = [stage, "--data", str(root / "data")]
    if stage not in ("data", "align"):
        words += ["--run", str(root / "run")]
    return words + (["--arm", "random"] if stage not in ("data", "align", "split") else [])


@pytest.mark.parametrize(
    ("stage", "made", "read"),
    [
        ("data", "data/photos.parquet", "data/data.yaml"),
        ("align", "data/aligned/manifest.parquet", "data/align.yaml"),
        ("split", "run/split.parquet", "data/aligned/manifest.parquet"),
        ("noise", "run/random/noise.safetensors", "run/config/noise-random.yaml"),
        ("noise", "run/random/noise.safetensors", "run/surrogate/model/history.jsonl"),
        ("protect", "run/random/protected/manifest.parquet", "run/random/noise.safetensors"),
        ("train", "run/random/model/history.jsonl", "run/random/protected/manifest.parquet"),
        ("evaluate", "run/random/metrics.json", "run/config/evaluate.yaml"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_was_made_from_a_file_as_it_was_before_is_older_than_that_file(
    stage: str, made: str, read: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `make` may write snapshots anew while a stage works by the old ones, and `make` compares times alone."""

    def write(name: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        time.sleep(0.02)  # longer than the file system's clock ticks

    def work(_: object) -> None:
        time.sleep(0.02)
        if when == "meanwhile":
            write(read)
        write(made)

    words = words_for(stage, tmp_path)
    write(read)
    monkeypatch.setattr("pipeline.__main__.run_stage", work)
    assert main(words) == 0
    times = [(tmp_path / name).stat().st_mtime_ns for name in (read, made)]
    assert (times[0] > times[1]) == (when == "meanwhile")
    assert made.endswith(MADE[stage])


def test_photos_are_not_replaced_while_they_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_for("data", tmp_path)
    with at_work(tmp_path / "data" / "locks" / "photos.lock"):
        for stage in ("data", "align"):
            assert main([stage, *words[1:]]) == 1
            assert "is at this already" in capsys.readouterr().err
