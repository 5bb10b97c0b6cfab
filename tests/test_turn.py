"""Stages that go to a GPU one after the other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from pipeline.distributed import Ranks
from pipeline.runtime import Runtime, turn


def waits(path: Path, holder: Runtime, other: Runtime) -> bool:
    """Whether `other` has to wait for its turn while `holder` has its own; it gets it afterwards."""
    inside = threading.Event()

    def take() -> None:
        with turn(path, other):
            inside.set()

    waiting = threading.Thread(target=take)
    with turn(path, holder):
        waiting.start()
        waited = not inside.wait(0.5)
    waiting.join(10)
    assert inside.is_set()
    return waited


def on(device: str, *, ranks: int = 1) -> Runtime:
    return Runtime(device=device, workers=1, precision="fp32", ranks=Ranks(rank=0, size=ranks, local=0))


@pytest.mark.parametrize(
    ("holder", "other", "waited"),
    [
        (on("cuda"), on("cuda"), True),
        (on("cuda:1"), on("cuda:1"), True),
        (on("cuda:0"), on("cuda:1"), False),
        (on("cpu"), on("cpu"), False),
        (on("cuda", ranks=2), on("cuda", ranks=2), False),
    ],
)
def test_a_gpu_has_one_stage_of_a_run_at_a_time(tmp_path: Path, holder: Runtime, other: Runtime, waited: bool) -> None:
    assert waits(tmp_path, holder, other) == waited


def test_stages_that_fail_give_their_turn_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="failed"), turn(tmp_path, on("cuda")):
        raise ValueError("failed")
    assert waits(tmp_path, on("cuda"), on("cuda"))


def test_who_goes_leaves_the_memory_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: said.append("given back"))

    def next_one() -> None:
        with turn(tmp_path, on("cuda")):
            said.append("next")

    waiting = threading.Thread(target=next_one)
    with turn(tmp_path, on("cuda")):
        waiting.start()
        waiting.join(0.2)
        said.append("done")
    waiting.join(10)
    assert said == ["done", "given back", "next", "given back"]
