"""Training and inference of the recogniser against PyTorch as users write it, and against the machine's matrix product.

python -m benchmarks train-step train-step-75 train-ceiling inference inference-ceiling read-crops
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.machine import one_thread
from benchmarks.row import Row, paired

if TYPE_CHECKING:
    import numpy as np

    from pipeline.runtime import Runtime
    from pipeline.training.faces import FaceSet

CLASSES, BATCH, STEPS = 150, 32, 6  # the laptop profile's; steps a side, the first of which is not timed
READ = 4096  # crops, 154 MB


def rows() -> list[Row]:
    """Training steps at two input sizes, inference, the share of the matrix ceiling of both, reading crops."""
    from benchmarks.ceilings import matmul_rate
    from pipeline.runtime import cpu_has_fast_bf16

    plain = "Against facenet-pytorch’s InceptionResnetV1 in a plain loop: fp32, contiguous, CrossEntropyLoss, SGD, clipped gradients."
    precision = "bf16" if cpu_has_fast_bf16() else "fp32"
    return [
        Row(
            "train-step",
            "images/s",
            "plain-pytorch",
            f"The project’s training loop, {CLASSES} people, batches of {BATCH}, 112 px input, one thread. {plain}",
            paired(partial(training_rate, 112), partial(plain_rate, 112), warm=False),
            target=3.0,
        ),
        Row(
            "train-step-75",
            "images/s",
            "plain-pytorch",
            f"The same at the laptop profile’s 75 px input; the plain side’s crops are made smaller beforehand. {plain}",
            paired(partial(training_rate, 75), partial(plain_rate, 75), warm=False),
        ),
        Row(
            "train-ceiling",
            "TFLOP/s",
            f"matmul-{precision}",
            "Arithmetic of a training step at 112 px (forward and backward, as torch’s FLOP counter counts it) times images a second, "
            f"against the {precision} matrix product of one thread measured right beside it. The ratio is the share of the ceiling.",
            ceiling_pair(precision),
            target=0.25,
        ),
        Row(
            "inference",
            "images/s",
            "plain-pytorch",
            "Labels and embeddings of 192 crops at 112 px as the project scores test photos, one thread, against the same network in fp32, "
            "contiguous, batches of 64.",
            paired(inference_rate, plain_inference_rate),
        ),
        Row(
            "inference-ceiling",
            "TFLOP/s",
            f"matmul-{precision}",
            f"As train-ceiling, of the forward pass in inference: its share of the {precision} matrix product of one thread.",
            paired(lambda: asking_flops(112) * inference_rate() / 1e12, partial(matmul_rate, precision, 1)),
        ),
        Row(
            "read-crops",
            "images/s",
            "train-step",
            f"{READ} crops in random order from a shard on disk that was just written, in batches of {BATCH}, as the training loop reads "
            "them ahead; against the images a second that it trains on, 112 px, one thread each. Above 1, training does not wait for data.",
            paired(reading_rate, partial(training_rate, 112), warm=False),
        ),
    ]


@contextmanager
def clocked_steps() -> Iterator[list[float]]:
    """The time after each optimiser step taken meanwhile, by whichever loop on the CPU: seconds of a monotonic clock."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    times: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: times.append(time.perf_counter()))
    try:
        yield times
    finally:
        handle.remove()


@contextmanager
def clocked_learner(device: str = "cpu", *, wait_at: tuple[int, ...] = ()) -> Iterator[list[float]]:
    """The time after each step that a `Learner` takes meanwhile, recorded and replayed ones too: seconds of a monotonic clock.

    Args:
        wait_at: a GPU is handed its steps ahead of time, so at these steps (1 is the first) the clock waits until it is done.
    """
    import torch

    from pipeline.training.learner import Learner

    times: list[float] = []
    take = Learner.step

    def step(self: Learner, *batch: Any, **rate: Any) -> Any:
        found = take(self, *batch, **rate)
        if device != "cpu" and len(times) + 1 in wait_at:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        return found

    with mock.patch.object(Learner, "step", step):
        yield times


def rate_of(times: list[float], batch: int, *, untimed: int = 1) -> float:
    """Images a second of the steps after the first `untimed`; `RuntimeError` where no step was seen."""
    if len(times) <= untimed:
        raise RuntimeError(f"{len(times)} optimiser steps were seen, more than {untimed} are needed")
    return (len(times) - untimed) * batch / (times[-1] - times[untimed - 1])


def train(faces: FaceSet, runtime: Runtime, *, classes: int, **values: Any) -> None:
    """One epoch of the project's own loop over `faces`, next to nothing scored."""
    import numpy as np

    from pipeline.config import TrainConfig
    from pipeline.training.loop import TestPhotos, train_recogniser

    held = faces.where(np.arange(len(faces)) < 2)
    config = TrainConfig.model_validate({"epochs": 1, "lr": 0.02} | values)
    with tempfile.TemporaryDirectory() as folder:
        train_recogniser(
            config,
            faces,
            TestPhotos(held, np.ones(2, bool)),
            classes=classes,
            runtime=runtime,
            checkpoint=Path(folder) / "checkpoint.pt",
            key="bench",
            report=lambda _: None,
        )


def training_rate(input_size: int, *, classes: int = CLASSES, batch: int = BATCH, steps: int = STEPS) -> float:
    """Images a second of the project's training loop on one thread."""
    from benchmarks.crops import block_crops

    runtime, faces = one_thread(), block_crops(identities=batch, photos=steps)
    with clocked_learner() as times:
        train(faces, runtime, classes=classes, batch=batch, input_size=input_size)
    return rate_of(times, batch)


def plain_rate(input_size: int, *, classes: int = CLASSES, batch: int = BATCH, steps: int = STEPS) -> float:
    """Images a second of a loop as users write it, on one thread."""
    import numpy as np
    import torch
    from facenet_pytorch import InceptionResnetV1
    from torch import nn

    from benchmarks.crops import block_crops

    one_thread()
    faces = block_crops(identities=batch, photos=steps)
    x, y = plain_input(faces.crops(np.arange(len(faces))), input_size), torch.from_numpy(faces.label)
    torch.manual_seed(0)
    model = InceptionResnetV1(classify=True, num_classes=classes, dropout_prob=0.0)
    criterion = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    model.train()
    order = torch.randperm(len(x)).split(batch)
    running_loss = 0.0
    with clocked_steps() as times:
        for index in order:
            optimiser.zero_grad()
            loss = criterion(model(x[index]), y[index])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            running_loss += loss.item()
    return rate_of(times, batch)


def plain_input(crops: np.ndarray, input_size: int) -> Any:
    """Crops as the network wants them: float32 (N, 3, S, S), contiguous, (v − 127.5) / 128."""
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().contiguous()
    if input_size != x.shape[-1]:
        x = F.interpolate(x, size=(input_size, input_size), mode="bilinear", antialias=True)
    return (x - 127.5) / 128


def step_flops(input_size: int, *, classes: int = CLASSES, batch: int = 2) -> float:
    """Floating-point operations of one photo's training step: forward and backward, a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.models.recognisers import make_recogniser

    model = make_recogniser(classes=classes, input_size=input_size, dropout=0.0, normalise=True, seed=0).train()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(batch, 3, 112, 112)).sum().backward()
    return counter.get_total_flops() / batch


def asking_flops(input_size: int, *, gradient: bool = False, classes: int = CLASSES, batch: int = 2) -> float:
    """Floating-point operations of one photo's forward pass in eval mode; with `gradient` also of the loss's gradient by the photo."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.models.recognisers import make_recogniser

    model = make_recogniser(classes=classes, input_size=input_size, dropout=0.0, normalise=True, seed=0).eval().requires_grad_(False)
    x_BCHW = torch.zeros(batch, 3, 112, 112, requires_grad=gradient)
    with FlopCounterMode(display=False) as counter:
        logits = model(x_BCHW)
        if gradient:
            logits.sum().backward()
    return counter.get_total_flops() / batch


def reading_rate(*, count: int = READ, batch: int = BATCH) -> float:
    """Images a second of reading crops in random order."""
    import numpy as np
    import torch

    from pipeline.shards import write_shard
    from pipeline.training.faces import FaceSet

    random, nothing = np.random.default_rng(0), np.zeros(count, np.int64)
    crops = random.integers(0, 256, (count, 112, 112, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder) / "crops-0.npy", crops.shape, [crops])
        faces, order = FaceSet((shard,), nothing, np.arange(count), nothing), random.permutation(count)
        started = time.perf_counter()
        for start in range(0, count, batch):
            faces.read(order[start : start + batch], torch.device("cpu"))
        return count / (time.perf_counter() - started)


def ceiling_pair(precision: str, **size: int):
    """A `measure`: TFLOP/s of training against the matrix product's."""
    from benchmarks.ceilings import matmul_rate

    def ours() -> float:
        counted = step_flops(112, classes=size.get("classes", CLASSES))
        return counted * training_rate(112, **size) / 1e12

    return paired(ours, partial(matmul_rate, precision, 1), warm=False)


def inference_rate(*, count: int = 192, input_size: int = 112) -> float:
    """Images a second of the project's `predict`."""
    import torch

    from benchmarks.crops import block_crops
    from pipeline.models.recognisers import make_recogniser
    from pipeline.training.loop import predict

    runtime, faces = one_thread(), block_crops(identities=8, photos=count // 8)
    model = make_recogniser(classes=CLASSES, input_size=input_size, dropout=0.0, normalise=True, seed=0)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    started = time.perf_counter()
    predict(model, faces, runtime)
    return len(faces) / (time.perf_counter() - started)


def plain_inference_rate(*, count: int = 192, input_size: int = 112, batch: int = 64) -> float:
    """Images a second of the network called plainly."""
    import torch
    from facenet_pytorch import InceptionResnetV1

    from benchmarks.crops import block_crops

    one_thread()
    crops = block_crops(identities=8, photos=count // 8).shards[0]
    model = InceptionResnetV1(classify=True, num_classes=CLASSES).eval()
    started = time.perf_counter()
    with torch.no_grad():
        for start in range(0, len(crops), batch):
            model(plain_input(crops[start : start + batch], input_size)).argmax(1)
    return len(crops) / (time.perf_counter() - started)
