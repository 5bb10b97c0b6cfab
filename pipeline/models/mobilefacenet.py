"""MobileFaceNet (Chen et al., CCBR 2018), two layers of it written anew for CPUs: same parameters, same result up to rounding.

torch's PReLU goes backwards one number at a time on a CPU, and its strided depthwise convolution takes a slow path in bf16; together they
were two thirds of a training step at 75 px. `python -m benchmarks.trial_costs mobilefacenet` says what an epoch costs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from pipeline.models.prelu import PReLU


class Depthwise(nn.Conv2d):
    """A depthwise convolution; in bf16 on a CPU one that trains takes every place first and then leaves out what its stride skips."""

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        if stride == 1 or input.device.type != "cpu" or input.dtype is not torch.bfloat16 or not torch.is_grad_enabled():
            return super().forward(input)
        return F.avg_pool2d(F.conv2d(input, self.weight, self.bias, 1, self.padding, 1, self.groups), 1, stride)


class ConvBlock(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, PReLU."""

    def __init__(self, inside: int, outside: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1, linear: bool = False):
        convolution = nn.Conv2d if groups == 1 else Depthwise
        layers: list[nn.Module] = [
            convolution(inside, outside, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outside),
        ]
        super().__init__(*layers, *([] if linear else [PReLU(outside)]))


class Bottleneck(nn.Module):
    """Inverted residual with depthwise convolution (Sandler et al., CVPR 2018)."""

    def __init__(self, inside: int, outside: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inside * expansion
        self.residual = stride == 1 and inside == outside
        self.layers = nn.Sequential(
            ConvBlock(inside, middle, 1),
            ConvBlock(middle, middle, 3, stride=stride, padding=1, groups=middle),
            ConvBlock(middle, outside, 1, linear=True),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.layers(x_BCHW)
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class MobileFaceNet(nn.Module):
    """The network of the paper's table 1, embeddings of `width`; any input size, 112 px is its own."""

    # expansion, channels, repeats, stride of the first
    STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(3, 64, 3, stride=2, padding=1), ConvBlock(64, 64, 3, padding=1, groups=64)]
        inside = 64
        for expansion, outside, repeats, stride in self.STAGES:
            for number in range(repeats):
                layers.append(Bottleneck(inside, outside, expansion=expansion, stride=stride if number == 0 else 1))
                inside = outside
        self.features = nn.Sequential(*layers, ConvBlock(inside, 512, 1))
        self.depthwise = nn.Parameter(0.1 * nn.init.trunc_normal_(nn.Linear(7 * 7, 512, bias=False).weight.detach()))
        self.embedding = nn.Sequential(nn.BatchNorm1d(512), nn.Dropout(dropout), nn.Linear(512, width, bias=False), nn.BatchNorm1d(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.features(x_BCHW)
        if y_BCHW.shape[-1] != 7:
            y_BCHW = F.adaptive_avg_pool2d(y_BCHW, 7)
        # The global depthwise convolution: one weight a place and channel, so the eyes count otherwise than the background.
        return self.embedding((y_BCHW.flatten(2) * self.depthwise).sum(2))


def blocks_of(network: Any) -> list[Any]:
    """The convolutions with batch norm, in order."""
    return [module for module in network.modules() if isinstance(module, ConvBlock)]


def fold(network: Any) -> None:
    """Take the batch norms out of `network`, in place, for `refold` to put them into the weights of the layers beside them."""
    for block in blocks_of(network):
        block[0].bias, block[1] = nn.Parameter(torch.empty_like(block[0].weight[:, 0, 0, 0]), requires_grad=False), nn.Identity()
    linear = network.embedding[2]
    linear.bias = nn.Parameter(torch.empty_like(linear.weight[:, 0]), requires_grad=False)
    network.embedding[0], network.embedding[3] = nn.Identity(), nn.Identity()


@torch.no_grad()
def refold(folded: Any, network: Any) -> None:
    """Give `folded`, which `fold` made of a copy of `network`, the weights that do what `network` does now; tensors stay where they are."""
    for block, now in zip(blocks_of(folded), blocks_of(network), strict=True):
        weight, norm = now[0].weight, now[1]
        found = fuse_conv_bn_weights(weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        put(found, block[0])
        if len(block) > 2:
            block[2].weight.copy_(now[2].weight)
    folded.depthwise.copy_(network.depthwise)
    before, _, linear, after = network.embedding
    scale_C = before.weight / (before.running_var + before.eps).sqrt()
    weight, bias = linear.weight * scale_C, linear.weight @ (before.bias - scale_C * before.running_mean)
    put(
        fuse_linear_bn_weights(weight, bias, after.running_mean, after.running_var, after.eps, after.weight, after.bias),
        folded.embedding[2],
    )


def put(found: tuple[Tensor, Tensor], layer: Any) -> None:
    """Give a layer a weight and a bias, each where it is."""
    layer.weight.copy_(found[0])
    layer.bias.copy_(found[1])
