"""Crops gathered from many files by index."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import shards as module
from pipeline.artifacts import write_array
from pipeline.errors import StageError
from pipeline.shards import Shard, crop_table, gather, open_shard, write_shard


def crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with three shards of different lengths, and what is in them."""
    arrays = {f"crops-{name}.npy": crops(count, count) for name, count in (("b", 7), ("a", 4), ("c", 1))}
    for name, array in arrays.items():
        write_array(tmp_path / name, array)
    return tmp_path, arrays


@pytest.mark.parametrize("most", [1000, 2])
def test_any_index_in_any_order(three: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(module, "MOST_BUFFERS", most)
    folder, arrays = three
    rows = [(name, row) for name, array in arrays.items() for row in range(len(array))]
    generator = np.random.default_rng(0)
    table = pd.DataFrame([rows[i] for i in generator.permutation(len(rows))], columns=["shard", "row"])
    places = crop_table(table, folder)
    wanted = np.stack([arrays[shard][row] for shard, row in zip(table["shard"], table["row"], strict=True)])
    for index in (np.arange(12), np.arange(12)[::-1], np.array([3, 3, 0, 3]), np.array([5]), np.zeros(0, np.int64)):
        assert np.array_equal(places.crops(index), wanted[index])
    in_memory = np.empty_like(wanted)
    names = sorted(arrays)
    gather([arrays[name] for name in names], places.shard, places.row, in_memory)
    assert np.array_equal(in_memory, wanted)


def test_a_shard_is_indexed_like_an_array(three: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, arrays = three
    shard, array = open_shard(folder / "crops-b.npy"), arrays["crops-b.npy"]
    assert shard.shape == array.shape and len(shard) == 7
    for rows in (2, -1, slice(1, 5), np.array([6, 0, 0])):
        assert np.array_equal(shard[rows], array[rows])


def test_reads_that_end_early_go_on(three: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, arrays = three
    whole = os.preadv

    def little(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return whole(descriptor, [buffers[0][:40]], offset)

    monkeypatch.setattr(module.os, "preadv", little)
    assert np.array_equal(open_shard(folder / "crops-b.npy")[:], arrays["crops-b.npy"])


def test_no_file_stays_open(three: tuple[Path, dict[str, np.ndarray]]) -> None:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    folder, arrays = three
    table = pd.DataFrame({"shard": list(arrays), "row": 0})
    crop_table(table, folder).crops(np.arange(3))
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)


def test_damage_is_named(three: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, _ = three
    with pytest.raises(StageError, match=r"crops-b\.npy: has 7 crops, row 7"):
        crop_table(pd.DataFrame({"shard": ["crops-a.npy", "crops-b.npy"], "row": [0, 7]}), folder)
    path = folder / "crops-a.npy"
    shard = open_shard(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"crops-a\.npy: .*too few"):
        open_shard(path)
    with pytest.raises(StageError, match=r"crops-a\.npy: .*too early"):
        shard[:]
    path.unlink()
    for read in (lambda: shard[0], lambda: open_shard(path)):
        with pytest.raises(StageError, match=r"crops-a\.npy"):
            read()
    write_array(path, crops(2).astype(np.int16))
    with pytest.raises(StageError, match="found int16"):
        open_shard(path)
    path.write_bytes(b"no array")
    with pytest.raises(StageError, match="unreadable"):
        open_shard(path)


def test_only_whole_crops_of_the_right_shape_are_read_into(three: tuple[Path, dict[str, np.ndarray]]) -> None:
    shard: Shard = open_shard(three[0] / "crops-a.npy")
    with pytest.raises(AssertionError):
        gather([shard], np.zeros(2, np.int64), np.arange(2), np.empty((2, 5, 6, 3), np.uint8))


def test_written_in_parts_is_what_numpy_writes(tmp_path: Path) -> None:
    array = crops(7)
    write_array(tmp_path / "whole.npy", array)
    shard = write_shard(tmp_path / "parts.npy", array.shape, (array[start : start + 3] for start in range(0, 7, 3)))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert shard == open_shard(tmp_path / "parts.npy")
    with pytest.raises(AssertionError, match="do not make up"):
        write_shard(tmp_path / "short.npy", array.shape, [array[:3]])
    assert not (tmp_path / "short.npy").exists()


def test_a_part_of_a_table_has_its_own_shards_alone(three: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, arrays = three
    places = crop_table(pd.DataFrame({"shard": ["crops-c.npy", "crops-a.npy", "crops-b.npy"], "row": [0, 3, 6]}), folder)
    part = places.part(np.array([2, 0]))
    assert [shard.path.name for shard in part.shards if isinstance(shard, Shard)] == ["crops-b.npy", "crops-c.npy"]
    assert np.array_equal(part.crops(np.array([0, 1])), np.stack([arrays["crops-b.npy"][6], arrays["crops-c.npy"][0]]))
