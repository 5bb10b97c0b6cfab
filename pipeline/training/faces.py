"""Crops as a data set: memory-mapped shards, gathered by index; protected crops laid over clean ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import open_crops
from pipeline.errors import StageError


@dataclass(frozen=True)
class FaceSet:
    """Aligned crops with labels. `shards[shard[i]][row[i]]` is crop i: uint8, 112×112×3, RGB."""

    shards: tuple[np.ndarray, ...]
    shard: np.ndarray  # (N,) int
    row: np.ndarray  # (N,) int
    label: np.ndarray  # (N,) int64
    process: Callable[[np.ndarray], np.ndarray] | None = None  # what a trainer does to crops before use: uint8 (B, H, W, 3) to the same

    def __len__(self) -> int:
        return len(self.label)

    def crops(self, index: np.ndarray) -> np.ndarray:
        """Crops at `index` (B,): uint8, B×112×112×3, RGB, copied from the mapped shards."""
        height, width = self.shards[0].shape[1:3]
        crops = np.empty((len(index), height, width, 3), np.uint8)
        shard, row = self.shard[index], self.row[index]
        for one in np.unique(shard):
            here = np.flatnonzero(shard == one)
            crops[here] = self.shards[one][row[here]]
        return crops if self.process is None else self.process(crops)

    def batch(self, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Crops and labels at `index` on `device`: float32 in [0, 1], (B, 3, 112, 112) channels_last; int64 (B,)."""
        x_BHWC = torch.from_numpy(self.crops(index)).to(device, non_blocking=True)
        x_BCHW = x_BHWC.permute(0, 3, 1, 2).float().div_(255)  # a permuted NHWC array is already channels_last
        return x_BCHW, torch.from_numpy(self.label[index]).to(device)

    def where(self, mask: np.ndarray) -> FaceSet:
        """The part of the set where `mask` (N,) holds; shards are shared."""
        return replace(self, shard=self.shard[mask], row=self.row[mask], label=self.label[mask])

    def processed(self, process: Callable[[np.ndarray], np.ndarray] | None) -> FaceSet:
        """The same set, each crop processed whenever it is read; what is on disk stays."""
        return replace(self, process=process)


def face_set(table: Any, folder: Path) -> FaceSet:
    """A set from a DataFrame's rows with columns `shard` (file name in `folder`), `row` and `label`.

    Raises:
        StageError: a shard is missing or damaged, or is shorter than the table says.
    """
    names = sorted(table["shard"].unique())
    shards = tuple(open_crops(folder / name) for name in names)
    codes = {name: code for code, name in enumerate(names)}
    shard, row = table["shard"].map(codes).to_numpy(np.int64), table["row"].to_numpy(np.int64)
    for code, name in enumerate(names):
        rows = row[shard == code]
        if rows.min() < 0 or rows.max() >= len(shards[code]):
            raise StageError(f"{folder / name}: has {len(shards[code])} crops, row {rows.max()} is wanted; delete it and run again")
    return FaceSet(shards, shard, row, table["label"].to_numpy(np.int64))


def lay_over(clean: FaceSet, clean_photos: np.ndarray, protected: FaceSet, protected_photos: np.ndarray) -> FaceSet:
    """The clean set with the crops of `protected_photos` (names) taken from `protected`; labels stay the clean set's own."""
    place = {photo: i for i, photo in enumerate(protected_photos)}
    found = np.array([place.get(photo, -1) for photo in clean_photos], np.int64)
    covered = found >= 0
    shard, row = clean.shard.copy(), clean.row.copy()
    shard[covered] = protected.shard[found[covered]] + len(clean.shards)
    row[covered] = protected.row[found[covered]]
    return FaceSet(clean.shards + protected.shards, shard, row, clean.label)
