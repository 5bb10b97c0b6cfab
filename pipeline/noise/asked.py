"""A surrogate asked which way photos would have to change: gradients of its loss, from a copy that is quick to ask."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.recognisers import for_inference, renew
from pipeline.runtime import Runtime
from pipeline.training.at_hand import loss_gradient
from pipeline.training.replayed import Recorder, Replayed, recorder_on


class Asked:
    """`loss_gradient` of a surrogate with the weights that it had at the last `refresh`.

    On one GPU asking about a full batch is recorded and replayed, with new weights, too; a smaller batch goes as it is.

    Args:
        model: the surrogate. batch: photos at a time.
        recorder: what records; None: `recorder_on`.
    """

    def __init__(self, model: nn.Module, runtime: Runtime, *, batch: int, recorder: Recorder | None = None) -> None:
        self.model, self.runtime, self.batch = model, runtime, batch
        self.folded: nn.Module | None = None  # stays where it is, so that what is recorded sees the weights of each round
        recorder = recorder or recorder_on(runtime)
        self.replayed = None if recorder is None else Replayed(recorder)

    def refresh(self) -> None:
        """Take the surrogate's weights as they are now."""
        if self.folded is None:
            self.folded = for_inference(self.model, bf16=self.runtime.precision == "bf16")
        else:
            renew(self.folded, self.model)

    def ask(self, x_BCHW: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """`loss_gradient`, as it is."""
        assert self.folded is not None, "refresh it first"
        return loss_gradient(self.folded, self.runtime, x_BCHW, label_B)

    def __call__(self, x_BCHW: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """What `loss_gradient` gives; good until the next call."""
        if self.replayed is None or len(x_BCHW) != self.batch:
            return self.ask(x_BCHW, label_B)
        return self.replayed(self.ask, x_BCHW.detach(), label_B)
