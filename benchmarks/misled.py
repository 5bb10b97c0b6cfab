"""Whom do networks see in targeted noise? A run's surrogates and its clean recogniser, asked of the photos that tap arms publish.

    python -m benchmarks.misled --data data/synthetic --run data/runs/<run>

Of each tap arm and each network that has learned clean photos: the share of the protected people's training photos in which it sees the
person that the noise is to show, and the share in which it still sees their own; as photos are, and through a draw of `transforms.py`. The
noise was made against the arm's surrogates; the clean arm's recogniser, where there is one, is a network that it was not made against.
Nothing is trained, so a change of the descent can be judged by it before hours of trainings are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.of_a_run import folders_asked_for, shown_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


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
    from pipeline.noise.against import network_of
    from pipeline.noise.arms import ARMS, SURROGATES, is_targeted
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import predict
    from pipeline.training.stage import training_set

    runtime = one_thread()
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    protected = np.unique(table.loc[table["role"] == "protected", "label"])
    networks = {}
    for name in (*SURROGATES, "clean"):
        if (run / name / "model" / "history.jsonl").exists():
            facts = read_json(run / name / "model" / "train.json")
            kind = SURROGATES.get(name, SURROGATES["surrogate"])  # every arm trains the study's own kind
            networks[name] = facts["classes"], network_of(run / name / "model", facts, runtime, model=kind)
    for arm in ARMS:
        if not is_targeted(arm) or not (run / arm / "protected" / "manifest.parquet").exists():
            continue
        faces = training_set(table, arm, data / "aligned", run)
        faces = faces.where(np.isin(faces.label, protected))
        for name, (classes, network) in networks.items():
            target = shown_by(table, run, arm, classes)[faces.label]
            named = [predict(network, faces, runtime, fitted=how)[0] for how in (None, Transformed())]
            shares = [float((names == whom).mean()) for names in named for whom in (target, faces.label)]
            yield Seen(arm, name, name in ARMS[arm].surrogates, *shares)


class Transformed:
    """Photos after a draw of `transforms.py`, the same for each network, where `predict` takes what a trainer does to them."""

    def __init__(self) -> None:
        import numpy as np

        self.random: np.random.Generator = np.random.default_rng(0)

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """Float crops in [0, 1], (B, 3, H, W), transformed."""
        from pipeline.noise.transforms import draw_transforms, transformed

        return transformed(x_BCHW, draw_transforms(self.random, len(x_BCHW)))

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor:
        """As `asked`, whichever photos they are."""
        return self.asked(x_BCHW)


def main() -> None:
    """Print a line an arm and network."""
    for seen in misled(*folders_asked_for(__doc__)):
        made = "made against" if seen.against else "not made against"
        print(
            f"{seen.arm:13s} {seen.network:24s} ({made + '):':18s} the target in {seen.target:6.1%}, their own in {seen.own:6.1%}; "
            f"transformed {seen.target_transformed:6.1%}, {seen.own_transformed:6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
