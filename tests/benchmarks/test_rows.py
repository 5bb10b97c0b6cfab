"""The rows themselves with tiny parameters: each really runs both sides; on the CPU, the ones for a GPU too. No time is asserted."""

from __future__ import annotations

import math
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ceilings, detect_align, gpu, noise_search, photos, start, training
from benchmarks.crops import block_crops, face_crops
from benchmarks.results import collect
from benchmarks.row import Pair
from pipeline.config import AlignConfig
from pipeline.faces.restore import protect_photo, recropped_noise
from pipeline.runtime import Runtime
from tests.noise.reference import error_on, reference_search


def is_measured(pair: Pair, *, alone: bool = False) -> bool:
    values = [pair.value] if alone else [pair.value, pair.other]
    return all(value is not None and math.isfinite(value) and value > 0 for value in values)


def test_matrix_products_are_timed() -> None:
    assert ceilings.matmul_rate("fp32", 1, side=64, seconds=0) > 0
    assert ceilings.matmul_rate("bf16", 1, side=64, seconds=0) > 0


def test_a_product_that_takes_too_long_is_measured_on_smaller_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def emulated(a: torch.Tensor, _: torch.Tensor) -> float:
        sides.append(len(a))
        return len(a) ** 3 / 2**24  # a second for 256², as emulated bf16 takes

    monkeypatch.setattr(ceilings, "product_seconds", emulated)
    assert ceilings.matmul_rate("bf16", 1, side=1024, seconds=0) == pytest.approx(2 * 2**24 / 1e12)
    assert max(sides) == ceilings.SMALL_SIDE


def test_what_the_machine_can_copy_and_read() -> None:
    assert is_measured(ceilings.copy(mib=1), alone=True)
    assert is_measured(ceilings.disk(mib=1))


def test_crops_are_labelled() -> None:
    for faces in (block_crops(identities=3, photos=2), face_crops(identities=3, photos=2)):
        assert faces.shards[0].shape == (6, 112, 112, 3) and faces.shards[0].dtype == np.uint8
        assert faces.label.tolist() == [0, 0, 1, 1, 2, 2]


def test_plain_protection_solves_the_same_problem() -> None:
    """Otherwise its speed would mean nothing."""
    for photo, matrix, delta in photos.samples(2):
        ours, plain = protect_photo(photo, matrix, delta, photos.EPSILON), photos.plain_protect(photo, matrix, delta, photos.EPSILON)
        assert np.abs(plain.astype(int) - photo).max() == photos.EPSILON
        assert np.abs(plain.astype(int) - ours).mean() < 0.1
        found = [recropped_noise(photo, one, matrix).ravel() for one in (ours, plain)]
        miss = [fmean(np.abs(one - delta.ravel().astype(int))) for one in found]
        assert abs(miss[0] - miss[1]) < 0.2, miss


def test_photos() -> None:
    assert photos.render_rate(count=1) > 0 and photos.jpeg_rate(count=1) > 0
    assert photos.write_rate(ours=True, count=1) > 0 and photos.write_rate(ours=False, count=1) > 0 and photos.encode_rate(count=1) > 0


def test_start() -> None:
    assert is_measured(start.cli_start())
    assert start.seconds_of("-c", "pass", starts=1) > 0
    with pytest.raises(RuntimeError, match="no such thing"):
        start.seconds_of("-c", "raise SystemExit('no such thing')", starts=1)


@pytest.mark.slow
def test_stage_gets_ready() -> None:
    assert start.seconds_of("-c", start.READY, starts=1) > 0


def test_help_imports_nothing_heavy() -> None:
    """What keeps `--help` quick, as a fact that does not depend on the machine's mood."""
    probe = (
        "import sys; from pipeline.__main__ import parser; parser().format_help(); "
        "heavy = sorted({'numpy', 'torch', 'pandas', 'pydantic', 'yaml', 'cv2', 'tqdm'} & set(sys.modules)); "
        "raise SystemExit(f'imported: {heavy}' if heavy else 0)"
    )
    start.seconds_of("-c", probe, starts=1)


@pytest.mark.slow
def test_noise_rows() -> None:
    assert is_measured(noise_search.search_pair(75, identities=2, photos=2, batches=1)())
    assert is_measured(noise_search.search_pair(75, identities=2, photos=2, batches=1, plain_batch=3)())
    assert is_measured(noise_search.round_pair("fp32", identities=2, protected=1, photos=2, batches=1)())
    for size in ({}, {"plain_batch": 3}):
        assert is_measured(noise_search.converged_pair(stop_error=1.0, identities=2, photos=2, batches=1, batch=4, **size)())
    with pytest.raises(RuntimeError, match="did not converge"):
        noise_search.converged_pair(stop_error=1e-6, identities=3, photos=2, batches=1, batch=2, rounds=1)()


def test_plain_search_measures_its_error_apart_and_stops() -> None:
    faces = block_crops(identities=3, photos=3)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * 14 * 14, 3))
    config = noise_search.config_of(rounds=20, batches=2, batch=3, lr=0.003, stop_error=0.01)
    delta, errors = reference_search(config, model, faces.shards[0], faces.label, 2, apart=True)
    assert errors[-1] < 0.01 <= min(errors[:-1], default=1.0) and 1 < len(errors) < 20
    assert errors[-1] == error_on(faces.shards[0], faces.label, list(delta), model)


def test_loops_are_clocked_by_their_optimiser() -> None:
    layer = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    with training.clocked_steps() as times:
        for _ in range(3):
            layer(torch.ones(1, 1)).sum().backward()
            optimiser.step()
    optimiser.step()
    assert len(times) == 3 and times == sorted(times)
    assert training.rate_of([1.0, 2.0, 4.0], 32) == pytest.approx(64 / 3)
    with pytest.raises(RuntimeError, match="1 optimiser steps were seen"):
        training.rate_of([1.0], 32)


@pytest.mark.slow
def test_training_rows() -> None:
    size = {"classes": 4, "batch": 4, "steps": 2}
    assert training.training_rate(75, **size) > 0 and training.plain_rate(75, **size) > 0
    assert training.inference_rate(count=8, input_size=75) > 0 and training.plain_inference_rate(count=8, input_size=75, batch=4) > 0
    # The network's arithmetic by hand: 1.19 GFLOP forward at 112 px, and about twice that backward.
    assert 3.4e9 < training.step_flops(112) < 3.7e9
    assert 1.1e9 < training.asking_flops(112) < 1.25e9 and 2.2e9 < training.asking_flops(112, gradient=True) < 2.5e9
    assert training.reading_rate(count=8, batch=4) > 0


def test_each_row_says_what_it_is_held_against() -> None:
    """Or `--check` could not tell that it became slower; ceilings are what others are held against."""
    rows, _ = collect()
    assert [row.name for row in rows if not row.against and not row.ceiling] == []


@pytest.mark.slow
def test_gpu_rows_run_on_the_cpu(cpu: Runtime) -> None:
    size = {"classes": 4, "batch": 4, "steps": 3, "untimed": 1, "input_size": 75}
    assert is_measured(gpu.train_pair(cpu, **size))
    assert is_measured(gpu.small_pair(lambda: cpu, **size)())
    assert is_measured(gpu.study_pair(cpu, **size, scored=8))
    quick = {"rounds": 1, "batches": 1, "batch": 4, "input_size": 75, "stop_error": 1.0}
    assert is_measured(gpu.noise_pair(cpu, identities=2, photos=2, **quick))


def test_each_row_of_detection_takes_turns_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are measured in turns, so one counter for all would have one row always begin with ours and the other never."""
    calls: list[tuple[str, int]] = []

    def side(name: str, config: AlignConfig, *_: Any) -> float:
        calls.append((name, config.min_face))
        return 1.0

    for name in ("ours", "theirs", "warm"):
        monkeypatch.setattr(detect_align, name, partial(side, name))
    both = [detect_align.speed_pair(AlignConfig(min_face=size), None, 1) for size in (30, 20)]
    for _ in range(3):
        for measure in both:
            measure()
    for size in (30, 20):
        sides = [name for name, least in calls if least == size and name != "warm"]
        assert sides == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
        assert calls.index(("warm", size)) < calls.index(("ours", size))


def test_landmarks_are_held_against_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for distance, found in ((2.7e-5, Pair(0.1, 2.0)), (3.0, Pair(3.0, 2.0)), (math.nan, None)):
        monkeypatch.setattr(detect_align, "compare", lambda *_, far=distance: detect_align.Agreement(1, 1, 1, 1, far, 0))
        measured = detect_align.distance(AlignConfig(), None, 1)
        assert measured == found if found else math.isnan(measured.value), "a face that was not found has no distance"


def test_recorded_and_unrecorded_steps_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[bool] = []

    def rate(runtime: Runtime, **_: Any) -> float:
        replayed.append(runtime.replays)
        return 1.0 + runtime.replays

    monkeypatch.setattr(gpu, "train_rate", rate)
    measure = gpu.small_pair(lambda: Runtime(device="cuda", workers=1, precision="fp32"))
    assert [measure() for _ in range(2)] == [Pair(2.0, 1.0)] * 2
    assert replayed == [True, False, False, True]
