"""A network and its optimiser while it learns: one SGD step on a batch, the same for recognisers and for the noise's surrogates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import NoiseConfig, TrainConfig
from pipeline.runtime import Runtime
from pipeline.training.optimiser import SGD
from pipeline.training.replayed import Recorder, Replayed, recorder_on
from pipeline.training.shared import spread_over


class Learner:
    """Steps of cross-entropy and SGD with momentum and clipped gradients on `model`, whose weights change in place.

    On one GPU a step on a full batch is recorded and replayed; a batch of another size (the last of an epoch) goes as it is, in memory of
    its own beside what is recorded.

    Args:
        model: logits of float crops in [0, 1], NCHW; on the runtime's device.
        config: momentum, weight decay, clip, and photos in a global batch.
        count: photos there are to learn, of which a batch has no more.
        labels: the model takes them, too, where photos have one each: for an ArcFace head's margin.
        recorder: what records steps; None: `recorder_on`.

    Attributes:
        spread: how a batch lies over the ranks; to be told before each step.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig | NoiseConfig,
        runtime: Runtime,
        *,
        count: int,
        labels: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.model, self.runtime, self.clip, self.labels = model, runtime, config.clip, labels
        self.batch = runtime.ranks.part(min(config.batch, count)).photos
        self.spread = spread_over(model, runtime.ranks)
        self.optimiser = SGD(model.parameters(), momentum=config.momentum, weight_decay=config.weight_decay)
        self.recorder = recorder or recorder_on(runtime)
        self.replayed: dict[bool, Replayed] = {}  # of batches whose photos have a label each, and of mixed ones
        self.buffer: Tensor | None = None

    def step(self, x_BCHW: Tensor, label_B: Tensor, target_B: Tensor | None = None, *, rate: float) -> tuple[Tensor, Tensor]:
        """One step on this rank's part of a batch, of which `spread` has been told.

        Args:
            x_BCHW: float crops in [0, 1]. label_B: int64 (B,).
            target_B: what the loss is against where that is not the label: float (B, classes), of mixed photos; they get no margin.
            rate: learning rate.

        Returns:
            The part's share of the loss over the global batch, and how many of its photos were named wrongly: both 0-dimensional, on the
            device, and good until the next step.
        """
        part = self.spread.part
        assert part is not None, "say how the batch is spread before the step"
        target_B = label_B if target_B is None else target_B
        if self.recorder is None or len(x_BCHW) != self.batch:
            return self.take(x_BCHW, label_B, target_B, rate)
        replayed = self.replayed.setdefault(target_B.ndim > 1, Replayed(self.recorder))
        # A rate that stands on the device can change between replays; float32 is all that the fused step reads there.
        on_device = torch.full((), rate, dtype=torch.float32, device=x_BCHW.device)
        return replayed(self.take, x_BCHW, label_B, target_B, on_device)

    def take(self, x_BCHW: Tensor, label_B: Tensor, target_B: Tensor, rate: float | Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward, and the optimiser's step."""
        part = self.spread.part
        assert part is not None
        with self.runtime.autocast():
            logits = self.model(x_BCHW, label_B) if self.labels and target_B.ndim == 1 else self.model(x_BCHW)
        loss = F.cross_entropy(logits, target_B) * part.weight  # all ranks' add up to the mean over the global batch
        self.optimiser.zero_grad()
        loss.backward()
        self.buffer = self.runtime.ranks.sum_gradients(self.model.parameters(), self.buffer)
        self.optimiser.step(lr=rate, clip=self.clip)
        return loss.detach(), (logits.detach().argmax(1) != label_B).sum()
