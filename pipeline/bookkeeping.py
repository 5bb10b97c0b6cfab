"""A stage at work: alone, its results dated for `make`, and how long it took."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.distributed import launched
from pipeline.noise.arms import SURROGATES

# What each stage writes last, by which `make` knows when it was done: in DATA, RUN, and from noise on in RUN/ARM.
MADE = {
    "data": "photos.parquet",
    "align": "aligned/manifest.parquet",
    "split": "split.parquet",
    "noise": "noise.safetensors",
    "protect": "protected/manifest.parquet",
    "train": "model/history.jsonl",
    "evaluate": "metrics.json",
}


@contextmanager
def alone(args: argparse.Namespace) -> Iterator[None]:
    """A lock for as long as a stage works: two at once would write the same files. Nothing is held of a run that is not there."""
    from pipeline.artifacts import at_work

    root = getattr(args, "run", None) or getattr(args, "data", None)
    if args.stage not in (*MADE, "trial", "matrix") or not launched(os.environ).first or root is None or not root.is_dir():
        yield
        return
    # Who aligns photos reads the ones that the data stage would replace.
    lock = root / "locks" / f"{'photos' if args.stage in ('data', 'align') else piece_of_work(args)}.lock"
    with at_work(lock):
        began = lock.stat().st_mtime_ns  # by the clock that the other files' times are of, too
        yield
        date_back(args, began)


def date_back(args: argparse.Namespace, began: int) -> None:
    """Give what a stage made the time at which it began, if anything that it may have read has changed meanwhile.

    `make` compares times alone: noise that is found after another `make` wrote its snapshot anew would count as found by that one.
    """
    if args.stage not in MADE:
        return
    data, run, arm = args.data, getattr(args, "run", None), getattr(args, "arm", None)
    folders = {"data": data, "align": data, "split": run}
    made = {stage: folder / name for stage, name in MADE.items() if (folder := folders.get(stage, run and arm and run / arm))}
    read = {*made.values(), *data.glob("*.yaml"), *Path(__file__).parent.rglob("*.py")}
    if run:
        read |= {*run.glob("config/*.yaml"), *(run / name / MADE["train"] for name in SURROGATES)}
    if "lfw" in args:
        read.add(args.lfw / MADE["align"])
    own = made[args.stage]
    if any(path.exists() and path.stat().st_mtime_ns > began for path in read - {own}):
        os.utime(own, ns=(began, began))


def piece_of_work(args: argparse.Namespace) -> str:
    """The stage, and the arm and the trial that it works on, as in the names of files about it."""
    return "-".join([args.stage, *(getattr(args, part) for part in ("arm", "trial") if part in args)])


def keep_time(args: argparse.Namespace, seconds: float) -> None:
    """Keep how long a stage took beside what it made, for the report's provenance."""
    from pipeline.artifacts import write_json

    if args.stage not in MADE:
        return
    root = getattr(args, "run", None) or args.data
    write_json(root / "timings" / f"{piece_of_work(args)}.json", {"seconds": round(seconds, 1)})
