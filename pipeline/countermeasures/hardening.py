"""What a trainer does to training batches with the model at hand: train on what the model finds hardest.

Each function takes the network at hand, a batch (float32 in [0, 1]), its labels and a generator, and gives a batch of the same shape,
range, device and memory format to train on. How the network is asked is not known here: `pipeline/training/at_hand.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from pipeline.countermeasures.augmentation import Augment, format_of, uniform


class Asked(Protocol):
    """A network that is in training, asked about photos x_BCHW of people label_B (indices); it is left as it was."""

    def losses(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Each photo's cross-entropy, float32 (B,)."""
        ...

    def gradient(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """That of the sum of the losses by the photos, float32 (B, 3, H, W)."""
        ...


Harden = Callable[[Asked, Tensor, Tensor, Generator], Tensor]


def make_worst_of(augment: Augment, *, candidates: int = 5) -> Harden:
    """For each photo the one of `candidates` augmentations with the highest loss (UEraser-max, Qin et al. 2023, K = 5)."""

    def worst_of(network: Asked, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Tensor:
        worst_BCHW, loss_B = x_BCHW, x_BCHW.new_full((len(x_BCHW),), -torch.inf)
        for _ in range(candidates):
            candidate_BCHW, _ = augment(x_BCHW, label_B, generator)
            candidate_loss_B = network.losses(candidate_BCHW, label_B)
            higher_B = candidate_loss_B > loss_B
            worst_BCHW = torch.where(higher_B[:, None, None, None], candidate_BCHW, worst_BCHW)
            loss_B = torch.where(higher_B, candidate_loss_B, loss_B)
        return worst_BCHW.contiguous(memory_format=format_of(x_BCHW))

    return worst_of


def make_adversarial(radius: float, *, steps: int = 3) -> Harden:
    """Adversarial photos inside the L∞ ball of `radius`/255: PGD from a random start, steps of 2.5 radius / `steps`.

    The inner maximisation of Madry et al., ICLR 2018, section 2.1, which Fu et al., ICLR 2022 (*Robust Unlearnable Examples*) train with;
    they take 10 steps, three cost a third and with this step still reach the ball's edge from anywhere in it. A single
    step (Wong et al., ICLR 2020) finds photos less than half as hard on networks of these studies: `benchmarks/adversarial_steps.py`.
    """
    assert radius > 0 and steps > 0, (radius, steps)
    ball, step = radius / 255, 2.5 * radius / 255 / steps

    def adversarial(network: Asked, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Tensor:
        low, high = (x_BCHW - ball).clamp(min=0), (x_BCHW + ball).clamp(max=1)
        moved = torch.minimum(torch.maximum(x_BCHW + ball * (2 * uniform(tuple(x_BCHW.shape), generator, x_BCHW) - 1), low), high)
        for _ in range(steps):
            moved = torch.minimum(torch.maximum(moved + step * network.gradient(moved, label_B).sign(), low), high)
        return moved.contiguous(memory_format=format_of(x_BCHW))

    return adversarial
