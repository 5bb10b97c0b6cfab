"""Whole loops whose steps are recorded and replayed end as those whose steps are taken as they are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.noise import asked
from pipeline.noise.asked import Asked
from pipeline.noise.error_min import PASS_BATCH
from pipeline.runtime import Runtime
from pipeline.training import at_hand, learner
from pipeline.training.at_hand import AtHand
from pipeline.training.learner import Learner
from pipeline.training.loop import TestPhotos, train_recogniser
from pipeline.training.replayed import WARM_UP, Outputs
from tests.conftest import toy_faces
from tests.noise.test_error_min import TinyNet, config_of, search, surrogate_of
from tests.pretended_gpu import Repeating

BATCH = 4
Recording = Callable[[], list[Repeating]]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """From its call on steps and passes are recorded, though on the CPU; gives the recorders."""
    made: list[Repeating] = []

    def recorder(*outputs: torch.Tensor) -> Repeating:
        made.append(Repeating(*outputs))
        return made[-1]

    def begin() -> list[Repeating]:
        monkeypatch.setattr(learner, "recorder_on", lambda _: recorder())
        wrong = torch.zeros((), dtype=torch.int64)
        monkeypatch.setattr(asked, "recorder_on", lambda _: recorder(torch.zeros(BATCH, 3, 112, 112), wrong))
        monkeypatch.setattr(at_hand, "recorder_on", lambda _: recorder(torch.zeros(BATCH, 3, 112, 112), torch.zeros(())))
        return made

    return begin


@pytest.mark.slow
@pytest.mark.parametrize(("countermeasure", "replayed"), [("none", [3]), ("adversarial-4", [3, 15])])
def test_training(countermeasure: str, replayed: list[int], cpu: Runtime, recording: Recording, tmp_path: Path) -> None:
    """Of two full batches an epoch the first three are as they are; so are the first three questions, of three about each batch."""
    faces = toy_faces(identities=2, photos=5)
    values = {"epochs": 3, "batch": BATCH, "input_size": 75, "dropout": 0.3, "model": "resnet18", "countermeasure": countermeasure}

    def trained() -> list[dict[str, Any]]:
        _, history = train_recogniser(
            TrainConfig.model_validate(values), faces, TestPhotos(faces, faces.label == 0), classes=2, runtime=cpu,
            checkpoint=tmp_path / "checkpoint.pt", key="", report=lambda _: None,
        )  # fmt: skip
        (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
        return [{name: value for name, value in record.items() if name != "seconds"} for record in history]

    plain = trained()
    recorders = recording()
    assert trained() == plain
    assert [recorder.replayed for recorder in recorders] == replayed


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"rule": "released"}, {"transforms": True}], ids=lambda values: "-".join(values) or "plain")
def test_search(values: dict[str, Any], cpu: Runtime, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASS_BATCH, "cpu", BATCH)  # so that a pass has several batches
    faces = toy_faces(identities=3, photos=4)
    config = config_of(rounds=3, batches=3, batch=BATCH, stop_error=0.0, **values)
    plain = search(config, faces, cpu, protected=2, make=lambda _: surrogate_of(3))
    recorders = recording()
    found = search(config, faces, cpu, protected=2, make=lambda _: surrogate_of(3))
    np.testing.assert_array_equal(found.delta, plain.delta)
    assert [record["error"] for record in found.history] == [record["error"] for record in plain.history]
    assert len(recorders) == 2 and all(recorder.replayed for recorder in recorders)


class Held(Repeating):
    """Keeps nothing of the call, as a graph on a device."""

    def record(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        return super().record(call)[0], lambda: None


def test_a_network_is_freed_with_what_replays_it(cpu: Runtime) -> None:
    """At once: a circle would hold a device's memory until Python looks for circles, which it does by the number of its objects."""
    x_BCHW, label_B = torch.rand(BATCH, 3, 112, 112), torch.tensor([0, 1, 0, 1])
    learns, asks = TinyNet(2), surrogate_of(2)
    learning = Learner(learns, TrainConfig(epochs=1, batch=BATCH), cpu, count=BATCH, recorder=Held())
    wrong = torch.zeros((), dtype=torch.int64)
    asking = Asked(asks, cpu, batch=BATCH, recorder=Held(torch.zeros_like(x_BCHW), wrong))
    asking.refresh()
    hand = AtHand(learns, cpu, batch=BATCH, recorder=Held(torch.zeros_like(x_BCHW), torch.zeros(())))
    for _ in range(WARM_UP + 2):
        hand.gradient(x_BCHW, label_B)
        learning.spread.over(BATCH)
        learning.step(x_BCHW, label_B, rate=0.1)
        asking(x_BCHW, label_B)
    networks = [weakref.ref(one) for one in (learns, asks, asking.folded)]
    gc.disable()
    try:
        del learns, asks, learning, asking, hand
        assert [network() for network in networks] == [None] * 3
    finally:
        gc.enable()
