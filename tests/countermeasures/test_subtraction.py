"""Pattern subtraction: it finds patterns that photos of a person share, one or several, and leaves who has none nearly alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.subtraction import FEWEST, MOST, READ, PatternSubtraction, fit_pattern_subtraction, grouped

PEOPLE, PHOTOS, SIDE = 12, 15, 24
CARRYING = PEOPLE // 2


def planted(*, smooth: bool, kinds: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces that are mixtures of 10 images, by person and by photo; the first half of people carry ±12 in blocks of 4 px or 1 px.

    Returns:
        uint8 (N, 24, 24, 3), their labels (N,), and what each carries (N, 24, 24, 3): one of a person's `kinds` patterns in turn.
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
    pattern = 12 * generator.choice([-1, 1], (PEOPLE, kinds, SIDE // block, SIDE // block, 3)).repeat(block, 2).repeat(block, 3)
    pattern[CARRYING:] = 0
    carried = pattern[label, np.arange(len(label)) % kinds]
    faces = 128 + np.tensordot(amount, parts, 1) + generator.normal(0, 2, (len(label), SIDE, SIDE, 3)) + carried
    return np.clip(np.rint(faces), 0, 255).astype(np.uint8), label, carried


def fitted(crops: np.ndarray, label: np.ndarray, *, classes: int = PEOPLE, seed: int = 0) -> PatternSubtraction:
    return fit_pattern_subtraction(lambda index: crops[index], len(label), label, classes, seed)


def found_on(subtract: PatternSubtraction) -> np.ndarray:
    """What is subtracted from each photo: float (N, 24, 24, 3), 1/255."""
    return np.moveaxis(subtract.pattern_GCHW[subtract.group_N].numpy(), 1, -1).astype(float)


def as_batch(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("kinds", [1, 3])
def test_planted_patterns_are_found_and_who_has_none_is_nearly_left_alone(smooth: bool, kinds: int) -> None:
    crops, label, carried = planted(smooth=smooth, kinds=kinds)
    subtract = fitted(crops, label)
    found = found_on(subtract)
    noisy = label < CARRYING
    assert len(np.unique(subtract.group_N.numpy()[noisy])) == kinds * CARRYING, "a group a pattern"
    assert np.square(carried - found)[noisy].sum() < 0.2 * np.square(carried)[noisy].sum()
    for photo in np.flatnonzero(noisy):
        assert np.corrcoef(found[photo].ravel(), carried[photo].ravel())[0, 1] > 0.85
    assert np.sqrt(np.square(found[~noisy]).mean()) < 3, "of 12 that a pattern has"


def test_too_few_photos_of_a_kind_are_no_group() -> None:
    alike = np.kron(np.eye(2), np.ones((FEWEST, FEWEST)))
    first, second = sorted(grouped(alike), key=lambda group: group[0])
    assert first.tolist() == list(range(FEWEST)) and second.tolist() == list(range(FEWEST, 2 * FEWEST))
    (only,) = grouped(alike[1:, 1:])
    assert only.tolist() == list(range(FEWEST - 1, 2 * FEWEST - 1))
    alike[0, :] = alike[:, 0] = np.nan  # a photo that faces explain whole
    assert len(grouped(alike)) == 1


def test_a_batch_loses_the_patterns_of_the_photos_in_it() -> None:
    patterns = torch.tensor([0, 16, -16], dtype=torch.int8)[:, None, None, None].expand(3, 3, SIDE, SIDE)
    subtract = PatternSubtraction(patterns, torch.tensor([0, 1, 2, 2, 0]))
    x_BCHW = torch.full((4, 3, SIDE, SIDE), 100 / 255).contiguous(memory_format=torch.channels_last)
    x_BCHW[3] = 1.0
    left = subtract(x_BCHW, torch.tensor([1, 4, 2, 3]))
    assert torch.allclose(left[:, 0, 0, 0] * 255, torch.tensor([84.0, 100.0, 116.0, 255.0])), "within [0, 1]"
    assert left.shape == x_BCHW.shape and left.dtype == torch.float32
    assert left.is_contiguous(memory_format=torch.channels_last)


def test_no_photo_changes_by_more_than_such_noise_does() -> None:
    crops, label, _ = planted(smooth=True)
    crops[label == 0] = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 255, 0)[None, :, :, None]  # nothing like a face
    left = fitted(crops, label)(as_batch(crops), torch.arange(len(crops)))
    assert float((left - as_batch(crops)).abs().max() * 255) == pytest.approx(MOST)


def test_photos_are_read_few_at_a_time_and_people_without_any_are_no_trouble() -> None:
    crops, label, _ = planted(smooth=True)
    mixed = np.random.default_rng(3).permutation(len(label))  # a scraper's photos lie in any order
    crops, label = crops[mixed], label[mixed] + 1  # nobody is 0
    label.flags.writeable = False  # as pandas gives it
    sizes: list[int] = []

    def read(index: np.ndarray) -> np.ndarray:
        sizes.append(len(index))
        return crops[index]

    with_nobody = fit_pattern_subtraction(read, len(label), label, PEOPLE + 2, 0)
    assert max(sizes) <= READ and sum(sizes) == 1 + 3 * len(label)
    assert np.all(with_nobody.group_N.numpy()[label <= CARRYING]), "each has the pattern found, wherever the photo lies"


@pytest.mark.parametrize("people", [1, 2, PEOPLE])
@pytest.mark.parametrize("photos", [1, PHOTOS])
def test_few_photos_or_people_lose_no_more_than_the_bound(people: int, photos: int) -> None:
    crops, label, _ = planted(smooth=True)
    few = np.flatnonzero((label < people) & (np.arange(len(label)) % PHOTOS < photos))
    subtract = fitted(crops[few], label[few])
    assert subtract.pattern_GCHW.abs().max() <= MOST and len(subtract.group_N) == len(few)
    if photos == 1:
        assert not subtract.group_N.any(), "one photo is no group"


def test_same_seed_same_patterns_and_global_generator_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.countermeasures.subtraction.PHOTOS", 40)
    fit = countermeasure_of("pattern-subtraction", classes=PEOPLE).fit
    assert fit is not None
    crops, label, _ = planted(smooth=True)
    state, x_BCHW, index_B = torch.get_rng_state(), as_batch(crops), torch.arange(len(label))
    first, again, other = (fit(lambda index: crops[index], len(label), label, PEOPLE, seed)(x_BCHW, index_B) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
