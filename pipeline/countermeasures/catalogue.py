"""A countermeasure by name: what a trainer who doesn't play along does to the photos or to the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.countermeasures import augmentation, processing
from pipeline.countermeasures.augmentation import Augment
from pipeline.countermeasures.compression import jpeg
from pipeline.countermeasures.fitted import Fit
from pipeline.countermeasures.hardening import Harden, make_adversarial, make_worst_of
from pipeline.countermeasures.names import parse_name
from pipeline.countermeasures.projection import fit_orthogonal_projection
from pipeline.countermeasures.subtraction import fit_pattern_subtraction

Process = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Countermeasure:
    """One countermeasure: at most one of its four ways is there, `none` has none.

    Attributes:
        process: uint8 (N, H, W, 3) RGB to the same, deterministic; the trainer's own preprocessing, of training *and* test photos.
        augment: (x_BCHW float32 in [0, 1], label_B int64, generator) to (x_BCHW, target): training batches only. The target is label_B, or
            soft targets (B, classes) float32.
        harden: (network, x_BCHW, label_B, generator) to x_BCHW: training batches only, with the network at hand; label_B holds indices.
        fit: (crops at an index, count, label, classes, seed) to a function of x_BCHW and index_B: fitted on the training photos before
            training, then applied to training batches; its `asked` is for the photos that names are asked for.
    """

    process: Process | None = None
    augment: Augment | None = None
    harden: Harden | None = None
    fit: Fit | None = None


def countermeasure_of(name: str, *, classes: int) -> Countermeasure:
    """The countermeasure called `name`, for a trainer of `classes` identities (MixUp and CutMix give a target a class).

    Raises:
        ValueError: no such countermeasure; the message names the value and what is allowed.
    """
    kind, value = parse_name(name)
    match kind:
        case "grey":
            return Countermeasure(process=processing.grey)
        case "jpeg":
            return Countermeasure(process=partial(jpeg, quality=int(value)))
        case "blur":
            return Countermeasure(process=partial(processing.blur, sigma=value))
        case "resize":
            return Countermeasure(process=partial(processing.resize, size=int(value)))
        case "bits":
            return Countermeasure(process=partial(processing.bits, count=int(value)))
        case "shift":
            return Countermeasure(augment=augmentation.make_shift(int(value)))
        case "cutout":
            return Countermeasure(augment=augmentation.cutout)
        case "mixup":
            return Countermeasure(augment=augmentation.make_mixup(classes))
        case "cutmix":
            return Countermeasure(augment=augmentation.make_cutmix(classes))
        case "strong":
            return Countermeasure(augment=augmentation.make_strong())
        case "ueraser":
            return Countermeasure(harden=make_worst_of(augmentation.make_ueraser_augment(), candidates=5))
        case "adversarial":
            return Countermeasure(harden=make_adversarial(value, steps=3))
        case "orthogonal-projection":
            return Countermeasure(fit=fit_orthogonal_projection)
        case "pattern-subtraction":
            return Countermeasure(fit=fit_pattern_subtraction)
        case _:
            assert kind == "none", kind
            return Countermeasure()
