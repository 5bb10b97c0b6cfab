"""What `benchmarks.webface` runs, a function a stage: each prepares what is not to be timed, and returns the work that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime import decide

BATCH = 32
STEPS, FEW_STEPS = 20, 5  # where memory is measured; at each size
PROTECTED, AUXILIARY = 10, 20  # in the partial setting
PASS = 128  # photos of the noise pass in the full setting
EMBEDDING = 512
READS = 40  # batches of 256 crops

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
