"""Verification: do two clean photos show the same person? Cosine similarity of embeddings, ROC by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

FALSE_ACCEPT_RATES = (0.01, 0.001)
ROC_POINTS = 60
PAIRS = 4096  # scored at a time: embeddings of 200,000 pairs would be 1.2 GB
MOST_PHOTOS = 3000  # all their pairs are listed before drawing: 4.5 million


def draw_pairs(label: np.ndarray, *, max_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i < j) of the same identity and then as many of different ones as there is room for, drawn by seed.

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


def verify(embedding: np.ndarray, label: np.ndarray, *, max_pairs: int, seed: int) -> dict[str, Any] | None:
    """AUC, equal error rate, true accept rates at fixed false accept rates, and the ROC.

    Args:
        embedding: (N, D) float32, L2-normalised. label: (N,) int.

    Returns:
        {"auc", "eer", "tar_at_far", "pairs", "of" (what was paired), "roc"}, see `roc_measures` and `roc_points`; None when there is no
        pair of one kind.
    """
    pairs, same = draw_pairs(label, max_pairs=max_pairs, seed=seed)
    if same.all() or not same.any():
        return None
    parts = np.array_split(pairs, -(-len(pairs) // PAIRS))
    score = np.concatenate([(embedding[part[:, 0]] * embedding[part[:, 1]]).sum(1) for part in parts])
    return {
        **roc_measures(score, same),
        "pairs": len(pairs),
        "of": "clean test photos of all identities",
        "roc": roc_points(score, same),
    }
