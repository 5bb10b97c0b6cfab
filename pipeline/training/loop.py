"""One training loop for every arm and trial: same initial weights, same order of batches, clean test photos scored apart.

Randomness comes only from (seed, epoch), so a run that was killed and resumed at an epoch gives the same numbers as one that was not, and
every process of a run in several (`pipeline/distributed.py`) draws the same global batches, of which it takes its part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import sha256_of
from pipeline.config import TrainConfig
from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.fitted import Fitted
from pipeline.errors import StageError
from pipeline.models.backbones import WIDTH
from pipeline.models.recognisers import Recogniser, make_recogniser
from pipeline.runtime import Runtime, hash_seed
from pipeline.training.at_hand import AtHand
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import Faces, FaceSet, prefetched, resident
from pipeline.training.learner import Learner

PREDICT_BATCH = 64  # photos asked about at a time
CUDA_PREDICT_BATCH = 512  # on a GPU, which 64 photos leave half idle


@dataclass(frozen=True)
class TestPhotos:
    """Clean held-out photos, and which of them belong to protected identities (N,) bool."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    faces: FaceSet
    protected: np.ndarray


def learning_rate(config: TrainConfig, *, step: int, steps_per_epoch: int) -> float:
    """The rate of batch `step` (0-based over the whole run).

    `steps`: `lr`, divided by 10 after each epoch in `steps_at` (the paper: 30 and 40 of 50). `one-cycle`: a cosine rise from lr/25 over
    the warm-up share, then a cosine fall to lr/10⁴ (Smith and Topin 2018; torch's OneCycleLR falls further, to lr/(25·10⁴)).
    """
    if config.schedule == "steps":
        epoch = step // steps_per_epoch
        return config.lr * 0.1 ** sum(epoch >= at for at in config.steps_at)
    last = max(1, config.epochs * steps_per_epoch - 1)
    rise = config.warmup * last
    low, high, final = config.lr / 25, config.lr, config.lr / 1e4
    if step < rise:
        return high + (low - high) * (1 + math.cos(math.pi * step / rise)) / 2
    return final + (high - final) * (1 + math.cos(math.pi * (step - rise) / max(1.0, last - rise))) / 2


def batches_of_epoch(count: int, batch: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffled batches of indices below `count`; a last batch of one photo is left out (batch norm needs two)."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    parts = [order[start : start + batch] for start in range(0, count, batch)]
    return [part for part in parts if len(part) > 1]


def share_in_batches(count: int, runtime: Runtime, batch: int | None = None) -> list[np.ndarray]:
    """Indices of this rank's share of `count` photos to ask a network about, `batch` at a time; None: what suits the device."""
    size = batch or (CUDA_PREDICT_BATCH if runtime.torch_device().type == "cuda" else PREDICT_BATCH)
    here = runtime.ranks.share(count)
    return [np.arange(start, min(start + size, here.stop)) for start in range(here.start, here.stop, size)]


@torch.no_grad()
def predict(
    model: Recogniser, faces: Faces, runtime: Runtime, *, batch: int | None = None, fitted: Fitted | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted labels (N,) int64 and L2-normalised embeddings (N, 512) float32 of clean crops, in eval mode.

    Each rank asks the model for a share of the photos; all get the whole answer.

    Args:
        batch: photos at a time; None: what suits the device.
        fitted: what the trainer does to photos before the model is asked.
    """
    device, ranks = runtime.torch_device(), runtime.ranks
    model.eval()
    labels = [torch.empty(0, dtype=torch.int64, device=device)]
    embeddings = [torch.empty((0, WIDTH), device=device)]
    for x_BCHW, _ in prefetched(faces, share_in_batches(len(faces), runtime, batch), device):
        if fitted is not None:
            x_BCHW = fitted.asked(x_BCHW)
        with runtime.autocast():
            embedding, logits = model.embed_and_classify(x_BCHW)
        labels.append(logits.argmax(1))
        embeddings.append(embedding)
    label_N, embedding_ND = (ranks.rows(torch.cat(found), len(faces)) for found in (labels, embeddings))
    return label_N.cpu().numpy(), embedding_ND.cpu().numpy()


def accuracy_by_group(predicted: np.ndarray, test: TestPhotos) -> dict[str, float | None]:
    """Share of right answers among protected identities and among the others; None for a group without photos."""
    right = predicted == test.faces.label
    groups = {"protected": right[test.protected], "others": right[~test.protected]}
    return {name: float(part.mean()) if len(part) else None for name, part in groups.items()}


def fit_countermeasure(config: TrainConfig, train: FaceSet, *, classes: int, runtime: Runtime) -> Fitted | None:
    """What the config's countermeasure fits on the training photos; None where it fits nothing."""
    fit = countermeasure_of(config.countermeasure, classes=classes).fit
    if fit is None:
        return None
    return fit(train.crops, len(train), train.label, classes, config.seed, device=runtime.torch_device())


def train_recogniser(
    config: TrainConfig,
    train: FaceSet,
    test: TestPhotos,
    *,
    classes: int,
    runtime: Runtime,
    checkpoint: Path,
    key: str,
    report: Callable[[dict[str, Any]], None],
    fitted: Fitted | None = None,
) -> tuple[Recogniser, list[dict[str, Any]]]:
    """Train a recogniser by cross-entropy and SGD (the paper, appendix; sizes from the profile), with the config's countermeasure.

    Args:
        train: the photos a scraper has: protected ones of protected identities, clean ones of the others.
        test: clean photos, never protected.
        checkpoint: where the state is kept after each epoch; removed by the caller once the results are written.
        key: what the checkpoint belongs to (config and inputs).
        report: called with each epoch's record, by every rank.
        fitted: what `fit_countermeasure` gives.

    Returns:
        The model, and a record an epoch: epoch, loss, train_error, lr, protected, others (accuracies, None where not scored), seconds.

    Raises:
        StageError: an epoch's loss, or a weight after it, is not a finite number; raised by every rank.
    """
    device, ranks = runtime.torch_device(), runtime.ranks
    # What a countermeasure draws for a batch, or mixes in it, concerns all its photos.
    assert ranks.size == 1 or config.countermeasure == "none", "only trials have one, and they run in one process"
    weights = None if config.weights is None else Path(config.weights)
    model = make_recogniser(
        classes=classes,
        input_size=config.input_size,
        dropout=config.dropout,
        normalise=config.normalise,
        seed=config.seed,
        weights=weights,
        model=config.model,
        arcface=config.arcface(),
    ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    measure = countermeasure_of(config.countermeasure, classes=classes)
    train, test = train.processed(measure.process), replace(test, faces=test.faces.processed(measure.process))
    assert (fitted is None) == (measure.fit is None), config.countermeasure
    photos, scored = resident(train, device), resident(test.faces, device)
    learner = Learner(model, config, runtime, count=len(train), labels=True)
    harden = None if measure.harden is None else partial(measure.harden, AtHand(model, runtime, batch=learner.batch))
    history: list[dict[str, Any]] = []
    state = load_checkpoint(checkpoint, key, device)
    if state is not None:
        model.load_state_dict(state["model"])
        learner.optimiser.load_state_dict(state["optimiser"])
        history = state["history"]
    ranks.agree(f"{sha256_of(key.encode())[:8]} after epoch {len(history)}", str(checkpoint))

    for epoch in range(len(history), config.epochs):
        started = time.perf_counter()
        torch.manual_seed(hash_seed(config.seed, epoch))  # dropout
        flips = np.random.default_rng((config.seed, epoch, 1))
        draws = torch.Generator().manual_seed(hash_seed(config.seed, epoch, 2))
        batches = batches_of_epoch(len(train), config.batch, seed=config.seed, epoch=epoch)
        mirrors = [flips.random(len(index)) < 0.5 for index in batches] if config.flip else None
        parts = [ranks.part(len(index)) for index in batches]
        mine = [index[part.here] for index, part in zip(batches, parts, strict=True)]
        model.train()
        loss_sum, wrong, seen, rate = torch.zeros((), device=device), torch.zeros((), device=device), 0, 0.0
        for number, (x_BCHW, label_B) in enumerate(prefetched(photos, mine, device)):
            rate = learning_rate(config, step=epoch * len(batches) + number, steps_per_epoch=len(batches))
            part = learner.spread.over(len(batches[number]))
            if fitted is not None:
                x_BCHW = fitted(x_BCHW, torch.from_numpy(mine[number]))  # fitted on photos as they are, so before any is mirrored
            if mirrors is not None:
                mirror = runtime.tensor(mirrors[number][part.here])
                x_BCHW = torch.where(mirror[:, None, None, None], x_BCHW.flip(3), x_BCHW)
            target_B = label_B
            if measure.augment is not None:
                x_BCHW, target_B = measure.augment(x_BCHW, label_B, draws)
            if harden is not None:
                x_BCHW = harden(x_BCHW, label_B, draws)
            loss, missed = learner.step(x_BCHW, label_B, target_B, rate=rate)
            loss_sum += loss * part.count
            wrong += missed / part.copies
            seen += part.count
        # The last step's weights are in no loss of this epoch. What is not a number would name the first person in every photo.
        sound = torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all()
        loss_sum, wrong = ranks.sum_(torch.stack((loss_sum.where(sound, loss_sum * math.nan), wrong))).tolist()
        if not math.isfinite(loss_sum):
            raise StageError(
                f"{checkpoint.parent}: epoch {epoch + 1} of {config.epochs} ended with a loss or weights that are not finite numbers; "
                f"the learning rate (lr: {config.lr}) is too high for this training: give a lower one in the profile"
            )
        last = epoch + 1 == config.epochs
        scores: dict[str, float | None] = {"protected": None, "others": None}
        if last or (epoch + 1) % config.score_every == 0:
            scores = accuracy_by_group(predict(model, scored, runtime, fitted=fitted)[0], test)
        record = {
            "epoch": epoch + 1,
            "loss": round(loss_sum / seen, 5),
            "train_error": round(wrong / seen, 5),
            "lr": rate,
            **scores,
            "seconds": round(time.perf_counter() - started, 1),
        }
        history.append(record)
        report(record)
        if not last and ranks.first:
            save_checkpoint(checkpoint, key, {"model": model.state_dict(), "optimiser": learner.optimiser.state_dict(), "history": history})
    return model, history
