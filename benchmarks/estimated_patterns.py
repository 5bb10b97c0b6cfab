"""How much of the noise on a person's photos can a scraper estimate from them, and does the estimate tell who is protected?

    python -m benchmarks.estimated_patterns --data data/synthetic --run data/runs/<run>

A line an arm with noise whose crops are there, of the estimate of `pipeline/countermeasures/subtraction.py`: how it compares with the
noise that is on the photos (correlation, and the share of the energy that is gone once it is subtracted), its strength for the protected
and for others, who carry none, and how many of each have patterns found on half of their photos or more. What such a subtraction does to
a network is for `make matrix MATRIX=pattern-subtraction` to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.of_a_run import folders_asked_for

SHARE = 0.5  # of somebody's photos with a pattern gives them away


class Estimate(NamedTuple):
    """Of one arm. `correlation` is the mean over photos with noise for which there is an estimate; None where there is none."""

    correlation: float | None
    removed: float
    strength: tuple[float, float]  # root of the mean square of the estimate, 1/255: on photos with noise, on others
    suspected: tuple[int, int]  # how many of the protected, and of others, have an estimate on `SHARE` of their photos


def estimate(found_NCHW: np.ndarray, carried_NCHW: np.ndarray, label_N: np.ndarray) -> Estimate:
    """What `Estimate` says of noise found on N photos of the people `label_N` that carry `carried_NCHW`, both int8 in 1/255, zero: none."""
    found, carried = (one.reshape(len(one), -1).astype(np.float32) for one in (found_NCHW, carried_NCHW))
    noisy_N, guessed_N = carried.any(1), found.any(1)
    assert noisy_N.any(), "noise on no photo"
    both = np.flatnonzero(noisy_N & guessed_N)
    suspected_K = np.bincount(label_N, guessed_N) >= SHARE * np.bincount(label_N).clip(1)
    protected = np.unique(label_N[noisy_N])
    return Estimate(
        correlation=float(np.mean([np.corrcoef(found[n], carried[n])[0, 1] for n in both])) if len(both) else None,
        removed=1 - float(((carried - found)[noisy_N] ** 2).sum() / (carried**2).sum()),
        strength=(strength_of(found[noisy_N]), strength_of(found[~noisy_N])),
        suspected=(int(suspected_K[protected].sum()), int(suspected_K.sum() - suspected_K[protected].sum())),
    )


def strength_of(noise: np.ndarray) -> float:
    """Root of the mean square; 0 of none."""
    return float((noise**2).mean() ** 0.5) if noise.size else 0.0


def estimates(data: Path, run: Path) -> Iterator[tuple[str, Estimate]]:
    """Of each arm with protected crops: its name and what can be estimated.

    Raises:
        StageError: the run's split or crops are missing or damaged.
    """
    from pipeline.artifacts import read_table
    from pipeline.countermeasures.subtraction import fit_pattern_subtraction
    from pipeline.noise.arms import ARMS
    from pipeline.noise.table import load_noise, row_names
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.stage import training_set

    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    for arm in ARMS:
        if not (run / arm / "protected" / "manifest.parquet").is_file():
            continue
        train = training_set(table, arm, data / "aligned", run)
        fitted = fit_pattern_subtraction(train.crops, len(train), train.label, int(table["label"].max()) + 1, 0)
        found = fitted.pattern_GCHW[fitted.group_N].numpy()
        noise, _ = load_noise(run / arm)
        row = {name: number for number, name in enumerate(noise.names)}
        learned = table[table["part"] == "train"]
        assert np.array_equal(learned["label"], train.label), "photos in another order"
        carried = np.zeros_like(found)
        for place, (role, name) in enumerate(zip(learned["role"], row_names(learned, noise.per), strict=True)):
            if role == "protected":
                carried[place] = noise.delta[row[name]]
        yield arm, estimate(found, carried, train.label)


def main() -> None:
    """Print a line an arm."""
    for arm, found in estimates(*folders_asked_for(__doc__)):
        told = "nothing found" if found.correlation is None else f"correlation {found.correlation:.2f}"
        told += f", {found.removed:.0%} of the energy subtracted"
        told += f"; strength of the estimate {found.strength[0]:.1f}/255, of others {found.strength[1]:.1f}"
        print(f"{arm}: {told}; suspected: {found.suspected[0]} protected, {found.suspected[1]} others", flush=True)


if __name__ == "__main__":
    main()
