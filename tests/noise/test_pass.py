"""What a noise pass spends its time on: nothing but the gradient of the photos; and its results whatever way the logits are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.noise.error_min import frozen, update_noise
from pipeline.runtime import Runtime
from tests.conftest import toy_faces
from tests.noise.test_error_min import TinyNet, config_of, surrogate_of


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


def test_batches_of_a_pass_change_nothing(cpu: Runtime) -> None:
    faces = toy_faces(identities=2, photos=5)
    tables = []
    for batch in (3, 10):
        delta = torch.zeros(2, 3, 112, 112)
        error = update_noise(config_of(batch=batch), TinyNet(2), faces, delta, faces.label, cpu, pass_number=0)
        tables.append((delta, error))
    assert tables[0][1] == tables[1][1]
    assert np.mean((tables[0][0] == tables[1][0]).numpy()) > 0.999
