"""What one data-centre GPU is asked for: training, the paper's noise search, and the study at WebFace's size projected from measured steps.

python -m benchmarks --gpu
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.row import Pair, Row, paired

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

TRAIN_LIMIT = 12_000  # images/s
NOISE_LIMIT = 120.0  # s
STUDY_LIMIT = 2.0  # h
FACES, PEOPLE = 490_623, 10_575  # CASIA-WebFace
HELD_OUT, ARMS, EPOCHS = 0.2, 2, 50  # the split's share of test photos; the paper's partial study


def rows() -> list[Row]:
    """The rows; each runs the project's own loops."""
    return [
        Row(
            "train-gpu",
            "images/s",
            f"limit-{TRAIN_LIMIT}",
            "The project’s training loop: InceptionResnetV1, 10,575 people, 112 px, bf16, batches of 512, the set "
            "resident on the device, steps recorded and replayed.",
            lambda: train_pair(gpu()),
            target=1.0,
            gpu=True,
        ),
        Row(
            "train-gpu-small",
            "images/s",
            "unrecorded",
            "The same loop at the laptop profile’s batches of 32 (150 people, 112 px), its steps recorded and replayed, against the same "
            "steps as they are.",
            small_pair(gpu),
            target=1.0,
            gpu=True,
        ),
        Row(
            "noise-paper-gpu",
            "s",
            f"limit-{NOISE_LIMIT:.0f}s",
            "The paper’s noise search, converged (error below 0.1): 150 people × 37 crops of coloured blocks, which are told apart sooner "
            "than faces, all carrying noise, M = 30, step 1.6/255, dropout 0.6, 112 px.",
            lambda: noise_pair(gpu()),
            lower_is_better=True,
            target=1.0,
            gpu=True,
        ),
        Row(
            "study-webface-gpu",
            "h",
            f"limit-{STUDY_LIMIT:.0f}h",
            f"Projected from measured rates, loading left out: {ARMS} arms × {EPOCHS} epochs over the training photos among {FACES:,}, the "
            "test photos scored after each.",
            lambda: study_pair(gpu()),
            lower_is_better=True,
            target=1.0,
            gpu=True,
        ),
    ]


def gpu() -> Runtime:
    """The CUDA device as a stage would take it."""
    from pipeline.runtime import decide, prepare_torch

    runtime = decide("cuda")
    prepare_torch(runtime, 1)
    return runtime


def train_rate(runtime: Runtime, *, classes: int, batch: int, steps: int, untimed: int, input_size: int = 112) -> float:
    """Images a second of the steps after the first `untimed`, by the project's training loop on `runtime`'s device."""
    from benchmarks.crops import block_crops
    from benchmarks.training import clocked_learner, rate_of, train

    faces = block_crops(identities=batch, photos=steps)
    with clocked_learner(runtime.device, wait_at=(untimed, steps)) as times:
        train(faces, runtime, classes=classes, batch=batch, input_size=input_size, normalise=False)
    return rate_of(times, batch, untimed=untimed)


def predict_rate(runtime: Runtime, *, classes: int, count: int, input_size: int = 112) -> float:
    """Images a second of scoring clean photos on `runtime`'s device."""
    import torch

    from benchmarks.crops import block_crops
    from pipeline.models.recognisers import make_recogniser
    from pipeline.training.loop import predict

    faces = block_crops(identities=2, photos=count // 2)
    model = make_recogniser(classes=classes, input_size=input_size, dropout=0.0, normalise=False, seed=0)
    model = model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    predict(model, faces, runtime)
    started = time.perf_counter()
    predict(model, faces, runtime)
    return len(faces) / (time.perf_counter() - started)


def train_pair(runtime: Runtime, *, classes: int = PEOPLE, batch: int = 512, steps: int = 60, untimed: int = 20, **size: int) -> Pair:
    """Training against the limit."""
    return Pair(train_rate(runtime, classes=classes, batch=batch, steps=steps, untimed=untimed, **size), TRAIN_LIMIT)


def small_pair(
    device: Callable[[], Runtime], *, classes: int = 150, batch: int = 32, steps: int = 60, untimed: int = 20, **size: int
) -> Callable[[], Pair]:
    """A `measure`: training at small batches on the device that is asked for only then, with and without replays."""
    values = {"classes": classes, "batch": batch, "steps": steps, "untimed": untimed, **size}

    def replayed() -> float:
        return train_rate(device(), **values)

    def unrecorded() -> float:
        from pipeline.runtime import Runtime

        with mock.patch.object(Runtime, "replays", property(lambda _: False)):
            return train_rate(device(), **values)

    return paired(replayed, unrecorded, warm=False)


def noise_pair(runtime: Runtime, *, identities: int = 150, photos: int = 37, **values: Any) -> Pair:
    """The paper's search (`configs/paper.yaml`) against the limit; `RuntimeError` if it does not converge."""
    from benchmarks.crops import block_crops
    from benchmarks.noise_search import config_of, fast

    paper = {"rounds": 100, "batches": 30, "batch": 32, "step": 1.6, "stop_error": 0.1, "lr": 0.05, "dropout": 0.6, "input_size": 112}
    faces = block_crops(identities=identities, photos=photos)
    return Pair(fast(config_of(**(paper | values)), faces, runtime, protected=identities), NOISE_LIMIT)


def study_pair(
    runtime: Runtime, *, classes: int = PEOPLE, batch: int = 512, steps: int = 60, untimed: int = 20, scored: int = 8192, **size: int
) -> Pair:
    """Hours of the whole study against the limit."""
    training = train_rate(runtime, classes=classes, batch=batch, steps=steps, untimed=untimed, **size)
    scoring = predict_rate(runtime, classes=classes, count=scored, **size)
    seconds = ARMS * EPOCHS * FACES * ((1 - HELD_OUT) / training + HELD_OUT / scoring)
    return Pair(seconds / 3600, STUDY_LIMIT)
