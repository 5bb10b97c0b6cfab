"""The hot paths as they run on a GPU, on one that is pretended: no operation mixes devices, and none waits for the GPU in each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import NoiseConfig, TrainConfig
from pipeline.countermeasures.projection import OrthogonalProjection, fit_linear
from pipeline.countermeasures.subtraction import FaceModel, PatternSubtraction
from pipeline.faces.detect_mtcnn import Mtcnn
from pipeline.models.recognisers import Recogniser, make_recogniser
from pipeline.noise.cloak import leave
from pipeline.noise.descent import descend
from pipeline.noise.error_max import lower_certainty
from pipeline.noise.error_min import search_noise
from pipeline.noise.fawkes import feature_cloak
from pipeline.noise.tap import look_like
from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet
from pipeline.training.loop import TestPhotos, train_recogniser
from tests.pretended_gpu import pretended_gpu

CUDA = Runtime(device="cuda:0", workers=1, precision="bf16")
CLASSES, STEPS, BATCH = 3, 3, 4
INCEPTION = {"model": "inception-resnet-v1"}  # the network of every study; others are quicker to trace


def faces_of(count: int) -> FaceSet:
    crops = np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)
    return FaceSet((crops,), np.zeros(count, np.int64), np.arange(count), np.arange(count) * CLASSES // count)


FACES = faces_of(STEPS * BATCH)


def waits_of_training(faces: FaceSet = FACES, **values: Any) -> dict[str, int]:
    """Where a training of one epoch waits for the GPU, and how often."""
    base = {"epochs": 1, "lr": 0.02, "batch": BATCH, "dropout": 0.3, "input_size": 75, "model": "resnet18"}
    config, test = TrainConfig.model_validate(base | values), TestPhotos(faces, faces.label == 0)
    with pretended_gpu() as gpu:
        train_recogniser(
            config, faces, test, classes=CLASSES, runtime=CUDA, checkpoint=Path("/none"), key="", report=lambda record: None
        )  # fmt: skip
    return gpu.waits


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(INCEPTION, marks=pytest.mark.slow),
        {"model": "mobilefacenet", "head": "arcface"},
        {"countermeasure": "adversarial-4"},
        {"countermeasure": "cutout"},
    ],
    ids=lambda values: "-".join(values.values()),
)
def test_training_never_waits_in_each_step(values: dict[str, Any]) -> None:
    assert {place: count for place, count in waits_of_training(**values).items() if count >= STEPS} == {}


@pytest.mark.parametrize("name", ["mixup", "strong", "ueraser"])
def test_countermeasures_mix_no_devices(name: str) -> None:
    waits_of_training(faces_of(CLASSES), countermeasure=name)


def test_projection_mixes_no_devices() -> None:
    device = CUDA.torch_device()
    with pretended_gpu():
        weight_KD = fit_linear(FACES.crops, len(FACES), FACES.label, CLASSES, 0, device=device, epochs=1, updates=1, batch=BATCH)
        x_BCHW, _ = FACES.batch(np.arange(BATCH), device)
        assert OrthogonalProjection(weight_KD.T).asked(x_BCHW).device == device


def test_pattern_subtraction_mixes_no_devices() -> None:
    device = CUDA.torch_device()
    with pretended_gpu():
        x_BCHW, _ = FACES.batch(np.arange(BATCH), device)
        subtract = PatternSubtraction(torch.zeros((1, *x_BCHW.shape[1:]), dtype=torch.int8), torch.zeros(len(FACES), dtype=torch.int64))
        assert subtract(x_BCHW, torch.arange(BATCH)).device == device
        x_BD = x_BCHW.flatten(1)
        assert FaceModel(x_BD).remainder(x_BD).device == device


def surrogate(model: str) -> Recogniser:
    made = make_recogniser(classes=CLASSES, input_size=75, dropout=0.3, normalise=True, seed=0, model=model)
    return made.to(CUDA.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    "values",
    [
        pytest.param({**INCEPTION, "binding": True, "transforms": True, "draws": 2}, marks=pytest.mark.slow),
        {"smooth": 3.0, "flip": True},
        {"rule": "released"},
    ],
    ids=lambda values: "-".join(values),
)
def test_noise_search_mixes_no_devices(values: dict[str, Any]) -> None:
    base = {"arm": "error-min", "rounds": 1, "batch": BATCH, "batches": 1, "dropout": 0.3, "stop_error": 0.0, "lr": 0.02, "input_size": 75}
    model = values.get("model", "resnet18")
    config = NoiseConfig.model_validate(base | {name: value for name, value in values.items() if name != "model"})
    carried = np.where(FACES.label < 2, FACES.label, -1)
    with pretended_gpu():
        found = search_noise(config, lambda _: surrogate(model), FACES, carried, rows=2, runtime=CUDA, report=lambda record: None)
    assert found.delta.shape == (2, 3, 112, 112)


@pytest.mark.parametrize("method", ["error-max", "tap", "fawkes", "cloak"])
def test_descent_mixes_no_devices(method: str) -> None:
    with pretended_gpu():
        model, device = surrogate("resnet18").eval().requires_grad_(False), CUDA.torch_device()
        if method == "error-max":
            objective = lower_certainty(model)
        elif method == "tap":
            objective = look_like(model, torch.arange(CLASSES).to(device))
        elif method == "fawkes":
            objective = feature_cloak(model, torch.zeros(CLASSES, 512).to(device))
        else:
            objective = leave(model, *torch.zeros(2, CLASSES, 512).to(device))
        delta = descend(
            [objective] * (2 if method == "cloak" else 1), FACES, FACES.label, rows=CLASSES, epsilon=16, steps=1, travel=2.5, batch=BATCH,
            runtime=CUDA, seed=0, report=lambda *_: None, transforms=method in ("tap", "cloak"),
            untouched=0.5 if method == "tap" else 0.0, momentum=0.9 if method == "tap" else 0.0,
        )[0]  # fmt: skip
    assert delta.shape == (CLASSES, 3, 112, 112)


def test_detection_mixes_no_devices() -> None:
    with pretended_gpu():
        assert len(Mtcnn(min_face=40, device="cuda:0").detect([np.zeros((250, 250, 3), np.uint8)] * 2)) == 2


def test_a_tensor_left_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "tensor", lambda self, array: torch.from_numpy(array))
    with pytest.raises(RuntimeError, match="same device"):
        waits_of_training(flip=True)


def test_waiting_in_each_step_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "tensor", lambda self, array: torch.from_numpy(array).to(self.torch_device()))
    assert max(waits_of_training(flip=True).values()) >= STEPS
