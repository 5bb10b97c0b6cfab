"""Backbones that turn faces into embeddings: prepared float crops (B, 3, S, S) in, float (B, 512) out, not yet normalised.

The names are those of `TrainConfig.model`. A trainer may use any network, so noise searched with one is tried on the others.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.inception import inception_resnet_v1

WIDTH = 512  # of every embedding


def make_backbone(name: str, *, classes: int, dropout: float) -> tuple[nn.Module, nn.Linear]:
    """The backbone called `name` and a linear head of `classes` logits, weights drawn from torch's generator."""
    if name == "inception-resnet-v1":
        network = inception_resnet_v1(classes=classes, dropout=dropout)
        head = network.logits
        network.logits = nn.Identity()  # type: ignore[assignment]  # what its last batch norm gives is the embedding
        return network, head
    makers = {"resnet18": embedding_resnet18, "mobilefacenet": MobileFaceNet}
    assert name in makers, name
    return makers[name](dropout=dropout), nn.Linear(WIDTH, classes)


def embedding_resnet18(*, dropout: float) -> nn.Module:
    """torchvision's ResNet-18 (He et al., CVPR 2016) with the embedding layer of ArcFace's networks in place of its head.

    The first convolution has stride 1: crops of 112 px are half as large as the photos the network was drawn for.
    """
    from torchvision.models import resnet18  # heavy: only where it is used

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    network.fc = nn.Sequential(  # type: ignore[assignment]
        nn.Dropout(dropout), nn.Linear(network.fc.in_features, WIDTH, bias=False), nn.BatchNorm1d(WIDTH)
    )
    return network


class ConvBlock(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, PReLU."""

    def __init__(self, inside: int, outside: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1, linear: bool = False):
        layers: list[nn.Module] = [
            nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outside),
        ]
        super().__init__(*layers, *([] if linear else [nn.PReLU(outside)]))


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
    """MobileFaceNet (Chen et al., CCBR 2018, table 1) with a 512-d embedding; any input size, 112 px is its own."""

    # expansion, channels, repeats, stride of the first
    STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(3, 64, 3, stride=2, padding=1), ConvBlock(64, 64, 3, padding=1, groups=64)]
        inside = 64
        for expansion, outside, repeats, stride in self.STAGES:
            for number in range(repeats):
                layers.append(Bottleneck(inside, outside, expansion=expansion, stride=stride if number == 0 else 1))
                inside = outside
        self.features = nn.Sequential(*layers, ConvBlock(128, WIDTH, 1))
        self.depthwise = nn.Parameter(0.1 * nn.init.trunc_normal_(nn.Linear(7 * 7, WIDTH, bias=False).weight.detach()))
        self.embedding = nn.Sequential(
            nn.BatchNorm1d(WIDTH), nn.Dropout(dropout), nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.features(x_BCHW)
        if y_BCHW.shape[-1] != 7:
            y_BCHW = F.adaptive_avg_pool2d(y_BCHW, 7)
        # The global depthwise convolution: one weight a place and channel, so the eyes count otherwise than the background.
        return self.embedding((y_BCHW.flatten(2) * self.depthwise).sum(2))
