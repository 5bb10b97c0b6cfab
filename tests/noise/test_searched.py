"""What is checked before a search begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import write_json, write_table
from pipeline.config import NoiseConfig
from pipeline.errors import StageError
from pipeline.noise.against import against_networks
from pipeline.noise.arms import arm_of
from pipeline.noise.searched import check_memory
from pipeline.noise.table import load_noise
from pipeline.runtime import Runtime, free_memory
from tests.study import Study


def test_a_table_that_does_not_fit_is_refused_before_the_search(cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def free(device: str) -> int | None:
        asked.append(device)
        return 16 * 2**30

    monkeypatch.setattr("pipeline.noise.searched.free_memory", free)
    check_memory(10_575, arm_of("error-min"), cpu)
    with pytest.raises(StageError, match=r"392499 patterns, one per photo, takes at least 110\.0 GiB of memory; 16\.0 GiB are free on cpu"):
        check_memory(392_499, arm_of("error-min-samplewise"), cpu)
    assert asked == ["cpu", "cpu"]
    monkeypatch.setattr("pipeline.noise.searched.free_memory", lambda _: None)
    check_memory(392_499, arm_of("error-min-samplewise"), cpu)


def test_noise_against_a_surrogate_that_was_not_trained_is_refused(tmp_path: Path, cpu: Runtime) -> None:
    said = "has no trained network, against which {} noise is made: train the arm `{}` first"

    def ask(arm: str) -> None:
        against_networks(NoiseConfig(arm=arm), arm_of(arm), None, (), tmp_path, tmp_path, tmp_path, tmp_path, cpu)

    for arm in ("tap", "tap-ensemble", "cloak-tap"):
        with pytest.raises(StageError, match=said.format(arm, "surrogate")):
            ask(arm)
    write_json(tmp_path / "surrogate" / "model" / "train.json", {})
    with pytest.raises(StageError, match=said.format("tap-ensemble", "surrogate-mobilefacenet")):
        ask("tap-ensemble")


@pytest.mark.parametrize("arm", ["tap-ensemble", "fawkes", "cloak", "cloak-tap"])
def test_people_whom_no_search_sees_may_be_trained_on(tmp_path: Path, arm: str) -> None:
    """Of WebFace a few are auxiliary; the recogniser learns the rest, too, and so has a class for each."""
    study = Study(tmp_path)
    study.surrogates()
    table = pd.read_parquet(study.split)
    roles = np.array(["protected", "protected", "auxiliary", "auxiliary", "other"])
    write_table(study.split, table.assign(role=roles[table["label"]]))
    study.noise(arm, steps=1)
    noise, _ = load_noise(study.run / arm)
    table = study.table().query("role == 'protected'")
    assert set(noise.names) == set((table if arm_of(arm).published else table.query("part == 'train'"))["photo"])


def test_free_memory_of_this_machine_is_a_part_of_what_it_has() -> None:
    with open("/proc/meminfo", encoding="ascii") as info:
        total = int(next(line for line in info if line.startswith("MemTotal:")).split()[1]) * 1024
    free = free_memory("cpu")
    assert free is not None and 0 < free < total
