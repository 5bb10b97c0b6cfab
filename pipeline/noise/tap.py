"""Targeted adversarial poisoning: every photo shows, to a trained network, the next person (after Fowl et al., NeurIPS 2021).

They take 250 steps with restarts and augmentation, and the next of all classes. Here it is as many steps as all adversarial arms take,
and the next of the protected, since whoever is not protected has nothing to hide behind. `tap-robust` goes through the transforms of
`transforms.py`, in more and in all longer steps: directions of one draw and the next partly cancel.
`tap-ensemble` does that against two unlike networks at once, as in Liu et al. (ICLR 2017, *Delving into Transferable Adversarial
Examples*): what misleads one network alone, a trainer with another learns past.

No two photos carry the same noise, so there is no pattern that a scraper could estimate from a person's photos and subtract, and a photo
that is published later needs nothing but a network that has learned these people.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.recognisers import Recogniser
from pipeline.noise.descent import Objective


def look_like(model: Recogniser, next_K: Tensor) -> Objective:
    """Down this the network sees identity `next_K[label]` (Fowl et al., NeurIPS 2021, "Adversarial Examples Make Strong Poisons")."""

    def loss(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        return F.cross_entropy(model(x_BCHW), next_K[label_B], reduction="none")

    return loss


def next_identity(labels: np.ndarray, learned: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """For each label in `labels` (distinct) another of them, in one cycle drawn by seed: int64 (classes,), itself elsewhere.

    A single one has the next of those that the network `learned`, since looking like oneself would teach a network more, not less.
    """
    cycle = np.random.default_rng((seed, 0x7A9)).permutation(labels)
    following = np.arange(classes, dtype=np.int64)
    others = np.unique(learned)
    following[cycle] = np.roll(cycle, -1) if len(cycle) > 1 else others[(np.searchsorted(others, cycle) + 1) % len(others)]
    return following
