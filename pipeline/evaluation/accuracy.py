"""Accuracy on clean test photos, with intervals resampled by identity."""

from __future__ import annotations

from typing import Any

import numpy as np

FEWEST_IDENTITIES = 20  # below this an interval resampled by identity is too rough: none is given
ROUNDING = 1e-9  # accuracies are fractions of photos and AUCs rounded, whose differences are no exact numbers
RESAMPLED = 2**21  # identities drawn at a time: 2,000 resamples of WebFace's 10,575 would be 21 million


def counts_by_identity(right: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identities (K,) in order, and of each the photos recognised and the photos there are, float64 (K,)."""
    identities, code = np.unique(label, return_inverse=True)
    return identities, np.bincount(code, weights=right), np.bincount(code).astype(float)


def interval_by_identity(right: np.ndarray, label: np.ndarray, *, resamples: int, seed: int) -> list[float] | None:
    """95 % bootstrap interval of the accuracy, resampling identities, not photos.

    Photos of one person are alike, so resampling them would promise more than was measured.

    Args:
        right: (N,) bool, whether each photo was recognised; label: (N,) int, its identity.

    Returns:
        [low, high], or None with fewer than `FEWEST_IDENTITIES`. Where all identities score alike the interval is that point.
    """
    from scipy.stats import bootstrap

    _, hits, photos = counts_by_identity(right, label)
    if len(photos) < FEWEST_IDENTITIES:
        return None
    if (hits / photos).std() == 0:
        return [float(hits[0] / photos[0])] * 2

    def share(hits: np.ndarray, photos: np.ndarray, axis: int = -1) -> np.ndarray:
        return hits.sum(axis) / photos.sum(axis)

    found = bootstrap(
        (hits, photos), share, paired=True, vectorized=True, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed), batch=max(1, RESAMPLED // len(photos)),
    ).confidence_interval  # fmt: skip
    return [round(float(found.low), 4), round(float(found.high), 4)]


def wide_enough(interval: list[float], by_seed: np.ndarray, *, least: float, most: float) -> list[float]:
    """A bootstrap interval of a mean over seeds, widened where needed to Student's 95 % interval of the seeds' own means.

    Redrawing a few seeds gives nothing further out than the seeds themselves: with 2 to 5 of them an interval redrawn by seed and identity
    leaves out the truth far more often than in 5 % of cases, where trainings differ more than people. With seeds that happen to agree,
    Student's is the narrower one.

    Args:
        interval: [low, high]. by_seed: the seeds' means (S,), two or more. least, most: what the mean can be at all.
    """
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(by_seed) - 1)) * float(by_seed.std(ddof=1)) / len(by_seed) ** 0.5
    low, high = min(interval[0], by_seed.mean() - reach), max(interval[1], by_seed.mean() + reach)
    return [round(max(least, float(low)), 4), round(min(most, float(high)), 4)]


def group_accuracy(
    history: list[dict[str, Any]],
    group: str,
    right: np.ndarray,
    label: np.ndarray,
    names: list[str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """The record of one group in `metrics.json`: final, peak, peak_epoch, by_epoch, ci95, per_identity, test_photos. None for nobody.

    Args:
        history: the training's records; `group` ("protected" or "others") is looked up in each, epochs not scored are None.
        right, label: (N,) of the final model on the group's clean test photos; `names[label]` is the identity.

    Returns:
        `final` and `ci95` are of all photos together, so an identity weighs as its photos do. `per_identity`: name → accuracy;
        `test_photos`: name → how many photos that is of, in the same order, so that the two give `final` back.
    """
    if len(right) == 0:
        return None
    curve = [record[group] for record in history]
    scored = [(value, -record["epoch"]) for value, record in zip(curve, history, strict=True) if value is not None]
    peak, epoch = max(scored)
    identities, hits, photos = counts_by_identity(right, label)
    return {
        "final": round(float(right.mean()), 4),
        "peak": round(peak, 4),
        "peak_epoch": -epoch,
        "by_epoch": [None if value is None else round(value, 4) for value in curve],
        "ci95": interval_by_identity(right, label, resamples=resamples, seed=seed),
        "per_identity": {names[one]: round(float(share), 4) for one, share in zip(identities, hits / photos, strict=True)},
        "test_photos": {names[one]: int(count) for one, count in zip(identities, photos, strict=True)},
    }
