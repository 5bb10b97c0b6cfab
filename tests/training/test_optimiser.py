"""The step in one pass is clip and step of the library."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline.training.optimiser import SGD


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_clips_and_steps_as_the_library_does(clip: float) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last)
    start = [torch.randn(7, 5, generator=generator), torch.randn(3, generator=generator), kernel, torch.randn(2, 2, generator=generator)]
    plain, quick = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    wanted = torch.optim.SGD(plain, lr=1.0, momentum=0.9, weight_decay=5e-4)
    found = SGD(quick, momentum=0.9, weight_decay=5e-4)
    for rate, layout in ((0.1, torch.channels_last), (0.05, torch.contiguous_format), (0.2, torch.channels_last)):
        gradients = [torch.randn(tensor.shape, generator=generator) for tensor in start[:3]]  # the last has none, as a frozen layer
        gradients[2] = gradients[2].contiguous(memory_format=layout)
        found.zero_grad()
        assert all(parameter.grad is None for parameter in quick)
        for parameters in (plain, quick):
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()
        for group in wanted.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(plain, clip)
        wanted.step()
        found.step(lr=rate, clip=clip)
        for one, other in zip(plain, quick, strict=True):
            torch.testing.assert_close(one, other)
    assert torch.equal(quick[3], start[3])


def test_what_has_moved_or_has_no_gradient_any_more() -> None:
    model = torch.nn.Conv2d(3, 4, 2)
    optimiser = SGD(model.parameters(), momentum=0.0, weight_decay=0.0)
    for precision in (torch.float32, torch.float64, torch.float32):  # new storage each time
        model.to(precision)
        model.weight.grad = torch.ones_like(model.weight)
        before, bias = model.weight.detach().clone(), model.bias.detach().clone()  # type: ignore[union-attr]
        optimiser.step(lr=0.5, clip=1e6)
        torch.testing.assert_close(model.weight.detach(), before - 0.5)
        assert torch.equal(model.bias.detach(), bias)  # type: ignore[union-attr]
        model.weight.grad = None
        optimiser.step(lr=0.5, clip=1e6)
        torch.testing.assert_close(model.weight.detach(), before - 0.5)


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from pipeline.training.optimiser import SGD; "
        "weight = torch.nn.Parameter(torch.ones(1)); weight.sum().backward(); "
        "SGD([weight], momentum=0.9, weight_decay=0.0).step(lr=1.0, clip=9); "
        "print('torch._dynamo' in sys.modules, float(weight))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "0.0"]


def test_goes_on_from_what_a_checkpoint_kept() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    one, other = (SGD([weight], momentum=0.9, weight_decay=0.0) for weight in weights)
    for number in range(3):
        for weight, optimiser in zip(weights, (one, other), strict=True):
            weight.grad = torch.full((3,), 0.1 * (number + 1))
            optimiser.step(lr=0.5, clip=1e6)
        renewed = SGD([weights[1]], momentum=0.9, weight_decay=0.0)
        renewed.load_state_dict(other.state_dict())
        other = renewed
    assert torch.equal(*weights)
