"""facenet-pytorch's InceptionResnetV1, computed with less work: same parameters under the same names, same result up to rounding.

What is different from the package's own forward, all of it algebra:

- branches of a block that begin with a 1×1 convolution of the same input are one convolution (and one batch norm) of their weights put
  together, so the input is read once forwards and its gradient is written once;
- convolutions of small maps are matrix products, and taps of a kernel that only ever meet padding are left out (`convolve.py`);
- `x + scale · y` is one pass.

The package's own classes are found in its own file: importing the package as a whole imports its detector too, hence torchvision and the
compiler behind it, which is seconds at each stage's start.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pipeline.models.convolve import computed, convolve, pointwise


def facenet_networks() -> Any:
    """facenet-pytorch's module `models.inception_resnet_v1`."""
    name = "facenet_pytorch_networks"
    if name not in sys.modules:
        found = importlib.util.find_spec("facenet_pytorch")
        assert found is not None and found.submodule_search_locations is not None, "facenet-pytorch is not installed"
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = list(found.submodule_search_locations)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.models.inception_resnet_v1")


def inception_resnet_v1(*, classes: int, dropout: float) -> Any:
    """The network with a `logits` layer of `classes`, weights drawn from torch's generator as the package draws them."""
    networks = facenet_networks()
    network = networks.InceptionResnetV1(pretrained=None, classify=True, num_classes=classes, dropout_prob=dropout)
    replace(network, {networks.BasicConv2d: QuickConv})
    replace(network, dict.fromkeys((networks.Block35, networks.Block17, networks.Block8), QuickBlock))
    return network


def replace(network: nn.Module, quick: dict[Any, Callable[[Any], nn.Module]]) -> None:
    """Put what `quick` makes of them in the place of modules of its classes."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in quick:
                setattr(parent, name, quick[type(child)](child))


class QuickConv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.conv, self.bn = made.conv, made.bn

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu_(self.bn(convolve(self.conv, x_BCHW)))


def together(heads: Sequence[Any], x_BCHW: Tensor) -> tuple[Tensor, ...]:
    """What each of `heads`, 1×1 convolutions with batch norm and ReLU, gives for the same input."""
    norms = [head.bn for head in heads]
    y_BCHW = pointwise(x_BCHW, torch.cat([computed(head.conv.weight) for head in heads]))
    first = norms[0]
    mean, variance = (torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var"))
    gamma, beta = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
    assert first.momentum is not None
    if type(first) is nn.BatchNorm2d:
        y_BCHW = F.batch_norm(y_BCHW, mean, variance, gamma, beta, first.training, first.momentum, first.eps)
    else:  # statistics over several processes
        y_BCHW = first.normalise(y_BCHW, mean, variance, gamma, beta)
    sizes = [norm.num_features for norm in norms]
    if first.training:
        with torch.no_grad():
            for norm, new_mean, new_variance in zip(norms, mean.split(sizes), variance.split(sizes), strict=True):
                norm.running_mean.copy_(new_mean)
                norm.running_var.copy_(new_variance)
                norm.num_batches_tracked.add_(1)
    return F.relu_(y_BCHW).split(sizes, dim=1)


class QuickBlock(nn.Module):
    """A residual block: branches that begin with a 1×1 convolution, joined by one, times `scale` on top of the input."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.scale, self.last = made.scale, getattr(made, "noReLU", False)
        for name, child in made.named_children():
            if name != "relu":
                self.add_module(name, child)
        self.branches = [name for name in ("branch0", "branch1", "branch2") if hasattr(self, name)]
        self.joint: nn.Conv2d | None = None  # all branches' first convolutions, once they are folded

    def heads(self) -> list[Any]:
        """The first layer of each branch."""
        branches: list[Any] = [getattr(self, name) for name in self.branches]
        return [branch[0] if isinstance(branch, nn.Sequential) else branch for branch in branches]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branches: list[Any] = [getattr(self, name) for name in self.branches]
        if self.joint is None:
            begun = together(self.heads(), x_BCHW)
        else:
            begun = F.relu_(convolve(self.joint, x_BCHW)).split([head.conv.out_channels for head in self.heads()], dim=1)
        found = []
        for branch, y_BCHW in zip(branches, begun, strict=True):
            for layer in list(branch)[1:] if isinstance(branch, nn.Sequential) else []:
                y_BCHW = layer(y_BCHW)
            found.append(y_BCHW)
        joined = convolve(self.conv2d, torch.cat(found, 1))  # type: ignore[arg-type]
        y_BCHW = torch.add(x_BCHW, joined, alpha=self.scale)
        return y_BCHW if self.last else F.relu_(y_BCHW)


def fold(network: Any) -> None:
    """Fold each batch norm of `network`, as in eval mode, into the convolution or linear layer before it, in place; training is over."""
    for module in network.modules():
        if isinstance(module, QuickConv):
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn.eval()), nn.Identity()
    for module in network.modules():
        if isinstance(module, QuickBlock):
            convolutions = [head.conv for head in module.heads()]
            joint = nn.Conv2d(convolutions[0].in_channels, sum(one.out_channels for one in convolutions), 1, device="meta")
            joint.weight = nn.Parameter(torch.cat([one.weight for one in convolutions]).detach(), requires_grad=False)
            joint.bias = nn.Parameter(torch.cat([one.bias for one in convolutions]).detach(), requires_grad=False)
            module.joint = joint
    network.last_linear, network.last_bn = fuse_linear_bn_eval(network.last_linear, network.last_bn.eval()), nn.Identity()
