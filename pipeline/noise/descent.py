"""Projected gradient descent of noise against a fixed, trained network: one driver for the adversarial arms.

The network never changes here; that is what sets these arms apart from error-minimizing noise. In several processes each goes through a
share of the photos, and their directions are added up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet, prefetched, resident

# (x_BCHW float in [0, 1], label_B int64) → the loss of each photo (B,), differentiable in x; the network is in eval mode.
Objective = Callable[[Tensor, Tensor], Tensor]


def descend(
    objective: Objective,
    faces: FaceSet,
    row_N: np.ndarray,
    *,
    rows: int,
    epsilon: int,
    steps: int,
    batch: int,
    runtime: Runtime,
    seed: int,
    report: Callable[[int, float], None],
) -> np.ndarray:
    """Noise that lowers `objective` on the photos of each row, by sign steps of 2.5 epsilon / steps (PGD, Madry et al., ICLR 2018).

    A row with several photos goes down the sum of their normalised gradients, so identity-wise and sample-wise noise are one code.

    Args:
        row_N: the row each photo carries, int64 (N,), all ≥ 0.
        report: called after each pass with its number and the mean objective before its step.

    Returns:
        float32 (rows, 3, H, W) in 1/255, within ±epsilon.
    """
    device, ranks = runtime.torch_device(), runtime.ranks
    height, width = faces.shards[0].shape[1:3]
    photos = resident(faces, device)
    generator = torch.Generator().manual_seed(seed)
    step = 2.5 * epsilon / steps
    # A random start: at a photo that the network is certain of the gradient is almost nothing.
    delta_KCHW = (torch.rand((rows, 3, height, width), generator=generator) * 2 - 1).mul_(epsilon).to(device)
    # Photos of one row side by side: a pass then needs the gradients of few rows at a time, however many photos there are.
    order = np.argsort(row_N, kind="stable")
    here = ranks.share(len(order))
    parts = [order[start : min(start + batch, here.stop)] for start in range(here.start, here.stop, batch)]
    for number in range(1, steps + 1):
        sum_KCHW = torch.zeros_like(delta_KCHW)
        total = torch.zeros((), device=device)
        for index, (x_BCHW, label_B) in zip(parts, prefetched(photos, parts, device), strict=True):
            row_B = runtime.tensor(row_N[index])
            noise_BCHW = delta_KCHW[row_B].requires_grad_(True)
            with runtime.autocast():
                loss_B = objective((x_BCHW + noise_BCHW / 255).clamp(0, 1), label_B)
            (gradient,) = torch.autograd.grad(loss_B.float().sum(), noise_BCHW)
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
            sum_KCHW.index_add_(0, row_B, gradient / length[:, None, None, None])
            total += loss_B.detach().float().sum()
        delta_KCHW.sub_(ranks.sum_(sum_KCHW).sign_().mul_(step)).clamp_(-epsilon, epsilon)
        report(number, float(ranks.sum_(total)) / len(order))
    return delta_KCHW.cpu().numpy()
