"""Error-minimizing noise, one pattern an identity or a photo (Huang et al., ICLR 2021, section 3, equation 2 and section 4.2).

Two minimisations in the same direction, in turn: M batches of SGD on a surrogate (noise fixed), then one pass over the protected photos
that moves each pattern down the surrogate's loss (surrogate fixed, eval mode). The same forward pass gives the gradient, the error and so
the convergence test. No photo of a pass can be spared: every delta moves by a whole step in every pass, and even one that lies at ±ε
everywhere stays there only where the gradient's sign does, which nobody knows without computing it. Below, identity k stands for the row of
the noise table; of sample-wise noise every photo has a row of its own.

Two update rules, by name:

- `identity-mean`: delta_k ← clip(delta_k − a · sign(Σ_i g_i / ‖g_i‖₂), ±ε) over all photos i of identity k. One step a pass, the same
  whatever the order of the photos. Photos are normalised so that those the surrogate already knows still count.
  With `smooth` > 0 the sum is blurred first (as in translation-invariant attacks, Dong et al., CVPR 2019): the sign then spends epsilon on
  detail that survives the recogniser's own resize, and the way through the photo. With `grey` it is averaged over the three colours, so
  that noise is the same in all of them, and a recogniser of grey photos meets the pattern that one of coloured photos would have met.
- `released`: the authors' code. Inside each shuffled batch every photo takes its own clipped sign step from what the noise changes in it
  (nothing below black or above white), delta_k becomes their mean, and the next batch goes on from there; the order of batches matters.
  Their surrogate learns photos that may leave [0, 1]; here it never does.

With `surrogates` > 1 the search starts again from new weights and keeps the noise: what a new network must find easy is what the next
trainer's network, whose weights nobody knows, will find easy too.

With `transforms` the surrogate sees each noisy photo as it may arrive at a trainer (`transforms.py`), another draw each time, and noise
passes go over `draws` such versions of each photo: the mean over photos becomes one over photos and transforms.

With `binding` a noise pass puts each identity's pattern on *other* people's photos and moves it until the surrogate names its owner all
the same (after BAIT, ICLR 2026); a round's error is that on those photos, and says how far the pattern outweighs a face. It goes on falling
long after the surrogate knows everybody's own noisy photos, so such a search goes all its rounds; whether it converged is asked of the own
photos at its end, as of every other noise. A network that knows faces already would learn the face beside a
pattern that only agrees with it. The surrogate itself learns from photos with their own noise, as a trainer does. BAIT's order of
identities, from the most confusable to the least, is not followed: whose photo carries which pattern is drawn anew in every pass.

In several processes each takes its part of every surrogate batch, and its share of the photos of a noise pass; directions are added up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artifacts import sha256_of
from pipeline.config import NoiseConfig
from pipeline.noise.asked import Asked
from pipeline.noise.transforms import draw_transforms, mirrored, transformed
from pipeline.runtime import Runtime, hash_seed
from pipeline.training.at_hand import loss_gradient
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import Faces, FaceSet, prefetched, resident
from pipeline.training.learner import Learner

CHECKPOINT_SECONDS = 60  # at most this much of the search is lost by a kill
BLUR_ROWS = 256  # blurred at a time: of a table of all of WebFace's photos the blur of the whole would take three more tables
# Photos at a time in a noise pass at most, where each one's gradient is its own whatever the batch. On a CPU 64 are 8 % quicker than 32.
PASS_BATCH = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True)
class SearchResult:
    """`delta` float32 (rows, 3, H, W) in 1/255; `error` is the last surrogate's on photos with their own noise, that of the last pass
    before its step (binding: after it).
    """

    delta: np.ndarray
    rounds: int
    converged: bool
    error: float
    seconds: float
    history: list[dict[str, float]]

    def facts(self) -> dict[str, Any]:
        """What `noise.json` says of the search."""
        return {"rounds": self.rounds, "converged": self.converged, "error": self.error, "history": self.history}


def add_delta(x_BCHW: Tensor, delta_KCHW: Tensor, row_B: Tensor) -> Tensor:
    """Crops in [0, 1] plus the noise (in 1/255) of each photo's row; row −1 means no noise. Clipped to [0, 1]."""
    noisy = row_B >= 0
    noise = delta_KCHW[row_B.clamp(min=0)] / 255 * noisy[:, None, None, None]
    return (x_BCHW + noise).clamp(0, 1)


def blurred(x_KCHW: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` px cut at 3 sigma, borders mirrored: torchvision's `gaussian_blur`, whose import takes seconds."""
    reach = math.ceil(3 * sigma)
    place = torch.arange(-reach, reach + 1, dtype=x_KCHW.dtype, device=x_KCHW.device)
    weight = torch.exp(-0.5 * (place / sigma) ** 2)
    weight /= weight.sum()
    planes = F.pad(x_KCHW.flatten(0, 1)[:, None], [reach] * 4, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, weight[None, None, None, :]), weight[None, None, :, None])
    return planes[:, 0].reshape(x_KCHW.shape)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode and its weights without gradients, so that none is computed and nothing is kept for it; afterwards as before."""
    training = model.training
    having = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in having:
            parameter.requires_grad_(True)
        model.train(training)


def train_surrogate(
    config: NoiseConfig,
    surrogate: Learner,
    faces: Faces,
    delta_KCHW: Tensor,
    row_N: np.ndarray,
    runtime: Runtime,
    *,
    round_number: int,
) -> float:
    """M batches of SGD on the surrogate with the noise fixed. Returns the mean loss."""
    device, ranks = runtime.torch_device(), runtime.ranks
    random = np.random.default_rng((config.seed, round_number, 1))
    torch.manual_seed(hash_seed(config.seed, round_number))  # dropout
    surrogate.model.train()
    part = surrogate.spread.over(min(config.batch, len(faces)))
    batches, mirrors, changes = [], [], []
    for _ in range(config.batches):
        batches.append(random.choice(len(faces), size=part.count, replace=False)[part.here])
        mirrors.append((random.random(part.count) < 0.5)[part.here] if config.flip else None)
        changes.append(draw_transforms(random, part.count).part(part.here) if config.transforms else None)
    total = torch.zeros((), device=device)
    for number, (x_BCHW, label_B) in enumerate(prefetched(faces, batches, device)):
        with torch.no_grad():
            x_BCHW = add_delta(x_BCHW, delta_KCHW, runtime.tensor(row_N[batches[number]]))
            if config.flip:
                x_BCHW = mirrored(x_BCHW, runtime.tensor(mirrors[number]))
            if (change := changes[number]) is not None:
                x_BCHW = transformed(x_BCHW, change)
        total += surrogate.step(x_BCHW, label_B, rate=config.lr)[0]
    return float(ranks.sum_(total)) / config.batches


def update_noise(
    config: NoiseConfig,
    surrogate: nn.Module,
    faces: Faces,
    delta_KCHW: Tensor,
    row_N: np.ndarray,
    runtime: Runtime,
    *,
    pass_number: int,
    ask: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> float:
    """One pass over the photos that carry noise: steps `delta_KCHW` in place, returns the surrogate's error on them before the step.

    `ask` gives `loss_gradient` of photos and labels; None: as it is, of `surrogate`.
    """
    ask = ask or partial(loss_gradient, surrogate, runtime)
    device, ranks = runtime.torch_device(), runtime.ranks
    random = np.random.default_rng((config.seed, pass_number, 2))
    order = random.permutation(np.repeat(np.flatnonzero(row_N >= 0), config.draws if config.transforms else 1))
    carried, named = row_N[order], faces.label[order]  # the pattern each photo of the pass carries, and whom it is to name
    if config.binding:
        order = others_photos(random, faces.label, named)
    mirror_N = random.random(len(order)) < 0.5 if config.flip else None
    changes = draw_transforms(random, len(order)) if config.transforms else None
    if config.rule == "identity-mean":  # every photo by itself: each rank goes through a share of them, in batches of any size
        here, batch = ranks.share(len(order)), pass_batch(config, device, len(order))
        parts = [slice(start, min(start + batch, here.stop)) for start in range(here.start, here.stop, batch)]
    else:  # batch after batch: each rank takes a share of every batch, which may be none
        sizes = [(start, ranks.share(min(config.batch, len(order) - start))) for start in range(0, len(order), config.batch)]
        parts = [slice(start + share.start, start + share.stop) for start, share in sizes]
    sum_KCHW = torch.zeros_like(delta_KCHW) if config.rule == "identity-mean" else None
    wrong = torch.zeros((), device=device)
    with frozen(surrogate):
        for number, (x_BCHW, _) in enumerate(prefetched(faces, [order[part] for part in parts], device)):
            part = parts[number]
            row_B, label_B = runtime.tensor(carried[part]), runtime.tensor(named[part])
            noise_BCHW = delta_KCHW[row_B]
            if sum_KCHW is None:
                noise_BCHW = ((x_BCHW + noise_BCHW / 255).clamp(0, 1) - x_BCHW) * 255
            noise_BCHW.requires_grad_(True)
            gradient = noise_BCHW.detach()
            if part.start < part.stop:
                noisy = x_BCHW + noise_BCHW / 255
                if sum_KCHW is not None:
                    noisy = noisy.clamp(0, 1)
                if mirror_N is not None:
                    noisy = mirrored(noisy, runtime.tensor(mirror_N[part]))
                if changes is not None:
                    noisy = transformed(noisy, changes.part(part))
                by_seen_BCHW, missed = ask(noisy, label_B)
                (gradient,) = torch.autograd.grad(noisy, noise_BCHW, by_seen_BCHW)
                wrong += missed
            if sum_KCHW is not None:
                length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
                sum_KCHW.index_add_(0, row_B, gradient / length[:, None, None, None])
            else:
                stepped = (noise_BCHW.detach() - config.step * gradient.sign()).clamp(-config.epsilon, config.epsilon)
                everyones = carried[number * config.batch : (number + 1) * config.batch]
                seen, photos = np.unique(everyones, return_counts=True)
                place_B = runtime.tensor(np.searchsorted(seen, carried[part]))
                mean = ranks.sum_(torch.zeros_like(delta_KCHW[: len(seen)]).index_add_(0, place_B, stepped))
                delta_KCHW[runtime.tensor(seen)] = mean / runtime.tensor(photos)[:, None, None, None]
    if sum_KCHW is not None:
        ranks.sum_(sum_KCHW)
        if config.grey:
            sum_KCHW.copy_(sum_KCHW.mean(1, keepdim=True).expand_as(sum_KCHW))
        if config.smooth:
            for some in sum_KCHW.split(BLUR_ROWS):
                some.copy_(blurred(some, config.smooth))
        delta_KCHW.sub_(sum_KCHW.sign_().mul_(config.step)).clamp_(-config.epsilon, config.epsilon)
    return float(ranks.sum_(wrong)) / len(order)


def others_photos(random: np.random.Generator, label_N: np.ndarray, named_B: np.ndarray) -> np.ndarray:
    """For each identity in `named_B` a photo of somebody else, drawn from all: indices int64 (B,)."""
    by_label = np.argsort(label_N, kind="stable")
    first, end = (np.searchsorted(label_N[by_label], named_B, side) for side in ("left", "right"))
    assert (end - first < len(label_N)).all(), "binding needs photos of somebody else"
    drawn = random.integers(len(label_N) - (end - first))  # a place among the photos that are not the identity's own
    return by_label[np.where(drawn < first, drawn, drawn + end - first)]


def pass_batch(config: NoiseConfig, device: torch.device, count: int) -> int:
    """Photos at a time in a pass over `count`: what suits the device where each photo's gradient is its own, in parts of like size.

    Recognisers that exist are asked at 160 px, where the activations of 64 photos take gigabytes, and a CPU is as quick with fewer.
    """
    if config.rule != "identity-mean":
        return min(config.batch, count)
    suits = 0 if config.against and device.type == "cpu" else PASS_BATCH[device.type]
    parts = max(1, math.ceil(count / max(config.batch, suits)))
    return max(1, math.ceil(count / parts))


def pass_length(config: NoiseConfig, row_N: np.ndarray) -> int:
    """Photos in a pass, those seen through several transforms counted as often."""
    return int(np.count_nonzero(row_N >= 0)) * (config.draws if config.transforms else 1)


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
    """Search `rows` patterns until each surrogate errs on less than `stop_error` of their noisy photos, `min_rounds` rounds at the least.

    Args:
        make_surrogate: surrogate 0, 1, … on the runtime's device: logits of float crops in [0, 1], NCHW; trained in place.
        faces: training photos of the protected and auxiliary identities, labelled for the surrogate.
        row_N: the row of the noise table each photo carries, −1 for clean ones: int64 (N,). A row is an identity, or one photo.
        report: called by every rank with each round's record: round (over all surrogates), surrogate, loss (on noisy batches), error (on
            the photos carrying noise), mean_abs (of delta, 1/255); binding: own_error, in the last round of a surrogate.
        checkpoint, key: where the state is kept and what it belongs to; None: not kept.

    Returns:
        The noise; `converged` is False when any surrogate reached the cap on rounds first (binding: still errs on more at its end).
    """
    device = runtime.torch_device()
    height, width = faces.shards[0].shape[1:3]
    delta_KCHW = torch.zeros((rows, 3, height, width), device=device)
    history: list[dict[str, float]] = []
    seconds_before = 0.0
    state = None if checkpoint is None else load_checkpoint(checkpoint, key, device)
    if state is not None:
        delta_KCHW, history, seconds_before = state["delta"], state["history"], state["seconds"]

    runtime.ranks.agree(f"{sha256_of(key.encode())[:8]} after round {len(history)}", str(checkpoint))
    photos = resident(faces, device)
    started = saved = time.perf_counter()
    for number in range(config.surrogates):
        if history and history[-1]["surrogate"] > number:
            continue
        model = make_surrogate(number)
        surrogate = Learner(model, config, runtime, count=len(faces))
        ask = Asked(model, runtime, batch=pass_batch(config, device, pass_length(config, row_N)))
        done = sum(record["surrogate"] == number for record in history)
        if state is not None and done:
            model.load_state_dict(state["surrogate"])
            surrogate.optimiser.load_state_dict(state["optimiser"])
            if ended(config, history[-1], done):
                continue
        for within in range(done + 1, config.rounds + 1):
            round_number = len(history) + 1
            loss = train_surrogate(config, surrogate, photos, delta_KCHW, row_N, runtime, round_number=round_number)
            ask.refresh()
            error = update_noise(config, model, photos, delta_KCHW, row_N, runtime, pass_number=round_number - 1, ask=ask)
            record = {
                "round": round_number,
                "surrogate": number,
                "loss": round(loss, 5),
                "error": round(error, 5),
                "mean_abs": round(float(delta_KCHW.abs().mean()), 4),
            }
            if config.binding and ended(config, record, within):
                own = config.model_copy(update={"binding": False})  # a pass whose step is not taken
                measured = update_noise(own, model, photos, delta_KCHW.clone(), row_N, runtime, pass_number=round_number, ask=ask)
                record["own_error"] = round(measured, 5)
            history.append(record)
            report(record)
            if checkpoint is not None and runtime.ranks.first and time.perf_counter() - saved > CHECKPOINT_SECONDS:
                content: dict[str, Any] = {
                    "surrogate": model.state_dict(),
                    "optimiser": surrogate.optimiser.state_dict(),
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
        converged=all(own_error(record) < config.stop_error for record in last),
        error=own_error(history[-1]),
        seconds=seconds_before + time.perf_counter() - started,
        history=history,
    )


def ended(config: NoiseConfig, record: dict[str, float], rounds: int) -> bool:
    """Whether a surrogate is done after `rounds` rounds, the last of which left `record`."""
    low = record["error"] < config.stop_error and rounds >= config.min_rounds and not config.binding
    return low or rounds >= config.rounds


def own_error(record: dict[str, float]) -> float:
    """The surrogate's error on photos with their own noise in the last round of a search."""
    return record.get("own_error", record["error"])
