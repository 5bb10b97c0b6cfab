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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.row import Pair, Row
from benchmarks.standin import CROP_BYTES, PHOTOS, photos_of_identities, plain_split, take, write_standin
from pipeline.artifacts import write_json, write_table
from pipeline.errors import RequestError
from pipeline.provenance import revision
from pipeline.runtime import decide

GROWTH_FILE = "webface.json"
LIMIT_MIB = 2048.0  # above the model, for training over the whole set
BATCH = 32
STEPS, FEW_STEPS = 20, 5  # where memory is measured; at each size
PROTECTED, AUXILIARY = 10, 20  # in the partial setting
PASS = 128  # photos of the noise pass in the full setting
EMBEDDING = 512
READS = 40  # batches of 256 crops


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


Work = Callable[[], dict[str, float]]


def split_of(setting: str) -> Callable[[Path, str], Work]:
    """The split stage."""

    def prepare(place: Path, device: str) -> Work:
        from pipeline.config import SplitConfig
        from pipeline.split import split_photos

        config = SplitConfig.model_validate({"setting": setting, "identities": PROTECTED, "auxiliary": AUXILIARY})

        def work() -> dict[str, float]:
            split_photos(config, place / "aligned", place / "run" / setting / "split.parquet")
            return {}

        return work

    return prepare


def runtime_on(device: str) -> Any:
    """One process of one thread on the CPU, so that the seconds of its processor are all that a stage costs."""
    from pipeline.runtime import prepare_torch

    runtime = decide(device, workers="1" if device == "cpu" else "auto")
    prepare_torch(runtime, runtime.workers)
    if device != "cpu":  # a context and its libraries take seconds, whatever there is to do
        import torch

        x_BCHW = torch.rand(1, 3, 9, 9, device=runtime.torch_device())
        torch.nn.functional.conv2d(x_BCHW, torch.rand(1, 3, 3, 3, device=x_BCHW.device))
        torch.cuda.synchronize(x_BCHW.device)
    return runtime


def search_partial(place: Path, device: str) -> Work:
    """The noise stage in the partial setting: one round of two batches and a pass over the protected photos."""
    from pipeline.config import NoiseConfig
    from pipeline.noise import searched  # noqa: F401
    from pipeline.noise.stage import make_noise

    run, runtime = place / "run" / "partial", runtime_on(device)
    values = {"arm": "error-min", "rounds": 1, "batches": 2, "batch": BATCH, "input_size": 75}

    def work() -> dict[str, float]:
        make_noise(NoiseConfig.model_validate(values), run / "split.parquet", place / "aligned", run, run / "error-min", runtime)
        return {}

    return work


def search_full(place: Path, device: str) -> Work:
    """One round of noise search with a pattern for everybody, its pass over `PASS` photos only, and the table written and read back."""
    from pipeline.artifacts import read_table
    from pipeline.config import NoiseConfig
    from pipeline.models.recognisers import make_recogniser
    from pipeline.noise.error_min import search_noise
    from pipeline.noise.table import NoiseTable, load_noise, quantise, save_noise
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.stage import training_set

    run, runtime = place / "run" / "full", runtime_on(device)
    config = NoiseConfig.model_validate({"arm": "error-min", "rounds": 1, "batches": 2, "batch": BATCH, "input_size": 75})

    def work() -> dict[str, float]:
        import torch

        table = read_table(run / "split.parquet", SPLIT_COLUMNS)
        names = tuple(sorted(table["identity"].unique()))
        faces = training_set(table, "clean", place / "aligned", run)

        def surrogate(number: int) -> torch.nn.Module:
            model = make_recogniser(classes=len(names), input_size=75, dropout=0.0, normalise=True, seed=number)
            return model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]

        row_N = np.full(len(faces), -1)
        chosen = np.random.default_rng(0).choice(len(faces), PASS, replace=False)
        row_N[chosen] = faces.label[chosen]
        found = search_noise(config, surrogate, faces, row_N, rows=len(names), runtime=runtime, report=lambda _: None)
        save_noise(run / "error-min", NoiseTable(quantise(found.delta, config.epsilon), names, config.epsilon), {})
        load_noise(run / "error-min")
        return {}

    return work


def protect_full(place: Path, device: str) -> Work:
    """Random noise for everybody, put on all crops and measured."""
    from pipeline.config import NoiseConfig
    from pipeline.noise.protect import protect
    from pipeline.noise.stage import make_noise

    run, runtime = place / "run" / "full", runtime_on(device)

    def work() -> dict[str, float]:
        (place / "photos").mkdir(exist_ok=True)
        make_noise(NoiseConfig(arm="random"), run / "split.parquet", place / "aligned", run, run / "random", runtime)
        protect(run / "split.parquet", place, run / "random", run / "random" / "protected", runtime, photos=False, max_side=112)
        return {}

    return work


def training_work(table: Any, arm: str, aligned: Path, run: Path, device: str, *, steps: int) -> dict[str, float]:
    """`steps` real training steps on photos drawn from the whole set; how long it took to open the set and, on a GPU, to load it whole."""
    from pipeline.config import TrainConfig
    from pipeline.training.faces import resident
    from pipeline.training.loop import TestPhotos, batches_of_epoch, train_recogniser
    from pipeline.training.stage import test_photos, training_set

    began = time.perf_counter()
    train, test = training_set(table, arm, aligned, run), test_photos(table, aligned)
    order = batches_of_epoch(len(train), BATCH, seed=0, epoch=0)  # of a whole epoch, as the loop holds it
    facts = {"open_seconds": time.perf_counter() - began, "photos": float(len(train))}
    runtime = runtime_on(device)
    if device != "cpu":
        began = time.perf_counter()
        held = resident(train, runtime.torch_device())
        facts |= {"load_seconds": time.perf_counter() - began, "held": float(held is not train)}
        del held
    drawn = np.zeros(len(train), bool)
    drawn[np.concatenate(order[:steps])] = True
    few = np.arange(len(test.faces)) % (len(test.faces) // BATCH) == 0
    classes = int(table["label"].max()) + 1
    config = TrainConfig(epochs=1, batch=BATCH, dropout=0.0, input_size=112)
    model, history = train_recogniser(
        config,
        train.where(drawn),
        TestPhotos(test.faces.where(few), test.protected[few]),
        classes=classes,
        runtime=runtime,
        checkpoint=run / "none.pt",
        key="",
        report=lambda _: None,
    )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # Weights, gradients and momentum
    return facts | {"epoch_seconds": history[-1]["seconds"], "model_mib": 3 * weights / 2**20}


def train(place: Path, device: str) -> Work:
    """Training steps, on protected crops where they are there."""
    from pipeline.artifacts import read_table
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training import stage  # noqa: F401

    run = place / "run" / "full"
    arm = "random" if list(run.glob("random/protected/crops-*.npy")) else "clean"
    return lambda: training_work(read_table(run / "split.parquet", SPLIT_COLUMNS), arm, place / "aligned", run, device, steps=FEW_STEPS)


def epoch(place: Path, device: str) -> Work:
    """A whole epoch of the paper's training on clean photos, loading and scoring included: batches of 512 at 112 px."""
    from pipeline.artifacts import read_table
    from pipeline.config import TrainConfig
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import train_recogniser
    from pipeline.training.stage import test_photos, training_set

    run, runtime = place / "run" / "full", runtime_on(device)
    config = TrainConfig(epochs=1, batch=512, lr=0.05, dropout=0.6, input_size=112, normalise=False)

    def work() -> dict[str, float]:
        table = read_table(run / "split.parquet", SPLIT_COLUMNS)
        train, test = training_set(table, "clean", place / "aligned", run), test_photos(table, place / "aligned")
        classes = int(table["label"].max()) + 1
        _, history = train_recogniser(
            config, train, test, classes=classes, runtime=runtime, checkpoint=run / "none.pt", key="", report=lambda _: None
        )
        return {"photos": float(len(train)), "scored": float(len(test.faces)), "epoch_seconds": history[-1]["seconds"]}

    return work


def train_on_everything(place: Path, device: str) -> Work:
    """Training steps on a set of holes, as large as the whole."""
    from pipeline.artifacts import read_table
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training import stage  # noqa: F401

    return lambda: training_work(read_table(place / "split.parquet", SPLIT_COLUMNS), "clean", place / "aligned", place, device, steps=STEPS)


def evaluate(place: Path, device: str) -> Work:
    """Predictions for a few photos; accuracy, verification and identification for all, on drawn embeddings."""
    from pipeline.artifacts import read_table
    from pipeline.evaluation.accuracy import group_accuracy
    from pipeline.evaluation.identification import identify
    from pipeline.evaluation.verification import verify
    from pipeline.models.recognisers import make_recogniser
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import predict
    from pipeline.training.stage import test_photos, training_set

    run, runtime = place / "run" / "full", runtime_on(device)

    def drawn(label: np.ndarray, seed: int) -> np.ndarray:
        """Unit vectors (N, 512) that have their identity in common."""
        centres = np.random.default_rng(0).standard_normal((int(label.max()) + 1, EMBEDDING), dtype=np.float32)
        embedding = np.random.default_rng(seed).standard_normal((len(label), EMBEDDING), dtype=np.float32)
        embedding += centres[label]
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
        return embedding

    def work() -> dict[str, float]:
        import torch

        table = read_table(run / "split.parquet", SPLIT_COLUMNS)
        test, gallery = test_photos(table, place / "aligned"), training_set(table, "clean", place / "aligned", run)
        names = [f"{label:07d}" for label in range(int(table["label"].max()) + 1)]
        model = make_recogniser(classes=len(names), input_size=112, dropout=0.0, normalise=True, seed=0)
        model = model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        few = np.arange(len(test.faces)) % (len(test.faces) // BATCH) == 0
        predict(model, test.faces.where(few), runtime)
        right = np.random.default_rng(1).random(len(test.faces)) < 0.5
        history = [{"epoch": 1, "protected": 0.5}]
        group_accuracy(history, "protected", right, test.faces.label, names, resamples=2000, seed=0)
        own = drawn(test.faces.label, 2)
        verify(own, test.faces.label, of="test photos", max_pairs=200_000, seed=0)
        found = identify(drawn(gallery.label, 3), gallery.label, own, test.faces.label, own[:0], resamples=2000, seed=0)
        assert found is not None
        return {"rank1": found["rank1"]}

    return work


def read(place: Path, device: str) -> Work:
    """Batches of 256 crops in random order."""
    from pipeline.artifacts import read_table
    from pipeline.training.faces import face_set

    run = place / "run" / "full"

    def work() -> dict[str, float]:
        table = read_table(run / "split.parquet", ["shard", "row", "label"], only=True)
        faces = face_set(table, place / "aligned")
        order = np.random.default_rng(0).permutation(len(faces))[: READS * 256]
        rates = []
        for start in range(0, len(order), 256):
            began = time.perf_counter()
            faces.crops(order[start : start + 256])
            rates.append(len(order[start : start + 256]) / (time.perf_counter() - began))
        return {"crops_per_second": float(np.median(rates))}

    return work


STAGES: dict[str, Callable[[Path, str], Work]] = {
    "split-partial": split_of("partial"),
    "split-full": split_of("full"),
    "noise-partial": search_partial,
    "noise-full": search_full,
    "protect-full": protect_full,
    "train": train,
    "epoch": epoch,
    "evaluate": evaluate,
    "read": read,
}


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
