"""What a trainer does to training batches with the model at hand: train on what the model finds hardest.

Each function takes the model (logits of x_BCHW float32 in [0, 1]), a batch, its labels and a generator, and gives a batch of the same
shape, range, device and memory format to train on. Call it inside the loop's own autocast.

The model is asked in eval mode, as Fu et al.'s code does (UEraser's stays in train mode): batch norm's running means see training batches
only, a photo's result doesn't depend on its neighbours in the batch, dropout doesn't blur the choice. Every module's mode is put back
afterwards, and the parameters' gradients stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pipeline.countermeasures.augmentation import Augment, format_of, uniform

Harden = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; on leaving each module has its own mode again (some may have been frozen in eval)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def make_worst_of(augment: Augment, *, candidates: int = 5) -> Harden:
    """For each photo the one of `candidates` augmentations with the highest loss (UEraser-max, Qin et al. 2023, K = 5)."""

    def worst_of(model: nn.Module, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Tensor:
        with eval_mode(model), torch.no_grad():
            worst_BCHW, loss_B = x_BCHW, x_BCHW.new_full((len(x_BCHW),), -torch.inf)
            for _ in range(candidates):
                candidate_BCHW, _ = augment(x_BCHW, label_B, generator)
                candidate_loss_B = F.cross_entropy(model(candidate_BCHW).float(), label_B, reduction="none")
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

    def adversarial(model: nn.Module, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Tensor:
        low, high = (x_BCHW - ball).clamp(min=0), (x_BCHW + ball).clamp(max=1)
        moved = torch.minimum(torch.maximum(x_BCHW + ball * (2 * uniform(tuple(x_BCHW.shape), generator, x_BCHW) - 1), low), high)
        with eval_mode(model), torch.enable_grad():
            for _ in range(steps):
                moved.requires_grad_(True)
                loss = F.cross_entropy(model(moved).float(), label_B, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moved)  # of the photos alone: the parameters' .grad stays as it was
                moved = torch.minimum(torch.maximum(moved.detach() + step * gradient.sign(), low), high)
        return moved.contiguous(memory_format=format_of(x_BCHW))

    return adversarial
