"""Paired comparison of arms: the same people in both, so a person who is hard to recognise anyway does not blur the difference."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pipeline.evaluation.accuracy import FEWEST_IDENTITIES, wide_enough

GROUPS = ("protected", "others")
FEWEST_SEEDS = 6  # of k seeds the smallest two-sided p is 2 / 2^k: with fewer than 6 it cannot fall below 0.05, whatever was found


def seed_of(name: str) -> str:
    """Which seed an identity of joined seeds is of ("id7 (seed 2)"); the same for all in a run of one seed."""
    found = re.search(r" \(seed (\d+)\)$", name)
    return found.group(1) if found else ""


def resampled_means(by_seed: list[np.ndarray], resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of redraws of identities; of several seeds these are redrawn first, then the identities of each (hierarchical bootstrap).

    Args:
        by_seed: differences of the identities of each seed, (K,) each.

    Returns:
        (resamples,), means over seeds of the means over their identities.
    """
    means_SR = [one[generator.integers(0, len(one), (resamples, len(one)))].mean(1) for one in by_seed]
    if len(by_seed) == 1:
        return means_SR[0]
    # A seed that is drawn twice has its identities redrawn twice: take another row of its redraws for each time.
    drawn_RS = generator.integers(0, len(by_seed), (resamples, len(by_seed)))
    rows_RS = generator.integers(0, resamples, drawn_RS.shape)
    return np.stack(means_SR)[drawn_RS, rows_RS].mean(1)


def paired_difference(
    first: dict[str, float], second: dict[str, float], *, resamples: int, seed: int
) -> tuple[float, list[float] | None, float | None]:
    """Mean difference of the accuracies that each identity has in two arms; identities of joined seeds are told apart by `seed_of`.

    Args:
        first, second: accuracy by identity, fractions; identities that one of them lacks are left out.

    Returns:
        Mean of first − second over identities, of several seeds the mean of their means; its 95 % bootstrap interval, resampled by
        identity, of several seeds by seed first and made `wide_enough` for so few; and the share of random swaps of the two arms within
        identities that differ at least as much (two-sided permutation test by sign flips). Both None with fewer than `FEWEST_IDENTITIES`
        in any seed.

        Of several seeds the arms are swapped within seeds, not identities: the people of one seed share a search for noise and a training
        of each arm, and one person may be protected in two seeds, so people are no independent findings. With fewer than
        `FEWEST_SEEDS` seeds the share is None.
    """
    names = sorted(first.keys() & second.keys())
    difference = np.array([first[name] - second[name] for name in names])
    seeds = np.array([seed_of(name) for name in names])
    by_seed = [difference[seeds == one] for one in np.unique(seeds)]
    several = len(by_seed) > 1
    swapped = np.array([one.mean() for one in by_seed]) if several else difference
    mean = float(swapped.mean())
    if min(len(one) for one in by_seed) < FEWEST_IDENTITIES:
        return round(mean, 4), None, None
    generator = np.random.default_rng((seed, 0x9A1))
    low, high = np.quantile(resampled_means(by_seed, resamples, generator), [0.025, 0.975])
    span = [round(float(low), 4), round(float(high), 4)]
    if several:
        span = wide_enough(span, swapped, least=-1.0, most=1.0)
    if several and len(by_seed) < FEWEST_SEEDS:
        return round(mean, 4), span, None
    signs = generator.choice(np.array([-1.0, 1.0]), (resamples, len(swapped)))
    as_far = np.abs((signs * swapped).mean(1)) >= abs(mean) - 1e-12
    # The arms as they are count as one of the swaps, so that no finite number of them proves a chance of 0.
    return round(mean, 4), span, round(float((as_far.sum() + 1) / (resamples + 1)), 4)


def compare_arms(arms: dict[str, Any], *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Every arm against `clean` and, where there is one, against `random`, which shows what a pattern does that was not searched for.

    Args:
        arms: metrics by arm, as in `metrics.json`.

    Returns:
        Rows {"arm", "against", "group", "difference", "ci95", "p", "identities"}, see `paired_difference`; a group without identities
        is left out.
    """
    rows = []
    for against in ("clean", "random"):
        for arm in arms:
            if against not in arms or arm in (against, "clean"):
                continue
            for group in GROUPS:
                mine, base = arms[arm][group], arms[against][group]
                if mine is None or base is None:
                    continue
                first, second = mine["per_identity"], base["per_identity"]
                difference, span, chance = paired_difference(first, second, resamples=resamples, seed=seed)
                rows.append({
                    "arm": arm, "against": against, "group": group, "difference": difference, "ci95": span, "p": chance,
                    "identities": len(first.keys() & second.keys()),
                })  # fmt: skip
    return rows
