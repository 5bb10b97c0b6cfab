"""What this machine can do at best: matrix products, copying memory, reading from disk, starting Python.

Rows of the project are seen against these; none of them runs anything of the project.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.row import Pair, Row, paired

if TYPE_CHECKING:
    import torch

SIDE = 2048  # of the square matrices: large enough for the best rate, small enough for many repeats
SMALL_SIDE = 256  # where a product of that size would take minutes
COPY_MIB, FILE_MIB = 256, 128


def rows() -> list[Row]:
    """The ceilings."""
    return [
        Row("matmul-fp32", "TFLOP/s", "", f"Product of two float32 matrices of {SIDE}², one thread, best of several.", fp32, ceiling=True),
        Row(
            "matmul-bf16",
            "TFLOP/s",
            "matmul-fp32",
            f"Product of two bfloat16 matrices of {SIDE}², one thread, best of several, against the same in float32. Emulated where the "
            f"CPU has no bf16 in hardware: the ratio is then far below 1, of matrices of {SMALL_SIDE}².",
            paired(partial(matmul_rate, "bf16", 1), partial(matmul_rate, "fp32", 1)),
            ceiling=True,
        ),
        Row(
            "matmul-fp32-all-cores",
            "TFLOP/s",
            "one-thread",
            "The same float32 product on all cores of this process, against one thread.",
            paired(partial(all_cores, "fp32"), partial(matmul_rate, "fp32", 1)),
            ceiling=True,
        ),
        Row(
            "matmul-bf16-all-cores",
            "TFLOP/s",
            "one-thread",
            "The same bfloat16 product on all cores of this process, against one thread.",
            paired(partial(all_cores, "bf16"), partial(matmul_rate, "bf16", 1)),
            ceiling=True,
        ),
        Row("memory-copy", "GB/s", "", f"{COPY_MIB} MiB copied by one thread, bytes of the source counted once.", copy, ceiling=True),
        Row(
            "disk-read",
            "MB/s",
            "page-cache",
            f"A file of {FILE_MIB} MiB read from start to end after its pages were dropped from the cache (posix_fadvise), against reading "
            "it again from the cache. A ratio near 1: the system below keeps a cache of its own.",
            disk,
            ceiling=True,
        ),
    ]


def matmul_rate(precision: str, threads: int, *, side: int = SIDE, seconds: float = 0.6) -> float:
    """TFLOP/s of the best of the square products done within `seconds`, at least two after a warm-up.

    One emulated bfloat16 product of the whole size takes a minute: what would take ten times `seconds` is measured on smaller matrices.
    """
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
    small = min(side, SMALL_SIDE)
    small_a, small_b = a[:small, :small].contiguous(), b[:small, :small].contiguous()
    product_seconds(small_a, small_b)
    if product_seconds(small_a, small_b) * (side / small) ** 3 > 10 * seconds:
        a, b = small_a, small_b
    product_seconds(a, b)
    best, started, done = float("inf"), time.perf_counter(), 0
    while done < 2 or time.perf_counter() - started < seconds:
        best, done = min(best, product_seconds(a, b)), done + 1
    return 2 * len(a) ** 3 / best / 1e12


def product_seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    """Seconds of one matrix product."""
    before = time.perf_counter()
    a.mm(b)
    return time.perf_counter() - before


def fp32() -> Pair:
    """The float32 ceiling of one thread."""
    return Pair(matmul_rate("fp32", 1))


def all_cores(precision: str) -> float:
    """The ceiling of all cores that this process may use."""
    from pipeline.runtime import cores

    return matmul_rate(precision, cores())


def copy(mib: int = COPY_MIB) -> Pair:
    """GB/s of the best of five copies."""
    import numpy as np

    source, target = np.ones(mib << 17), np.zeros(mib << 17)  # float64
    best = float("inf")
    for _ in range(5):
        before = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - before)
    return Pair(source.nbytes / best / 1e9)


def disk(mib: int = FILE_MIB) -> Pair:
    """MB/s of a cold and of a warm read of a file beside the data."""
    import tempfile

    folder = Path("data") if Path("data").is_dir() else Path.cwd()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".bench-") as file:
        block = os.urandom(1 << 20)
        for _ in range(mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return Pair(read_rate(file.name), read_rate(file.name))


def read_rate(path: str) -> float:
    """MB/s of reading a file from start to end."""
    buffer = bytearray(1 << 20)
    total, before = 0, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total / (time.perf_counter() - before) / 1e6
