"""Work spread over processes of one thread each: two of them beat two threads in all that is done here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_all_start_methods, get_context, parent_process
from typing import TypeVar

from pipeline.errors import StageError

Job = TypeVar("Job")
Result = TypeVar("Result")


def start_worker() -> None:
    """Make this process a good worker: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")  # numpy's products would each take all cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:  # a worker whose parent was killed would wait for work for ever

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def spread(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, preload: tuple[str, ...] = ()
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the job, result) as jobs end, in any order. One worker: in this process, in order.

    Args:
        function: picklable; called once a job.
        preload: modules that workers need and that are slow to import: imported once, before the workers are forked off.

    Raises:
        StageError: a worker was killed (usually for want of memory).
        Exception: whatever `function` raised; jobs not yet begun are dropped.
    """
    if workers <= 1 or len(jobs) <= 1:
        for index, job in enumerate(jobs):
            yield index, function(job)
        return
    others = set(active_children())
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["__main__", *preload])
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=start_worker)
    try:
        futures = {pool.submit(function, job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise StageError("a worker process was killed, perhaps for want of memory; run the same command again, or with WORKERS=1") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(active_children()) - others:  # only after an error or Ctrl-C: what is under way is not waited for
            worker.terminate()
