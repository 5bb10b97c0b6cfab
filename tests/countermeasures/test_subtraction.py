"""Pattern subtraction: it finds a pattern that all of a person's photos share, and leaves who has none nearly alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.subtraction import MOST, READ, PatternSubtraction, fit_pattern_subtraction

PEOPLE, PHOTOS, SIDE = 12, 15, 24


def planted(*, smooth: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces that are mixtures of 10 images, by person and by photo; the first half of people carry ±12 each, in blocks of 4 px or 1 px.

    Returns:
        uint8 (N, 24, 24, 3), their labels (N,), and the patterns (12, 24, 24, 3), of the other half zero.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    place = generator.uniform(0, 1, (10, 2))
    parts = np.stack([np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.05) for cy, cx in place])[..., None] * generator.uniform(
        0, 1, (10, 1, 1, 3)
    )
    label = np.repeat(np.arange(PEOPLE), PHOTOS)
    amount = generator.normal(0, 25, (PEOPLE, 10))[label] + generator.normal(0, 25, (len(label), 10))
    block = 4 if smooth else 1
    pattern = 12 * generator.choice([-1, 1], (PEOPLE, SIDE // block, SIDE // block, 3)).repeat(block, 1).repeat(block, 2)
    pattern[PEOPLE // 2 :] = 0
    faces = 128 + np.tensordot(amount, parts, 1) + generator.normal(0, 2, (len(label), SIDE, SIDE, 3)) + pattern[label]
    return np.clip(np.rint(faces), 0, 255).astype(np.uint8), label, pattern


def fitted(crops: np.ndarray, label: np.ndarray, *, classes: int = PEOPLE, seed: int = 0) -> PatternSubtraction:
    return fit_pattern_subtraction(lambda index: crops[index], len(label), label, classes, seed)


def as_batch(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("smooth", [False, True])
def test_a_planted_pattern_is_found_and_clean_photos_are_nearly_left_alone(smooth: bool) -> None:
    crops, label, pattern = planted(smooth=smooth)
    found = np.moveaxis(fitted(crops, label).pattern_KCHW.numpy(), 1, -1).astype(float)
    for person in range(PEOPLE // 2):
        left = np.square(pattern[person] - found[person]).sum() / np.square(pattern[person]).sum()
        assert np.corrcoef(found[person].ravel(), pattern[person].ravel())[0, 1] > 0.9
        assert left < 0.2
    spared = found[PEOPLE // 2 :]
    assert np.sqrt(np.square(spared).mean()) < 3, "of 12 that a pattern has"


def test_a_batch_loses_the_patterns_of_those_in_it() -> None:
    subtract = PatternSubtraction(torch.tensor([0, 16, -16], dtype=torch.int8)[:, None, None, None].expand(3, 3, SIDE, SIDE))
    x_BCHW = torch.full((4, 3, SIDE, SIDE), 100 / 255).contiguous(memory_format=torch.channels_last)
    x_BCHW[3] = 1.0
    left = subtract(x_BCHW, torch.tensor([1, 0, 2, 2]))
    assert torch.allclose(left[:, 0, 0, 0] * 255, torch.tensor([84.0, 100.0, 116.0, 255.0])), "within [0, 1]"
    assert left.shape == x_BCHW.shape and left.dtype == torch.float32
    assert left.is_contiguous(memory_format=torch.channels_last)


def test_no_photo_changes_by_more_than_such_noise_does() -> None:
    crops, label, _ = planted(smooth=True)
    crops[label == 0] = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 255, 0)[None, :, :, None]  # nothing like a face
    left = fitted(crops, label)(as_batch(crops), torch.from_numpy(label))
    assert float((left - as_batch(crops)).abs().max() * 255) == pytest.approx(MOST)


def test_photos_are_read_few_at_a_time_and_people_without_any_are_no_trouble() -> None:
    crops, label, _ = planted(smooth=True)
    label = label + 1  # nobody is 0
    label.flags.writeable = False  # as pandas gives it
    sizes: list[int] = []

    def read(index: np.ndarray) -> np.ndarray:
        sizes.append(len(index))
        return crops[index]

    with_nobody = fit_pattern_subtraction(read, len(label), label, PEOPLE + 2, 0).pattern_KCHW
    assert max(sizes) <= READ and sum(sizes) == 1 + 2 * len(label)
    assert not with_nobody[[0, -1]].any()
    assert torch.equal(with_nobody[1:-1], fitted(crops, label - 1).pattern_KCHW)


def test_who_has_one_photo_each_loses_no_more_than_the_bound() -> None:
    crops, label, _ = planted(smooth=True)
    alone = np.arange(PEOPLE) * PHOTOS
    pattern = fitted(crops[alone], label[alone]).pattern_KCHW
    assert pattern.abs().max() <= MOST


def test_same_seed_same_patterns_and_global_generator_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.countermeasures.subtraction.PHOTOS", 40)
    fit = countermeasure_of("pattern-subtraction", classes=PEOPLE).fit
    assert fit is not None
    crops, label, _ = planted(smooth=True)
    state, x_BCHW, label_B = torch.get_rng_state(), as_batch(crops), torch.from_numpy(label)
    first, again, other = (fit(lambda index: crops[index], len(label), label, PEOPLE, seed)(x_BCHW, label_B) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
