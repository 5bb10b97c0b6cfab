"""Work in several gloo processes, for tests: each job is a function of this process's runtime and a folder, and gives numbers or arrays."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from pipeline.distributed import Ranks, joined
from pipeline.runtime import Runtime

Job = Callable[[Runtime, Path], Any]


def run_ranks(job: Job, folder: Path, *, size: int = 2, in_memory: bool = True) -> list[Any]:
    """What `job(runtime, folder)` gives in each of `size` processes; `RuntimeError` holds the tracebacks of those that failed."""
    context = torch.multiprocessing.get_context("spawn")
    meet = folder / "meet"
    processes = [context.Process(target=one_rank, args=(job, folder, rank, size, meet.as_uri(), in_memory)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    left = [folder / f"rank{rank}" for rank in range(size)]
    found = [pickle.loads(path.read_bytes()) if path.exists() else Failed(f"{path.name} left nothing") for path in left]
    failed = [text for text in found if isinstance(text, Failed)]
    if failed:
        raise RuntimeError("\n".join(failed))
    return found


class Failed(str):
    """The traceback of a rank that failed."""


def one_rank(job: Job, folder: Path, rank: int, size: int, meet: str, in_memory: bool) -> None:
    """Run `job` as one of the ranks, and leave what it gives in a file."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    runtime = Runtime(device="cpu", workers=1, precision="fp32", ranks=Ranks(rank, size, rank))
    try:
        with joined(runtime.ranks, runtime.torch_device(), meet=meet, in_memory=in_memory) as ranks:
            assert in_memory or ranks.memory is None
            result = job(replace(runtime, ranks=ranks), folder)
    except BaseException:
        result = Failed(traceback.format_exc())
    (folder / f"rank{rank}").write_bytes(pickle.dumps(result))
