"""`torchrun` as `make` calls it: where a process fails, what it said itself is the last word, and not torchrun's traceback of its own.

python -m pipeline.together --standalone --nproc-per-node 2 -m -- pipeline train …
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Start the processes and wait for them. The exit code is that of the one that failed, as of a stage in one process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun does so itself, and warns of it in five lines
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun()
    except ChildFailedError as error:
        # torchrun ends the others by SIGTERM, perhaps within the same second.
        failed = sorted(error.failures.items(), key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].timestamp))
        rank, failure = failed[0]
        if failure.exitcode > 0:
            return failure.exitcode
        by = signal.Signals(-failure.exitcode).name
        print(f"process {rank} was killed ({by}), perhaps for want of memory; the same command goes on where it was", file=sys.stderr)
        return 1
    except SignalException as error:  # Ctrl-C, which each process has told of
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main())
