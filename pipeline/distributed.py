"""One run in several processes, as `torchrun` starts them: who takes which photos, and how sums are joined.

    torchrun --standalone --nproc-per-node 2 -m -- pipeline train …       # without the `--` torchrun takes --run for an option of its own

Every process ("rank") draws the same random numbers and goes through the same global batches, each cut into contiguous parts, one a rank.
Sums over photos (gradients, batch-norm statistics, noise directions, errors) are added up over the ranks, so that N processes give the
noise and the metrics of one, within rounding. Rank 0 alone writes files and says progress. A rank that fails ends the others: `torchrun`
stops them, and a sum that waits for it fails.

NCCL joins processes on GPUs, each with a GPU of its own; gloo those on CPUs, and where they are on one machine their sums go through memory
that they share. Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipeline.errors import RequestError, StageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pipeline.shared_memory import SharedMemory

WAIT = timedelta(minutes=30)  # how long a rank waits for the others: a sum may come while one still reads its photos from a cold disk


@dataclass(frozen=True)
class Part:
    """One rank's photos of a global batch: `here` of its `count` photos.

    Attributes:
        start, stop: the photos, as places in the global batch.
        count: photos in the global batch.
        sizes: photos of each rank.
        copies: 1; or the number of ranks, where there are fewer photos than ranks and every rank computes all of them, since no layer
            is sure to take an empty batch. A sum over ranks then counts each photo so many times.
    """

    start: int
    stop: int
    count: int
    sizes: tuple[int, ...]
    copies: int

    @property
    def here(self) -> slice:
        """The photos, to cut them out of what was drawn for the global batch."""
        return slice(self.start, self.stop)

    @property
    def photos(self) -> int:
        """How many they are."""
        return self.stop - self.start

    @property
    def weight(self) -> float:
        """Of a mean over this rank's photos in the mean over the global batch: the weighted means of all ranks add up to it."""
        return (self.stop - self.start) / sum(self.sizes)


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run: `rank` of `size`, and `local`, its number on this machine. One process by default."""

    rank: int = 0
    size: int = 1
    local: int = 0
    memory: SharedMemory | None = field(default=None, compare=False, repr=False)  # `joined` says whether there is one

    @property
    def first(self) -> bool:
        """Whether this process writes files and says progress."""
        return self.rank == 0

    def part(self, count: int) -> Part:
        """This rank's part of a batch of `count` photos that a network trains on: never empty."""
        if count < self.size:
            return Part(0, count, count, (count,) * self.size, self.size)
        share = self.share(count)
        sizes = tuple((rank + 1) * count // self.size - rank * count // self.size for rank in range(self.size))
        return Part(share.start, share.stop, count, sizes, 1)

    def share(self, count: int) -> slice:
        """This rank's contiguous share of `count` things; shares differ by one at most, and may be empty."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum_(self, tensor: Tensor) -> Tensor:
        """`tensor`, added up over the ranks in place: the same bits on every rank."""
        if self.size == 1:
            return tensor
        if self.memory is not None:
            return self.memory.sum_(tensor)
        import torch.distributed as dist

        dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """`tensor` of every rank, stacked: (size, *shape); all ranks give the same shape and dtype."""
        if self.size == 1:
            return tensor[None]
        if self.memory is not None:
            return self.memory.gather(tensor)
        import torch.distributed as dist

        stacked = tensor.new_empty((self.size, *tensor.shape))
        dist.all_gather_into_tensor(stacked.view(-1), tensor.reshape(-1))
        return stacked

    def rows(self, own: Tensor, count: int) -> Tensor:
        """The rows of all ranks' shares of `count`, in order, from this rank's `own`: (count, …)."""
        if self.size == 1:
            return own
        whole = own.new_zeros((count, *own.shape[1:]))
        whole[self.share(count)] = own
        return self.sum_(whole)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], buffer: Tensor | None = None) -> Tensor | None:
        """Add up `.grad` over the ranks: one sum for all of them, in a flat buffer that the gradients then lie in.

        Not overlapped with the backward pass as in torch's DistributedDataParallel: on a CPU there is no core left for that.

        Args:
            buffer: what the last call for these parameters gave, so that its memory is used again; their gradients of then are gone.

        Returns:
            The buffer; None in a run of one process.
        """
        if self.size == 1:
            return None
        import torch

        having = [parameter for parameter in parameters if parameter.grad is not None]
        grads = [parameter.grad for parameter in having if parameter.grad is not None]
        if buffer is None:
            buffer = torch.empty(sum(grad.numel() for grad in grads), dtype=grads[0].dtype, device=grads[0].device)
        # Each view keeps its gradient's strides (channels_last ones too), so that copying is a straight run through memory.
        views, start = [], 0
        for grad in grads:
            views.append(torch.as_strided(buffer, grad.shape, grad.stride(), start))
            start += grad.numel()
        assert start == buffer.numel(), "the buffer is of other parameters"
        torch._foreach_copy_(views, grads)  # type: ignore[attr-defined]
        self.sum_(buffer)
        for parameter, view in zip(having, views, strict=True):
            parameter.grad = view
        return buffer

    def values(self, value: Any) -> list[Any]:
        """`value` of every rank, small and picklable."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, value: Any, what: str) -> None:
        """Check that every rank has the same `value` (anything that compares); `StageError` names `what` where not."""
        values = self.values(value)
        if any(other != value for other in values):
            raise StageError(
                f"{what}: the processes of this run found different ones ({', '.join(map(str, values))}); they must share files"
            )


ONE_PROCESS = Ranks()


def launched(environment: Mapping[str, str]) -> Ranks:
    """The ranks that `torchrun` says there are in `environment`; one process where it did not start this one."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(name not in environment for name in names):
        return ONE_PROCESS
    try:
        rank, size, local = (int(environment[name]) for name in names)
    except ValueError:
        raise RequestError(f"{', '.join(names)}: torchrun sets them to whole numbers, these are not") from None
    if not (0 <= rank < size and 0 <= local < size):
        raise RequestError(f"RANK={rank}, LOCAL_RANK={local}: allowed are 0 to {size - 1} (WORLD_SIZE={size})")
    return Ranks(rank, size, local)


@contextmanager
def joined(ranks: Ranks, device: torch.device, *, meet: str = "env://", in_memory: bool = True) -> Iterator[Ranks]:
    """The processes of a run joined, for as long as the context lasts; nothing happens for a run of one process.

    Yields the ranks as they are to be used: with the memory that processes on CPUs of one machine share, unless `in_memory` is False.
    On GPUs a process in which anything is raised has no way on but to its end.

    Args:
        device: this rank's: decides between gloo and NCCL.
        meet: where they meet, as in torch's `init_process_group`; `env://` is where torchrun says.

    Raises:
        StageError: another rank ended, or did not come.
    """
    if ranks.size == 1:
        yield ranks
        return
    import torch
    import torch.distributed as dist

    from pipeline.shared_memory import meet_in_memory

    lost = f"process {ranks.rank} of {ranks.size}: another one ended or does not answer; its own message says why"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    try:
        dist.init_process_group(backend, init_method=meet, rank=ranks.rank, world_size=ranks.size, timeout=WAIT, device_id=bound)
    except (dist.DistError, RuntimeError) as error:
        raise StageError(f"{lost} ({str(error).splitlines()[0]})") from error
    try:
        try:
            if in_memory and device.type == "cpu":
                ranks = replace(ranks, memory=meet_in_memory(ranks.rank, ranks.size, ranks.values, wait=WAIT.total_seconds()))
            yield ranks
        finally:
            if ranks.memory is not None:
                ranks.memory.leave()
    except BaseException as error:
        if backend == "nccl":
            # To leave the group is to wait for sums under way, in which the others wait for this process. It ends without leaving, once
            # its message is out and before anything else is torn down; torchrun then ends the others.
            atexit.register(end_at_once)
        else:
            dist.destroy_process_group()
        signs = ("connection closed", "connection reset", "timed out")  # gloo has no class for it
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)):
            raise StageError(lost) from error
        raise
    dist.destroy_process_group()


def end_at_once() -> None:
    """End this process as failed, what it has printed put out first."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
