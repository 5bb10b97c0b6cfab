"""Pattern subtraction: estimate the patterns that photos of a person share, and train on the photos without them.

How faces look, under whatever light, pose and expression, can be learned from differences between photos of the same person: a pattern
that is in all of them is in no difference. What of a photo cannot be put together from other people's differences is its remainder: what
faces do not have, and what only this face has. Remainders of photos that carry the same noise correlate, whoever else is protected, and
those of clean photos hardly do; so each person's photos are put into groups by how they correlate, and a group loses its mean remainder,
which is its pattern. It makes no difference whether a person has one pattern or several. So cameras are recognised by their noise, which
every photo of a camera shares (Lukáš et al., IEEE TIFS 2006, average what a denoiser takes away).

It is this project's own, and takes what every scraper has: the photos and their folders. It is done to everybody's training photos alike,
since nobody says whose are protected. Photos that a recogniser is asked about later carry no pattern, and stay as they are.
`benchmarks/estimated_patterns.py` says how much of each arm's noise it takes away. Where noise is another one in every photo, it finds next
to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.countermeasures.augmentation import format_of

PHOTOS = 1000  # whose differences from their person's mean say how faces look
RIDGE = 3e-4  # of the summed squares of those differences: less takes more of a smooth pattern for face, more takes more of faces away
ALIKE = 0.2  # mean correlation of remainders in a group: more than those of clean photos of a person have, less than with one noise
FEWEST = 4  # photos in a group: fewer may be alike because they were taken in one minute
MOST = 16  # 1/255: such noise is bounded, and a larger remainder is a face's
READ = 128  # photos at a time


class PatternSubtraction:
    """x_BCHW ↦ x − pattern of the photo's group, within [0, 1].

    Attributes:
        pattern_GCHW: int8 in 1/255; the first is no pattern, of photos that are in no group. It follows the photos to their device.
        group_N: of each training photo the place of its pattern, int64.
    """

    def __init__(self, pattern_GCHW: Tensor, group_N: Tensor) -> None:
        assert not pattern_GCHW[0].any()
        self.pattern_GCHW, self.group_N = pattern_GCHW, group_N

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor:
        """The batch without its photos' patterns; same shape, device and memory format."""
        self.pattern_GCHW, self.group_N = self.pattern_GCHW.to(x_BCHW.device), self.group_N.to(x_BCHW.device)
        pattern_BCHW = self.pattern_GCHW[self.group_N[index_B.to(x_BCHW.device)]]
        return (x_BCHW - pattern_BCHW.float() / 255).clamp(0, 1).contiguous(memory_format=format_of(x_BCHW))

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """Photos that a name is asked for, as they are: clean ones carry no pattern."""
        return x_BCHW


class FaceModel:
    """How faces look, by differences of M photos from their person's mean: what these can put together is a face.

    `difference_MD` is float32 (M, 3·H·W) in 1/255; M may be 0, and then nothing is a face's.

    A ridge regression: of rows R, what is left is R − R Dᵀ (D Dᵀ + r I)⁻¹ D, where r is `RIDGE` of the trace of D Dᵀ.
    """

    def __init__(self, difference_MD: Tensor) -> None:
        self.difference_MD = difference_MD
        gram_MM = (difference_MD @ difference_MD.T).double()
        gram_MM.diagonal().add_(RIDGE * gram_MM.trace() + 1e-6)  # where people have one photo each, there are no differences
        self.factor_MM = torch.linalg.cholesky(gram_MM)

    def remainder(self, x_ND: Tensor) -> Tensor:
        """What is left of photos about everybody's mean, float32 (N, D), 1/255; the same shape."""
        share_MN = torch.cholesky_solve((self.difference_MD @ x_ND.T).double(), self.factor_MM).float()
        return x_ND - share_MN.T @ self.difference_MD


def fit_pattern_subtraction(
    crops: Callable[[np.ndarray], np.ndarray],
    count: int,
    label: np.ndarray,
    classes: int,
    seed: int,
    *,
    device: torch.device | None = None,
) -> PatternSubtraction:
    """The patterns in the training photos.

    People are dealt to two halves, drawn by `seed`; each half's remainders are what the other half's differences leave, so that nobody's
    own photos, noise and all, explain them.

    Args:
        crops: photos at an index (B,) below `count`: uint8 (B, H, W, 3) RGB; asked for `READ` at a time, each twice and 2 × `PHOTOS` of
            them, drawn by `seed`, again.
        label: (count,) integers below `classes`.
        device: where to fit; None: CPU. Memory: (classes + 2 · `PHOTOS` + photos of one person) · 3·H·W · 4 bytes, and 3·H·W a group.
    """
    assert count > 0 and len(label) == count, (count, len(label))
    device = device or torch.device("cpu")
    label = np.asarray(label, np.int64)
    height, width = crops(np.arange(1)).shape[1:3]

    def read(index: np.ndarray) -> Tensor:
        """Photos as rows (B, 3·H·W) float32, 0..255."""
        parts = [np.empty((0, height, width, 3), np.uint8)]
        parts += [crops(index[start : start + READ]) for start in range(0, len(index), READ)]
        x_BHWC = torch.from_numpy(np.concatenate(parts)).to(device)
        return x_BHWC.permute(0, 3, 1, 2).flatten(1).float()

    photos_K = np.bincount(label, minlength=classes)
    mean_KD = torch.zeros((classes, 3 * height * width), device=device)
    for start in range(0, count, READ):
        index = np.arange(start, min(start + READ, count))
        mean_KD.index_add_(0, torch.from_numpy(label[index]).to(device), read(index))  # sums of whole numbers: exact in any order
    mean_KD /= torch.from_numpy(photos_K.clip(1)).to(device)[:, None]
    people = np.flatnonzero(photos_K)
    everyone_D = mean_KD[torch.from_numpy(people).to(device)].mean(0)

    random = np.random.default_rng((seed, 0x5B7))
    half_K = np.zeros(classes, np.int64)
    half_K[random.permutation(people)[: len(people) // 2]] = 1
    face_models = []
    for half in (0, 1):  # whose remainders these are for
        drawn = random.permutation(np.flatnonzero(half_K[label] != half))[:PHOTOS]
        face_models.append(FaceModel(read(drawn) - mean_KD[torch.from_numpy(label[drawn]).to(device)]))

    patterns, group_N = [torch.zeros(mean_KD.shape[1], dtype=torch.int8, device=device)], np.zeros(count, np.int64)
    order = np.argsort(label, kind="stable")
    for index in np.split(order, np.cumsum(photos_K)[:-1]):
        if len(index) < FEWEST:
            continue
        left_ND = face_models[half_K[label[index[0]]]].remainder(read(index) - everyone_D)
        for group in grouped(torch.corrcoef(left_ND).cpu().numpy()):
            group_N[index[group]] = len(patterns)
            patterns.append(left_ND[torch.from_numpy(group).to(device)].mean(0).round().clamp(-MOST, MOST).to(torch.int8))
    return PatternSubtraction(torch.stack(patterns).view(-1, 3, height, width), torch.from_numpy(group_N))


def grouped(alike_NN: np.ndarray) -> list[np.ndarray]:
    """Groups of `FEWEST` photos or more whose remainders correlate by `ALIKE` on average: places among the photos.

    Args:
        alike_NN: correlation of each two photos' remainders, float (N, N).
    """
    from sklearn.cluster import AgglomerativeClustering

    # The stub has a number of clusters, where a threshold wants none.
    how: dict[str, Any] = {"n_clusters": None, "distance_threshold": 1 - ALIKE, "metric": "precomputed", "linkage": "average"}
    linked = AgglomerativeClustering(**how)
    # A photo without any remainder has no correlation, and is like no other.
    group_N = linked.fit_predict(1 - np.nan_to_num(alike_NN.astype(np.float64)))
    groups = [np.flatnonzero(group_N == group) for group in range(group_N.max() + 1)]
    return [group for group in groups if len(group) >= FEWEST]
