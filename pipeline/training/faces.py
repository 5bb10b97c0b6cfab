"""Crops as a data set: gathered from shards by index; protected crops laid over clean ones; read ahead, or held on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime import cores
from pipeline.shards import crop_table, gather

LOAD = 512  # crops read at once while a set is loaded onto a device


@dataclass(frozen=True)
class FaceSet:
    """Aligned crops with labels. `shards[shard[i]][row[i]]` is crop i: uint8, 112×112×3, RGB."""

    shards: tuple[Any, ...]  # each a `Shard` on disk, or an array in memory: uint8 (n, 112, 112, 3)
    shard: np.ndarray  # (N,) int
    row: np.ndarray  # (N,) int
    label: np.ndarray  # (N,) int64
    process: Callable[[np.ndarray], np.ndarray] | None = None  # what a trainer does to crops before use: uint8 (B, H, W, 3) to the same

    def __len__(self) -> int:
        return len(self.label)

    def crops(self, index: np.ndarray) -> np.ndarray:
        """Crops at `index` (B,): uint8, B×112×112×3, RGB, read from the shards."""
        crops = np.empty((len(index), *self.shards[0].shape[1:]), np.uint8)
        gather(self.shards, self.shard[index], self.row[index], crops)
        return crops if self.process is None else self.process(crops)

    def read(self, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """What `batch` sends to `device`, still in the computer's memory: uint8 (B, 112, 112, 3), RGB, and int64 (B,).

        For a CUDA device in page-locked memory, from which the copy runs beside the computation.
        """
        pinned = device.type == "cuda"
        x_BHWC = torch.empty((len(index), *self.shards[0].shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        if self.process is None:
            gather(self.shards, self.shard[index], self.row[index], x_BHWC.numpy())
        else:
            x_BHWC.copy_(torch.from_numpy(self.crops(index)))
        label_B = torch.from_numpy(self.label[index])
        return x_BHWC, label_B.pin_memory() if pinned else label_B

    def batch(self, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Crops and labels at `index` on `device`: float32 in [0, 1], (B, 3, 112, 112) channels_last; int64 (B,)."""
        return sent(*self.read(index, device), device)

    def where(self, mask: np.ndarray) -> FaceSet:
        """The part of the set where `mask` (N,) holds; shards are shared."""
        return replace(self, shard=self.shard[mask], row=self.row[mask], label=self.label[mask])

    def processed(self, process: Callable[[np.ndarray], np.ndarray] | None) -> FaceSet:
        """The same set, each crop processed whenever it is read; what is on disk stays."""
        return replace(self, process=process)


@dataclass(frozen=True)
class ResidentFaces:
    """A whole set on a device, processed already: the same `batch` as the set it was loaded from, without a read or a copy."""

    x_NHWC: Tensor  # uint8 (N, 112, 112, 3), RGB
    label_N: Tensor  # int64 (N,), on the same device
    label: np.ndarray  # the same numbers for the CPU

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Crops and labels at `index` on `device`, which is the set's own: as `FaceSet.batch`."""
        assert device.type == self.x_NHWC.device.type, f"the set is on {self.x_NHWC.device}, not on {device}"
        index_B = torch.from_numpy(np.asarray(index, np.int64))
        if device.type == "cuda":  # from pageable memory the copy would wait for what the device is doing
            index_B = index_B.pin_memory()
        index_B = index_B.to(self.x_NHWC.device, non_blocking=True)
        return as_floats(self.x_NHWC[index_B]), self.label_N[index_B]


Faces = FaceSet | ResidentFaces


def as_floats(x_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 in [0, 1], (B, 3, H, W), on the same device; the same numbers, to the last bit, on every one.

    By a number on the CPU a GPU does not divide, but multiplies by its reciprocal: the last bit of every other value is another then, and
    after two rounds the noise of a search has another sign in a third of the pixels.
    """
    x_BCHW = x_BHWC.permute(0, 3, 1, 2).float()  # a permuted NHWC array is already channels_last
    return x_BCHW.div_(x_BCHW.new_full((1,), 255.0))


def sent(x_BHWC: Tensor, label_B: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `FaceSet.read` gave as a batch on `device`: uint8 travels, a quarter of the bytes; it becomes float there."""
    return as_floats(x_BHWC.to(device, non_blocking=True)), label_B.to(device, non_blocking=True)


def prefetched(
    faces: Faces, batches: Iterable[np.ndarray], device: torch.device, *, ahead: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """`faces.batch(index, device)` for each index of `batches`, in their order, the next ones read while one is used.

    Args:
        batches: indices (B,) int, taken as they are needed.
        ahead: batches read at the same time, each in a thread of its own; 0: none, each is read when it is asked for. None: 4 for a CUDA
            device, 1 on the CPU, 0 there with a single core, where there is nobody to read ahead.

    Raises:
        StageError: a shard cannot be read; raised when its batch is due.
    """
    if ahead is None:
        ahead = 4 if device.type == "cuda" else min(1, cores() - 1)
    if isinstance(faces, ResidentFaces) or ahead == 0:
        for index in batches:
            yield faces.batch(index, device)
        return
    with closing(read_ahead(faces, batches, device, ahead)) as reading:
        for x_BHWC, label_B in reading:
            yield sent(x_BHWC, label_B, device)


def read_ahead(faces: FaceSet, batches: Iterable[np.ndarray], device: torch.device, ahead: int) -> Generator[tuple[Tensor, Tensor]]:
    """`faces.read(index, device)` for each index of `batches` in order, `ahead` of them being read by threads."""
    readers = ThreadPoolExecutor(ahead, thread_name_prefix="crops")
    under_way: deque[Future[tuple[Tensor, Tensor]]] = deque()
    try:
        for index in batches:
            under_way.append(readers.submit(faces.read, index, device))
            if len(under_way) > ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:  # also where the one who asked has had enough
        readers.shutdown(wait=True, cancel_futures=True)


def resident(faces: FaceSet, device: torch.device, budget_bytes: int | None = None) -> Faces:
    """The whole set on `device` if its crops take at most `budget_bytes`, else `faces` as it is; both have the same `batch`.

    WebFace's 490,623 crops are 18.5 GB. Held crops are processed once, which gives what processing at each read gives: `process` takes
    each crop by itself and is deterministic.

    Args:
        budget_bytes: None: half of what is free on a CUDA device; nothing elsewhere, since reading from the page cache costs little more.
    """
    if budget_bytes is None:
        budget_bytes = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0
    shape = (len(faces), *faces.shards[0].shape[1:])
    if len(faces) == 0 or int(np.prod(shape, dtype=np.int64)) > budget_bytes:
        return faces
    x_NHWC = torch.empty(shape, dtype=torch.uint8, device=device)
    parts = [np.arange(start, min(start + LOAD, len(faces))) for start in range(0, len(faces), LOAD)]
    for part, (x_BHWC, _) in zip(parts, read_ahead(faces, parts, device, 4 if device.type == "cuda" else 1), strict=True):
        x_NHWC[part[0] : part[-1] + 1].copy_(x_BHWC, non_blocking=True)
    return ResidentFaces(x_NHWC, torch.tensor(faces.label, device=device), faces.label)


def face_set(table: Any, folder: Path) -> FaceSet:
    """A set from a DataFrame's rows with columns `shard` (file name in `folder`), `row` and `label`.

    Raises:
        StageError: a shard is missing or damaged, or is shorter than the table says.
    """
    places = crop_table(table, folder)
    return FaceSet(places.shards, places.shard, places.row, table["label"].to_numpy(np.int64))


def embedded(embed: Callable[[np.ndarray], np.ndarray], faces: FaceSet, *, batch: int = 256) -> np.ndarray:
    """What `embed` (uint8 (B, 112, 112, 3), RGB → float32 (B, D)) makes of every face, float32 (N, D), few crops in memory at a time."""
    if len(faces) == 0:
        return np.empty((0, 1), np.float32)
    starts = range(0, len(faces), batch)
    return np.concatenate([embed(faces.crops(np.arange(start, min(start + batch, len(faces))))) for start in starts])


def lay_over(clean: FaceSet, clean_photos: np.ndarray, protected: FaceSet, protected_photos: np.ndarray) -> FaceSet:
    """The clean set with the crops of `protected_photos` (names) taken from `protected`; labels stay the clean set's own."""
    place = {photo: i for i, photo in enumerate(protected_photos)}
    found = np.array([place.get(photo, -1) for photo in clean_photos], np.int64)
    covered = found >= 0
    shard, row = clean.shard.copy(), clean.row.copy()
    shard[covered] = protected.shard[found[covered]] + len(clean.shards)
    row[covered] = protected.row[found[covered]]
    return FaceSet(clean.shards + protected.shards, shard, row, clean.label)
