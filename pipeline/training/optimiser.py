"""SGD with momentum and gradient clipping in one pass over the weights: at small batches on a CPU the memory traffic of a plain step,
clip and all, costs as much as a tenth of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SGD(torch.optim.SGD):
    """torch's SGD, fused, on weights as they lie in memory.

    The fused step copies gradients that are not contiguous, as those of channels_last kernels are. So it is handed views with the order of
    dimensions in which they are; its state (the momentum) has that order, too. `step` below hands them: a step taken without it has none.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        self.learnt = list(parameters)
        views = [nn.Parameter(as_it_lies(parameter.detach(), parameter)) for parameter in self.learnt]
        assert all(view.is_contiguous() for view in views), "a weight lies neither as its dimensions go nor channels_last"
        super().__init__(views, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of what is learnt."""
        assert set_to_none
        super().zero_grad()
        for parameter in self.learnt:
            parameter.grad = None


def as_it_lies(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` with the dimensions in the order in which `parameter` lies in memory: itself, or (O, h, w, C) of a channels_last kernel."""
    return tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)


def step(optimiser: SGD, *, lr: float | Tensor, clip: float) -> None:
    """One step at rate `lr` on the gradients there are, scaled down so that their joint L2 norm is at most `clip`.

    The same as `clip_grad_norm_` and `step()`, but the gradients are scaled while the step reads them: the fused step takes a number to
    divide them by, meant for mixed precision.
    """
    (group,) = optimiser.param_groups
    group["lr"] = lr
    gradients: list[Tensor] = []
    for view, parameter in zip(group["params"], optimiser.learnt, strict=True):
        view.data = as_it_lies(parameter.data, parameter)  # its weights may have moved since
        view.grad = None
        if parameter.grad is not None:
            # Contiguous, whatever order of dimensions a gradient was given: the fused step takes for granted that it is the weight's.
            view.grad = as_it_lies(parameter.grad, parameter).contiguous()
            gradients.append(view.grad)
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    optimiser.grad_scale = ((norm + 1e-6) / clip).clamp_min(1.0).float()  # type: ignore[attr-defined]
    optimiser.step()
