"""SGD with momentum and gradient clipping in one pass over the weights: at small batches on a CPU the memory traffic of a plain step,
clip and all, costs as much as a tenth of the batch.

The steps are torch's own, by its functional form: the first object of `torch.optim` imports half of torch's compiler, more than a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class SGD:
    """torch's SGD, fused, on weights as they lie in memory.

    The fused step copies gradients that are not contiguous, as those of channels_last kernels are. So it is handed views with the order of
    dimensions in which the weights are; the momentum has that order, too.

    Attributes:
        velocity: the momentum of each parameter, which lies where the first step with a gradient put it; None before that.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, momentum: float, weight_decay: float) -> None:
        self.learnt = list(parameters)
        for parameter in self.learnt:
            assert as_it_lies(parameter, parameter).is_contiguous(), "a weight lies neither as its dimensions go nor channels_last"
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity: list[Tensor | None] = [None] * len(self.learnt)

    def zero_grad(self) -> None:
        """Forget the gradients of what is learnt."""
        for parameter in self.learnt:
            parameter.grad = None

    @torch.no_grad()
    def step(self, *, lr: float | Tensor, clip: float) -> None:
        """One step at rate `lr` on the gradients there are, scaled down so that their joint L2 norm is at most `clip`.

        The same as `clip_grad_norm_` and `torch.optim.SGD.step`, but the gradients are scaled while the step reads them: the fused step
        takes a number to divide them by, meant for mixed precision.
        """
        weights, gradients, velocities = [], [], []
        for place, parameter in enumerate(self.learnt):
            if parameter.grad is None:
                continue
            weights.append(as_it_lies(parameter, parameter))
            # Contiguous, whatever order of dimensions a gradient was given: the fused step takes for granted that it is the weight's.
            gradients.append(as_it_lies(parameter.grad, parameter).contiguous())
            velocity = self.velocity[place]
            if velocity is None:
                velocity = self.velocity[place] = torch.zeros_like(weights[-1])  # the first step adds the gradient to nothing
            velocities.append(velocity)
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        sgd(
            weights,
            gradients,
            velocities,
            fused=True,
            grad_scale=((norm + 1e-6) / clip).clamp_min(1.0).float(),
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept; the weights are on their device already."""
        pairs = zip(state["velocity"], self.learnt, strict=True)
        self.velocity = [None if velocity is None else velocity.to(parameter.device) for velocity, parameter in pairs]


def as_it_lies(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` with the dimensions in the order in which `parameter` lies in memory: itself, or (O, h, w, C) of a channels_last kernel."""
    return tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)
