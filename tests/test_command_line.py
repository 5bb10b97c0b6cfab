"""What `python -m pipeline STAGE --help` explains, quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline import __main__ as command_line
from pipeline.__main__ import STAGES, parser


@pytest.mark.parametrize("stage", STAGES)
def test_help_explains_a_stage(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([stage, "--help"])
    assert ended.value.code == 0
    told = "".join(capsys.readouterr().out.split())  # without the blanks, which are where lines happen to end
    brief, whole = STAGES[stage]
    assert "".join(f"{brief[0].upper()}{brief[1:]}. {whole}".split()) in told
    assert "None" not in told and "(default:)" not in told


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
