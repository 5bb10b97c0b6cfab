"""One source of pins, for pip and conda users alike; the packages the project promises are in it and used."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROMISED = ("torch", "facenet-pytorch", "insightface", "onnxruntime-gpu", "opencv-python", "scikit-learn", "pandas")
MODULES = ("torch", "facenet_pytorch", "insightface", "onnxruntime", "cv2", "sklearn", "pandas")


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.strip() and not line.startswith("#") and "sys_platform == 'never'" not in line]
    pins = [line.split(";")[0].strip() for line in kept]
    assert all(re.fullmatch(r"[a-z0-9.\-]+==[^=]+", pin) for pin in pins), pins
    return dict(pin.split("==") for pin in pins)


def test_lock_is_plain_pins_without_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--" not in text
    assert locked()


def test_promised_packages_are_pinned_and_the_cpu_runtime_is_not() -> None:
    assert set(PROMISED) <= set(locked())
    assert "onnxruntime" not in locked()


def test_everything_declared_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[<>=!~ ]", one)[0].lower() for one in declared}
    assert names <= set(locked())
    for one in declared:
        if "==" in one:
            name, version = one.split("==")
            assert locked()[name] == version


def test_conda_has_no_pins_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    names = {re.split(r"[<>=]", one)[0] for one in environment["dependencies"]}
    assert names == {"python", "make", "pip", "uv"}
    assert "requirements.lock" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_promised_packages_are_used(module: str) -> None:
    # facenet-pytorch's networks and weights are read from its files: the package as a whole imports a detector, which takes seconds.
    used = re.compile(rf'^\s*(import|from) {module}\b|find_spec\("{module}"\)', re.MULTILINE)
    assert any(used.search(path.read_text(encoding="utf-8")) for path in (ROOT / "pipeline").rglob("*.py"))


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """`make` in the project, as from a shell without any of its variables; it must run no stage."""
    named = re.findall(r"^([A-Z_0-9]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    kept = {name: value for name, value in os.environ.items() if name not in named and not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study", "DATA_ROOT=/my data"), "DATA_ROOT=/my data: allowed is one value without spaces"),
        (("study", "REPORTS_ROOT=my reports"), "REPORTS_ROOT=my reports: allowed is one value without spaces"),
        (("study", "VENV=my env"), "VENV=my env: allowed is one value without spaces"),
        (("study", "WORKERS=many"), "WORKERS=many: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=0"), "WORKERS=0: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=auto 2"), "WORKERS=auto 2: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=2; ls"), "WORKERS=2; ls: allowed are auto and whole numbers from 1"),
        (("study", f"IDENTITIES={ROOT / 'pipeline'}"), "pipeline: is a folder; allowed is how many, or a file with one name a line"),
        (("protect", "ARMS=clean"), "ARMS=clean: nothing to protect with; allowed is an arm with noise, such as error-min"),
        (("protect", "ARMS=clean removed"), "ARMS=clean removed: nothing to protect with"),
        (("study", "MATRIX=core"), "MATRIX=core is for `make matrix`"),
    ],
)
def test_what_make_itself_reads_is_checked_in_one_line(words: tuple[str, ...], message: str) -> None:
    done = make("-n", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr, done.stderr
    assert done.stdout == ""


def test_stages_depend_on_files_and_not_on_folders() -> None:
    """A folder is newer as soon as Python caches a module in it."""
    names = re.findall(r"^(CODE_\w+) :=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for name in names:
        shown = make(f"--eval=show: ; @echo $({name})", "show")
        code = shown.stdout.split()
        assert code and all((ROOT / path).is_file() for path in code), (name, code, shown.stderr)
        folders = {"CODE_data": "photos/synthetic", "CODE_noise": "models", "CODE_train": "countermeasures", "CODE_align": "faces"}
        if name in folders:
            assert {str(path.relative_to(ROOT)) for path in (ROOT / "pipeline" / folders[name]).glob("*.py")} <= set(code)
        assert name != "CODE_data" or "pipeline/photos/posted.py" not in code, "only trials call it"


def test_a_report_is_made_anew_for_other_arms() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    (report,) = re.findall(r"^\$\(REPORT\)/index\.html:(.*)$", rules, re.MULTILINE)
    (configs,) = re.findall(r"^CONFIGS :=(.*)$", rules, re.MULTILINE)
    assert "$(R)/config/report.yaml" in report and "$(R)/config/report.yaml" in configs
