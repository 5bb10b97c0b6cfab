"""Crops in many files, read by index with plain reads: no file stays open, and nothing is held in memory but what was asked for.

A memory map would keep a descriptor a file (WebFace aligned in chunks of 200 photos has 2,500 of them, and a process may often open only
1,024), and every page that was ever touched would count as the process's memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import made_again, missing, whole_file
from pipeline.errors import StageError

MOST_BUFFERS = 1000  # buffers of one read: the least limit of POSIX systems (IOV_MAX) is 1,024


@dataclass(frozen=True)
class Shard:
    """One `.npy` of crops, uint8 N×H×W×3, RGB: what its header says. Indexing reads from disk."""

    path: Path
    shape: tuple[int, ...]  # N, H, W, 3
    offset: int  # bytes before the first crop

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The crops at `rows` (int, slice, or (B,) int), copied."""
        wanted = np.arange(len(self))[rows]
        crops = np.empty((wanted.size, *self.shape[1:]), np.uint8)
        gather([self], np.zeros(wanted.size, np.int64), wanted.ravel(), crops)
        return crops.reshape(*wanted.shape, *self.shape[1:])


def read_fully(descriptor: int, buffers: list[memoryview], offset: int) -> None:
    """Fill `buffers` from `offset` on; `OSError` where the file ends before."""
    count = os.preadv(descriptor, buffers, offset)
    if count == sum(map(len, buffers)):
        return
    for buffer in buffers:  # interrupted: buffer by buffer, what was read once is read again
        done = 0
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
            if count == 0:
                raise OSError("it ends too early")
            done += count
        offset += done


def open_shard(path: Path) -> Shard:
    """Read the header of a shard of crops; `StageError` if it is missing, is none, or is shorter than it says."""
    try:
        with open(path, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read_header(stream)
            offset, size = stream.tell(), os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # a damaged header is parsed as Python, which fails in many ways
        raise StageError(f"{path}: unreadable ({error}); {made_again(path)}") from None
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran_order:
        raise StageError(f"{path}: expected uint8 N×H×W×3, found {dtype} {shape}; {made_again(path)}")
    if size < offset + int(np.prod(shape)):
        raise StageError(f"{path}: {size} bytes are too few for {shape[0]} crops; {made_again(path)}")
    return Shard(path, shape, offset)


def write_shard(path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> Shard:
    """Write crops that come in parts, uint8 (B, H, W, 3) in order, as one `.npy` of `shape`: whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset = stream.tell()
        for part in parts:
            assert part.dtype == np.uint8 and part.shape[1:] == shape[1:]
            stream.write(np.ascontiguousarray(part).data)
        assert stream.tell() == offset + int(np.prod(shape)), f"{path}: the parts do not make up {shape}"
    return Shard(path, shape, offset)


@dataclass(frozen=True)
class CropTable:
    """Where each crop of a table is: crop i is row `row[i]` of `shards[shard[i]]`, a file or an array in memory."""

    shards: tuple[np.ndarray | Shard, ...]
    shard: np.ndarray  # (N,) int64
    row: np.ndarray  # (N,) int64

    def __len__(self) -> int:
        return len(self.row)

    def part(self, index: np.ndarray) -> CropTable:
        """The table of the crops at `index` (B,), with no other shards than theirs."""
        used, shard = np.unique(self.shard[index], return_inverse=True)
        return CropTable(tuple(self.shards[one] for one in used), shard, self.row[index])

    def crops(self, index: np.ndarray) -> np.ndarray:
        """Crops at `index` (B,): uint8, B×H×W×3, RGB."""
        crops = np.empty((len(index), *self.shards[0].shape[1:]), np.uint8)
        gather(self.shards, self.shard[index], self.row[index], crops)
        return crops


def gather(shards: Sequence[np.ndarray | Shard], shard: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """Crop `row[i]` of `shards[shard[i]]` into `out[i]`, in the order in which they lie on disk; neighbours there are one read.

    Args:
        shard, row: int (B,). out: uint8 (B, H, W, 3), contiguous.

    Raises:
        StageError: a file is gone or too short.
    """
    assert out.dtype == np.uint8 and out.flags.c_contiguous and len(shard) == len(row) == len(out)
    order = np.lexsort((row, shard))
    shard, row = shard[order], row[order]
    starts_anew = np.flatnonzero((np.diff(shard) != 0) | (np.diff(row) != 1)) + 1
    bounds = [0, *starts_anew.tolist(), len(order)] if len(order) else []
    flat, size = out.reshape(-1).data, int(np.prod(out.shape[1:]))
    places = order.tolist()
    opened, descriptor, path = -1, -1, Path()
    try:
        for start, end in pairwise(bounds):
            number, first = int(shard[start]), int(row[start])
            source = shards[number]
            assert source.shape[1:] == out.shape[1:]
            if not isinstance(source, Shard):
                out[places[start:end]] = source[first : first + end - start]
                continue
            if number != opened:
                if descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1
                path = source.path
                opened, descriptor = number, os.open(path, os.O_RDONLY)
            for some in range(start, end, MOST_BUFFERS):
                buffers = [flat[place * size : (place + 1) * size] for place in places[some : min(end, some + MOST_BUFFERS)]]
                read_fully(descriptor, buffers, source.offset + (first + some - start) * size)
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error}); {made_again(path)}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def crop_table(table: Any, folder: Path) -> CropTable:
    """Where the crops of a DataFrame's rows are, from its columns `shard` (file name in `folder`) and `row`.

    Raises:
        StageError: a shard is missing or damaged, or is shorter than the table says.
    """
    shard, names = table["shard"].factorize(sort=True)
    shard, row = shard.astype(np.int64), table["row"].to_numpy(np.int64)
    shards = tuple(open_shard(folder / name) for name in names)
    lengths = np.array([len(one) for one in shards], np.int64)
    outside = np.flatnonzero((row < 0) | (row >= lengths[shard]))
    if len(outside):
        code, worst = shard[outside[0]], row[outside[0]]
        path = folder / names[code]
        raise StageError(f"{path}: has {lengths[code]} crops, row {worst} is wanted; {made_again(path)}")
    return CropTable(shards, shard, row)
