"""A call recorded once on a GPU and replayed: its hundreds of small kernels then cost the processor one call instead of one each.

At batches of 32 photos it takes a processor several times longer to start the kernels of a training step than a data-centre GPU to run them
(`python -m benchmarks --gpu`: `train-gpu-small`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.runtime import Runtime

WARM_UP = 3  # calls as they are before one is recorded: by then momentum is there and the libraries have made their choices

Outputs = tuple[Tensor, Tensor]


class Recorder(Protocol):
    """What records a call on a device."""

    def ahead(self, call: Callable[[], Outputs]) -> Outputs:
        """What `call` gives, run where it will be recorded."""
        ...

    def record(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        """The tensors that each replay writes, and what replays. `call` itself has not been carried out afterwards."""
        ...


class CudaRecorder:
    """CUDA graphs on a stream of their own, as torch asks for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def ahead(self, call: Callable[[], Outputs]) -> Outputs:
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            found = call()
        here.wait_stream(self.stream)
        return found

    def record(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead allocate page-locked memory meanwhile, which a global capture would take for a mistake.
        with torch.cuda.device(self.device), torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            found = call()
        return found, graph.replay


def recorder_on(runtime: Runtime) -> Recorder | None:
    """CUDA graphs on one GPU; None, nothing is recorded, elsewhere."""
    return CudaRecorder(runtime.torch_device()) if runtime.replays else None


class Replayed:
    """Calls of a function of tensors, recorded after `WARM_UP` of them and replayed from then on.

    All calls are of the same function, with tensors of the same shapes and dtypes. What a replay returns is overwritten by the next one.
    The function may change tensors in place that stay where they are (weights, momentum, running statistics), must not wait for the
    device, and what it does besides to Python's own state is done for the first calls only. It is not kept: whoever owns this owns it, and
    a circle of the two would hold a network's memory on the device until Python looks for circles.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.recorded: tuple[Outputs, Callable[[], None]] | None = None

    def __call__(self, function: Callable[..., Outputs], *tensors: Tensor) -> Outputs:
        if self.recorded is None:
            self.calls += 1
            if self.calls <= WARM_UP:
                return self.recorder.ahead(lambda: function(*tensors))
            self.inputs = inputs = [tensor.clone() for tensor in tensors]  # where each replay reads; layout is kept
            self.recorded = self.recorder.record(lambda: function(*inputs))
        else:
            put(self.inputs, tensors)
        outputs, replay = self.recorded
        replay()
        return outputs


def put(places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy `tensors` to where they are read."""
    for place, tensor in zip(places, tensors, strict=True):
        assert place.shape == tensor.shape and place.dtype == tensor.dtype, (place.shape, tensor.shape)
        place.copy_(tensor, non_blocking=True)
