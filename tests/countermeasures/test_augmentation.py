"""Augmentation: ranges, formats, generators, and what each does to a known batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from pipeline.countermeasures.augmentation import (
    Augment,
    make_trivial_augment,
    make_ueraser_augment,
    photo_by_photo,
    plasma,
    plasma_brightness,
    plasma_contrast,
)
from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.names import FULL
from tests.conftest import toy_faces

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


# What kornia 0.6.12, which UEraser is made of, does to the 100 photos of `toy_photos`: means of 20 to 30 batches.
CLOUDS = {"mean": 0.470, "spread in a photo": 0.107, "spread of means": 0.050, "alike in two channels": 0.498, "largest": 1.37}
CHANGES = {  # mean change of a pixel, correlation with the photo's greys, root of the mean squared change of colour and of grey
    "plasma-brightness": (0.131, 0.225, 0.102, 0.134),
    "plasma-contrast": (0.064, 0.878, 0.042, 0.074),
    "auto-contrast": (0.118, 0.981, 0.106, 0.108),
    "equalize": (0.226, 0.783, 0.205, 0.162),
    "rotate": (0.037, 0.589, 0.025, 0.110),
    "posterize": (0.169, 0.664, 0.059, 0.238),
    "solarize": (0.075, -0.014, 0.067, 0.114),
    "contrast": (0.217, 0.953, 0.023, 0.253),
    "brightness": (0.356, 0.700, 0.030, 0.395),
    "sharpness": (0.0036, 0.995, 0.0044, 0.0031),
    "shear-x": (0.047, 0.588, 0.027, 0.133),
    "shear-y": (0.050, 0.588, 0.029, 0.136),
    "translate-x": (0.078, 0.512, 0.040, 0.178),
    "translate-y": (0.078, 0.539, 0.041, 0.177),
}


def toy_photos() -> Tensor:
    return torch.from_numpy(toy_faces(identities=10, photos=10).crops(np.arange(100))).permute(0, 3, 1, 2).float() / 255


def alike(x_BN: Tensor, y_BN: Tensor) -> float:
    """Mean over the rows of the correlation of two batches; rows without any spread are left out."""
    return float(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x_BN, y_BN, strict=True)]).nanmean())


def test_clouds_are_as_uneven_as_those_of_the_source() -> None:
    field = torch.cat([plasma(torch.zeros((100, 3, 112, 112)), generator_of(seed)) for seed in range(3)])
    found = {
        "mean": field.mean(),
        "spread in a photo": field.flatten(1).std(1).mean(),
        "spread of means": field.mean((2, 3)).std(),
        "alike in two channels": alike(field[:, 0].flatten(1), field[:, 1].flatten(1)),
        "largest": field.flatten(1).amax(1).mean(),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(CLOUDS, rel=0.08)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_as_strong_as_that_of_the_source(name: str) -> None:
    x_BCHW = toy_photos()
    changes: dict[str, Callable[[Tensor, Generator], Tensor]] = {
        "plasma-brightness": plasma_brightness,
        "plasma-contrast": plasma_contrast,
    }
    for one, trivial in make_trivial_augment().items():
        changes[one] = lambda x_BCHW, generator, trivial=trivial: photo_by_photo(x_BCHW, trivial, generator)
    assert set(changes) == set(CHANGES)
    found = []
    for seed in range(4):
        changed = changes[name](x_BCHW, generator_of(seed))
        grey, before = changed.mean(1, keepdim=True), x_BCHW.mean(1, keepdim=True)
        colour = ((changed - grey) - (x_BCHW - before)).square().mean().sqrt()
        by = ((changed - x_BCHW).abs().mean(), alike(grey.flatten(1), before.flatten(1)), colour, (grey - before).square().mean().sqrt())
        found.append([float(value) for value in by])
    wanted = CHANGES[name]
    for value, one in zip(np.mean(found, 0).tolist(), wanted, strict=True):
        assert value == pytest.approx(one, rel=0.2, abs=0.0005) or (one == wanted[1] and abs(value - one) < 0.1), (name, found, wanted)


@pytest.mark.parametrize(
    ("name", "right", "down"),  # how far the dot goes at most, in px
    [
        ("rotate", (-9.5, 0), (0, 16.5)),
        ("shear-x", (0, 36.5), (0, 0)),
        ("shear-y", (0, 0), (0, 36.5)),
        ("translate-x", (0, 56), (0, 0)),
        ("translate-y", (0, 0), (0, 56)),
    ],
)
def test_turned_and_moved_photos_go_one_way_and_half_of_them_stay(name: str, right: tuple[float, float], down: tuple[float, float]) -> None:
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    dot = (((y - 29.5) ** 2 + (x - 29.5) ** 2) < 64).float().expand(300, 3, -1, -1)
    moved = photo_by_photo(dot, make_trivial_augment()[name], generator_of(0))
    staying = (moved - dot).abs().amax((1, 2, 3)) < 1e-3
    assert 0.4 < staying.float().mean() < 0.6
    light = moved[:, 0].sum((1, 2))
    for place, (least, most) in ((x, right), (y, down)):
        by = (moved[:, 0] * place).sum((1, 2)) / light - 29.5
        assert float(by.min()) == pytest.approx(least, abs=2) and float(by.max()) == pytest.approx(most, abs=2)
