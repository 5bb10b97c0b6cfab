"""Two revisions of a made-up project whose study takes no time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import study_time

MAKEFILE = """VENV ?= own
setup:
	@mkdir -p $(VENV); echo set up in $(VENV) >> $(LOG)
$(VENV)/installed.lock: requirements.lock
	@echo installed >> $(LOG)
study: $(VENV)/installed.lock
	@test ! -e data; touch data; echo {} >> $(LOG)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()

    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)

    git("init")
    for name in ("old", "new"):
        (root / "Makefile").write_text(MAKEFILE.replace("{}", name))
        (root / "requirements.lock").write_text(f"{name}==1\n")
        git("add", "-A")
        git("commit", "-m", name)
        git("tag", name)
    (root / ".venv").mkdir()
    (root / ".venv" / "installed.lock").write_text("new==1\n")
    monkeypatch.setattr(study_time, "ROOT", root)
    return root


def test_both_run_with_fresh_data_in_turns(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = project.parent / "log"
    assert study_time.main(["--against", "old", "--repeats", "2", "--", f"LOG={log}"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["seconds"]) == len(found["seconds_against"]) == 2 and found["ratio"] > 0
    assert found["revision"] != found["against"]
    lines = log.read_text().splitlines()
    assert [line for line in lines if line in ("old", "new")] == ["old", "new", "new", "old"]
    # The environment of the same lock is shared and left alone; the other clone sets up its own.
    assert lines.count("installed") == 2 and lines.count(f"set up in {project / '.venv'}") == 2
    assert (project / ".venv" / "installed.lock").read_text() == "new==1\n"


def test_what_goes_wrong_is_said(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert study_time.main(["--against", "nonsense"]) == 2
    assert "nonsense: no such revision" in capfd.readouterr().err
    assert study_time.main(["--against", "old", "--", "LOG=/nowhere/log"]) == 1
    assert "`make setup" in capfd.readouterr().err
