"""Verification: do two clean photos show the same person? Cosine similarity of embeddings, ROC by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.accuracy import FEWEST_IDENTITIES

FALSE_ACCEPT_RATES = (0.01, 0.001)
ROC_POINTS = 60
PAIRS = 4096  # scored at a time: embeddings of 200,000 pairs would be 1.2 GB
MOST_PHOTOS = 3000  # all their pairs are listed before drawing: 4.5 million
RESAMPLES = 200  # of identities, for the interval of an AUC: each costs a pass over all pairs


def draw_pairs(label: np.ndarray, *, max_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i < j) of the same identity, at most half of `max_pairs`, and as many of different ones as there is room for, drawn by seed.

    Of more than `MOST_PHOTOS` photos, so many are drawn first.

    Returns:
        (P, 2) indices and (P,) bool, whether the pair shows one identity.
    """
    generator = np.random.default_rng((seed, 0x9A))
    used = np.sort(generator.choice(len(label), min(len(label), MOST_PHOTOS), replace=False))
    i, j = np.triu_indices(len(used), 1)
    i, j = used[i], used[j]
    same = label[i] == label[j]
    genuine, impostor = np.flatnonzero(same), np.flatnonzero(~same)
    half = max_pairs // 2
    genuine = generator.choice(genuine, min(half, len(genuine)), replace=False)
    # Impostors are what a small false accept rate is measured on, so take as many as there is room for.
    impostor = generator.choice(impostor, min(max_pairs - len(genuine), len(impostor)), replace=False)
    chosen = np.sort(np.concatenate([genuine, impostor]))
    return np.stack([i[chosen], j[chosen]], 1), same[chosen]


def whole_identities(identity: Any, most: int, *, seed: int) -> set[str]:
    """So many identities of two photos or more, drawn by seed, as have at most `most` photos together; one at the least, if there is any.

    Args:
        identity: of each photo, a series of names.
    """
    counts = identity.value_counts()
    names = sorted(counts[counts >= 2].index)
    drawn = np.random.default_rng((seed, 0x4E1D)).permutation(names)
    fitting = int((np.cumsum(counts.reindex(drawn).to_numpy()) <= most).sum())
    return set(drawn[: max(1, fitting)])


def roc_measures(score: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """AUC, equal error rate and true accept rates at fixed false accept rates, of pairs of both kinds.

    Args:
        score: (P,) float, the higher the more alike. same: (P,) bool.

    Returns:
        {"auc", "eer", "tar_at_far": {"0.01": …, "0.001": …}}; a rate needs at least 1 / FAR impostor pairs, otherwise None.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    false_accept, true_accept, _ = roc_curve(same, score, drop_intermediate=False)
    crossing = int(np.argmin(np.abs(1 - true_accept - false_accept)))
    impostors = int((~same).sum())
    tar = {
        str(rate): round(float(true_accept[false_accept <= rate].max()), 4) if impostors * rate >= 1 else None
        for rate in FALSE_ACCEPT_RATES
    }
    return {
        "auc": round(float(roc_auc_score(same, score)), 4),
        "eer": round(float((1 - true_accept[crossing] + false_accept[crossing]) / 2), 4),
        "tar_at_far": tar,
    }


def roc_points(score: np.ndarray, same: np.ndarray) -> dict[str, list[float]]:
    """The ROC thinned for a figure with a logarithmic axis: at most `ROC_POINTS`, from one impostor accepted to all of them.

    Args:
        score: (P,) float. same: (P,) bool, of both kinds.

    Returns:
        {"far", "tar"}: both rising, FAR to 4 significant digits (5e-06 must not become 0), TAR to 4 decimals, the largest that keeps it.
    """
    impostor, genuine = np.sort(score[~same])[::-1], np.sort(score[same])
    # Whole numbers of impostors, since no other rate can be had.
    accepted = np.unique(np.rint(np.geomspace(1, len(impostor), ROC_POINTS)).astype(int))
    # Genuine pairs may reach down to, but not to, the best impostor that must stay out.
    floor = np.append(impostor[accepted[:-1]], -np.inf)
    tar = (len(genuine) - np.searchsorted(genuine, floor, side="right")) / len(genuine)
    return {"far": [float(f"{count / len(impostor):.4g}") for count in accepted], "tar": [round(float(rate), 4) for rate in tar]}


def auc_interval(score: np.ndarray, same: np.ndarray, identity: np.ndarray, *, seed: int) -> list[float] | None:
    """95 % bootstrap interval of the AUC, resampling identities: a pair counts as often as its people were drawn together.

    Args:
        score: (P,) float. same: (P,) bool. identity: (P, 2) int, whose photos each pair holds.

    Returns:
        [low, high], or None with fewer than `FEWEST_IDENTITIES`.
    """
    names, code = np.unique(identity, return_inverse=True)
    code = code.reshape(identity.shape)
    if len(names) < FEWEST_IDENTITIES:
        return None
    order = np.argsort(score, kind="stable")
    first, second, genuine = code[order, 0], code[order, 1], same[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))  # equal scores are one step of the ROC
    generator = np.random.default_rng((seed, 0xA0C))
    areas = []
    for _ in range(RESAMPLES):
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        weight = times[first] * np.where(genuine, 1.0, times[second])
        of_same = np.add.reduceat(np.where(genuine, weight, 0.0), starts)
        of_different = np.add.reduceat(np.where(genuine, 0.0, weight), starts)
        below = np.cumsum(of_different) - of_different / 2
        if of_same.any() and of_different.any():
            areas.append(float((of_same * below).sum() / (of_same.sum() * of_different.sum())))
    low, high = np.quantile(areas, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


def verify(embedding: np.ndarray, label: np.ndarray, *, of: str, max_pairs: int, seed: int) -> dict[str, Any] | None:
    """AUC with its interval by identity, equal error rate, true accept rates at fixed false accept rates, and the ROC.

    Args:
        embedding: (N, D) float32, L2-normalised. label: (N,) int. of: what is paired, in words.

    Returns:
        {"auc", "auc_ci95", "eer", "tar_at_far", "pairs", "identities", "of", "roc"}, see `roc_measures` and `roc_points`; None when there
        is no pair of one kind.
    """
    pairs, same = draw_pairs(label, max_pairs=max_pairs, seed=seed)
    if same.all() or not same.any():
        return None
    parts = np.array_split(pairs, -(-len(pairs) // PAIRS))
    score = np.concatenate([(embedding[part[:, 0]] * embedding[part[:, 1]]).sum(1) for part in parts])
    return {
        **roc_measures(score, same),
        "auc_ci95": auc_interval(score, same, label[pairs], seed=seed),
        "pairs": len(pairs),
        "identities": len(np.unique(label[pairs])),
        "of": of,
        "roc": roc_points(score, same),
    }


def verify_people(
    embedding: np.ndarray,
    label: np.ndarray,
    protected: np.ndarray,
    held_out: np.ndarray,
    held_out_label: np.ndarray,
    *,
    max_pairs: int,
    seed: int,
) -> dict[str, Any] | None:
    """Verification of people whom the recogniser was never trained on, and of those it was, protected ones and others apart.

    Args:
        embedding, label, protected: of the clean test photos; (N,) bool, whether the person is protected. held_out, held_out_label: of
            photos of people who are not in the split at all.

    Returns:
        As `verify`, of people never trained on where there are `FEWEST_IDENTITIES` of them, else of all test photos; and "groups":
        {"protected", "others"}, each as `verify` but without its ROC, None where it has no pair of one kind.
    """
    found = None
    if len(np.unique(held_out_label)) >= FEWEST_IDENTITIES:
        found = verify(held_out, held_out_label, of="people never trained on", max_pairs=max_pairs, seed=seed)
    if found is None:
        found = verify(embedding, label, of="all people", max_pairs=max_pairs, seed=seed)
    if found is None:
        return None
    groups: dict[str, Any] = {}
    for name, mask in (("protected", protected), ("others", ~protected)):
        of = "protected people" if name == "protected" else "other people"
        one = verify(embedding[mask], label[mask], of=of, max_pairs=max_pairs, seed=seed) if mask.sum() > 1 else None
        groups[name] = None if one is None else {key: value for key, value in one.items() if key != "roc"}
    return found | {"groups": groups}
