"""The step in one pass is clip and step of the library."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.optimiser import make_sgd, step


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_clips_and_steps_as_the_library_does(clip: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(7, 5, generator=generator), torch.randn(3, generator=generator), torch.randn(2, 2, generator=generator)]
    plain, quick = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    wanted = torch.optim.SGD(plain, lr=1.0, momentum=0.9, weight_decay=5e-4)
    found = make_sgd(quick, lr=1.0, momentum=0.9, weight_decay=5e-4)
    for rate in (0.1, 0.05, 0.2):
        gradients = [torch.randn(tensor.shape, generator=generator) for tensor in start[:2]]  # the last has none, as a frozen layer
        for parameters in (plain, quick):
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()
        for group in wanted.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(plain, clip)
        wanted.step()
        step(found, lr=rate, clip=clip)
        for one, other in zip(plain, quick, strict=True):
            torch.testing.assert_close(one, other)
    assert torch.equal(quick[2], start[2])
