"""Sets of crops: read ahead or held on the device, batches are the same to the last bit, on a GPU too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.artifacts import write_array
from pipeline.countermeasures import processing
from pipeline.errors import StageError
from pipeline.training.faces import FaceSet, ResidentFaces, face_set, prefetched, resident

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Process = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[FaceSet, np.ndarray]:
    """60 crops in three shards, in mixed order, and the same crops in memory."""
    crops = np.random.default_rng(0).integers(0, 256, (60, 112, 112, 3), dtype=np.uint8)
    for part in range(3):
        write_array(tmp_path / f"crops-{part}.npy", crops[20 * part : 20 * part + 20])
    order = np.random.default_rng(1).permutation(60)
    table = pd.DataFrame({"shard": [f"crops-{i // 20}.npy" for i in order], "row": order % 20, "label": order % 7})
    return face_set(table, tmp_path), crops[order]


def batches() -> list[np.ndarray]:
    order = np.random.default_rng(2).permutation(60)
    return [order[start : start + 8] for start in range(0, 60, 8)]


def plain(crops: np.ndarray, index: np.ndarray) -> torch.Tensor:
    """A batch as one would write it: mapped crops, to float, divided."""
    return torch.from_numpy(crops[index]).permute(0, 3, 1, 2).float().div_(255)


def same(x_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> bool:
    """To the last bit."""
    return torch.equal(x_BCHW.cpu(), wanted_BCHW)


@pytest.mark.parametrize("process", [None, processing.grey])
@pytest.mark.parametrize("ahead", [0, 1, 3, None])
def test_prefetched_is_batch(on_disk: tuple[FaceSet, np.ndarray], device: torch.device, ahead: int | None, process: Process | None) -> None:
    faces, crops = on_disk
    faces = faces.processed(process)
    seen = crops if process is None else process(crops)
    found = list(prefetched(faces, iter(batches()), device, ahead=ahead))
    assert len(found) == len(batches())
    for index, (x_BCHW, label_B) in zip(batches(), found, strict=True):
        assert x_BCHW.device.type == label_B.device.type == device.type
        assert x_BCHW.is_contiguous(memory_format=torch.channels_last) and x_BCHW.dtype == torch.float32
        assert same(x_BCHW, plain(seen, index))
        assert np.array_equal(label_B.cpu().numpy(), faces.label[index])
        once = faces.batch(index, device)
        assert torch.equal(once[0], x_BCHW) and torch.equal(once[1], label_B)
        assert once[0].stride() == x_BCHW.stride()


@pytest.mark.parametrize("process", [None, processing.grey])
def test_resident_is_batch(on_disk: tuple[FaceSet, np.ndarray], device: torch.device, process: Process | None) -> None:
    faces, crops = on_disk
    faces = faces.processed(process)
    assert resident(faces, device, crops.nbytes - 1) is faces
    held = resident(faces, device, crops.nbytes)
    assert isinstance(held, ResidentFaces) and len(held) == len(faces)
    assert held.x_NHWC.device.type == device.type
    assert np.array_equal(held.label, faces.label)
    for index, (x_BCHW, label_B) in zip(batches(), prefetched(held, batches(), device), strict=True):
        wanted = faces.batch(index, device)
        assert torch.equal(x_BCHW, wanted[0]) and torch.equal(label_B, wanted[1])
        assert x_BCHW.stride() == wanted[0].stride()


def test_nothing_is_held_on_the_cpu_unasked(on_disk: tuple[FaceSet, np.ndarray]) -> None:
    assert resident(on_disk[0], torch.device("cpu")) is on_disk[0]


def test_batches_are_taken_as_needed(on_disk: tuple[FaceSet, np.ndarray], device: torch.device) -> None:
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(len(taken))
            yield np.arange(4)

    reading = prefetched(on_disk[0], endless(), device, ahead=2)
    next(reading)
    assert len(taken) == 3
    reading.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_a_read_that_fails_is_raised_where_it_is_due(on_disk: tuple[FaceSet, np.ndarray], device: torch.device) -> None:
    faces, crops = on_disk
    first = np.flatnonzero(faces.shard == 0)[:4]
    missing = np.flatnonzero(faces.shard == 2)[:4]
    reading = prefetched(faces, [first, missing, first], device, ahead=1)
    Path(faces.shards[2].path).unlink()
    assert same(next(reading)[0], plain(crops, first))
    with pytest.raises(StageError, match=r"crops-2\.npy"):
        next(reading)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]
