from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def lfw(shared: Path) -> Path:
    path = shared / "data/lfw-deepfunneled"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    return path


def jpeg(seed: int = 0, size: tuple[int, int] = (24, 16)) -> bytes:
    """A small JPEG, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()
