"""Projected gradient descent of noise against fixed, trained networks: one driver for the adversarial arms and the cloak.

The networks never change here; that is what sets these arms apart from error-minimizing noise. In several processes each goes through a
share of the photos, and their directions are added up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import sha256_of
from pipeline.noise.transforms import draw_transforms, mirrored, transformed
from pipeline.runtime import Runtime
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import FaceSet, prefetched, resident

CHECKPOINT_SECONDS = 60  # at most this much of a descent is lost by a kill, and the pass that it was in

# (x_BCHW float in [0, 1], label_B int64) → the loss of each photo (B,), differentiable in x; networks are in eval mode.
Objective = Callable[[Tensor, Tensor], Tensor]


def descend(
    objectives: Sequence[Objective],
    faces: FaceSet,
    row_N: np.ndarray,
    *,
    rows: int,
    epsilon: int,
    steps: int,
    travel: float,
    batch: int,
    runtime: Runtime,
    seed: int,
    report: Callable[[int, float], None],
    transforms: bool = False,
    untouched: float = 0.0,
    momentum: float = 0.0,
    in_turn: Sequence[Objective] = (),
    checkpoint: Path | None = None,
    key: str = "",
) -> tuple[np.ndarray, float]:
    """Noise that lowers `objectives` on the photos of each row, by sign steps of `travel` · epsilon / steps (PGD, Madry et al., ICLR
    2018, where that is 2.5).

    A row with several photos goes down the sum of their normalised gradients, so identity-wise and sample-wise noise are one code. Each
    objective's gradient is normalised by itself, so that of several networks none speaks louder.

    Args:
        row_N: the row each photo carries, int64 (N,), all ≥ 0.
        travel: how far all steps go together, in epsilons.
        report: called after each pass with its number and the mean objective before its step.
        transforms: in each pass every photo is mirrored or not and goes through a draw of `transforms.py`.
        untouched: transforms: share of the photos that a pass only mirrors, or not. What holds through transforms holds the less on the
            photos as they are, which most trainers take.
        momentum: how much of the direction so far a step keeps (Dong et al., CVPR 2018, *Boosting Adversarial Attacks with Momentum*):
            what one draw of transforms alone asks for passes.
        in_turn: objectives of which a pass asks one, this one and then that, beside `objectives`.
        checkpoint, key: where the state is kept and what it belongs to; None: not kept.

    Returns:
        float32 (rows, 3, H, W) in 1/255, within ±epsilon; and the seconds it took, those before a kill among them.
    """
    device, ranks = runtime.torch_device(), runtime.ranks
    height, width = faces.shards[0].shape[1:3]
    photos = resident(faces, device)
    generator = torch.Generator().manual_seed(seed)
    step = travel * epsilon / steps
    # A random start: at a photo that the network is certain of the gradient is almost nothing.
    delta_KCHW, done = (torch.rand((rows, 3, height, width), generator=generator) * 2 - 1).mul_(epsilon).to(device), 0
    kept_KCHW = torch.zeros_like(delta_KCHW) if momentum else None
    state = None if checkpoint is None else load_checkpoint(checkpoint, key, device)
    before = 0.0
    if state is not None:
        delta_KCHW, kept_KCHW, done, before = (state[name] for name in ("delta", "kept", "steps", "seconds"))
    ranks.agree(f"{sha256_of(key.encode())[:8]} after step {done}", str(checkpoint))
    started = saved = time.perf_counter()
    # Photos of one row side by side: a pass then needs the gradients of few rows at a time, however many photos there are.
    order = np.argsort(row_N, kind="stable")
    here = ranks.share(len(order))
    parts = [slice(start, min(start + batch, here.stop)) for start in range(here.start, here.stop, batch)]
    for number in range(done + 1, steps + 1):
        asked = [*objectives, *([in_turn[number % len(in_turn)]] if in_turn else [])]
        sum_KCHW = torch.zeros_like(delta_KCHW)
        total = torch.zeros((), device=device)
        random = np.random.default_rng((seed, number))
        mirror_N, changes = (random.random(len(order)) < 0.5, draw_transforms(random, len(order))) if transforms else (None, None)
        touched_N = random.random(len(order)) >= untouched
        for part, (x_BCHW, label_B) in zip(parts, prefetched(photos, [order[part] for part in parts], device), strict=True):
            row_B = runtime.tensor(row_N[order[part]])
            noise_BCHW = delta_KCHW[row_B].requires_grad_(True)
            noisy = (x_BCHW + noise_BCHW / 255).clamp(0, 1)
            if mirror_N is not None and changes is not None:
                noisy = mirrored(noisy, runtime.tensor(mirror_N[part]))
                touched_B = touched_N[part]
                if touched_B.any():
                    where_B = runtime.tensor(np.flatnonzero(touched_B))
                    noisy = noisy.index_copy(0, where_B, transformed(noisy[where_B], changes.part(part).part(touched_B)))
            direction = torch.zeros_like(noise_BCHW)
            for place, objective in enumerate(asked, 1):
                with runtime.autocast():
                    loss_B = objective(noisy, label_B).float()
                # What lies between noise and networks is kept for the next one.
                (gradient,) = torch.autograd.grad(loss_B.sum(), noise_BCHW, retain_graph=place < len(asked))
                direction += gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
                total += loss_B.detach().sum() / len(asked)
                del loss_B  # and with it what the network kept
            sum_KCHW.index_add_(0, row_B, direction)
        ranks.sum_(sum_KCHW)
        if kept_KCHW is not None:
            sum_KCHW.copy_(kept_KCHW.mul_(momentum).add_(sum_KCHW))
        delta_KCHW.sub_(sum_KCHW.sign_().mul_(step)).clamp_(-epsilon, epsilon)
        report(number, float(ranks.sum_(total)) / len(order))
        if checkpoint is not None and ranks.first and number < steps and time.perf_counter() - saved > CHECKPOINT_SECONDS:
            spent = before + time.perf_counter() - started
            save_checkpoint(checkpoint, key, {"delta": delta_KCHW, "kept": kept_KCHW, "steps": number, "seconds": spent})
            saved = time.perf_counter()
    return delta_KCHW.cpu().numpy(), before + time.perf_counter() - started
