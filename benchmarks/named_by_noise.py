"""Does a trained network name the protected people by their noise? A finished run's networks, asked of the photos they trained on.

    python -m benchmarks.named_by_noise --data data/synthetic --run data/runs/<run>

Of each arm, over the protected people's training photos: how many its network names as it trained on them, how many of the same photos
without the noise, and how many of those it takes for any of the protected people at all. A network that learnt faces names both; one that
learnt noise names only the first, and where other people's photos are clean (`SETTING=partial`) it gives a clean photo to one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path


def named(data: Path, run: Path) -> Iterator[tuple[str, float, float, float]]:
    """Of each arm with a network of its own: its name, and the three shares of the protected people's training photos.

    Raises:
        StageError: the run's split, configs or crops are missing.
    """
    import numpy as np
    import torch

    from benchmarks.machine import one_thread
    from pipeline.artifacts import read_json, read_table
    from pipeline.config import TrainConfig, load
    from pipeline.models.recognisers import load_trained
    from pipeline.noise.arms import ARMS
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import predict
    from pipeline.training.stage import training_set

    runtime, aligned = one_thread(), data / "aligned"
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    protected = table.loc[table["role"] == "protected", "label"].unique()
    config = load(TrainConfig, run / "config" / "train.yaml")
    for arm in ARMS:
        folder = run / arm / "model"
        if arm == "removed" or not (folder / "history.jsonl").is_file():
            continue
        model = load_trained(
            folder / "weights.safetensors",
            classes=read_json(folder / "train.json")["classes"],
            input_size=config.input_size,
            normalise=config.normalise,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        own, clean = (training_set(table, which, aligned, run) for which in (arm, "clean"))
        own, clean = own.where(np.isin(own.label, protected)), clean.where(np.isin(clean.label, protected))
        as_trained, without = (predict(model, faces, runtime)[0] for faces in (own, clean))
        anybody = np.isin(without, protected)
        yield arm, float((as_trained == own.label).mean()), float((without == clean.label).mean()), float(anybody.mean())


def main() -> None:
    """Print a line an arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, such as data/synthetic")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with a folder an arm")
    options = parser.parse_args()
    for path in (options.data / "aligned", options.run / "split.parquet"):
        if not path.exists():
            parser.error(f"{path} is missing; give the folders of a finished run")
    for arm, own, without, anybody in named(options.data, options.run):
        print(
            f"{arm:22s} named with its noise {own:6.1%}, without {without:6.1%}; without, as anybody protected {anybody:6.1%}", flush=True
        )


if __name__ == "__main__":
    main()
