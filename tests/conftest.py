"""Shared fixtures: small crops with an identity in them, and where real photos and weights may be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real photos and weights at {folder}")
    return folder


@pytest.fixture(autouse=True)
def denormals_stay() -> Iterator[None]:
    """No test leaves the process flushing denormals, as a stage run inside it does: hypothesis could not draw its floats any more."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def cpu() -> Runtime:
    """One CPU process, fp32."""
    return Runtime(device="cpu", workers=1, precision="fp32")


def toy_faces(*, identities: int, photos: int, seed: int = 0, size: int = 112) -> FaceSet:
    """Crops of blobs whose places are the identity's and whose light is the photo's: uint8, in one shard, sorted by identity."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    crops = np.empty((identities * photos, size, size, 3), np.uint8)
    for identity in range(identities):
        spots = generator.uniform(0.15, 0.85, (6, 2))
        colours = generator.uniform(-80, 80, (6, 3))
        for photo in range(photos):
            image = np.full((size, size, 3), generator.uniform(90, 160))
            for (cy, cx), colour in zip(spots + generator.normal(0, 0.01, (6, 2)), colours, strict=True):
                image += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.01)[..., None] * colour
            image += generator.normal(0, 4, image.shape)
            crops[identity * photos + photo] = np.clip(image, 0, 255)
    count = identities * photos
    label = np.repeat(np.arange(identities), photos)
    return FaceSet((crops,), np.zeros(count, np.int64), np.arange(count), label)
