"""Augmentation: ranges, formats, generators, and what each does to a known batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.countermeasures.augmentation import Augment, make_ueraser_augment
from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.names import FULL

CLASSES = 5
AUGMENTING = [name for name in FULL if countermeasure_of(name, classes=CLASSES).augment]


def augment_of(name: str) -> Augment:
    if name == "ueraser-candidate":
        return make_ueraser_augment()
    augment = countermeasure_of(name, classes=CLASSES).augment
    assert augment is not None
    return augment


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(count: int = 6) -> tuple[Tensor, Tensor]:
    x_BCHW = torch.rand((count, 3, 112, 112), generator=generator_of(0)).clamp(0.05, 0.95)
    return x_BCHW.contiguous(memory_format=torch.channels_last), torch.arange(count) % CLASSES


@pytest.mark.parametrize("name", [*AUGMENTING, "ueraser-candidate"])
def test_shape_range_format_and_randomness(name: str) -> None:
    augment, (x_BCHW, label_B) = augment_of(name), batch_of()
    before, state = x_BCHW.clone(), torch.get_rng_state()
    first, target = augment(x_BCHW, label_B, generator_of(1))
    assert first.shape == x_BCHW.shape
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.min() >= 0 and first.max() <= 1
    assert target.shape in [(6,), (6, CLASSES)]
    assert torch.equal(x_BCHW, before)
    assert torch.equal(torch.get_rng_state(), state)

    torch.manual_seed(99)  # the caller's own state must not matter
    again, _ = augment(x_BCHW, label_B, generator_of(1))
    assert torch.equal(first, again)
    other, _ = augment(x_BCHW, label_B, generator_of(2))
    assert not torch.equal(first, other)
    generator = generator_of(1)
    augment(x_BCHW, label_B, generator)
    assert not torch.equal(augment(x_BCHW, label_B, generator)[0], first)
    assert augment(x_BCHW.contiguous(), label_B, generator_of(1))[0].is_contiguous()


@pytest.mark.parametrize("name", ["cutout", "shift-6", "strong", "ueraser-candidate"])
def test_each_photo_has_draws_of_its_own_and_keeps_its_label(name: str) -> None:
    x_BCHW, label_B = batch_of(1)
    same = x_BCHW.expand(8, -1, -1, -1)
    changed, target = augment_of(name)(same, label_B.expand(8), generator_of(3))
    assert len(torch.unique(changed.flatten(1), dim=0)) >= 7
    assert target.dtype == torch.int64
    assert torch.equal(target, label_B.expand(8))


def test_cutout_blacks_out_one_square_of_half_the_side() -> None:
    x_BCHW, label_B = batch_of(200)
    changed, _ = augment_of("cutout")(x_BCHW, label_B, generator_of(0))
    black = (changed == 0).all(1)
    assert torch.equal(torch.where(black[:, None], 0.0, x_BCHW), changed)
    heights, widths = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.sum((1, 2)), heights * widths)  # a rectangle
    assert int(heights.min()) >= 28 and int(heights.max()) == 56
    assert int(widths.min()) >= 28 and int(widths.max()) == 56
    assert 60 < int((heights == 56).sum()) < 140  # whole where the centre is in the middle half


def test_shift_moves_the_photo_by_whole_pixels() -> None:
    y, x = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    place = torch.stack([y, x, x * 0]).float()[None].repeat(300, 1, 1, 1) / 112
    moved, _ = augment_of("shift-6")(place, torch.zeros(300, dtype=torch.int64), generator_of(0))
    centre = (moved[:, :2, 56, 56] * 112).round().int() - 56
    assert set(centre.flatten().tolist()) == set(range(-6, 7))
    for photo, (down, right) in zip(moved[:20], centre[:20].tolist(), strict=True):
        assert torch.equal(photo[:, 6:-6, 6:-6], place[0, :, 6 + down : 106 + down, 6 + right : 106 + right])


def test_mixup_mixes_photos_and_labels_alike() -> None:
    x_BCHW, label_B = batch_of(CLASSES)
    mixed, target = augment_of("mixup")(x_BCHW, label_B, generator_of(0))
    torch.testing.assert_close(target.sum(1), torch.ones(CLASSES))
    assert (target > 0).sum() == 2 * CLASSES
    torch.testing.assert_close(mixed, torch.einsum("bk,kchw->bchw", target, x_BCHW))  # photo k is the one of class k
    shares = torch.stack([augment_of("mixup")(x_BCHW, label_B, generator_of(seed))[1][0, 0] for seed in range(100)])
    assert 0.4 < shares.mean() < 0.6
    assert shares.std() > 0.2  # Beta(1, 1) is uniform: 0.29


def test_cutmix_labels_follow_area() -> None:
    x_BCHW = torch.full((CLASSES, 3, 112, 112), 0.1) * torch.arange(1, CLASSES + 1)[:, None, None, None]
    mixed, target = augment_of("cutmix")(x_BCHW, torch.arange(CLASSES), generator_of(4))
    share = torch.stack([(mixed == x_BCHW[k, 0, 0, 0]).float().mean((1, 2, 3)) for k in range(CLASSES)], dim=1)
    torch.testing.assert_close(target, share)
    assert 0.05 < target[0, 0] < 0.95
