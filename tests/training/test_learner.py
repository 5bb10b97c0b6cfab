"""A step that is recorded and replayed is the step that is taken as it is: on a GPU, and on the CPU with a recorder that repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.distributed import Ranks
from pipeline.models.recognisers import Recogniser, make_recogniser
from pipeline.runtime import Runtime, prepare_torch
from pipeline.training.learner import Learner
from pipeline.training.replayed import WARM_UP, CudaRecorder, Recorder
from tests.pretended_gpu import Repeating

CLASSES, BATCH = 3, 4
ARCFACE = {"softmax": None, "arcface": (8.0, 0.3)}


def batches(device: torch.device, *, mixed: bool) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Two epochs of full batches with a smaller one at the end of each; every other batch mixed, if any is."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number, count in enumerate(([BATCH] * 5 + [3]) * 2):
        x_BCHW = torch.rand(count, 3, 112, 112, generator=generator).contiguous(memory_format=torch.channels_last)
        label_B = torch.randint(CLASSES, (count,), generator=generator)
        target = torch.softmax(torch.randn(count, CLASSES, generator=generator), 1) if mixed and number % 2 else None
        found.append((x_BCHW.to(device), label_B.to(device), None if target is None else target.to(device)))
    return found


def trained(runtime: Runtime, recorder: Recorder | None, *, head: str, mixed: bool) -> tuple[list[tuple[float, int]], Recogniser, Learner]:
    """What each step gives, at rates of a schedule, and the network after them."""
    model = make_recogniser(classes=CLASSES, input_size=75, dropout=0.4, normalise=True, seed=0, model="resnet18", arcface=ARCFACE[head])
    model = model.to(runtime.torch_device(), memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    config = TrainConfig(epochs=2, batch=BATCH, lr=0.1)
    learner = Learner(model, config, runtime, count=100, labels=True, recorder=recorder)
    if recorder is None:
        learner.recorder = None  # also where the runtime would have one
    found, places = [], []
    for number, (x_BCHW, label_B, target_B) in enumerate(batches(runtime.torch_device(), mixed=mixed)):
        if number % 6 == 0:  # an epoch
            torch.manual_seed(number)
        learner.spread.over(len(x_BCHW))
        loss, wrong = learner.step(x_BCHW, label_B, target_B, rate=0.002 if number < 8 else 0.0)
        found.append((float(loss), int(wrong)))
        state = [*model.state_dict().values(), *(one for one in learner.optimiser.velocity if one is not None)]
        places = places or [tensor.data_ptr() for tensor in state]
        assert places == [tensor.data_ptr() for tensor in state], "what is recorded writes where the first step's state lay"
    return found, model, learner


@pytest.mark.parametrize(("head", "mixed"), [("softmax", False), ("arcface", True)])
def test_repeated_steps_are_the_steps(head: str, mixed: bool, cpu: Runtime) -> None:
    recorder = Repeating()
    plain, model, _ = trained(cpu, None, head=head, mixed=mixed)
    found, other, _ = trained(cpu, recorder, head=head, mixed=mixed)
    assert found == plain
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert (recorder.recorded, recorder.replayed) == ((2, 10 - 2 * WARM_UP) if mixed else (1, 10 - WARM_UP))


def test_a_gpu_alone_replays(cpu: Runtime) -> None:
    assert not cpu.replays and replace(cpu, device="cuda").replays
    assert not replace(cpu, device="cuda", ranks=Ranks(0, 2)).replays


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("head", "mixed"), [("softmax", False), ("arcface", True)])
def test_replayed_steps_are_the_steps(head: str, mixed: bool, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    runtime = Runtime(device="cuda", workers=1, precision=precision)
    prepare_torch(runtime, 1)
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        plain, model, _ = trained(runtime, None, head=head, mixed=mixed)
        found, other, _ = trained(runtime, CudaRecorder(runtime.torch_device()), head=head, mixed=mixed)
    start = make_recogniser(classes=CLASSES, input_size=75, dropout=0.4, normalise=True, seed=0, model="resnet18", arcface=ARCFACE[head])
    moved, apart = distance(model, start), distance(model, other)
    # Sums of a pooling's gradient have no fixed order on a GPU, and few photos make much of it.
    assert apart < (0.1 if precision == "fp32" else 0.5) * moved, (apart, moved)
    assert [wrong for _, wrong in found[:WARM_UP]] == [wrong for _, wrong in plain[:WARM_UP]]


def distance(one: Recogniser, other: Recogniser) -> float:
    """Between the weights of two networks."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return float(torch.stack([(a.detach().cpu() - b.detach().cpu()).norm() for a, b in pairs]).norm())
