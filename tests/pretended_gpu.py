"""A CUDA device that is not there: what lies on it has a shape, a dtype and a device but no numbers; what lies on the CPU is real.

On torch's `FakeTensorMode`, which its compiler traces with and which is no public interface: a new torch may ask for changes here. Each
operation of the device is checked as torch would there: its arguments must be there, too, or be copied first.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pipeline.noise.transforms import there_and_back
from pipeline.training import replayed
from pipeline.training.replayed import Outputs

aten = torch.ops.aten
PIPELINE = Path(__file__).resolve().parents[1] / "pipeline"
INDEXING = (aten.index_put.default, aten.index_put_.default, aten.index.Tensor)  # torch takes indices on the CPU, and waits


class PretendedGpu(FakeTensorMode):
    """`waits` counts what makes the CPU wait for the device: a kind and the line of `pipeline/` where it happens."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: Counter[str] = Counter()

    @property
    def avoid_device_init(self) -> bool:
        return True  # else the base asks whether there is a device

    def may_turn_const(self, t: Tensor) -> bool:
        return False  # else a small tensor would stay real on the CPU though it was sent to the device

    def invalidate_written_to_constants(self, *_: Any) -> None:
        pass

    def note(self, kind: str) -> None:
        """Count a wait, but for those of a model's move to the device."""
        frame, place = sys._getframe(1), ""
        while frame is not None:
            if frame.f_code is move.__code__:
                return
            if not place and frame.f_code.co_filename.startswith(str(PIPELINE)):
                place = f"{Path(frame.f_code.co_filename).relative_to(PIPELINE)}:{frame.f_lineno}"
            frame = frame.f_back
        self.waits[f"{kind} {place}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        there = any(isinstance(one, FakeTensor) for one in tensors)
        device = kwargs.get("device")
        if not there and (device is None or torch.device(device).type == "cpu"):
            return func(*args, **kwargs)  # on the CPU: as ever
        if func is aten._local_scalar_dense.default:
            self.note("item")
            return True if args[0].dtype == torch.bool else 0.5 if args[0].dtype.is_floating_point else 1
        if func is aten.nonzero.default:
            self.note("nonzero")
            return args[0].new_empty((3, args[0].ndim), dtype=torch.int64)
        if func in (aten._fused_sgd_.default, aten._fused_sgd_.tensor_lr):  # knows its shapes on real devices only
            assert len({one.device for one in tensors}) == 1, {one.device for one in tensors}
            return None
        if func is aten.index.Tensor and any(isinstance(one, Tensor) and one.device.type == "cpu" for one in args[1]):
            self.note("cpu index")
        if func in (aten._to_copy.default, aten.copy_.default):
            written = func is aten.copy_.default
            target, source = (args[0].device, args[1]) if written else (torch.device(device or args[0].device), args[0])
            blocking = not (kwargs.get("non_blocking") or (written and len(args) > 2 and args[2]))
            if target.type != source.device.type and (blocking or target.type == "cpu"):
                self.note(f"{source.device.type} to {target.type}")
        elif func not in INDEXING and there and any(one.ndim and not isinstance(one, FakeTensor) for one in tensors):
            shapes = [(one.device.type, tuple(one.shape)) for one in tensors]
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, {shapes}")
        if func is aten._to_copy.default and not there:  # a real tensor is sent
            like = torch.empty_like(args[0], device="meta", dtype=kwargs.get("dtype"), memory_format=kwargs.get("memory_format"))
            with self:
                return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=device)
        found = super().__torch_dispatch__(func, types, args, kwargs)
        return tree_map_only(Tensor, lambda one: one if one.device.type != "cpu" else zeros(one), found)


def zeros(like: Tensor) -> Tensor:
    """What comes back from the device."""
    return torch.from_numpy(np.zeros(like.shape, str(like.dtype).removeprefix("torch.").replace("bfloat16", "float32"))).to(like.dtype)


def leaves_of(outputs: list[Tensor]) -> list[Tensor]:
    """The tensors to which a backward pass from `outputs` would give gradients."""
    stack: list[Any] = [one.grad_fn for one in outputs]
    seen, found = set(), []
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                found.append(node.variable)
            stack += [one for one, _ in node.next_functions]
    return found


def backward(self: Tensor, *_: Any, **__: Any) -> None:
    """Tensor.backward, whose engine runs on a real device only: every leaf gets a gradient."""
    for leaf in leaves_of([self]):
        leaf.grad = torch.empty_like(leaf)


def grad(outputs: Tensor, inputs: Tensor, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    """torch.autograd.grad of one by another."""
    assert any(leaf is inputs for leaf in leaves_of([outputs])), "the loss does not depend on its input"
    return (torch.empty_like(inputs),)


def move(self: nn.Module, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> nn.Module:
    """nn.Module.to: a real parameter cannot become a pretended one in place."""
    for module in self.modules():
        for table in vars(module)["_parameters"], vars(module)["_buffers"]:
            for name, one in table.items():
                if one is None:
                    continue
                where: list[Any] = [arg for arg in args if not isinstance(arg, torch.dtype) or one.is_floating_point()]
                made = one.detach().to(*where, **kwargs)
                if memory_format is not None and made.ndim == 4:
                    made = made.contiguous(memory_format=memory_format)
                table[name] = nn.Parameter(made, one.requires_grad) if isinstance(one, nn.Parameter) else made
    return self


def pinned(self: Tensor) -> Tensor:
    """Tensor.pin_memory; readers' threads, which are outside the mode, call it, too."""
    assert self.device.type == "cpu", self.device
    return self


class Repeating:
    """Carries a call out again where a GPU replays it: into the same outputs (a training step's, if not given), from the same
    inputs.
    """

    def __init__(self, *outputs: Tensor) -> None:
        self.outputs = outputs or (torch.zeros(()), torch.zeros((), dtype=torch.int64))
        self.recorded = self.replayed = 0

    def ahead(self, call: Callable[[], Outputs]) -> Outputs:
        return call()

    def record(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        self.recorded += 1
        first, second = self.outputs

        def replay() -> None:
            self.replayed += 1
            for place, found in zip(self.outputs, call(), strict=True):
                place.copy_(found)

        return (first, second), replay


class Unrecorded:
    """Stands for `CudaRecorder`: the steps before one is recorded, and the recording; replays do nothing."""

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cuda", device

    def ahead(self, call: Callable[[], Any]) -> Any:
        return call()

    def record(self, call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        return call(), lambda: None


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """`cuda:0` is there for as long as the context lasts."""
    empty, inference_mode = torch.empty, torch.inference_mode
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (nn.Module, "to", move),
        (Tensor, "backward", backward),
        (torch.autograd, "grad", grad),
        (Tensor, "pin_memory", pinned),
        (torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs)),
        (replayed, "CudaRecorder", Unrecorded),
        (torch, "inference_mode", lambda *args: inference_mode(*args) if args else torch.no_grad()),  # else operations arrive uncut
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda, "mem_get_info", lambda *_: (80 << 30, 80 << 30)),
        (torch.cuda, "max_memory_allocated", lambda *_: 0),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    ]
    with ExitStack() as stack:
        for target, name, value in replaced:
            stack.enter_context(mock.patch.object(target, name, value))
        there_and_back.cache_clear()
        stack.callback(there_and_back.cache_clear)  # what lies on this device is of no use afterwards
        yield stack.enter_context(PretendedGpu())
