"""A training that comes to no numbers says so, instead of naming the first person in every photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.errors import StageError
from pipeline.runtime import Runtime
from pipeline.training.learner import Learner
from tests.conftest import toy_faces
from tests.training.test_loop import train

CONFIG = TrainConfig(epochs=2, batch=6, input_size=75, model="mobilefacenet")


def test_a_loss_that_is_no_number_ends_the_training(cpu: Runtime, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    with pytest.raises(StageError) as raised:
        train(
            CONFIG.model_copy(update={"lr": 1e30}), toy_faces(identities=3, photos=8), cpu, tmp_path / "error-min" / "model", records.append
        )
    assert str(raised.value) == (
        f"{tmp_path}/error-min/model: epoch 1 of 2 ended with a loss or weights that are not finite numbers; "
        "the learning rate (lr: 1e+30) is too high for this training: give a lower one in the profile"
    )
    assert records == [] and not (tmp_path / "error-min" / "model").exists(), "nothing of it is kept"


def test_so_do_weights_that_the_last_step_spoilt(cpu: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch's loss was still that of the weights before."""
    steps: list[int] = []
    step = Learner.step

    def spoiling(self: Learner, *batch: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        found = step(self, *batch, **how)
        steps.append(len(steps))
        if len(steps) == 6:  # three batches an epoch
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.inf)
        return found

    monkeypatch.setattr(Learner, "step", spoiling)
    records: list[dict[str, Any]] = []
    with pytest.raises(StageError, match="epoch 2 of 2 ended with a loss or weights"):
        train(CONFIG, toy_faces(identities=3, photos=8), cpu, tmp_path, records.append)
    assert [record["epoch"] for record in records] == [1] and len(steps) == 6
