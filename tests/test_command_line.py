"""What `python -m pipeline STAGE --help` explains, quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
