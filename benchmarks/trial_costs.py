"""What each trial of the matrix costs, as a ratio to an epoch of the study's own training on the same photos.

    python -m benchmarks.trial_costs [NAME …]

Random crops stand in for faces: a pass costs the same whatever is in them. On a CPU the one thread's own time is taken, so that other
programs do not look like dear trials; each round times all trials between two plain epochs. From the ratios follows what a matrix takes
at most: what teaches the clean arm nothing is not tried on the others.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.config import TrainConfig
from pipeline.noise.arms import ARMS
from pipeline.runtime import Runtime, cores, decide, prepare_torch
from pipeline.training.faces import FaceSet
from pipeline.training.loop import TestPhotos, fit_countermeasure, train_recogniser
from pipeline.training.trials import SETS, Means, trial_of, trials_asked_for

CLASSES, PHOTOS, REPEATS = 150, 64, 3
FROM_SCRATCH = Means({}, {}, photos=True)
COUNT = len(ARMS) - 1  # `removed` is left out of trials
PUBLISHED = sum(arm.published for arm in ARMS.values())
# The study's own training; that again, on the arms that a person would publish (and without noise); no training, one pass.
KNOWN = dict.fromkeys(SETS["shares"], 1.0) | {
    "recropped": PUBLISHED / COUNT,
    "recropped-jpeg-75": (PUBLISHED + 1) / COUNT,
    "last-layer-refit": 0.0,
}


def photos() -> FaceSet:
    """Random uint8 crops: two batches."""
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (PHOTOS, 112, 112, 3), np.uint8)
    return FaceSet((crops,), np.zeros(PHOTOS, np.int64), np.arange(PHOTOS), np.arange(PHOTOS) % CLASSES)


def seconds_of(config: TrainConfig, faces: FaceSet, runtime: Runtime) -> tuple[float, float]:
    """(time before the second epoch less the second epoch's, the second epoch's): what is done once, such as a fit, and an epoch."""
    test = TestPhotos(faces.where(np.arange(len(faces)) < 2), np.array([True, False]))
    clock = time.process_time if runtime.device == "cpu" else time.perf_counter
    times = [clock()]
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_countermeasure(config, faces, classes=CLASSES, runtime=runtime)
        train_recogniser(
            config, faces, test, classes=CLASSES, runtime=runtime, checkpoint=Path(folder) / "state.pt", key="",
            report=lambda _: times.append(clock()), fitted=fitted,
        )  # fmt: skip
    start, first, second = times
    return first - start - (second - first), second - first


def main(names: list[str]) -> None:
    """Print a line a trial: the median ratio of an epoch, and seconds done once."""
    runtime = decide("auto", "1", "auto")
    prepare_torch(runtime, 1 if runtime.device == "cpu" else cores())
    faces = photos()
    plain = TrainConfig(epochs=2, batch=32, input_size=75, dropout=0.0)
    full = trials_asked_for("full", FROM_SCRATCH, plain)
    wanted = names or [name for name in full if name not in KNOWN]
    epochs: dict[str, list[float]] = {name: [] for name in wanted}
    once: dict[str, float] = {}
    for _ in range(REPEATS):
        before = seconds_of(plain, faces, runtime)[1]
        timed = {name: seconds_of(plain.model_copy(update=trial_of(name).values), faces, runtime) for name in wanted}
        base = (before + seconds_of(plain, faces, runtime)[1]) / 2
        for name, (at_first, epoch) in timed.items():
            epochs[name].append(epoch / base)
            once[name] = at_first
    ratios = {name: statistics.median(found) for name, found in epochs.items()}
    for name, found in epochs.items():
        print(f"{name:24}{ratios[name]:6.2f} × a plain epoch   ({min(found):.2f} to {max(found):.2f}; once {once[name]:.1f} s)", flush=True)
    if not names:
        for matrix in ("core", "countermeasures", "full"):
            some = trials_asked_for(matrix, FROM_SCRATCH, plain)
            total = sum((KNOWN | ratios)[name] for name in some)
            print(f"MATRIX={matrix}: {len(some)} trials, {total:.1f} plain trainings an arm, {total * COUNT:.0f} for {COUNT} arms")
        print(f"torch {torch.__version__}, {runtime.device}, {runtime.precision}")


if __name__ == "__main__":
    main(sys.argv[1:])
