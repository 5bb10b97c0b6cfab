"""Linear detectors of noise, on noise that is there, that is not there, and that cannot be seen by them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.separability import (
    folds_by_identity,
    folds_by_photo,
    frequency_features,
    linear_class_accuracy,
    linear_separability,
)
from pipeline.noise.lsp import linearly_separable_patches
from pipeline.noise.table import add_noise

IDENTITY = np.repeat(np.arange(10), 6)


def smooth_crops(seed: int, *, size: int = 48) -> np.ndarray:
    """Crops that show nobody: smooth light and a little grain, of another photo each."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    wave = generator.uniform(-60, 60, (len(IDENTITY), 3, 2))
    light = 128 + np.einsum("nck,khw->nhwc", wave, np.stack([np.cos(3 * y + x), np.sin(2 * x)]))
    return np.clip(light + generator.normal(0, 3, light.shape), 0, 255).astype(np.uint8)


def with_noise(crops: np.ndarray, epsilon: int, seed: int = 7) -> np.ndarray:
    """Each identity's own noise of ±epsilon, in blocks of 4 px."""
    generator = np.random.default_rng(seed)
    side = crops.shape[1] // 4
    sign = generator.choice([-epsilon, epsilon], (IDENTITY.max() + 1, side, side, 3))
    delta = sign.repeat(4, 1).repeat(4, 2)[IDENTITY]
    return np.clip(crops.astype(int) + delta, 0, 255).astype(np.uint8)


def test_noise_is_detected_in_people_not_seen_before() -> None:
    crops = smooth_crops(0)
    found = linear_separability(crops, with_noise(crops, 8), IDENTITY, seed=0)
    assert found is not None
    assert found["auc"] > 0.95
    assert found["identities"] == 10


def test_noise_in_blocks_of_jpegs_own_size_is_detected() -> None:
    crops = smooth_crops(0)
    delta = linearly_separable_patches(rows=10, epsilon=8, seed=0, size=48)
    found = linear_separability(crops, add_noise(crops, delta[IDENTITY]), IDENTITY, seed=0)
    assert found is not None and found["auc"] > 0.95


def test_nothing_is_detected_where_nothing_was_changed() -> None:
    crops = smooth_crops(0)
    same = linear_separability(crops, crops.copy(), IDENTITY, seed=0)
    assert same is not None
    assert same["auc"] == pytest.approx(0.5, abs=1e-6)
    # Other photos of the same kind: not the same arrays, and still nothing to tell them by.
    other = linear_separability(crops, smooth_crops(1), IDENTITY, seed=0)
    assert other is not None
    assert 0.3 < other["auc"] < 0.7


def test_what_gives_a_person_away_does_not_count_as_detection() -> None:
    # Half of the identities get grain, the others lose it: by identity one can tell, for a person not seen before one cannot.
    generator = np.random.default_rng(3)
    crops = smooth_crops(0)
    rough = np.clip(crops + generator.normal(0, 12, crops.shape), 0, 255).astype(np.uint8)
    odd = (IDENTITY % 2 == 1)[:, None, None, None]
    found = linear_separability(np.where(odd, rough, crops), np.where(odd, crops, rough), IDENTITY, seed=0)
    assert found is not None
    assert found["auc"] < 0.7


def test_nobody_is_in_two_folds_and_photos_are_dealt_evenly() -> None:
    names = np.array([f"p{i:02d}" for i in IDENTITY])
    fold = folds_by_identity(names, 5, seed=0)
    assert all(len(np.unique(fold[names == name])) == 1 for name in names)
    assert np.bincount(fold).tolist() == [12] * 5
    assert not np.array_equal(fold, folds_by_identity(names, 5, seed=1))
    dealt, photos_of = folds_by_photo(IDENTITY, seed=0), IDENTITY
    for one in range(10):
        assert sorted(np.bincount(dealt[photos_of == one], minlength=5)) == [1, 1, 1, 1, 2]


def test_features_are_of_frequencies_only() -> None:
    y, x = np.mgrid[:20, :20]
    flat = np.full((20, 20, 3), 90, np.uint8)
    fine = np.where((x + y) % 2 == 0, 100, 80).astype(np.uint8)[..., None].repeat(3, 2)
    features = frequency_features(np.stack([flat, flat + 50, fine, fine[:, ::-1]]))
    assert features.shape == (4, 2 * 189) and features.dtype == np.float32
    assert features[1] == pytest.approx(features[0], abs=1e-3), "brightness is left out"
    assert features[3] == pytest.approx(features[2], abs=1e-3), "so is the phase"
    assert features[2, :189].argmax() == features[2, 189:].argmax() == 62 * 3, "a chessboard is the highest frequency of Y"


def test_noise_is_a_shortcut_to_the_name() -> None:
    crops = smooth_crops(0)
    found = linear_class_accuracy(crops, with_noise(crops, 8), IDENTITY, seed=0, side=48)
    assert found is not None
    assert found["clean"] < 0.35
    assert found["protected"] > 0.95
    assert (found["chance"], found["identities"], found["photos"], found["side"]) == (0.1, 10, 60, 48)
    assert found == linear_class_accuracy(crops, with_noise(crops, 8), IDENTITY, seed=0, side=48)
    # Noise finer than the pixels that the model is given is averaged away.
    lost = linear_class_accuracy(crops, with_noise(crops, 8), IDENTITY, seed=0, side=4)
    assert lost is not None
    assert lost["protected"] < found["protected"] - 0.3


def test_too_few_identities_and_wrong_arrays() -> None:
    crops = smooth_crops(0)
    assert linear_separability(crops[:6], crops[:6], IDENTITY[:6], seed=0) is None
    assert linear_class_accuracy(crops[:8], crops[:8], IDENTITY[:8], seed=0) is None, "only one identity has five photos"
    for broken in (crops[:-1], crops.astype(np.float32)):
        with pytest.raises(ValueError, match="do not match"):
            linear_separability(crops, broken, IDENTITY, seed=0)
    with pytest.raises(ValueError, match="uint8"):
        linear_class_accuracy(crops / 255, crops / 255, IDENTITY, seed=0)
