"""A feature cloak: every photo's embedding is moved towards a distant person's (after Shan et al., USENIX Security 2020, Fawkes).

Not their program: the change is bounded by epsilon, as all arms' here, where theirs is by structural dissimilarity (DSSIM); it nears
another person's mean embedding by cosine, where theirs nears a photo's by distance; and the extractor is the study's own clean surrogate,
which has learned the very people, targets included, where theirs is trained elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.errors import StageError
from pipeline.models.recognisers import Recogniser
from pipeline.noise.descent import Objective


def feature_cloak(model: Recogniser, target_KD: Tensor) -> Objective:
    """Down this a photo's embedding nears `target_KD[label]`, in cosine distance (Shan et al., USENIX Security 2020, Fawkes)."""

    def loss(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        return 1 - (model.embed(x_BCHW) * target_KD[label_B]).sum(1)

    return loss


def distant_identity(mean_KDs: Sequence[np.ndarray], labels: np.ndarray, *, candidates: int, seed: int) -> np.ndarray:
    """Whom each label's photos are moved towards: of `candidates` identities drawn by seed the most distant one.

    Args:
        mean_KDs: from each network (K, D) float32, L2-normalised mean embedding of each label; rows without photos are zero and never
            chosen. Distances of several networks add up.
        labels: the labels that need a target.

    Returns:
        int64 (K,), −1 for labels not asked for.

    Raises:
        StageError: there is nobody else.
    """
    generator = np.random.default_rng((seed, 0xFA))
    present = np.flatnonzero(np.abs(mean_KDs[0]).sum(1) > 0)
    target = np.full(len(mean_KDs[0]), -1)
    for label in labels:
        others = present[present != label]
        if len(others) == 0:
            raise StageError("a cloak shows somebody else, and there is nobody else: protect more people, or give the split auxiliary ones")
        drawn = generator.choice(others, min(candidates, len(others)), replace=False)
        target[label] = drawn[np.argmin(sum(mean_KD[drawn] @ mean_KD[label] for mean_KD in mean_KDs))]
    return target


def mean_embeddings(embedding: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """L2-normalised mean of the embeddings (N, D) of each label: float32 (classes, D), zero where a label has no photo."""
    mean_KD = np.zeros((classes, embedding.shape[1]), np.float32)
    np.add.at(mean_KD, label, embedding)
    length = np.linalg.norm(mean_KD, axis=1, keepdims=True)
    return mean_KD / np.where(length > 0, length, 1)
