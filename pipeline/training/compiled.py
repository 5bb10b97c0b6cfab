"""torch.compile for the batches that are all alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.runtime import Runtime


def for_full_batches(model: nn.Module, runtime: Runtime, *, batch: int, steps: int) -> Callable[..., Tensor]:
    """`model`'s forward pass, compiled for this rank's batches of `batch` photos where `runtime` says that it pays for `steps` of them.

    A batch of another size (the last of an epoch) goes through the model as it is: to compile for each size that comes along costs more
    than it saves, and one graph for any size is slower for the usual one. Training and eval mode are compiled once each, on first use.
    Dropout draws the masks that it would draw uncompiled, so that a seed means the same either way.
    """
    mode = runtime.compile_mode(steps)
    if mode is None:
        return model
    import torch._inductor.config as compiler  # half of the compiler, which takes seconds

    compiler.fallback_random = True
    fast = torch.compile(model, mode=mode, dynamic=False)
    graphs = mode == "reduce-overhead" and runtime.device.startswith("cuda")

    def forward(x_BCHW: Tensor, *rest: Tensor | None) -> Tensor:
        if len(x_BCHW) != batch:
            return model(x_BCHW, *rest)
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step left in the graph's memory is no longer needed
        return fast(x_BCHW, *rest)

    return forward
