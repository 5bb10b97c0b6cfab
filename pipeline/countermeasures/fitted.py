"""What a countermeasure is that is fitted on the training photos before anything is trained: orthogonal projection, pattern subtraction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Fit(Protocol):
    """What fits a countermeasure on the training photos, before training."""

    def __call__(
        self,
        crops: Callable[[np.ndarray], np.ndarray],
        count: int,
        label: np.ndarray,
        classes: int,
        seed: int,
        *,
        device: torch.device | None = None,
    ) -> Fitted: ...


class Fitted(Protocol):
    """What was fitted on the training photos: applied to each training batch, x_BCHW, of the photos index_B (int64) among them."""

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor: ...

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """The same of photos whose names are asked for, by which nobody knows whose they are."""
        ...
