"""The transforms a robust search looks through: each by itself against a library, their gradient, and whose draw is whose."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.countermeasures.compression import jpeg
from pipeline.noise.error_min import blurred
from pipeline.noise.transforms import STATIC, Transforms, draw_transforms, transformed
from tests.conftest import toy_faces


def nothing(count: int) -> Transforms:
    """Transforms that leave `count` photos nearly as they are: no shift, no resize, no blur, JPEG 100, and static."""
    return Transforms(
        shift=np.zeros((count, 2), np.int64),
        size=np.full(count, 112),
        sigma=np.full(count, 0.1, np.float32),
        light=np.ones(count, np.float32),
        contrast=np.ones(count, np.float32),
        grey=np.zeros(count, bool),
        quality=np.full(count, 100),
        static=np.zeros(count, np.int64),
        seed=0,
    )


@pytest.fixture
def x_BCHW() -> torch.Tensor:
    crops = toy_faces(identities=2, photos=3).shards[0]
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(autouse=True)
def without_static_and_jpeg(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Both hide what the linear ones do; a test that wants them has the mark `whole`."""
    if "whole" not in request.fixturenames:
        monkeypatch.setattr("pipeline.noise.transforms.static", lambda *_: 0.0)
        monkeypatch.setattr("pipeline.noise.transforms.through_jpeg", lambda x, _: x)


@pytest.fixture
def whole() -> None:
    """The test is about static and JPEG, too."""


def test_nothing_changes_nothing(x_BCHW: torch.Tensor) -> None:
    torch.testing.assert_close(transformed(x_BCHW, nothing(6)), x_BCHW)


def test_shift_mirrors_the_border(x_BCHW: torch.Tensor) -> None:
    shift = np.array([[0, 0], [6, 0], [0, -6], [-3, 2], [6, 6], [1, -1]])
    found = transformed(x_BCHW, replace(nothing(6), shift=shift))
    padded = F.pad(x_BCHW, [6] * 4, mode="reflect")
    wanted = torch.stack(
        [photo[:, 6 + down : 118 + down, 6 + right : 118 + right] for photo, (down, right) in zip(padded, shift, strict=True)]
    )
    torch.testing.assert_close(found, wanted)


def test_resize_is_there_and_back_by_interpolation(x_BCHW: torch.Tensor) -> None:
    size = np.array([80, 112, 160, 97, 80, 131])
    found = transformed(x_BCHW, replace(nothing(6), size=size))
    for photo, one, px in zip(x_BCHW, found, size, strict=True):
        small = F.interpolate(photo[None], size=(px, px), mode="bilinear", antialias=True)
        wanted = F.interpolate(small, size=(112, 112), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=1e-4)


def test_blur_is_gaussian(x_BCHW: torch.Tensor) -> None:
    found = transformed(x_BCHW, replace(nothing(6), sigma=np.full(6, 1.0, np.float32)))
    torch.testing.assert_close(found, blurred(x_BCHW, 1.0), atol=1e-5, rtol=1e-4)


def test_grey_is_luma_and_of_the_photos_that_were_drawn(x_BCHW: torch.Tensor) -> None:
    grey = np.array([True, False, True, False, False, True])
    found = transformed(x_BCHW, replace(nothing(6), grey=grey))
    for photo, one, is_grey in zip(x_BCHW, found, grey, strict=True):
        crop = (photo.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        wanted = np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[None], 3, 0) if is_grey else crop.transpose(2, 0, 1)
        assert np.abs(one.numpy() * 255 - wanted).max() <= 0.51


def test_light_and_contrast(x_BCHW: torch.Tensor) -> None:
    factors = {"light": np.full(6, 1.1, np.float32), "contrast": np.full(6, 0.8, np.float32)}
    found = transformed(x_BCHW, replace(nothing(6), **factors))
    mean = x_BCHW.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(found, (((x_BCHW - mean) * 0.8 + mean) * 1.1).clamp(0, 1))


def test_jpeg_is_the_encoders_and_its_gradient_passes_it_by(x_BCHW: torch.Tensor, whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.noise.transforms.STATIC", 0.0)
    x_BCHW = x_BCHW.requires_grad_(True)
    found = transformed(x_BCHW, replace(nothing(6), quality=np.array([95, 50, 20, 95, 50, 20])))
    crops = (x_BCHW.detach().permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    for i, quality in ((0, 95), (4, 50), (5, 20)):
        wanted = jpeg(crops[i : i + 1], quality=quality)[0]
        assert np.abs(found[i].detach().permute(1, 2, 0).numpy() * 255 - wanted).max() < 0.01
    (gradient,) = torch.autograd.grad(found[:, :, 30:80, 30:80].sum(), x_BCHW)
    torch.testing.assert_close(gradient[:, :, 40:70, 40:70], torch.ones(6, 3, 30, 30))


def test_static_is_small_and_another_one_for_each_field(x_BCHW: torch.Tensor, whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.noise.transforms.through_jpeg", lambda x, _: x)
    middle = x_BCHW * 0 + 0.5
    change = transformed(middle, replace(nothing(6), static=np.array([0, 1, 32, 33, 5, 5]))) - middle
    assert 0.95 * STATIC < change.abs().max() <= STATIC
    torch.testing.assert_close(change[0], -change[2])
    torch.testing.assert_close(change[4], change[5])
    assert abs(float((change[0] * change[1]).mean())) < 0.05 * STATIC**2


def test_a_gradient_reaches_every_pixel_and_draws_are_by_photo(x_BCHW: torch.Tensor, whole: None) -> None:
    drawn = draw_transforms(np.random.default_rng(0), 6)
    x_BCHW = x_BCHW.requires_grad_(True)
    found = transformed(x_BCHW, drawn)
    assert found.shape == x_BCHW.shape and found.min() >= 0 and found.max() <= 1
    (gradient,) = torch.autograd.grad(found.square().sum(), x_BCHW)
    assert (gradient[:, :, 8:-8, 8:-8] != 0).float().mean() > 0.99
    # A photo's own transforms are the same, whichever part of the photos it is looked at with: processes share out a pass.
    torch.testing.assert_close(transformed(x_BCHW[2:5], drawn.part(slice(2, 5))), found[2:5])
