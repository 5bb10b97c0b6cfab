"""Identity-wise error-minimizing noise (Huang et al., ICLR 2021, section 3, equation 2 and section 4.2).

Two minimisations in the same direction, in turn: M batches of SGD on a surrogate (noise fixed), then one pass over the protected photos
that moves each identity's delta down the surrogate's loss (surrogate fixed, eval mode). The same forward pass gives the gradient, the
error and so the convergence test.

Two update rules, by name:

- `identity-mean`: delta_k ← clip(delta_k − a · sign(Σ_i g_i / ‖g_i‖₂), ±ε) over all photos i of identity k. One step a pass, the same
  whatever the order of the photos. Photos are normalised so that those the surrogate already knows still count.
  With `smooth` > 0 the sum is blurred first (as in translation-invariant attacks, Dong et al., CVPR 2019): the sign then spends epsilon on
  detail that survives the recogniser's own resize, and the way through the photo.
- `released`: the authors' code. Inside each shuffled batch every photo takes its own clipped sign step, delta_k becomes their mean, and the
  next batch goes on from there; the order of batches matters.

With `surrogates` > 1 the search starts again from new weights and keeps the noise: what a new network must find easy is what the next
trainer's network, whose weights nobody knows, will find easy too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import NoiseConfig
from pipeline.runtime import Runtime
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import FaceSet
from pipeline.training.loop import hash_seed
from pipeline.training.optimiser import make_sgd, step

CHECKPOINT_SECONDS = 60  # at most this much of the search is lost by a kill


@dataclass(frozen=True)
class SearchResult:
    """`delta` float32 (rows, 3, H, W) in 1/255; `error` is the last surrogate's, on the noise of the last pass before its step."""

    delta: np.ndarray
    rounds: int
    converged: bool
    error: float
    seconds: float
    history: list[dict[str, float]]


def add_delta(x_BCHW: Tensor, delta_KCHW: Tensor, row_B: Tensor) -> Tensor:
    """Crops in [0, 1] plus the noise (in 1/255) of each photo's row; row −1 means no noise. Clipped to [0, 1]."""
    noisy = row_B >= 0
    noise = delta_KCHW[row_B.clamp(min=0)] / 255 * noisy[:, None, None, None]
    return (x_BCHW + noise).clamp(0, 1)


def mirrored(x_BCHW: Tensor, mirror_B: Tensor) -> Tensor:
    """Photos mirrored left to right where `mirror_B` says so."""
    return torch.where(mirror_B[:, None, None, None], x_BCHW.flip(3), x_BCHW)


def blurred(x_KCHW: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` px cut at 3 sigma, borders mirrored: torchvision's `gaussian_blur`, whose import takes seconds."""
    reach = math.ceil(3 * sigma)
    place = torch.arange(-reach, reach + 1, dtype=x_KCHW.dtype, device=x_KCHW.device)
    weight = torch.exp(-0.5 * (place / sigma) ** 2)
    weight /= weight.sum()
    planes = F.pad(x_KCHW.flatten(0, 1)[:, None], [reach] * 4, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, weight[None, None, None, :]), weight[None, None, :, None])
    return planes[:, 0].reshape(x_KCHW.shape)


def train_surrogate(
    config: NoiseConfig,
    surrogate: nn.Module,
    optimiser: torch.optim.SGD,
    faces: FaceSet,
    delta_KCHW: Tensor,
    row_N: np.ndarray,
    runtime: Runtime,
    *,
    round_number: int,
    within: int,
) -> float:
    """M batches of SGD on the surrogate with the noise fixed, in round `within` of this surrogate. Returns the mean loss."""
    device = runtime.torch_device()
    random = np.random.default_rng((config.seed, round_number, 1))
    torch.manual_seed(hash_seed(config.seed, round_number))  # dropout
    surrogate.train()
    total = torch.zeros((), device=device)
    for number in range(config.batches):
        done = (within - 1) * config.batches + number + 1
        rate = config.lr * min(1.0, done / max(1, config.warmup_batches))
        index = random.choice(len(faces), size=min(config.batch, len(faces)), replace=False)
        x_BCHW, label_B = faces.batch(index, device)
        with torch.no_grad():
            x_BCHW = add_delta(x_BCHW, delta_KCHW, torch.from_numpy(row_N[index]).to(device))
            if config.flip:
                x_BCHW = mirrored(x_BCHW, torch.from_numpy(random.random(len(index)) < 0.5).to(device))
        with runtime.autocast():
            logits = surrogate(x_BCHW)
        loss = F.cross_entropy(logits, label_B)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        step(optimiser, lr=rate, clip=config.clip)
        total += loss.detach()
    return float(total) / config.batches


def update_noise(
    config: NoiseConfig,
    surrogate: nn.Module,
    faces: FaceSet,
    delta_KCHW: Tensor,
    row_N: np.ndarray,
    runtime: Runtime,
    *,
    pass_number: int,
) -> float:
    """One pass over the photos that carry noise: steps `delta_KCHW` in place, returns the surrogate's error on them before the step."""
    device = runtime.torch_device()
    random = np.random.default_rng((config.seed, pass_number, 2))
    surrogate.eval()
    carrying = np.flatnonzero(row_N >= 0)
    order = random.permutation(carrying)
    sum_KCHW = torch.zeros_like(delta_KCHW)
    wrong = torch.zeros((), device=device)
    for start in range(0, len(order), config.batch):
        index = order[start : start + config.batch]
        x_BCHW, label_B = faces.batch(index, device)
        row_B = torch.from_numpy(row_N[index]).to(device)
        noise_BCHW = delta_KCHW[row_B].requires_grad_(True)
        noisy = (x_BCHW + noise_BCHW / 255).clamp(0, 1)
        if config.flip:
            noisy = mirrored(noisy, torch.from_numpy(random.random(len(index)) < 0.5).to(device))
        with runtime.autocast():
            logits = surrogate(noisy)
        loss = F.cross_entropy(logits, label_B, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, noise_BCHW)
        wrong += (logits.detach().argmax(1) != label_B).sum()
        if config.rule == "identity-mean":
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
            sum_KCHW.index_add_(0, row_B, gradient / length[:, None, None, None])
        else:
            stepped = (noise_BCHW.detach() - config.step * gradient.sign()).clamp(-config.epsilon, config.epsilon)
            seen, place = torch.unique(row_B, return_inverse=True)
            mean = torch.zeros_like(delta_KCHW[seen]).index_add_(0, place, stepped)
            delta_KCHW[seen] = mean / torch.bincount(place)[:, None, None, None]
    if config.rule == "identity-mean":
        if config.smooth:
            sum_KCHW = blurred(sum_KCHW, config.smooth)
        delta_KCHW.sub_(config.step * sum_KCHW.sign()).clamp_(-config.epsilon, config.epsilon)
    return float(wrong) / len(order)


def search_noise(
    config: NoiseConfig,
    make_surrogate: Callable[[int], nn.Module],
    faces: FaceSet,
    row_N: np.ndarray,
    *,
    rows: int,
    runtime: Runtime,
    report: Callable[[dict[str, float]], None],
    checkpoint: Path | None = None,
    key: str = "",
) -> SearchResult:
    """Search `rows` patterns until each surrogate errs on less than `stop_error` of their noisy photos.

    Args:
        make_surrogate: surrogate 0, 1, … on the runtime's device: logits of float crops in [0, 1], NCHW; trained in place.
        faces: training photos of the protected and auxiliary identities, labelled for the surrogate.
        row_N: the row of the noise table each photo carries, −1 for clean ones: int64 (N,). A row is an identity, or one photo.
        report: called with each round's record: round (over all surrogates), surrogate, loss (on noisy batches), error (on the photos
            carrying noise), mean_abs (of delta, 1/255).
        checkpoint, key: where the state is kept and what it belongs to; None: not kept.

    Returns:
        The noise; `converged` is False when any surrogate reached the cap on rounds first.
    """
    device = runtime.torch_device()
    height, width = faces.shards[0].shape[1:3]
    delta_KCHW = torch.zeros((rows, 3, height, width), device=device)
    history: list[dict[str, float]] = []
    seconds_before = 0.0
    state = None if checkpoint is None else load_checkpoint(checkpoint, key, device)
    if state is not None:
        delta_KCHW, history, seconds_before = state["delta"], state["history"], state["seconds"]

    started = saved = time.perf_counter()
    for number in range(config.surrogates):
        if history and history[-1]["surrogate"] > number:
            continue
        surrogate = make_surrogate(number)
        optimiser = make_sgd(surrogate.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        done = sum(record["surrogate"] == number for record in history)
        if state is not None and done:
            surrogate.load_state_dict(state["surrogate"])
            optimiser.load_state_dict(state["optimiser"])
            if ended(config, history[-1], done):
                continue
        for within in range(done + 1, config.rounds + 1):
            round_number = len(history) + 1
            loss = train_surrogate(
                config, surrogate, optimiser, faces, delta_KCHW, row_N, runtime, round_number=round_number, within=within
            )
            error = 1.0
            for visit in range(config.visits):
                pass_number = (round_number - 1) * config.visits + visit
                error = update_noise(config, surrogate, faces, delta_KCHW, row_N, runtime, pass_number=pass_number)
            record = {
                "round": round_number,
                "surrogate": number,
                "loss": round(loss, 5),
                "error": round(error, 5),
                "mean_abs": round(float(delta_KCHW.abs().mean()), 4),
            }
            history.append(record)
            report(record)
            if checkpoint is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS:
                content: dict[str, Any] = {
                    "surrogate": surrogate.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "delta": delta_KCHW,
                    "history": history,
                    "seconds": seconds_before + time.perf_counter() - started,
                }
                save_checkpoint(checkpoint, key, content)
                saved = time.perf_counter()
            if ended(config, record, within):
                break
    last = [[record for record in history if record["surrogate"] == number][-1] for number in range(config.surrogates)]
    return SearchResult(
        delta=delta_KCHW.cpu().numpy(),
        rounds=len(history),
        converged=all(record["error"] < config.stop_error for record in last),
        error=history[-1]["error"],
        seconds=seconds_before + time.perf_counter() - started,
        history=history,
    )


def ended(config: NoiseConfig, record: dict[str, float], rounds: int) -> bool:
    """Whether a surrogate is done after `rounds` rounds, the last of which left `record`."""
    return (record["error"] < config.stop_error and rounds >= config.min_rounds) or rounds >= config.rounds
