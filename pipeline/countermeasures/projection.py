"""Orthogonal projection: take out of the photos whatever a linear model tells the identities apart by.

Sandoval-Segura et al., *What Can We Learn from Unlearnable Datasets?*, NeurIPS 2023, section 4.4: aimed at class-wise
noise. A bias-free linear softmax is trained on pixels in [0, 1]; the QR decomposition of its weights gives an orthonormal basis Q; the
photos the recogniser is trained on become x − Q Qᵀ x, and so do those that it is asked about.

The latter the authors leave as they are, whose ten classes take ten directions away. Here there is a direction a person, brightness among
them: training photos are 0.02 on average afterwards where photos are 0.56, and a recogniser of 150 people then asked about photos as
they are names nobody, noise or none. The projection needs no label, so whoever trains on it has it for every photo. Even so it leaves
little of a face: in the laptop profile's seven epochs, without noise, 8% of the protected people's photos are named.

The linear step is the authors', but for its batches: theirs are of 1,024 photos, always in the same order, here of 128, shuffled, and 1,000
at least (see `fit_linear`). They then train with strong augmentation and CutMix; here training is the study's own recipe, so that what is
seen is the projection alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class OrthogonalProjection:
    """x_BCHW ↦ x − Q Qᵀ x, float32. `q_DK` has orthonormal columns and follows the photos to their device.

    Not clipped, as in the authors' code: projected pixels may leave [0, 1].
    """

    def __init__(self, q_DK: Tensor) -> None:
        self.q_DK = q_DK

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor:
        """The batch without its part in the span of Q, whichever photos it holds; same shape, device and memory format."""
        return self.asked(x_BCHW)

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """The same, of photos of anybody."""
        self.q_DK = self.q_DK.to(x_BCHW.device)
        with torch.autocast(x_BCHW.device.type, enabled=False):  # bf16's 8 bits are too coarse to cancel with
            x_BD = x_BCHW.float().flatten(1)
            part_BCHW = ((x_BD @ self.q_DK) @ self.q_DK.T).view(x_BCHW.shape)
        return x_BCHW - part_BCHW


def fit_linear(
    crops: Callable[[np.ndarray], np.ndarray],
    count: int,
    label: np.ndarray,
    classes: int,
    seed: int,
    *,
    device: torch.device,
    epochs: int = 20,
    updates: int = 1000,
    batch: int = 128,
    lr: float = 0.1,
) -> Tensor:
    """Weights (classes, D) float32 of a bias-free linear softmax on pixels in [0, 1], D = C·H·W in that order.

    SGD without momentum, `lr` divided by 10 after half and after three quarters of the epochs, as in the authors' code: `epochs`
    of them, more where that gives fewer than `updates` batches. The authors' 20 epochs of CIFAR-10 are 980 batches; after the 80 that 400
    face photos would give, the weights know little more than the mean brightness. Photos are read a batch at a time, in an order drawn
    from (seed, epoch).

    Raises:
        FloatingPointError: the weights are not finite.
    """
    assert count > 0 and len(label) == count, (count, len(label))
    labels = torch.tensor(np.asarray(label, np.int64), device=device)
    epochs = max(epochs, math.ceil(updates / math.ceil(count / batch)))
    inputs = crops(np.arange(1)).size
    start_KD = torch.rand((classes, inputs), generator=torch.Generator().manual_seed(seed))
    weight = ((2 * start_KD - 1) * inputs**-0.5).to(device)  # nn.Linear's own start
    for epoch in range(epochs):
        rate = lr * 0.1 ** sum(epoch >= int(epochs * share) for share in (0.5, 0.75))
        order = np.random.default_rng((seed, epoch)).permutation(count)
        for start in range(0, count, batch):
            index = order[start : start + batch]
            x_BCHW = torch.from_numpy(crops(index)).to(device).permute(0, 3, 1, 2)
            x_BD = x_BCHW.flatten(1).float().div_(255)
            # The gradient of softmax cross-entropy, written out: (softmax − one-hot)ᵀ x / B.
            error_BK = F.softmax(x_BD @ weight.T, dim=1) - F.one_hot(labels[torch.from_numpy(index).to(device)], classes)
            weight.addmm_(error_BK.T, x_BD, alpha=-rate / len(index))
    if not torch.isfinite(weight).all():
        raise FloatingPointError("orthogonal projection: the linear model's weights are not finite")
    return weight


def fit_orthogonal_projection(
    crops: Callable[[np.ndarray], np.ndarray],
    count: int,
    label: np.ndarray,
    classes: int,
    seed: int,
    *,
    device: torch.device | None = None,
) -> OrthogonalProjection:
    """The projection fitted on the training photos.

    Args:
        crops: photos at an index (B,) below `count`: uint8 (B, H, W, 3) RGB; asked for 128 at a time, each 20 times (more
            where photos are few).
        label: (count,) integers below `classes`.
        device: where to fit; None: CPU. Memory: a few times classes · 3·H·W · 4 bytes, whatever `count` is.

    Raises:
        FloatingPointError: the linear model's weights are not finite.
    """
    with torch.no_grad():
        weight_KD = fit_linear(crops, count, label, classes, seed, device=device or torch.device("cpu"))
        q_DK, _ = torch.linalg.qr(F.normalize(weight_KD, dim=1).T)  # rows of length 1 first, as in the authors' code
    return OrthogonalProjection(q_DK)
