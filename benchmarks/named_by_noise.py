"""Does a trained network name the protected people by their noise? A finished run's networks, asked of the photos they trained on.

    python -m benchmarks.named_by_noise --data data/synthetic --run data/runs/<run>

Of each arm, over the protected people's training photos: how many its network names as it trained on them, how many of the same photos
without the noise, and how many of those it takes for any of the protected people at all. A network that learnt faces names both; one that
learnt noise names only the first, and where other people's photos are clean (`SETTING=partial`) it gives a clean photo to one of them. Of
targeted adversarial noise (tap), by which one person's photos show the next, also how many of the next one's clean photos it takes for hers
whose noise shows that one: the person who would pay for the protection of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.of_a_run import folders_asked_for, shown_by


def named(data: Path, run: Path) -> Iterator[tuple[str, float, float, float, float | None]]:
    """Of each arm with a network of its own: its name, and the shares of the protected people's training photos; the last of tap alone.

    Raises:
        StageError: the run's split, configs or crops are missing.
    """
    import numpy as np
    import torch

    from benchmarks.machine import one_thread
    from pipeline.artifacts import read_json, read_table
    from pipeline.config import TrainConfig, load
    from pipeline.models.recognisers import load_trained
    from pipeline.noise.arms import ARMS, is_targeted
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import predict
    from pipeline.training.stage import training_set

    runtime, aligned = one_thread(), data / "aligned"
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    protected = np.unique(table.loc[table["role"] == "protected", "label"])
    config = load(TrainConfig, run / "config" / "train.yaml")
    for arm in ARMS:
        folder = run / arm / "model"
        if arm == "removed" or not (folder / "history.jsonl").is_file():
            continue
        classes = read_json(folder / "train.json")["classes"]
        model = load_trained(
            folder / "weights.safetensors",
            classes=classes,
            input_size=config.input_size,
            normalise=config.normalise,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        own, clean = (training_set(table, which, aligned, run) for which in (arm, "clean"))
        own, clean = own.where(np.isin(own.label, protected)), clean.where(np.isin(clean.label, protected))
        as_trained, without = (predict(model, faces, runtime)[0] for faces in (own, clean))
        anybody = np.isin(without, protected)
        for_another = None
        if is_targeted(arm):
            following = shown_by(table, run, arm, classes)
            before = np.full(classes, -1)
            before[following[protected]] = protected
            for_another = float((without == before[clean.label]).mean())
        yield arm, float((as_trained == own.label).mean()), float((without == clean.label).mean()), float(anybody.mean()), for_another


def main() -> None:
    """Print a line an arm."""
    for arm, own, without, anybody, for_another in named(*folders_asked_for(__doc__)):
        told = f"{arm:22s} named with its noise {own:6.1%}, without {without:6.1%}; without, as anybody protected {anybody:6.1%}"
        told += "" if for_another is None else f", as whose noise shows them {for_another:6.1%}"
        print(told, flush=True)


if __name__ == "__main__":
    main()
