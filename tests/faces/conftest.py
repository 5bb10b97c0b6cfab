"""Real photos and weights lie beside the repository where they are at hand; tests that want them skip where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runtime import Runtime

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is not there")
    return SHARED / path


@pytest.fixture(scope="session")
def real_photos() -> Path:
    return shared("data/celeba-wild")


@pytest.fixture(scope="session")
def pack() -> Path:
    return shared("models/insightface")


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime(device="cpu", workers=1, precision="fp32")
