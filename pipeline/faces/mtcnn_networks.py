"""MTCNN's three networks (Zhang et al., 2016) with the weights in facenet-pytorch's wheel, arranged for speed.

They compute what facenet-pytorch's PNet, RNet and ONet compute, to rounding. The normalisation (x − 127.5)/128 is folded into the first
convolution, so that pixels go in as they are, 0..255; of the two-way softmax only the difference of its inputs is computed; all is
channels_last, without a copy between layers. Neither facenet_pytorch nor torchvision is imported: that takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StageError

if TYPE_CHECKING:
    import torch

PNET_CELL, PNET_STRIDE = 12, 2  # P-Net is a 12×12 window moved by 2
RNET_SIDE, ONET_SIDE = 24, 48


def read_weights(network: str) -> dict[str, torch.Tensor]:
    """The float32 weights of `pnet`, `rnet` or `onet`, by facenet-pytorch's names.

    Raises:
        StageError: facenet-pytorch is not installed.
    """
    import torch

    package = find_spec("facenet_pytorch")
    if package is None or not package.submodule_search_locations:
        raise StageError("facenet-pytorch is not installed, and MTCNN's weights come with it; run `make setup`")
    path = Path(package.submodule_search_locations[0]) / "data" / f"{network}.pt"
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class Layer:
    """A convolution or a matrix product, and the PReLU after it."""

    weight: torch.Tensor
    bias: torch.Tensor
    slope: torch.Tensor

    def convolve(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Valid convolution, PReLU."""
        import torch
        from torch.nn.functional import conv2d, prelu

        if x_BCHW.device.type == "cpu":  # asked for by name: with one thread and small batches torch would take a slower one
            y = torch.mkldnn_convolution(x_BCHW, self.weight, self.bias, (0, 0), (1, 1), (1, 1), 1)
        else:
            y = conv2d(x_BCHW, self.weight, self.bias)
        return prelu(y, self.slope)

    def multiply(self, x_NC: torch.Tensor) -> torch.Tensor:
        """Matrix product, PReLU."""
        from torch.nn.functional import linear, prelu

        return prelu(linear(x_NC, self.weight, self.bias), self.slope)


def max_pool(x_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    """`max_pool2d(x, size, 2, ceil_mode=True)` of a channels_last tensor; on a CPU in a third of the time, rows first, then columns."""
    import torch

    if x_BCHW.device.type != "cpu":
        return torch.nn.functional.max_pool2d(x_BCHW, size, 2, ceil_mode=True)
    x = x_BCHW.permute(0, 2, 3, 1)
    for dimension in (1, 2):
        x = x.transpose(0, dimension)
        windows = -(-(len(x) - size) // 2) + 1
        parts = [x[shift : shift + 2 * windows - 1 : 2] for shift in range(size)]
        within = len(parts[-1])  # windows that do not reach beyond the rim: the last one may
        y = torch.empty_like(parts[0])
        torch.maximum(parts[0][:within], parts[1][:within], out=y[:within])
        y[within:] = parts[0][within:]
        for part in parts[1:] if within < windows else parts[2:]:
            torch.maximum(y[: len(part)], part, out=y[: len(part)])
        x = y.transpose(0, dimension)
    return x.permute(0, 3, 1, 2)


class Network:
    """What the three share: convolutions, and heads on the features they end in."""

    def __init__(self, name: str, *, device: torch.device) -> None:
        import torch

        state = read_weights(name)
        state["conv1.bias"] = state["conv1.bias"] - state["conv1.weight"].sum((1, 2, 3)) * (127.5 / 128)
        state["conv1.weight"] = torch.nn.functional.pad(state["conv1.weight"] / 128, (0, 0, 0, 0, 0, 1))  # a fourth channel, not looked at
        convolutions = sum(f"conv{number}.weight" in state for number in range(1, 5))
        self.layers = [self.layer(state, "conv", number, device) for number in range(1, convolutions + 1)]
        self.state, self.device = state, device

    @staticmethod
    def layer(state: dict[str, torch.Tensor], kind: str, number: int, device: torch.device) -> Layer:
        """The layer `conv<number>` or `dense<number>` with its PReLU, on the device."""
        import torch

        weight = state[f"{kind}{number}.weight"].to(device)
        if weight.ndim == 4:
            weight = weight.to(memory_format=torch.channels_last)
        return Layer(weight, state[f"{kind}{number}.bias"].to(device), state[f"prelu{number}.weight"].to(device))

    def head(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (outputs × features) and bias of an output; of a two-way softmax, one output: the log-odds of a face."""
        weight, bias = self.state[f"{name}.weight"].flatten(1), self.state[f"{name}.bias"]
        if name.endswith("_1"):
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        return weight.to(self.device), bias.to(self.device)


class PNet(Network):
    """Log-odds of a face in each 12×12 window, and where in it the face's box lies."""

    def __init__(self, *, device: torch.device) -> None:
        super().__init__("pnet", device=device)
        self.odds, self.box = self.head("conv4_1"), self.head("conv4_2")

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """float32 B×H'×W'×32 of pixels 0..255, float32 B×4×H×W; each side of at least 12."""
        x = max_pool(self.layers[0].convolve(x_BCHW), 2)
        return self.layers[2].convolve(self.layers[1].convolve(x)).permute(0, 2, 3, 1)


class CropNet(Network):
    """R-Net or O-Net: log-odds of a face in a crop, its box and, of O-Net, its landmarks, relative to the crop."""

    def __init__(self, name: str, *, device: torch.device) -> None:
        super().__init__(name, device=device)
        dense = len(self.layers) + 1
        last = self.layers[-1].weight.shape[0]
        weight = self.state[f"dense{dense}.weight"]
        side = int((weight.shape[1] // last) ** 0.5)
        # features come as rows, columns, channels; facenet-pytorch has columns, rows, channels
        self.state[f"dense{dense}.weight"] = weight.view(-1, side, side, last).transpose(1, 2).flatten(1).contiguous()
        self.dense = self.layer(self.state, "dense", dense, device)
        heads: list[Any] = [
            self.head(f"dense{dense + 1}_{number}") for number in (1, 2, 3) if f"dense{dense + 1}_{number}.bias" in self.state
        ]
        import torch

        self.heads = torch.cat([weight for weight, _ in heads]), torch.cat([bias for _, bias in heads])

    def outputs(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """float32 B×5 (log-odds, box) or B×15 (and five x, then five y) of pixels 0..255, float32 B×4×S×S."""
        from torch.nn.functional import linear

        x = x_BCHW
        for number, layer in enumerate(self.layers):
            x = layer.convolve(x)
            if number < len(self.layers) - 1:
                x = max_pool(x, 3 if number < 2 else 2)
        return linear(self.dense.multiply(x.permute(0, 2, 3, 1).flatten(1)), *self.heads)
