"""Orthogonal projection: against class-wise noise it was made for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.projection import OrthogonalProjection, fit_linear, fit_orthogonal_projection

CLASSES, SIDE = 8, 10


def class_noise() -> np.ndarray:
    """±16, one pattern a class: (8, 10, 10, 3)."""
    return 16 * np.random.default_rng(7).choice([-1, 1], (CLASSES, SIDE, SIDE, 3))


def noisy_photos(photos: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images with nothing in them but class-wise noise of ±16: uint8 (N, 10, 10, 3), and labels (N,)."""
    noise = class_noise()
    label = np.repeat(np.arange(CLASSES), photos)
    images = np.random.default_rng(seed).integers(16, 240, (len(label), SIDE, SIDE, 3))
    return (images + noise[label]).astype(np.uint8), label


def as_batch(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def fitted() -> tuple[OrthogonalProjection, list[int]]:
    crops, label = noisy_photos(500, seed=0)
    label.flags.writeable = False  # as pandas gives it
    sizes: list[int] = []

    def read(index: np.ndarray) -> np.ndarray:
        sizes.append(len(index))
        return crops[index]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fit_orthogonal_projection(read, len(label), label, CLASSES, 0), sizes


def test_photos_are_read_in_batches(fitted: tuple[OrthogonalProjection, list[int]]) -> None:
    assert max(fitted[1]) <= 128
    assert sum(fitted[1]) == 1 + 32 * 500 * CLASSES  # one for the size; 32 batches an epoch, so 32 epochs for 1000 updates


def test_what_is_left_is_orthogonal_to_the_weights() -> None:
    crops, label = noisy_photos(20, seed=0)
    weight_KD = fit_linear(lambda index: crops[index], len(label), label, CLASSES, 0, device=torch.device("cpu"))
    project = fit_orthogonal_projection(lambda index: crops[index], len(label), label, CLASSES, 0)
    x_BCHW = as_batch(crops).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        left = project.asked(x_BCHW)
    assert left.shape == x_BCHW.shape
    assert left.dtype == torch.float32
    assert left.is_contiguous(memory_format=torch.channels_last)
    cosine = torch.nn.functional.normalize(left.flatten(1)) @ torch.nn.functional.normalize(weight_KD).T
    assert cosine.abs().max() < 1e-5
    torch.testing.assert_close(project.asked(left), left, rtol=0, atol=1e-5)  # a projection
    assert (left.flatten(1).norm(dim=1) <= x_BCHW.flatten(1).norm(dim=1)).all()


def test_class_wise_noise_is_gone_for_a_linear_model(fitted: tuple[OrthogonalProjection, list[int]]) -> None:
    train, label = noisy_photos(500, seed=0)
    test, test_label = noisy_photos(50, seed=1)

    def accuracy(project: OrthogonalProjection | None) -> float:
        x, y = ((as_batch(crops) if project is None else project.asked(as_batch(crops))).flatten(1).numpy() for crops in (train, test))
        return float(LogisticRegression(C=0.01, max_iter=200).fit(x, label).score(y, test_label))

    before, after = accuracy(None), accuracy(fitted[0])
    assert before > 0.95
    assert after < 0.45  # chance is 0.125

    # Why not chance: the linear model's estimate of the noise is itself noisy, so a little of it stays and can be found again.
    noise = torch.from_numpy(class_noise()).permute(0, 3, 1, 2).float()
    noise -= noise.mean(0)
    assert 0.01 < (fitted[0].asked(noise) ** 2).sum() / (noise**2).sum() < 0.12


def test_same_seed_same_projection_and_global_generator_untouched() -> None:
    fit = countermeasure_of("orthogonal-projection", classes=CLASSES).fit
    assert fit is not None
    crops, label = noisy_photos(10, seed=3)
    state = torch.get_rng_state()
    named = torch.from_numpy(label)
    first, again, other = (fit(lambda index: crops[index], len(label), label, CLASSES, seed)(as_batch(crops), named) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
