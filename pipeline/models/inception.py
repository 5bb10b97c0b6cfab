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
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

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
        self.joint: nn.Conv2d | None = None  # all branches' first convolutions, once they are folded,
        self.sizes: list[int] = []  # and how many channels each of them gives

    def heads(self) -> list[Any]:
        """The first layer of each branch."""
        branches: list[Any] = [getattr(self, name) for name in self.branches]
        return [branch[0] if isinstance(branch, nn.Sequential) else branch for branch in branches]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branches: list[Any] = [getattr(self, name) for name in self.branches]
        begun = together(self.heads(), x_BCHW) if self.joint is None else F.relu_(convolve(self.joint, x_BCHW)).split(self.sizes, dim=1)
        found = []
        for branch, y_BCHW in zip(branches, begun, strict=True):
            for layer in list(branch)[1:] if isinstance(branch, nn.Sequential) else []:
                y_BCHW = layer(y_BCHW)
            found.append(y_BCHW)
        joined = convolve(self.conv2d, torch.cat(found, 1))  # type: ignore[arg-type]
        y_BCHW = torch.add(x_BCHW, joined, alpha=self.scale)
        return y_BCHW if self.last else F.relu_(y_BCHW)


def fold(network: Any) -> None:
    """Take the batch norms out of `network`, in place, for `refold` to put them into the weights of the layers before them."""
    for module in network.modules():
        if isinstance(module, QuickBlock):
            heads = module.heads()
            module.joint = empty_convolution(heads[0].conv, sum(head.conv.out_channels for head in heads))
            module.sizes = [head.conv.out_channels for head in heads]
            for head in heads:  # which the joint layer stands for
                head.conv, head.bn = nn.Identity(), nn.Identity()
    for module in network.modules():
        if isinstance(module, QuickConv) and isinstance(module.conv, nn.Conv2d):
            module.conv, module.bn = empty_convolution(module.conv, module.conv.out_channels), nn.Identity()
    linear = nn.Linear(network.last_linear.in_features, network.last_linear.out_features, device="meta")
    linear.weight, linear.bias = empty(network.last_linear.weight), empty(network.last_linear.weight[:, 0])
    network.last_linear, network.last_bn = linear, nn.Identity()


def empty(like: Tensor) -> nn.Parameter:
    """A weight as `like` lies in memory, without content, that nothing is learnt by."""
    return nn.Parameter(torch.empty_like(like), requires_grad=False)


def empty_convolution(like: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution with a bias and without content, of `channels` outputs, else as `like`."""
    made = nn.Conv2d(like.in_channels, channels, like.kernel_size, like.stride, like.padding, device="meta")  # type: ignore[arg-type]
    weight = like.weight[:1].expand(channels, -1, -1, -1)
    made.weight, made.bias = empty(weight.contiguous(memory_format=torch.channels_last)), empty(like.weight.new_empty(channels))
    return made


@torch.no_grad()
def refold(folded: Any, network: Any) -> None:
    """Give `folded`, which `fold` made of a copy of `network`, the weights that do what `network` does now; tensors stay where they are."""
    now = dict(network.named_modules())
    for name, module in folded.named_modules():
        if isinstance(module, QuickBlock):
            assert module.joint is not None
            begun = [without_norm(head) for head in now[name].heads()]
            module.joint.weight.copy_(torch.cat([weight for weight, _ in begun]))
            module.joint.bias.copy_(torch.cat([bias for _, bias in begun]))  # type: ignore[union-attr]
            module.conv2d.load_state_dict(now[name].conv2d.state_dict())  # type: ignore[union-attr]
        elif isinstance(module, QuickConv) and isinstance(module.conv, nn.Conv2d):
            for place, found in zip((module.conv.weight, module.conv.bias), without_norm(now[name]), strict=True):
                place.copy_(found)  # type: ignore[union-attr]
    linear, norm = network.last_linear, network.last_bn
    found = fuse_linear_bn_weights(linear.weight, linear.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    for place, one in zip((folded.last_linear.weight, folded.last_linear.bias), found, strict=True):
        place.copy_(one)


def without_norm(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `layer`, a `QuickConv`, does before its ReLU in eval mode."""
    conv, norm = layer.conv, layer.bn
    return fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
