"""Pattern subtraction: estimate the pattern that all of a person's photos share, and train on the photos without it.

One pattern a person is in every photo of theirs, so it is in their mean photo, and in no difference of two of their photos. How faces look
can be learned from those differences alone, whoever is protected: light, pose, expression. What of a mean photo can be put together from
them is taken for face, the remainder for a pattern. So cameras are recognised by their noise, which every photo of a camera shares (Lukáš
et al., IEEE TIFS 2006, average what a denoiser takes away); here the photos themselves say what is no noise. It is this project's own, and
takes what every scraper has: the photos and their folders. It is done to everybody's training photos alike, since nobody says whose are
protected. Photos that a recogniser is asked about later carry no pattern, and stay as they are.

Of the laptop profile's `error-min` it takes 64% of the energy away (correlation with what was put on the photos 0.80), of `random` 81%
(0.91). Where no pattern is, it takes what is somebody's own in every photo of theirs: 4.2 of 255 a pixel (root of the mean square), 9.8 of
people with `error-min` (`benchmarks/estimated_patterns.py`). It can do less about noise that is another one in every photo.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.countermeasures.augmentation import format_of

PHOTOS = 1000  # whose differences from their person's mean say how faces look
RIDGE = 3e-4  # of the summed squares of those differences: less takes more of a smooth pattern for face, more takes more of faces away
MOST = 16  # 1/255: such noise is bounded, and a larger remainder is a face's
READ = 128  # photos, and mean photos, at a time


class PatternSubtraction:
    """x_BCHW ↦ x − pattern[label], within [0, 1]. `pattern_KCHW` is int8 in 1/255 and follows the photos to their device."""

    def __init__(self, pattern_KCHW: Tensor) -> None:
        self.pattern_KCHW = pattern_KCHW

    def __call__(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """The batch without the patterns of the people in it; same shape, device and memory format."""
        self.pattern_KCHW = self.pattern_KCHW.to(x_BCHW.device)
        return (x_BCHW - self.pattern_KCHW[label_B].float() / 255).clamp(0, 1).contiguous(memory_format=format_of(x_BCHW))

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """Photos that a name is asked for, as they are: clean ones carry no pattern."""
        return x_BCHW


def fit_pattern_subtraction(
    crops: Callable[[np.ndarray], np.ndarray],
    count: int,
    label: np.ndarray,
    classes: int,
    seed: int,
    *,
    device: torch.device | None = None,
) -> PatternSubtraction:
    """The patterns of everybody in the training photos.

    A ridge regression: with people's mean photos about everybody's as rows of R, and differences of `PHOTOS` photos from their person's
    mean as rows of D, what is left is R − R Dᵀ (D Dᵀ + r I)⁻¹ D, where r is `RIDGE` of the trace of D Dᵀ.

    Args:
        crops: photos at an index (B,) below `count`: uint8 (B, H, W, 3) RGB; asked for `READ` at a time, each once and `PHOTOS` of them,
            drawn by `seed`, again.
        label: (count,) integers below `classes`; who has no photo has no pattern.
        device: where to fit; None: CPU. Memory: classes · 3·H·W · 5 bytes and 4 · 3·H·W bytes for each of `PHOTOS`.
    """
    assert count > 0 and len(label) == count, (count, len(label))
    device = device or torch.device("cpu")
    label = np.asarray(label, np.int64)
    height, width = crops(np.arange(1)).shape[1:3]

    def read(index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Photos as rows (B, 3·H·W) float32, 0..255, and whose they are."""
        x_BHWC = torch.from_numpy(crops(index)).to(device)
        return x_BHWC.permute(0, 3, 1, 2).flatten(1).float(), torch.from_numpy(label[index]).to(device)

    mean_KD = torch.zeros((classes, 3 * height * width), device=device)
    photos_K = torch.from_numpy(np.bincount(label, minlength=classes)).to(device)
    for start in range(0, count, READ):
        x_BD, label_B = read(np.arange(start, min(start + READ, count)))
        mean_KD.index_add_(0, label_B, x_BD)  # sums of whole numbers: exact in any order
    mean_KD /= photos_K.clamp(min=1)[:, None]
    drawn = np.random.default_rng((seed, 0x5B7)).permutation(count)[:PHOTOS]
    difference_ND = torch.empty((len(drawn), mean_KD.shape[1]), device=device)
    for start in range(0, len(drawn), READ):
        x_BD, label_B = read(drawn[start : start + READ])
        difference_ND[start : start + len(x_BD)] = x_BD - mean_KD[label_B]
    mean_KD -= mean_KD[photos_K > 0].mean(0)
    gram_NN = (difference_ND @ difference_ND.T).double()
    gram_NN.diagonal().add_(RIDGE * gram_NN.trace() + 1e-6)  # where people have one photo each, there are no differences
    factor_NN = torch.linalg.cholesky(gram_NN)
    pattern_KD = torch.empty(mean_KD.shape, dtype=torch.int8, device=device)
    for start in range(0, classes, READ):
        mean_BD = mean_KD[start : start + READ]
        share_NB = torch.cholesky_solve((difference_ND @ mean_BD.T).double(), factor_NN).float()
        pattern_KD[start : start + READ] = (mean_BD - share_NB.T @ difference_ND).round().clamp(-MOST, MOST).to(torch.int8)
    pattern_KD[photos_K == 0] = 0
    return PatternSubtraction(pattern_KD.view(classes, 3, height, width))
