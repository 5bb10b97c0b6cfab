"""How much of a person's pattern can a scraper estimate from the person's photos, and does the estimate tell who is protected?

    python -m benchmarks.estimated_patterns --data data/synthetic --run data/runs/<run>

A line an arm with noise whose crops are there, of the estimate of `pipeline/countermeasures/subtraction.py`: how it compares with the
pattern that is on the photos (correlation, and the share of the energy that is gone once it is subtracted), and its strength for the
protected and for others, who carry none. What such a subtraction does to a network is for `make matrix MATRIX=pattern-subtraction` to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

TIMES = 1.5  # an estimate that many times as strong as the median person's gives its owner away


class Estimate(NamedTuple):
    """Of one arm: means over people. `correlation` and `removed` are None where every photo has noise of its own."""

    correlation: float | None
    removed: float | None
    strength: tuple[float, float]  # root of the mean square of the estimate, 1/255: of the protected, of others
    suspected: tuple[int, int]  # how many of the protected, and of others, have an estimate of `TIMES` the median's strength


def estimate(estimated_KCHW: np.ndarray, protected_P: np.ndarray, delta_PCHW: np.ndarray | None) -> Estimate:
    """What `Estimate` says of patterns of all K people, int8 in 1/255, where those at `protected_P` carry `delta_PCHW`."""
    found = estimated_KCHW.reshape(len(estimated_KCHW), -1).astype(np.float32)
    strength_K = np.sqrt((found**2).mean(1))
    others_O = np.setdiff1d(np.arange(len(found)), protected_P)
    strong_K = strength_K > TIMES * np.median(strength_K)
    correlation = removed = None
    if delta_PCHW is not None:
        carried = delta_PCHW.reshape(len(protected_P), -1).astype(np.float32)
        correlation = float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(found[protected_P], carried, strict=True)]))
        removed = 1 - float(((carried - found[protected_P]) ** 2).sum() / (carried**2).sum())
    return Estimate(
        correlation,
        removed,
        strength=(mean(strength_K[protected_P]), mean(strength_K[others_O])),
        suspected=(int(strong_K[protected_P].sum()), int(strong_K[others_O].sum())),
    )


def mean(values: np.ndarray) -> float:
    """Their mean; 0 of none."""
    return float(values.mean()) if len(values) else 0.0


def estimates(data: Path, run: Path) -> Iterator[tuple[str, Estimate]]:
    """Of each arm with protected crops: its name and what can be estimated.

    Raises:
        StageError: the run's split or crops are missing or damaged.
    """
    from pipeline.artifacts import read_table
    from pipeline.countermeasures.subtraction import fit_pattern_subtraction
    from pipeline.noise.arms import ARMS
    from pipeline.noise.table import load_noise
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.stage import training_set

    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    people = table[table["role"] == "protected"].drop_duplicates("label").sort_values("label")
    for arm in ARMS:
        if not (run / arm / "protected" / "manifest.parquet").is_file():
            continue
        train = training_set(table, arm, data / "aligned", run)
        fitted = fit_pattern_subtraction(train.crops, len(train), train.label, int(table["label"].max()) + 1, 0)
        noise, _ = load_noise(run / arm)
        row = {name: number for number, name in enumerate(noise.names)}
        carried = np.stack([noise.delta[row[name]] for name in people["identity"]]) if noise.per == "identity" else None
        yield arm, estimate(fitted.pattern_KCHW.numpy(), people["label"].to_numpy(), carried)


def main() -> None:
    """Print a line an arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, such as data/synthetic")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with a folder an arm")
    options = parser.parse_args()
    if not (options.run / "split.parquet").is_file():
        parser.error(f"{options.run / 'split.parquet'} is missing")
    for arm, found in estimates(options.data, options.run):
        told = "another noise in every photo"
        if found.correlation is not None and found.removed is not None:
            told = f"correlation {found.correlation:.2f}, {found.removed:.0%} of the energy subtracted"
        told += f"; strength of the estimate {found.strength[0]:.1f}/255, of others {found.strength[1]:.1f}"
        print(f"{arm}: {told}; suspected: {found.suspected[0]} protected, {found.suspected[1]} others", flush=True)


if __name__ == "__main__":
    main()
