"""The network in training, asked about photos between its steps: what a trainer needs who trains on those that it finds hardest.

It is asked in eval mode, as Fu et al.'s code does (UEraser's stays in train mode): batch norm's running means see training batches only, a
photo's result doesn't depend on its neighbours in the batch, dropout doesn't blur the choice. Every module's mode is put back afterwards,
and the parameters' gradients stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime import Runtime
from pipeline.training.replayed import Outputs, Recorder, Replayed, recorder_on


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


def loss_gradient(forward: Callable[[Tensor], Tensor], runtime: Runtime, x_BCHW: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the summed cross-entropy by the photos, and how many of them `forward` names wrongly.

    Args:
        forward: logits of a network in eval mode. x_BCHW: float crops in [0, 1]. label_B: int64 (B,).

    Returns:
        float32 (B, 3, H, W), and a 0-dimensional count on the device.
    """
    x_BCHW = x_BCHW.detach().requires_grad_(True)
    with runtime.autocast():
        logits = forward(x_BCHW)
    loss = F.cross_entropy(logits, label_B, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x_BCHW)
    return gradient, (logits.detach().argmax(1) != label_B).sum()


class AtHand:
    """`model` (logits of float crops in [0, 1]) with the weights that it has whenever it is asked.

    On one GPU asking about a full batch is recorded and replayed, as a training step is; a batch of another size goes as it is.

    Args:
        batch: photos in a full batch.
        recorder: what records; None: `recorder_on`.
    """

    def __init__(self, model: nn.Module, runtime: Runtime, *, batch: int, recorder: Recorder | None = None) -> None:
        self.model, self.runtime, self.batch = model, runtime, batch
        self.recorder = recorder or recorder_on(runtime)
        self.replayed: dict[str, Replayed] = {}

    def losses(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Each photo's cross-entropy, float32 (B,)."""
        return self.answer("losses", self.ask_losses, x_BCHW, label_B)[0].clone()

    def gradient(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """The gradient of the summed cross-entropy by the photos, float32 (B, 3, H, W); good until the next one."""
        return self.answer("gradient", self.ask_gradient, x_BCHW, label_B)[0]

    def answer(self, name: str, ask: Callable[[Tensor, Tensor], Outputs], x_BCHW: Tensor, label_B: Tensor) -> Outputs:
        if self.recorder is None or len(x_BCHW) != self.batch:
            return ask(x_BCHW, label_B)
        return self.replayed.setdefault(name, Replayed(self.recorder))(ask, x_BCHW, label_B)

    def ask_losses(self, x_BCHW: Tensor, label_B: Tensor) -> Outputs:
        """The losses, and their sum."""
        with eval_mode(self.model), torch.no_grad():
            # In here, so that weights are cast anew each time: outside they would be cast for the first question alone.
            with self.runtime.autocast():
                logits = self.model(x_BCHW)
            loss_B = F.cross_entropy(logits.float(), label_B, reduction="none")
        return loss_B, loss_B.sum()

    def ask_gradient(self, x_BCHW: Tensor, label_B: Tensor) -> Outputs:
        """`loss_gradient`, by the photos alone: the parameters' .grad stays as it was."""
        with eval_mode(self.model):
            return loss_gradient(self.model, self.runtime, x_BCHW, label_B)
