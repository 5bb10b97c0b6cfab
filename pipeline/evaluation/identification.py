"""Open-set identification, which is how faces are searched in practice: who of the gallery is this, if anybody?

Terms as in ISO/IEC 19795 and NIST's FRTE 1:N. No noise against training can prevent a search by a network that exists already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.accuracy import interval_by_identity

FALSE_POSITIVE_RATES = (0.01, 0.1)


def enrol(embedding: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One template an identity: the L2-normalised mean of its gallery embeddings. Returns float32 (K, D) and labels (K,)."""
    identities = np.unique(label)
    templates = np.stack([embedding[label == one].mean(0) for one in identities])
    return templates / np.linalg.norm(templates, axis=1, keepdims=True).clip(1e-12), identities


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
        rank1 (share of probes whose best match is right) with its interval by identity, tpir_at_fpir (share of probes that are rank 1 and
        above the score which only that share of strangers reaches; None with fewer than 1 / FPIR strangers), and counts. None without
        gallery or probes.
    """
    if len(gallery) == 0 or len(probe) == 0:
        return None
    templates, identities = enrol(gallery, gallery_label)
    score = probe @ templates.T
    right = identities[score.argmax(1)] == probe_label
    best = score.max(1)
    tpir: dict[str, float | None] = {}
    for rate in FALSE_POSITIVE_RATES:
        tpir[str(rate)] = None
        if len(stranger) * rate >= 1:
            wrong = np.sort((stranger @ templates.T).max(1))[::-1]
            threshold = wrong[int(len(wrong) * rate)] if int(len(wrong) * rate) < len(wrong) else -np.inf
            tpir[str(rate)] = round(float((right & (best > threshold)).mean()), 4)
    return {
        "rank1": round(float(right.mean()), 4),
        "rank1_ci95": interval_by_identity(right, probe_label, resamples=resamples, seed=seed),
        "tpir_at_fpir": tpir,
        "identities": len(identities),
        "gallery": len(gallery),
        "probes": len(probe),
        "strangers": len(stranger),
    }
