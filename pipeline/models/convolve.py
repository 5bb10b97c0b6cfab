"""Convolutions of small maps on a CPU, done as matrix products where oneDNN's own are slow: same result up to rounding.

A convolution's patches, one row a position of the output, are a matrix (`patches`); times the kernel it is the output, and the output's
gradient times it is the kernel's gradient. oneDNN computes without that copy, which is quicker for large maps, but falls far behind
the machine's matrix product where an output has few positions. `benchmarks/small_maps.py` shows both ways layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW = 1024  # positions (photos × height × width of the output) up to which a 1×1 convolution is quicker as a matrix product


class Few(NamedTuple):
    """Up to how many positions larger kernels are quicker as matrix products."""

    output: int
    gradient: int  # of the kernel
    strided: int  # the same where a stride slows the library down


def few(dtype: torch.dtype) -> Few:
    """As measured for InceptionResnetV1's layers (`benchmarks/small_maps.py`): bf16 on AMD Zen 5 and with Intel's AMX; float32 with Intel's
    AVX512, and on AMD held to AVX2.
    """
    if dtype == torch.bfloat16:
        return Few(output=512, gradient=1024, strided=4096)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return Few(output=512, gradient=512, strided=4096)
    return Few(output=128, gradient=1024, strided=4096)


def convolve(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """What `conv` gives, (B, O, height, width), in the dtype of `computed`, for x_BCHW of any memory format (channels_last is quick).

    Kernels wider than the map lose the taps that meet nothing but padding. One stride for both sides, no dilation, no groups.
    """
    weight, padding = computed(conv.weight), [int(pixels) for pixels in conv.padding]
    stride = conv.stride[0]
    assert conv.stride == (stride, stride) and conv.dilation == (1, 1) and conv.groups == 1
    for side in (0, 1):
        size, kernel = x_BCHW.shape[2 + side], weight.shape[2 + side]
        if stride == 1 and kernel == 2 * padding[side] + 1 and padding[side] >= size:
            spare = padding[side] - size + 1
            weight = weight.narrow(2 + side, spare, kernel - 2 * spare)
            padding[side] = size - 1
    if weight.shape[2:] == (1, 1) and stride == 1 and padding == [0, 0]:
        return pointwise(x_BCHW, weight, conv.bias)
    x_BCHW, bias = computed(x_BCHW), None if conv.bias is None else computed(conv.bias)
    if x_BCHW.device.type != "cpu":
        return F.conv2d(x_BCHW, weight, bias, stride, padding)
    if weight.shape[2:] == x_BCHW.shape[2:] and padding == [0, 0]:  # one position: each photo's whole map is its patch
        return F.linear(by_channels(x_BCHW).flatten(1), by_channels(weight).flatten(1), bias)[:, :, None, None]
    down, right = (
        (size + 2 * pad - kernel) // stride + 1 for size, pad, kernel in zip(x_BCHW.shape[2:], padding, weight.shape[2:], strict=True)
    )
    limit = few(x_BCHW.dtype)
    if 0 < len(x_BCHW) * down * right <= (limit.gradient if stride == 1 else limit.strided):
        return OfSmallMaps.apply(x_BCHW, weight, bias, stride, tuple(padding), (down, right))
    return F.conv2d(x_BCHW, weight, bias, stride, padding)


def computed(tensor: Tensor) -> Tensor:
    """`tensor` in the dtype that its device's autocast computes in. Weights are rounded before they are cut or put together, so that their
    gradients are, too.
    """
    device = tensor.device.type
    cast = torch.is_autocast_enabled(device) and tensor.dtype == torch.float32
    return tensor.to(torch.get_autocast_dtype(device)) if cast else tensor


def pointwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1×1 convolution of stride 1, weight (O, C, 1, 1)."""
    batch, channels, height, width = x_BCHW.shape
    if x_BCHW.device.type != "cpu" or batch * height * width > FEW:
        return F.conv2d(x_BCHW, weight, bias)
    flat = by_channels(x_BCHW).reshape(-1, channels)
    return F.linear(flat, weight.view(len(weight), channels), bias).view(batch, height, width, len(weight)).permute(0, 3, 1, 2)


def by_channels(x_BCHW: Tensor) -> Tensor:
    """(B, H, W, C): how a channels_last tensor lies in memory."""
    return x_BCHW.permute(0, 2, 3, 1)


def patches(x_BCHW: Tensor, kernel: Sequence[int], stride: int, padding: tuple[int, int]) -> Tensor:
    """What each position of the output sees: (positions, kernel height × kernel width × C)."""
    tall, wide = padding
    x_BHWC = by_channels(F.pad(x_BCHW, (wide, wide, tall, tall)) if any(padding) else x_BCHW).contiguous()
    batch, height, width, channels = x_BHWC.shape
    down, right = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    photo, row, column, channel = x_BHWC.stride()
    seen = x_BHWC.as_strided((batch, down, right, *kernel, channels), (photo, row * stride, column * stride, row, column, channel))
    return seen.reshape(batch * down * right, kernel[0] * kernel[1] * channels)


class OfSmallMaps(torch.autograd.Function):
    """A convolution on the CPU whose kernel's gradient, and for few positions output, are matrix products."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """The output (B, O, *size); weight (O, C, h, w) and bias (O,) of the input's dtype."""
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(x_BCHW, weight)
        if len(x_BCHW) * size[0] * size[1] > few(x_BCHW.dtype).output:
            return F.conv2d(x_BCHW, weight, bias, stride, padding)
        seen = patches(x_BCHW, weight.shape[2:], stride, padding)
        kernels = by_channels(weight).reshape(len(weight), -1).t()
        # Written where it belongs: a view of what is computed here could not be changed in place by the ReLU that follows.
        y_BCHW = torch.empty((len(x_BCHW), len(weight), *size), dtype=x_BCHW.dtype, memory_format=torch.channels_last)
        flat = by_channels(y_BCHW).view(-1, len(weight))
        if bias is None:
            torch.mm(seen, kernels, out=flat)
        else:
            torch.addmm(bias, seen, kernels, out=flat)
        return y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, kernel and bias."""
        (gradient,), (x_BCHW, weight), stride, padding = gradients, ctx.saved_tensors, ctx.stride, ctx.padding
        of_input = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input, _, _ = torch.ops.aten.convolution_backward(
                gradient, x_BCHW, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )
        if ctx.needs_input_grad[1]:
            seen = patches(x_BCHW, weight.shape[2:], stride, padding)
            flat = by_channels(gradient).reshape(-1, len(weight)).t() @ seen
            of_kernel = flat.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_kernel, of_bias, None, None, None
