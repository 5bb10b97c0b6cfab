"""Sums over processes of one machine through memory that they share.

gloo carries each sum through sockets: on two cores a sum of a batch norm's statistics took it 0.15 to 0.5 ms, of which a training step has
hundreds, and the gradients' sum 0.2 to 0.3 s. Here each process copies its numbers into a slot of its own, waits until the others have, and
adds up what is in all slots, in the order of the ranks, so that every process gets the same bits.
"""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import StageError

SLOT = 2 << 20  # bytes; longer tensors go through in pieces, which stay in the cores' caches
LINE = 64  # bytes of a cache line: the counters of two processes are not on one
PATIENCE = 0.02  # s that a process looks without a pause whether the others have come


class SharedMemory:
    """The slots of `size` processes, and how far each has come. Made by `meet_in_memory`."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int, wait: float) -> None:
        self.rank, self.size, self.wait, self.turn = rank, size, wait, 0
        self.words = memoryview(memory)[: size * LINE].cast("q")  # of each process: its turn, and whether it has gone
        # Two slots each, in turn: whoever writes one again has seen all the others write the other, so they have read this one.
        self.slots = torch.frombuffer(memory, dtype=torch.uint8, offset=size * LINE).view(2, size, SLOT)

    def exchange(self, piece: Tensor) -> Tensor:
        """`piece` (N,) of every process, once all have written theirs: (size, N), valid until the exchange after the next."""
        self.turn += 1
        slots = self.slots[self.turn % 2][:, : piece.numel() * piece.element_size()].view(piece.dtype)
        slots[self.rank].copy_(piece)
        here = LINE // 8
        self.words[self.rank * here] = self.turn
        for rank in range(self.size):
            if rank != self.rank:
                self.wait_for(rank * here)
        return slots

    def wait_for(self, place: int) -> None:
        """Until the process whose words begin at `place` has come to this turn; `StageError` if it has gone, or does not come."""
        started = None
        while self.words[place] < self.turn:
            if self.words[place + 1] and self.words[place] < self.turn:
                raise StageError("another process of this run ended; its own message says why")
            now = time.monotonic()
            started = started or now
            if now - started > self.wait:
                raise StageError(f"another process of this run did not come within {self.wait:.0f} s")
            time.sleep(1e-4) if now - started > PATIENCE else os.sched_yield()

    def sum_(self, tensor: Tensor) -> Tensor:
        """`tensor`, contiguous or channels_last and the same in all processes, added up over them in place."""
        assert tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
        flat = torch.as_strided(tensor, (tensor.numel(),), (1,))
        step = SLOT // tensor.element_size()
        for start in range(0, flat.numel(), step):
            piece = flat[start : start + step]
            first, second, *others = self.exchange(piece)
            torch.add(first, second, out=piece)
            for other in others:
                piece.add_(other)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """`tensor` of every process: (size, *shape)."""
        flat = tensor.reshape(-1)
        step = SLOT // tensor.element_size()
        pieces = [self.exchange(flat[start : start + step]).clone() for start in range(0, flat.numel(), step)]
        return torch.cat(pieces, 1).view(self.size, *tensor.shape)

    def leave(self) -> None:
        """Say that this process has gone: whoever still waits for it waits in vain."""
        self.words[self.rank * (LINE // 8) + 1] = 1


def meet_in_memory(rank: int, size: int, values: Callable[[Any], list[Any]], *, wait: float) -> SharedMemory | None:
    """Memory that all processes share; None where they cannot: on different machines, without /dev/shm or with too little of it.

    Also None on processors other than x86-64: others may show a counter before the numbers that were written before it.

    Args:
        values: gives a small object of every process to all, by other means.
        wait: seconds that an exchange waits for the others.
    """
    length = size * (LINE + 2 * SLOT)
    path = None
    if rank == 0 and platform.machine() in ("x86_64", "AMD64") and hasattr(os, "sched_yield"):
        try:
            descriptor, path = tempfile.mkstemp(prefix="pipeline-", dir="/dev/shm")
            with os.fdopen(descriptor, "r+b") as made:
                os.posix_fallocate(made.fileno(), 0, length)  # a page that is not there when it is touched would end the process
        except OSError:
            if path is not None:
                os.unlink(path)
            path = None
    path = values(path)[0]
    memory = None
    if path is not None:
        try:
            with open(path, "r+b") as opened:
                memory = mmap.mmap(opened.fileno(), length)
        except (OSError, ValueError):
            memory = None
    everyone = all(values(memory is not None))
    if rank == 0 and path is not None:
        os.unlink(path)  # the memory stays as long as a process has it
    return SharedMemory(memory, rank, size, wait) if everyone and memory is not None else None
