"""Whom do networks see in targeted noise? A run's surrogates and its clean recogniser, asked of the photos that tap arms publish.

    python -m benchmarks.misled --data data/synthetic --run data/runs/<run>

Of each tap arm and each network that has learned clean photos: the share of the protected people's training photos in which it sees the
person that the noise is to show, and the share in which it still sees their own; as photos are, and through a draw of `transforms.py`. The
noise was made against the arm's surrogates; the clean arm's recogniser, where there is one, is a network that it was not made against.
Nothing is trained, so a change of the descent can be judged by it before hours of trainings are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from pipeline.runtime import Runtime
    from pipeline.training.faces import FaceSet

BATCH = 64


class Seen(NamedTuple):
    """Shares of the protected people's training photos in which `network` sees the target, and their own person."""

    arm: str
    network: str
    against: bool  # the noise was made against it
    target: float
    own: float
    target_transformed: float
    own_transformed: float


def misled(data: Path, run: Path) -> Iterator[Seen]:
    """Of each tap arm whose photos are protected and each network that is trained.

    Raises:
        StageError: the run's split, configs or crops are missing or damaged.
    """
    import numpy as np

    from benchmarks.machine import one_thread
    from pipeline.artifacts import read_json, read_table
    from pipeline.config import NoiseConfig, load
    from pipeline.noise.arms import ARMS, SURROGATES, is_of
    from pipeline.noise.searched import network_of
    from pipeline.noise.tap import next_identity
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.stage import training_set

    runtime = one_thread()
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    protected = np.unique(table.loc[table["role"] == "protected", "label"])
    learned = table.loc[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train"), "label"].to_numpy()
    networks = {}
    for name in (*SURROGATES, "clean"):
        if (run / name / "model" / "history.jsonl").exists():
            facts = read_json(run / name / "model" / "train.json")
            kind = SURROGATES.get(name, "inception-resnet-v1")
            networks[name] = facts["classes"], network_of(run / name / "model", facts, runtime, model=kind)
    for arm in ARMS:
        if not is_of(arm, "tap") or not (run / arm / "protected" / "manifest.parquet").exists():
            continue
        seed = load(NoiseConfig, run / "config" / f"noise-{arm}.yaml").seed
        faces = training_set(table, arm, data / "aligned", run)
        faces = faces.where(np.isin(faces.label, protected))
        for name, (classes, network) in networks.items():
            target = next_identity(protected, learned, classes, seed)[faces.label]
            shares = [float((names == whom).mean()) for names in named(network, faces, runtime) for whom in (target, faces.label)]
            yield Seen(arm, name, name in ARMS[arm].surrogates, *shares)


def named(network: Any, faces: FaceSet, runtime: Runtime) -> list[np.ndarray]:
    """Whom the network names on photos as they are, and on transformed ones: int64 (N,) each."""
    import numpy as np
    import torch

    from pipeline.noise.transforms import draw_transforms, transformed

    random = np.random.default_rng(0)
    found: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for start in range(0, len(faces), BATCH):
        x_BCHW, _ = faces.batch(np.arange(start, min(start + BATCH, len(faces))), runtime.torch_device())
        with torch.no_grad(), runtime.autocast():
            for names, shown in zip(found, (x_BCHW, transformed(x_BCHW, draw_transforms(random, len(x_BCHW)))), strict=True):
                names.append(network(shown).argmax(1).numpy())
    return [np.concatenate(names) for names in found]


def main() -> None:
    """Print a line an arm and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, such as data/synthetic")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with a folder an arm")
    options = parser.parse_args()
    for path in (options.data / "aligned", options.run / "split.parquet"):
        if not path.exists():
            parser.error(f"{path} is missing; give the folders of a run")
    for seen in misled(options.data, options.run):
        made = "made against" if seen.against else "not made against"
        print(
            f"{seen.arm:13s} {seen.network:24s} ({made + '):':18s} the target in {seen.target:6.1%}, their own in {seen.own:6.1%}; "
            f"transformed {seen.target_transformed:6.1%}, {seen.own_transformed:6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
