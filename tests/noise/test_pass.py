"""What a noise pass spends its time on: nothing but the gradient of the photos; and its results whatever way the logits are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.noise.asked import Asked
from pipeline.noise.error_min import frozen, pass_batch, update_noise
from pipeline.runtime import Runtime, prepare_torch
from pipeline.training.at_hand import loss_gradient
from pipeline.training.replayed import WARM_UP, CudaRecorder, Recorder
from tests.conftest import toy_faces
from tests.noise.test_error_min import TinyNet, config_of, surrogate_of
from tests.pretended_gpu import Repeating


class Backward(TorchDispatchMode):
    """Which gradients each convolution's backward pass is asked for: of its input, its weight, its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bool, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.asked.append(tuple(args[-1]))
        return func(*args, **(kwargs or {}))


def test_no_gradient_of_a_weight_is_computed(cpu: Runtime) -> None:
    faces = toy_faces(identities=2, photos=1)
    model = surrogate_of(2)
    with Backward() as seen:
        update_noise(config_of(), model, faces, torch.zeros(2, 3, 112, 112), faces.label, cpu, pass_number=0)
    assert seen.asked
    assert set(seen.asked) == {(True, False, False)}
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_model_is_left_as_it_was(training: bool) -> None:
    model = TinyNet(2).train(training)
    bias = model.layers[1].bias
    assert isinstance(bias, torch.nn.Parameter)
    bias.requires_grad_(False)
    with frozen(model):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.training == training
    assert [parameter.requires_grad for parameter in model.layers[1].parameters()] == [True, False]


@pytest.mark.parametrize(
    ("device", "rule", "count", "photos"),
    [
        ("cpu", "identity-mean", 80, 40),
        ("cpu", "identity-mean", 994, 63),
        ("cuda", "identity-mean", 300, 150),
        ("cuda", "identity-mean", 5, 5),
        ("cpu", "identity-mean", 0, 1),
        ("cpu", "released", 80, 32),
    ],
)
def test_a_pass_goes_in_parts_of_like_size(device: str, rule: str, count: int, photos: int) -> None:
    assert pass_batch(config_of(rule=rule, batch=32), torch.device(device), count) == photos


def test_recognisers_that_exist_are_asked_about_fewer_photos_at_a_time_on_a_cpu() -> None:
    config = config_of(batch=32, against=("w.safetensors",))
    assert [pass_batch(config, torch.device(device), 300) for device in ("cpu", "cuda")] == [30, 150]


def test_batches_of_a_pass_change_nothing(cpu: Runtime) -> None:
    faces = toy_faces(identities=2, photos=5)
    tables = []
    for batch in (3, 10):
        delta = torch.zeros(2, 3, 112, 112)
        error = update_noise(config_of(batch=batch), TinyNet(2), faces, delta, faces.label, cpu, pass_number=0)
        tables.append((delta, error))
    assert tables[0][1] == tables[1][1]
    assert np.mean((tables[0][0] == tables[1][0]).numpy()) > 0.999


def asked_over_rounds(runtime: Runtime, recorder: Recorder | None) -> None:
    """A recorded surrogate against the surrogate itself, whose weights change from round to round."""
    device, generator = runtime.torch_device(), torch.Generator().manual_seed(0)
    model = surrogate_of(2).to(device)
    ask = Asked(model, runtime, batch=3, recorder=recorder)
    places: list[int] = []
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.02)
        ask.refresh()
        assert ask.folded is not None
        found = [tensor.data_ptr() for tensor in ask.folded.state_dict().values()]
        places = places or found
        assert found == places, "what is recorded reads where the first round's weights lay"
        for count in (3, 3, 3, 2):
            x_BCHW = torch.rand(count, 3, 112, 112, generator=generator).to(device)
            label_B = torch.randint(2, (count,), generator=generator).to(device)
            gradient, missed = ask(x_BCHW.requires_grad_(True), label_B)
            wanted, wrong = loss_gradient(model.eval(), runtime, x_BCHW, label_B)
            assert int(missed) == int(wrong)
            # Rounding, where a ReLU's sum is about nothing, is a thousandth; weights of the round before would be all of it.
            assert float((gradient - wanted).norm() / wanted.norm()) < 1e-2


def test_repeated_asking_is_asking(cpu: Runtime) -> None:
    recorder = Repeating(torch.zeros(3, 3, 112, 112), torch.zeros((), dtype=torch.int64))
    asked_over_rounds(cpu, recorder)
    assert (recorder.recorded, recorder.replayed) == (1, 9 - WARM_UP)


@pytest.mark.gpu
def test_replayed_asking_is_asking() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = Runtime(device="cuda", workers=1, precision="fp32")
    prepare_torch(cuda, 1)  # without TF32
    asked_over_rounds(cuda, CudaRecorder(torch.device("cuda")))
