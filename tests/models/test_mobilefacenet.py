"""MobileFaceNet's own layers give what torch's give, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.mobilefacenet import Depthwise, MobileFaceNet
from pipeline.models.prelu import PReLU


def plain_twin(network: nn.Module) -> nn.Module:
    """A copy with torch's own layers in the place of ours, the same weights."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, PReLU):
            object.__setattr__(module, "__class__", nn.PReLU)
        elif isinstance(module, Depthwise):
            object.__setattr__(module, "__class__", nn.Conv2d)
    return twin


def gradients(network: nn.Module, x_BCHW: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, the input's gradient, the parameters' gradients."""
    x_BCHW = x_BCHW.clone().requires_grad_(True)
    with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        y = network(x_BCHW)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    (y.float() * weight).sum().backward()
    assert x_BCHW.grad is not None
    return y.detach(), x_BCHW.grad, {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_prelu_is_torchs(dtype: torch.dtype, channels_last: bool) -> None:
    torch.manual_seed(0)
    x_BCHW = torch.randn(3, 8, 5, 7)
    x_BCHW[:, :, 0, 0] = 0.0
    if channels_last:
        x_BCHW = x_BCHW.to(memory_format=torch.channels_last)
    ours = PReLU(8)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-0.5, 1.5, 8))
    (y, dx, dw), (y_plain, dx_plain, dw_plain) = (gradients(one, x_BCHW, dtype=dtype) for one in (ours, plain_twin(nn.Sequential(ours))))
    assert torch.equal(y, y_plain) and torch.equal(dx, dx_plain)
    slack = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(dw["weight"], dw_plain["0.weight"], rtol=slack, atol=slack)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_torchs(side: int, stride: int) -> None:
    torch.manual_seed(0)
    x_BCHW = torch.randn(2, 16, side, side).to(torch.bfloat16).to(memory_format=torch.channels_last)
    ours = Depthwise(16, 16, 3, stride, 1, groups=16, bias=False)
    plain = F.conv2d(x_BCHW, ours.weight.to(torch.bfloat16), None, stride, 1, 1, 16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(x_BCHW), plain)
        with torch.no_grad():
            torch.testing.assert_close(ours(x_BCHW), plain)


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_the_network_is_the_plain_one(dtype: torch.dtype, slack: float) -> None:
    torch.manual_seed(0)
    network = MobileFaceNet(width=512, dropout=0.0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    photos = torch.rand(4, 3, 75, 75).to(memory_format=torch.channels_last)
    assert network.state_dict().keys() == plain_twin(network).state_dict().keys()
    (y, dx, dw), (y_plain, dx_plain, dw_plain) = (gradients(one, photos, dtype=dtype) for one in (network, plain_twin(network)))
    for one, plain in ((y, y_plain), (dx, dx_plain), *((dw[name], dw_plain[name]) for name in dw)):
        assert (one - plain).norm() <= slack * plain.norm() + 1e-6
