"""One run in two processes on two cores against one process on one core.

python -m benchmarks train-2-processes train-2-processes-large noise-2-processes train-shared-memory

Both sides start their processes anew, pin each to a core of its own, and time what comes after a first step or round.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.row import Row, Unavailable, paired

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

CLASSES, BATCH = 150, 32  # the laptop profile's
LARGE_BATCH = 128  # a quarter of the paper profile's


def rows() -> list[Row]:
    """Training in small and large batches, noise search, and training without memory that processes share; images a second."""
    from pipeline.runtime import cores

    if cores() < 2 or not hasattr(os, "sched_setaffinity"):
        raise Unavailable("needs two cores, and processes that can be pinned to them")
    both = " Two processes, each with a core and half of each batch, against one process on one core."
    large = partial(train_rate, batch=LARGE_BATCH, input_size=112, steps=5)
    return [
        Row(
            "train-2-processes",
            "images/s",
            "one-process",
            f"The project’s training loop, {CLASSES} people, batches of {BATCH}, 75 px input.{both}",
            paired(partial(images_per_second, 2, train_rate), partial(images_per_second, 1, train_rate), warm=False),
        ),
        Row(
            "train-2-processes-large",
            "images/s",
            "one-process",
            f"The same with batches of {LARGE_BATCH} and 112 px input, where a step’s work outweighs the sums over processes.{both}",
            paired(partial(images_per_second, 2, large), partial(images_per_second, 1, large), warm=False),
            target=2.0,
        ),
        Row(
            "noise-2-processes",
            "images/s",
            "one-process",
            f"One round over 20 people × 16 photos, all protected, 5 surrogate batches of {BATCH}, 75 px input.{both}",
            paired(partial(images_per_second, 2, noise_rate), partial(images_per_second, 1, noise_rate), warm=False),
        ),
        Row(
            "train-shared-memory",
            "images/s",
            "gloo",
            "The training loop as in train-2-processes, sums through memory that the two processes share, against gloo’s sockets.",
            paired(partial(images_per_second, 2, train_rate), partial(images_per_second, 2, train_rate, in_memory=False), warm=False),
        ),
    ]


def train_rate(runtime: Runtime, *, batch: int = BATCH, input_size: int = 75, steps: int = 10) -> float:
    """Images a second of training steps after the first two; all ranks' together."""
    from benchmarks.crops import block_crops
    from benchmarks.training import clocked_learner, rate_of, train

    faces = block_crops(identities=batch, photos=steps)
    with clocked_learner() as times:
        train(faces, runtime, classes=CLASSES, batch=batch, input_size=input_size)
    return rate_of(times, batch, untimed=2)


def noise_rate(runtime: Runtime, *, identities: int = 20, photos: int = 16, batches: int = 5) -> float:
    """Images a second of one round, photos of surrogate batches and photos of the noise pass counted alike; all ranks' together."""
    from benchmarks.crops import block_crops
    from benchmarks.noise_search import config_of, fast

    few = block_crops(identities=2, photos=BATCH)
    fast(config_of(batches=1, input_size=75), few, runtime, protected=2)
    faces = block_crops(identities=identities, photos=photos)
    seconds = fast(config_of(batches=batches, input_size=75), faces, runtime, protected=identities)
    return (batches * BATCH + len(faces)) / seconds


def images_per_second(size: int, rate: Callable[[Runtime], float], *, in_memory: bool = True) -> float:
    """What `rate` gives in the first of `size` processes, each pinned to a core; `RuntimeError` if one of them fails.

    `in_memory`: sums go through memory that the processes share, otherwise through gloo.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        processes = [context.Process(target=one_process, args=(rank, size, Path(folder), rate, answers, in_memory)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        codes = [process.exitcode for process in processes]
        if any(codes):
            raise RuntimeError(f"a process of {size} failed (exit codes {codes})")
        return answers.get()


def one_process(
    rank: int, size: int, folder: Path, rate: Callable[[Runtime], float], answers: multiprocessing.SimpleQueue, in_memory: bool
) -> None:
    """One of `size` processes: pinned, joined, measured."""
    from dataclasses import replace

    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    from benchmarks.machine import one_thread
    from pipeline.distributed import Ranks, joined

    runtime = replace(one_thread(), ranks=Ranks(rank, size, rank))
    with joined(runtime.ranks, runtime.torch_device(), meet=(folder / "meet").as_uri(), in_memory=in_memory) as ranks:
        found = rate(replace(runtime, ranks=ranks))
    if runtime.ranks.first:
        answers.put(found)
