"""Accuracy on clean test photos, with intervals resampled by identity and never narrower than few people allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.config import EvaluateConfig

FEWEST_IDENTITIES = 20  # below this an interval resampled by identity is too rough: none is given
ROUNDING = 1e-9  # accuracies are fractions of photos and AUCs rounded, whose differences are no exact numbers
RESAMPLED = 2**21  # identities drawn at a time: 2,000 resamples of WebFace's 10,575 would be 21 million


def counts_by_identity(right: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identities (K,) in order, and of each the photos recognised and the photos there are, float64 (K,)."""
    identities, code = np.unique(label, return_inverse=True)
    return identities, np.bincount(code, weights=right), np.bincount(code).astype(float)


def interval_by_identity(right: np.ndarray, label: np.ndarray, *, resamples: int, seed: int) -> list[float] | None:
    """95 % bootstrap interval of the accuracy, resampling identities, not photos, and widened to `interval_of_few` where that is wider.

    Photos of one person are alike, so resampling them would promise more than was measured. Near 0 and 1, where a protection that holds
    is, resampling people who were all named alike gives one point; had others been drawn, some might not have been.

    Args:
        right: (N,) bool, whether each photo was recognised; label: (N,) int, its identity.

    Returns:
        [low, high], or None with fewer than `FEWEST_IDENTITIES`.
    """
    from scipy.stats import bootstrap

    _, hits, photos = counts_by_identity(right, label)
    if len(photos) < FEWEST_IDENTITIES:
        return None
    low, high = interval_of_few(hits, photos, people=len(photos))
    if (hits / photos).std() > 0:  # else scipy has nothing to resample

        def share(hits: np.ndarray, photos: np.ndarray, axis: int = -1) -> np.ndarray:
            return hits.sum(axis) / photos.sum(axis)

        found = bootstrap(
            (hits, photos), share, paired=True, vectorized=True, n_resamples=resamples, method="percentile",
            rng=np.random.default_rng(seed), batch=max(1, RESAMPLED // len(photos)),
        ).confidence_interval  # fmt: skip
        low, high = min(low, float(found.low)), max(high, float(found.high))
    return [round(low, 4), round(high, 4)]


def interval_of_few(hits: np.ndarray, photos: np.ndarray, *, people: int) -> tuple[float, float]:
    """95 % interval of a share by Korn and Graubard (Survey Methodology 24, 1998): Clopper and Pearson's exact one, for so many photos of
    people drawn one by one as would scatter as much as these, who come with several photos each.

    Args:
        hits, photos: of each identity, float64 (K,). people: how many there are at the least of independent photos, since people are.
            Where all are named alike, which says nothing of how people scatter, there are no more.
    """
    from scipy.stats import beta, t

    share, total = float(hits.sum() / photos.sum()), float(photos.sum())
    variance = len(photos) / (len(photos) - 1) * float(((hits - photos * share) ** 2).sum()) / total**2
    count = float(people)
    if variance > 0:
        fewer = (t.ppf(0.975, total - 1) / t.ppf(0.975, len(photos) - 1)) ** 2  # the variance itself is only estimated from people
        count = min(max(count, share * (1 - share) / variance * float(fewer)), total)
    named = share * count
    low = float(beta.ppf(0.025, named, count - named + 1)) if named > 0 else 0.0
    high = float(beta.ppf(0.975, named + 1, count - named)) if named < count else 1.0
    return low, high


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
        "peak": round(max(peak, float(right.mean())), 4),  # the last epoch's own score may be a rounding below the final model's
        "peak_epoch": -epoch,
        "by_epoch": [None if value is None else round(value, 4) for value in curve],
        "ci95": interval_by_identity(right, label, resamples=resamples, seed=seed),
        "per_identity": {names[one]: round(float(share), 4) for one, share in zip(identities, hits / photos, strict=True)},
        "test_photos": {names[one]: int(count) for one, count in zip(identities, photos, strict=True)},
    }


def accuracies(
    history: list[dict[str, Any]], predicted: np.ndarray, label: np.ndarray, protected: np.ndarray, table: Any, config: EvaluateConfig
) -> dict[str, Any]:
    """`group_accuracy` of "protected" and "others", the same for a study and for its trials.

    Args:
        predicted, label: (N,) int, what the final model takes the clean test photos for, and what they are. protected: (N,) bool, of whom.
        table: the split. config: what intervals are drawn with.
    """
    names = table.drop_duplicates("label").set_index("label")["identity"].sort_index().tolist()
    right = predicted == label
    return {
        group: group_accuracy(history, group, right[mask], label[mask], names, resamples=config.bootstrap, seed=config.seed)
        for group, mask in (("protected", protected), ("others", ~protected))
    }
