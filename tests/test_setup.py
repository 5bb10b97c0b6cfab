"""One source of pins, for pip and conda users alike; the packages the project promises are in it and used."""

from __future__ import annotations

import re
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
