"""The min-min loop written straight from the paper (Huang et al., ICLR 2021, equation 2, section 4.2): slow, plain, one photo at a time.

Told to, it asks the surrogate about several photos at a time, of which each has its own gradient all the same: quicker, and as plain.
It shares nothing with `pipeline.noise.error_min` but the order of the random draws, which a comparison needs.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import NoiseConfig
from pipeline.runtime import hash_seed


def noisy_photo(photo: np.ndarray, delta: Tensor | None, mirror: bool) -> Tensor:
    """A uint8 H×W×3 photo as float (1, 3, H, W) in [0, 1], with its identity's noise (in 1/255), mirrored if asked."""
    x = torch.tensor(photo).float().permute(2, 0, 1)[None] / 255
    if delta is not None:
        x = torch.clamp(x + delta / 255, 0, 1)
    return torch.flip(x, dims=[3]) if mirror else x


@torch.no_grad()
def error_on(photos: np.ndarray, labels: np.ndarray, delta: list[Tensor], surrogate: nn.Module, *, batch: int = 1) -> float:
    """The surrogate's error on the photos that carry noise, in eval mode, `batch` photos at a time."""
    surrogate.eval()
    noisy, wrong = np.flatnonzero(labels < len(delta)), 0
    for start in range(0, len(noisy), batch):
        asked = noisy[start : start + batch]
        logits = surrogate(torch.cat([noisy_photo(photos[i], delta[labels[i]], False) for i in asked]))
        wrong += int((logits.argmax(1) != torch.tensor(labels[asked])).sum())
    return wrong / len(noisy)


def reference_search(
    config: NoiseConfig,
    surrogate: nn.Module,
    photos: np.ndarray,
    labels: np.ndarray,
    protected: int,
    *,
    apart: bool = False,
    batch: int = 1,
) -> tuple[Tensor, list[float]]:
    """Noise of identities 0 … protected−1 when the error falls below `config.stop_error`, or after `config.rounds` rounds.

    Args:
        photos: uint8 (N, H, W, 3). labels: (N,).
        apart: measure the error in a pass of its own after each round, as the paper's algorithm does; False: on the forward passes of the
            noise step, which see the noise before it moves.
        batch: photos that the surrogate is asked about at a time, in the noise step and for the error.

    Returns:
        float (protected, 3, H, W) in 1/255, and the error of each round.
    """
    delta = [torch.zeros(3, *photos.shape[1:3]) for _ in range(protected)]
    optimiser = torch.optim.SGD(surrogate.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    errors = []
    for number in range(1, config.rounds + 1):
        # θ step: the noise is fixed, the surrogate learns noisy photos.
        random = np.random.default_rng((config.seed, number, 1))
        torch.manual_seed(hash_seed(config.seed, number))
        surrogate.train()
        for _ in range(config.batches):
            chosen = random.choice(len(photos), size=min(config.batch, len(photos)), replace=False)
            mirrors = random.random(len(chosen)) < 0.5
            learned = torch.cat(
                [
                    noisy_photo(photos[i], delta[labels[i]] if labels[i] < protected else None, bool(mirror))
                    for i, mirror in zip(chosen, mirrors, strict=True)
                ]
            )
            optimiser.zero_grad()
            F.cross_entropy(surrogate(learned), torch.tensor(labels[chosen])).backward()
            torch.nn.utils.clip_grad_norm_(surrogate.parameters(), config.clip)
            optimiser.step()
        # δ step: the surrogate is fixed, each identity's noise goes down the mean of its photos' normalised gradients.
        random = np.random.default_rng((config.seed, number - 1, 2))
        surrogate.eval().requires_grad_(False)
        visited = random.permutation(np.flatnonzero(labels < protected))
        mirrors = np.concatenate(
            [random.random(len(visited[start : start + config.batch])) < 0.5 for start in range(0, len(visited), config.batch)]
        )
        direction = [torch.zeros_like(one) for one in delta]
        wrong = 0
        for start in range(0, len(visited), batch):
            asked, mirrored = visited[start : start + batch], mirrors[start : start + batch]
            noise = [delta[labels[i]].clone().requires_grad_(True) for i in asked]  # each photo's own
            noisy = [noisy_photo(photos[i], one, bool(mirror)) for i, one, mirror in zip(asked, noise, mirrored, strict=True)]
            logits, wanted = surrogate(torch.cat(noisy)), torch.tensor(labels[asked])
            wrong += int((logits.argmax(1) != wanted).sum())
            F.cross_entropy(logits, wanted, reduction="sum").backward()
            for i, one in zip(asked, noise, strict=True):
                assert one.grad is not None
                direction[labels[i]] += one.grad / one.grad.norm()
        for k in range(protected):
            delta[k] = torch.clamp(delta[k] - config.step * torch.sign(direction[k]), -config.epsilon, config.epsilon)
        errors.append(error_on(photos, labels, delta, surrogate, batch=batch) if apart else wrong / len(visited))
        surrogate.requires_grad_(True)
        if errors[-1] < config.stop_error and number >= config.min_rounds:
            break
    return torch.stack(delta), errors
