"""Layers that must see a whole batch, for a batch that is spread over several processes.

Batch norm in training mode takes mean and variance over the global batch: statistics of a rank's own few photos would train another network
than one process does, and torch's SyncBatchNorm knows GPUs only. Here the statistics, and in the backward pass the two sums that its
gradient needs, are joined over the ranks, with gloo as with NCCL. Dropout draws its mask for the global batch, and each rank uses its own
part. So N processes train the network that one would, within rounding. In eval mode both layers are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.distributed import Part, Ranks


class Spread:
    """How the batch at hand is spread over the ranks: set before each forward pass in training mode, read by the layers of one model."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.part: Part | None = None
        self.weights: dict[tuple[Any, ...], Tensor] = {}

    def __deepcopy__(self, copied: dict[int, Any]) -> Spread:
        return self  # a copy of a model lies over the same ranks, in the same run

    def over(self, count: int) -> Part:
        """Say that the next forward pass takes this rank's part of `count` photos, and give that part."""
        self.part = self.ranks.part(count)
        return self.part

    def weights_like(self, tensor: Tensor) -> Tensor:
        """The weight of each rank's mean in the global batch's, (ranks, 1), in dtype and place like `tensor`; copied there once."""
        assert self.part is not None
        key = (self.part.sizes, tensor.dtype, tensor.device)
        if key not in self.weights:
            sizes = torch.tensor(self.part.sizes, dtype=torch.float64)
            self.weights[key] = (sizes / sizes.sum())[:, None].to(tensor)
        return self.weights[key]


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the photos of all ranks (B, C, …); parameters, buffers and their names are those of the layer it replaces."""

    spread: Spread

    @classmethod
    def like(cls, layer: nn.modules.batchnorm._BatchNorm, spread: Spread) -> SharedBatchNorm:
        """The same layer, sharing its tensors with `layer`."""
        assert layer.affine and layer.track_running_stats and layer.momentum is not None
        made = cls(layer.num_features, eps=layer.eps, momentum=layer.momentum)
        made.weight, made.bias = layer.weight, layer.bias
        made.running_mean, made.running_var, made.num_batches_tracked = layer.running_mean, layer.running_var, layer.num_batches_tracked
        made.training, made.spread = layer.training, spread
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, input.shape

    def forward(self, input: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        return self.normalise(input, self.running_mean, self.running_var, self.weight, self.bias)

    def normalise(self, x: Tensor, mean_C: Tensor, variance_C: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
        """Batch norm in this layer's mode, but with these parameters, so that layers of one input can be one (`together` in
        `models/inception.py`).

        Args:
            x: (B, C, …), this rank's part of the batch. mean_C, variance_C: running statistics, float, moved in place in training mode.
            weight_C, bias_C: of the channels.
        """
        if not self.training:
            return F.batch_norm(x, mean_C, variance_C, weight_C, bias_C, training=False, eps=self.eps)
        part = self.spread.part
        assert part is not None and len(x) == part.stop - part.start, "say how the batch is spread before the forward pass"
        assert self.momentum is not None
        output, batch_mean_C, batch_variance_C = BatchNormOverRanks.apply(x, weight_C, bias_C, self.eps, self.spread)  # type: ignore[misc]
        with torch.no_grad():
            values = part.count * x[0, 0].numel()
            mean_C.lerp_(batch_mean_C, self.momentum)
            variance_C.lerp_(batch_variance_C * (values / (values - 1)), self.momentum)
        return output


class BatchNormOverRanks(torch.autograd.Function):
    """(x − mean) / √(var + eps) · weight + bias, with mean and biased variance of each channel over the photos of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, spread: Spread) -> tuple[Tensor, Tensor, Tensor]:
        assert spread.part is not None
        scratch = torch.zeros_like(weight_C), torch.ones_like(weight_C)  # float32 ones make the statistics float32, whatever x is
        own_2C = torch.stack(torch.batch_norm_update_stats(x, *scratch, 0.0))
        mean_RC, var_RC = spread.ranks.gather(own_2C).unbind(1)
        share_R1 = spread.weights_like(own_2C)
        mean_C = (share_R1 * mean_RC).sum(0)
        var_C = (share_R1 * (var_RC + (mean_RC - mean_C) ** 2)).sum(0)  # variance within the ranks' parts and between them
        ctx.save_for_backward(x, weight_C, mean_C, var_C)
        ctx.eps, ctx.ranks, ctx.values = eps, spread.ranks, sum(spread.part.sizes) * x[0, 0].numel()
        ctx.mark_non_differentiable(mean_C, var_C)
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, training=False, eps=eps), mean_C, var_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad, (x, weight_C, mean_C, var_C) = gradients[0], ctx.saved_tensors
        invstd_C = torch.rsqrt(var_C + ctx.eps)
        # weight · invstd · (grad − mean grad − x̂ · mean(grad · x̂)), its means over this rank's photos, and their sums: the gradients of
        # weight and bias, which are added up with all the others later.
        grad_x, grad_weight_C, grad_bias_C = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight_C, None, None, mean_C, invstd_C, True, ctx.eps, [True, True, True]
        )
        own_2C = torch.stack((grad_weight_C, grad_bias_C))
        mine_2C = own_2C / (x.numel() // len(weight_C))
        # The means over all ranks' photos in their place: another batch norm of x, by what the means differ.
        apart_2C = (mine_2C - ctx.ranks.sum_(own_2C) / ctx.values) * (weight_C * invstd_C)
        grad_x += F.batch_norm(x, mean_C, var_C, apart_2C[0], apart_2C[1], training=False, eps=ctx.eps)
        return grad_x, grad_weight_C, grad_bias_C, None, None


class SharedDropout(nn.Module):
    """Dropout with the mask that one process would draw for the global batch; every rank's generator must be in the same state."""

    def __init__(self, probability: float, spread: Spread) -> None:
        super().__init__()
        self.p, self.spread = probability, spread

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        part = self.spread.part
        assert part is not None and len(x) == part.stop - part.start, "say how the batch is spread before the forward pass"
        ones = torch.ones((part.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * F.dropout(ones, self.p, training=True)[part.here]


def spread_over(model: nn.Module, ranks: Ranks) -> Spread:
    """Replace the layers of `model` that look at the whole batch by ones that work over `ranks`; nothing changes for one process.

    Returns:
        What to tell how each batch is spread before the model's forward pass in training mode.
    """
    spread = Spread(ranks)
    if ranks.size > 1:
        for holder in list(model.modules()):
            for name, layer in list(holder.named_children()):
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    assert type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d), f"{name}: {type(layer).__name__} is not known here"
                    setattr(holder, name, SharedBatchNorm.like(layer, spread))
                elif isinstance(layer, nn.modules.dropout._DropoutNd):
                    assert type(layer) is nn.Dropout, f"{name}: {type(layer).__name__} is not known here"
                    setattr(holder, name, SharedDropout(layer.p, spread))
    return spread
