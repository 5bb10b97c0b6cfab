"""What each stage costs as the data grow to WebFace's size: seconds and memory at several sizes of a generated stand-in.

    python -m benchmarks.webface                                  # up to a tenth (49,135 crops), 5 minutes on a free core, 4 GB of disk
    python -m benchmarks.webface --share 1.0 --device cuda        # the whole (490,623 crops), 37 GB of disk
    python -m benchmarks.webface --share 1.0 --device cuda --sizes 1 --stages epoch     # one real epoch over it

Every stage runs in a process of its own, which says how long the stage's work took and how much memory the process held. What a network
does is kept to the same few photos at every size (but for `epoch`), since its cost is a photo's times their number; what remains is what
must not grow faster than the data. Writes `webface.json` and `webface.svg` into `reports/bench`.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.row import Pair, Row
from benchmarks.standin import CROP_BYTES, PHOTOS, photos_of_identities, plain_split, take, write_standin
from benchmarks.webface_stages import BATCH, STAGES, STEPS, train_on_everything
from pipeline.artifacts import write_json, write_table
from pipeline.errors import RequestError
from pipeline.provenance import revision
from pipeline.runtime import decide

GROWTH_FILE = "webface.json"
LIMIT_MIB = 2048.0  # above the model, for training over the whole set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="the largest size, of WebFace's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, or auto")
    parser.add_argument("--folder", type=Path, help="where the crops go; default: a temporary folder, removed at the end")
    parser.add_argument("--output", type=Path, default=Path("reports/bench"))
    parser.add_argument("--sizes", type=int, default=3, choices=(1, 2, 3), help="how many sizes, each 3.2 times the one before (default 3)")
    parser.add_argument(
        "--stages", nargs="*", choices=list(STAGES), help="default: all; epoch on a GPU alone; the splits they read go first"
    )
    parser.add_argument("--stage", choices=[*STAGES, "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error(f"--share {options.share}: allowed is a number above 0, up to 1 (490,623 crops, 18.5 GB)")
    try:
        options.device = decide(options.device).device
    except RequestError as error:
        parser.error(str(error))
    if options.stages is not None and "epoch" in options.stages and options.device == "cpu":
        parser.error("--stages epoch: a whole epoch takes a CPU days; allowed is --device cuda or cuda:N beside it")
    if options.stages is None:
        options.stages = [stage for stage in STAGES if stage != "epoch" or options.device != "cpu"]
    options.stages = with_splits(options.stages)
    if options.stage is not None:
        print(json.dumps(watched(options.stage, options.folder, options.device)))
        return
    if options.folder is not None:
        run(options.folder, options)
        return
    with tempfile.TemporaryDirectory(prefix="webface-") as folder:
        run(Path(folder), options)


def with_splits(stages: list[str]) -> list[str]:
    """`stages` in the order of `STAGES`, and the splits that they read."""
    read = {"split-partial" if stage == "noise-partial" else "split-full" for stage in stages if not stage.startswith("split-")}
    return [stage for stage in STAGES if stage in read | set(stages)]


def run(folder: Path, options: argparse.Namespace) -> None:
    """Generate, measure at some sizes, write, and put it into the page."""
    from benchmarks.page import write_again

    shares = [options.share / 10, options.share / 10**0.5, options.share][-options.sizes :]
    largest = int(photos_of_identities(options.share).sum())
    copies = 2 if "protect-full" in options.stages else 1
    print(f"{folder}: {largest:,} crops, {copies * largest * CROP_BYTES / 1e9:.1f} GB of disk at most", file=sys.stderr)
    started = time.perf_counter()
    everything = folder / "largest"
    if not (everything / "manifest.parquet").exists():
        write_standin(everything, options.share)
    print(f"generated in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    sizes = []
    for share in shares:
        place = folder / f"share-{share:.4f}"
        if not (place / "aligned" / "manifest.parquet").exists():
            take(everything, share, place / "aligned")
        found: dict[str, Any] = {}
        for stage in options.stages:
            found[stage] = in_a_process(stage, place, options.device)
            print(f"{share:.4f} {stage}: {found[stage]}", file=sys.stderr)
        for path in (place / "run").rglob("crops-*.npy"):
            path.unlink()  # the next size needs the room
        photos = photos_of_identities(share)
        sizes.append({"share": share, "crops": int(photos.sum()), "identities": len(photos), "stages": found})
    growth = {stage: growth_of(sizes, stage) if len(sizes) > 1 else None for stage in options.stages}
    result = {"schema": 1, **revision(), "device": options.device, "whole": PHOTOS, "sizes": sizes, "growth": growth}
    write_json(options.output / GROWTH_FILE, result)
    for stage, exponent in growth.items():
        last = sizes[-1]["stages"][stage]
        grows = "" if exponent is None else f", grows as size^{exponent:.2f}"
        print(f"{stage:15} {cost(last):8.2f} s {last['above_mib']:7.0f} MiB above start{grows}")
    print(f"page: {write_again(options.output)}")


def growth_of(sizes: list[dict[str, Any]], stage: str) -> float:
    """The exponent p of seconds ~ size^p from the middle size to the largest: 1 is linear, 2 quadratic, 0 does not depend on size."""
    (before, crops_before), (after, crops_after) = ((cost(size["stages"][stage]), size["crops"]) for size in sizes[-2:])
    return round(math.log(after / before) / math.log(crops_after / crops_before), 2)


def cost(measured: dict[str, Any]) -> float:
    """Seconds of the processor, or on the clock where another device does the work."""
    return max(measured["cpu_seconds" if measured["on_cpu"] else "seconds"], 1e-2)


def in_a_process(stage: str, place: Path, device: str) -> dict[str, Any]:
    """What `watched` says of a stage run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.webface", "--stage", stage, "--folder", str(place), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def watched(stage: str, place: Path, device: str) -> dict[str, Any]:
    """Run a stage and measure it: seconds on the clock and of the processor, which other programs slow less, and MiB: the process's peak,
    its peak of memory not backed by files, and the peak above what the process held before.
    """
    import pandas as pd  # noqa: F401  what every stage imports belongs to the start
    import torch

    work = (STAGES | {"memory": train_on_everything})[stage](place, device)  # imports and what is not to be timed
    start = status_mib("VmRSS")
    highest, ended = [status_mib("RssAnon")], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            highest.append(status_mib("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    facts = work()
    if device != "cpu":
        import torch

        torch.cuda.synchronize(torch.device(device))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    ended.set()
    watcher.join()
    peak = status_mib("VmHWM")
    measured = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak, "anonymous_mib": max(highest), "above_mib": peak - start}
    return {name: round(value, 3) for name, value in (measured | facts).items()} | {"on_cpu": device == "cpu"}


def status_mib(field: str) -> float:
    """A field of this process's memory, as Linux counts it, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")


def memory_of_training() -> Pair:
    """MiB of a process that trains on 490,623 crops, less its model, against the limit."""
    with tempfile.TemporaryDirectory(prefix="webface-") as folder:
        place = Path(folder)
        manifest = write_standin(place / "aligned", 1.0, holes=True)
        write_table(place / "split.parquet", plain_split(manifest))
        found = in_a_process("memory", place, "cpu")
        print(f"memory-webface: {found}", file=sys.stderr)
        return Pair(found["peak_mib"] - found["model_mib"], LIMIT_MIB)


def rows() -> list[Row]:
    """Memory of training at WebFace's size."""
    text = (
        f"Peak memory of a process that trains {STEPS} steps of {BATCH} crops drawn from {PHOTOS:,} of 10,575 identities, less weights, "
        "gradients and momentum. The files are holes, which read as zeros: content does not matter to memory."
    )
    return [
        Row("memory-webface", "MiB", "limit", text, memory_of_training, lower_is_better=True, target=1.0),
    ]


if __name__ == "__main__":
    main()
