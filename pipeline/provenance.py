"""What a result was made with: the project's commit, the packages, the machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.runtime import Runtime, cores

PACKAGES = (
    "torch", "torchvision", "facenet-pytorch", "insightface", "onnxruntime-gpu", "onnx2torch", "opencv-python", "scikit-learn", "pandas",
    "numpy",
)  # fmt: skip


def revision() -> dict[str, Any]:
    """The project's commit, and whether its files differ from it; None where this is no git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hardware(runtime: Runtime) -> dict[str, Any]:
    """What the report was made on."""
    found: dict[str, Any] = {
        "system": platform.platform(terse=True),
        "cores": cores(),
        "device": runtime.device,
        "precision": runtime.precision,
    }
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            found["cpu"] = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    except OSError:
        found["cpu"] = platform.processor() or platform.machine()
    if runtime.device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(runtime.torch_device())
    return found
