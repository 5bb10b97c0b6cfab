"""LPIPS where AlexNet's weights are at hand: here made-up ones, so only what holds for any weights is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import AlexNet_Weights, alexnet

from pipeline.evaluation.lpips import ALEXNET, lpips_distance, weights_file
from tests.conftest import toy_faces


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


def test_the_weights_are_looked_for_where_torchvision_puts_them() -> None:
    assert AlexNet_Weights.IMAGENET1K_V1.url.endswith(f"/{ALEXNET}")


def test_without_weights_nothing_is_measured_or_fetched(hub: Path) -> None:
    crops = toy_faces(identities=1, photos=2).shards[0]
    assert weights_file().parent == hub
    assert lpips_distance(crops, crops) is None
    assert not hub.exists()


def test_more_noise_is_farther_and_batches_do_not_matter(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.mkdir(parents=True)
    monkeypatch.setattr("pipeline.evaluation.lpips.BATCH", 7)
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), weights_file())
    crops = toy_faces(identities=2, photos=9).shards[0]
    noise = np.random.default_rng(0).integers(-16, 17, crops.shape)
    little, much = (np.clip(crops + (noise * share).astype(int), 0, 255).astype(np.uint8) for share in (0.25, 1.0))
    assert lpips_distance(crops, crops) == 0
    near, far = lpips_distance(crops, little), lpips_distance(crops, much)
    assert near is not None and far is not None
    assert 0 < near < far
    halves = [lpips_distance(crops[half], much[half]) for half in (slice(0, 9), slice(9, 18))]
    assert far == pytest.approx(np.mean(np.array(halves, float)), abs=2e-4)
