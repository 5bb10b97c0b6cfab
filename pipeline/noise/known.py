"""Recognisers that exist already, as networks through which a gradient reaches the crop: facenet-pytorch's and insightface's.

A cloak is made against these (`pipeline/noise/cloak.py`). All take float RGB crops in [0, 1], NCHW, 112×112 px, aligned as the project's
own, and give embeddings for comparison by cosine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.models.arcface_onnx import ArcFaceOnnx
from pipeline.models.prelu import prelu
from pipeline.models.recognisers import for_inference, make_recogniser

ALIKE = 0.999  # cosine of an embedding by torch and by onnxruntime


class KnownOnnx(nn.Module):
    """An insightface recogniser in torch. `mean` and `std` are what its input is normalised by, in 1/255."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D), float32."""
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return F.normalize(self.network((x_BCHW * 255 - self.mean) / self.std).float(), dim=1)


class ChannelPReLU(nn.Module):
    """onnx2torch's PReLU, by `prelu` where there is a slope a channel."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()
        self.known = known

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """x (B, C, H, W) where it is above zero, else times its channel's slope (C, 1, 1); other shapes as onnx2torch does it."""
        return prelu(x, slope.view(-1)) if x.ndim == 4 and slope.shape == (x.shape[1], 1, 1) else self.known(x, slope)


def load_known(path: Path, *, input_size: int) -> Any:
    """A network with `embed`: float crops in [0, 1], (B, 3, 112, 112), to L2-normalised float32 (B, D); frozen, in eval mode.

    Args:
        path: safetensors of facenet-pytorch's InceptionResnetV1, or an insightface recogniser (.onnx).
        input_size: px that crops are resized to for the former; the latter takes crops as they are.

    Raises:
        StageError: the file is missing, damaged or of another network, or torch does not compute what the file says.
    """
    if path.suffix == ".onnx":
        return load_onnx(path)
    made = make_recogniser(classes=2, input_size=input_size, dropout=0.0, normalise=True, seed=0, weights=path)
    return for_inference(made.to(memory_format=torch.channels_last), bf16=False)  # type: ignore[call-overload]


def load_onnx(path: Path) -> KnownOnnx:
    """An insightface recogniser, converted, and held to what onnxruntime gives on two crops."""
    reader = ArcFaceOnnx(path)  # says what is wrong with the file, and knows its normalisation
    import onnx
    from onnx2torch import convert
    from onnx2torch.node_converters.activations import OnnxPReLU

    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    try:
        network = convert(onnx.load(str(path)))
        for name in [name for name, layer in network.named_modules() if isinstance(layer, OnnxPReLU)]:
            network.set_submodule(name, ChannelPReLU(network.get_submodule(name)))
        made = KnownOnnx(network, float(reader.network.input_mean), float(reader.network.input_std)).eval().requires_grad_(False)
        with torch.no_grad():
            found = made.embed(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255).numpy()
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise StageError(f"{path}: torch cannot compute it ({str(error).splitlines()[0][:160]})") from None
    if not (found * reader(crops)).sum(1).min() >= ALIKE:  # nor where a number is none
        raise StageError(f"{path}: torch computes other embeddings from it than onnxruntime does")
    return made
