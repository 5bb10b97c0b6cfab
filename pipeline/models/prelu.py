"""PReLU that goes backwards quickly on a CPU, where torch's goes one number at a time, and computes the slopes' gradient even where nobody
learns them. Of MobileFaceNet, and of recognisers read from ONNX (`pipeline/noise/known.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class QuickPReLU(torch.autograd.Function):
    """PReLU of x (B, C, H, W) with a slope a channel (C,), both of one dtype."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, slope_C: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, slope_C)
        return F.prelu(x_BCHW, slope_C)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        (grad_BCHW,) = grads
        x_BCHW, slope_C = ctx.saved_tensors
        above_BCHW = torch.ops.aten.threshold_backward(grad_BCHW, x_BCHW, 0)  # the gradient where x > 0
        below_BCHW = grad_BCHW - above_BCHW
        grad_x_BCHW = torch.addcmul(above_BCHW, below_BCHW, slope_C.view(1, -1, 1, 1))
        return grad_x_BCHW, below_BCHW.mul_(x_BCHW).sum((0, 2, 3)) if ctx.needs_input_grad[1] else None


def prelu(x_BCHW: Tensor, slope_C: Tensor) -> Tensor:
    """torch's, with `QuickPReLU` on a CPU."""
    if x_BCHW.device.type != "cpu":
        return F.prelu(x_BCHW, slope_C)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_BCHW.dtype
    return QuickPReLU.apply(x_BCHW.to(dtype), slope_C.to(dtype))  # type: ignore[return-value]


class PReLU(nn.PReLU):
    """torch's, by `prelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return prelu(input, self.weight)
