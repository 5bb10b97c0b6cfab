"""Convolutions of small maps, done as matrix products, are convolutions."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models import convolve
from pipeline.models.convolve import Few, OfSmallMaps, patches

# (channels, outputs, map, kernel, stride, padding, bias); photos: what is computed by what follows from their number
STRIDED = (6, 4, (7, 7), (3, 3), 2, (0, 0), False)
CASES = {
    "strided": STRIDED,
    "whole map": (6, 4, (3, 3), (3, 3), 2, (0, 0), True),
    "wider than the map": (4, 6, (3, 3), (1, 7), 1, (0, 3), False),
    "higher than the map": (4, 6, (3, 2), (7, 1), 1, (3, 0), False),
    "padded": (4, 4, (5, 4), (3, 3), 1, (1, 1), True),
    "nothing but padding around": (4, 4, (1, 1), (3, 3), 1, (1, 1), False),
}


def found(conv: nn.Conv2d, x_BCHW: Tensor, *, ours: bool) -> tuple[Tensor, ...]:
    """Output, and gradients of its weighted sum by input, kernel and bias."""
    x_BCHW = x_BCHW.detach().requires_grad_(True)
    y_BCHW = F.relu_(convolve.convolve(conv, x_BCHW) if ours else conv(x_BCHW))  # in place, as the networks do
    seed = torch.linspace(-1, 1, y_BCHW.numel(), dtype=torch.float64).view(y_BCHW.shape)
    return y_BCHW, *torch.autograd.grad((y_BCHW * seed).sum(), [x_BCHW, *conv.parameters()])


@pytest.mark.parametrize("photos", [2, 40])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_the_library(case: str, photos: int) -> None:
    channels, outputs, size, kernel, stride, padding, bias = CASES[case]
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(photos, channels, *size, generator=generator, dtype=torch.float64).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=bias).double().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with mock.patch.object(convolve, "few", return_value=Few(output=128, gradient=1024, strided=4096)):
        torch.testing.assert_close(found(conv, x_BCHW, ours=True), found(conv, x_BCHW, ours=False))


def test_patches_are_what_each_position_sees() -> None:
    x_BCHW = torch.randn(3, 5, 7, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    seen = patches(x_BCHW, (3, 2), 2, (1, 0)).view(-1, 3, 2, 5)
    unfolded = F.unfold(x_BCHW, (3, 2), stride=2, padding=(1, 0)).transpose(1, 2).reshape(-1, 5, 3, 2)
    assert torch.equal(seen.permute(0, 3, 1, 2), unfolded)


@pytest.mark.parametrize(("photos", "forward", "backward"), [(4, 0, 0), (100, 1, 0), (600, 1, 1)])
def test_what_is_left_to_the_library_follows_from_the_positions(photos: int, forward: int, backward: int) -> None:
    """9 positions a photo of the strided case: in bf16 outputs up to 512 and gradients up to 4,096 are matrix products."""
    channels, outputs, size, kernel, stride, padding, _ = STRIDED
    conv, x_BCHW = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=False).bfloat16(), torch.randn(photos, channels, *size)
    with mock.patch.object(F, "conv2d", wraps=F.conv2d) as called, mock.patch.object(OfSmallMaps, "apply", wraps=OfSmallMaps.apply) as ours:
        convolve.convolve(conv, x_BCHW.bfloat16())
    assert (called.call_count, 1 - ours.call_count) == (forward, backward)


def test_under_autocast_it_is_computed_in_bf16() -> None:
    channels, outputs, size, kernel, stride, padding, _ = STRIDED
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding)
    x_BCHW = torch.rand(4, channels, *size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y_BCHW = convolve.convolve(conv, x_BCHW)
    y_BCHW.float().sum().backward()
    assert y_BCHW.dtype == torch.bfloat16
    wanted = F.conv2d(x_BCHW, conv.weight, conv.bias, stride, padding)
    torch.testing.assert_close(y_BCHW.float(), wanted, atol=0.02, rtol=0.02)
    assert conv.weight.grad is not None and conv.weight.grad.dtype == torch.float32
    (gradient,) = torch.autograd.grad(wanted.sum(), conv.weight)
    torch.testing.assert_close(conv.weight.grad, gradient, atol=0.05, rtol=0.02)
