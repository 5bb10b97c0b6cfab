"""Backbones that turn faces into embeddings: prepared float crops (B, 3, S, S) in, float (B, 512) out, not yet normalised.

The names are those of `TrainConfig.model`. A trainer may use any network, so noise searched with one is tried on the others.
"""

from __future__ import annotations

from torch import nn

from pipeline.models.inception import inception_resnet_v1
from pipeline.models.mobilefacenet import MobileFaceNet

WIDTH = 512  # of every embedding
TITLES = {"inception-resnet-v1": "InceptionResnetV1", "mobilefacenet": "MobileFaceNet", "resnet18": "ResNet-18"}


def make_backbone(name: str, *, classes: int, dropout: float) -> tuple[nn.Module, nn.Linear]:
    """The backbone called `name` and a linear head of `classes` logits, weights drawn from torch's generator."""
    if name == "inception-resnet-v1":
        network = inception_resnet_v1(classes=classes, dropout=dropout)
        head = network.logits
        network.logits = nn.Identity()  # type: ignore[assignment]  # what its last batch norm gives is the embedding
        return network, head
    if name == "mobilefacenet":
        return MobileFaceNet(width=WIDTH, dropout=dropout), nn.Linear(WIDTH, classes)
    assert name == "resnet18", name
    return embedding_resnet18(dropout=dropout), nn.Linear(WIDTH, classes)


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
