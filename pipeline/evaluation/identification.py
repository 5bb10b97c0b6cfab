"""Open-set identification, which is how faces are searched in practice: who of the gallery is this, if anybody?

Terms as in ISO/IEC 19795 and NIST's FRTE 1:N. No noise against training can prevent a search by a network that exists already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.accuracy import interval_by_identity

FALSE_POSITIVE_RATES = (0.01, 0.1)
SCORES = 2**24  # similarities in memory at a time
MOST_PROBES = 20_000  # of more, so many are drawn by seed: rank 1 is then known to 0.4 %


def enrol(embedding: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One template an identity: the L2-normalised mean of its gallery embeddings. Returns float32 (K, D) and labels (K,)."""
    order = np.argsort(label, kind="stable")
    identities, first, photos = np.unique(label[order], return_index=True, return_counts=True)
    templates = np.empty((len(identities), embedding.shape[1]), embedding.dtype)
    for k, start in enumerate(first):
        templates[k] = embedding[order[start : start + photos[k]]].mean(0)
    return templates / np.linalg.norm(templates, axis=1, keepdims=True).clip(1e-12), identities


def best_match(probe: np.ndarray, templates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the most similar template and that similarity, (N,) each, of N probes; few rows of scores are held at a time."""
    which, score = np.empty(len(probe), np.int64), np.empty(len(probe), np.float32)
    rows = max(1, SCORES // len(templates))
    for start in range(0, len(probe), rows):
        scores = probe[start : start + rows] @ templates.T
        which[start : start + rows] = scores.argmax(1)
        score[start : start + rows] = scores.max(1)
    return which, score


def identify(
    gallery: np.ndarray,
    gallery_label: np.ndarray,
    probe: np.ndarray,
    probe_label: np.ndarray,
    stranger: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Rank-1 and TPIR at fixed FPIR by cosine similarity.

    Args:
        gallery, probe, stranger: L2-normalised embeddings float32 (N, D): enrolled photos, clean photos of enrolled identities, clean
            photos of people who are not enrolled. gallery_label, probe_label: int (N,).

    Returns:
        rank1 (share of probes whose best match is right; None with one person in the gallery, who is every probe's best match) with its
        interval by identity, tpir_at_fpir (share of probes that are rank 1 and above the score which only that share of strangers
        reaches; None with fewer than 1 / FPIR strangers), and counts; `probes` are those asked, at most `MOST_PROBES`. None without
        gallery or probes.
    """
    if len(gallery) == 0 or len(probe) == 0:
        return None
    templates, identities = enrol(gallery, gallery_label)
    # Probes and templates both grow with the people there are, so that all against all would be quadratic.
    if len(probe) > MOST_PROBES:
        drawn = np.sort(np.random.default_rng((seed, 0x1D)).choice(len(probe), MOST_PROBES, replace=False))
        probe, probe_label = probe[drawn], probe_label[drawn]
    which, best = best_match(probe, templates)
    right = identities[which] == probe_label
    tpir: dict[str, float | None] = {}
    among_strangers = np.sort(best_match(stranger, templates)[1])[::-1]
    for rate in FALSE_POSITIVE_RATES:
        tpir[str(rate)] = None
        if len(stranger) * rate >= 1:
            passing = int(len(stranger) * rate)
            threshold = among_strangers[passing] if passing < len(stranger) else -np.inf
            tpir[str(rate)] = round(float((right & (best > threshold)).mean()), 4)
    return {
        "rank1": round(float(right.mean()), 4) if len(identities) > 1 else None,
        "rank1_ci95": interval_by_identity(right, probe_label, resamples=resamples, seed=seed),
        "tpir_at_fpir": tpir,
        "identities": len(identities),
        "gallery": len(gallery),
        "probes": len(probe),
        "strangers": len(stranger),
    }
