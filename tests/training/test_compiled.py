"""Which batches go through torch.compile, and which device a run gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.distributed import Ranks
from pipeline.errors import RequestError
from pipeline.runtime import COMPILE, WORTH_COMPILING, Runtime, decide
from pipeline.training.compiled import for_full_batches
from tests.noise.test_error_min import TinyNet

CUDA = Runtime(device="cuda", workers=1, precision="bf16")


def test_only_long_runs_on_one_gpu_are_compiled_unasked(cpu: Runtime) -> None:
    assert cpu.compile_mode(10**6) is None
    assert CUDA.compile_mode(WORTH_COMPILING) == "default"
    assert CUDA.compile_mode(WORTH_COMPILING - 1) is None
    assert replace(CUDA, ranks=Ranks(0, 2)).compile_mode(10**6) is None
    assert replace(CUDA, compile="off").compile_mode(10**6) is None
    assert replace(cpu, compile="reduce-overhead").compile_mode(1) == "reduce-overhead"
    with pytest.raises(RequestError, match="COMPILE=fast"):
        decide("cpu", compile="fast")
    assert all(decide("cpu", compile=mode).compile == mode for mode in COMPILE)


def test_a_model_that_is_not_compiled_is_itself(cpu: Runtime) -> None:
    model = TinyNet(2)
    assert for_full_batches(model, cpu, batch=4, steps=10) is model


def test_ragged_batches_and_modes_compile_nothing_anew(cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's own eager backend: what is compiled is what matters here, not the code that a compiler makes of it."""
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(next(len(one) for one in inputs if isinstance(one, torch.Tensor) and one.ndim == 4 and one.shape[1:3] == (3, 112)))
        return graph

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, *, mode, dynamic: compiler(model, backend=counting, dynamic=dynamic))
    model = TinyNet(2)
    forward = for_full_batches(model, replace(cpu, compile="default"), batch=4, steps=10)
    x_BCHW = torch.rand(4, 3, 112, 112)
    for _ in range(3):  # epochs: full and ragged batches in training mode, then in eval mode without the weights' gradients
        for training in (True, False):
            model.train(training).requires_grad_(training)
            for count in (4, 4, 3, 1):
                inputs = x_BCHW[:count].clone().requires_grad_(not training)
                torch.testing.assert_close(forward(inputs), model(inputs))
    assert compiled == [4, 4]
