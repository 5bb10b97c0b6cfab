"""Real photos and weights lie beside the repository where they are at hand; tests that want them skip where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest


def there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def real_photos(shared: Path) -> Path:
    return there(shared / "data/celeba-wild")


@pytest.fixture(scope="session")
def pack(shared: Path) -> Path:
    return there(shared / "models/insightface")
