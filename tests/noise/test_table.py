"""Signed noise on disk and on crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.noise.backdoor import trigger_patches
from pipeline.noise.lsp import linearly_separable_patches
from pipeline.noise.random import random_noise
from pipeline.noise.table import NoiseTable, add_noise, load_noise, quantise, save_noise


@given(st.integers(0, 255), st.integers(-64, 64))
def test_negative_noise_is_kept_and_nothing_wraps(pixel: int, noise: int) -> None:
    crop = np.full((1, 4, 4, 3), pixel, np.uint8)
    delta = np.full((1, 3, 4, 4), noise, np.int8)
    assert (add_noise(crop, delta) == min(255, max(0, pixel + noise))).all()


def test_channels_stay_in_place() -> None:
    delta = np.zeros((3, 4, 4), np.int8)
    delta[2, 1, 3] = 9
    changed = np.argwhere(add_noise(np.zeros((1, 4, 4, 3), np.uint8), delta))
    assert changed.tolist() == [[0, 1, 3, 2]]


def test_random_noise_is_uniform_signed_and_seeded() -> None:
    delta = random_noise(rows=3, epsilon=16, seed=0)
    assert delta.dtype == np.int8
    assert (delta.min(), delta.max()) == (-16, 16)
    assert abs(delta.mean()) < 0.2
    assert np.array_equal(delta, random_noise(rows=3, epsilon=16, seed=0))
    assert not np.array_equal(delta, random_noise(rows=3, epsilon=16, seed=1))


def test_drawn_patterns_are_one_a_row_and_of_their_kind() -> None:
    for draw in (random_noise, linearly_separable_patches, trigger_patches):
        assert len({one.tobytes() for one in draw(rows=5, epsilon=16, seed=0)}) == 5
    blocks = linearly_separable_patches(rows=2, epsilon=16, seed=0).reshape(2, 3, 14, 8, 14, 8)
    assert (blocks == blocks[:, :, :, :1, :, :1]).all() and set(np.unique(blocks)) == {-16, 16}
    assert len({block.tobytes() for block in blocks[0, :, :, 0, :, 0].transpose(1, 2, 0).reshape(-1, 3)}) > 4, "not one colour"
    trigger = trigger_patches(rows=2, epsilon=16, seed=0)
    assert (trigger[:, :, -16:, -16:] != 0).all()
    trigger[:, :, -16:, -16:] = 0
    assert not trigger.any(), "nothing outside the corner"


def test_round_trip_and_damage(tmp_path: Path) -> None:
    names = ("a", "<script>", "ü b")
    table = NoiseTable(random_noise(rows=3, epsilon=4, seed=0, size=8), names, 4)
    for left_over in (".noise.safetensors.1.tmp", ".tmplRN9OS"):  # of runs that were killed in the middle of it
        (tmp_path / left_over).write_bytes(b"half")
    save_noise(tmp_path, table, {"method": "random", "converged": None})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.json", "noise.safetensors"]
    read, facts = load_noise(tmp_path)
    assert np.array_equal(read.delta, table.delta)
    assert read.names == names
    assert facts["method"] == "random"
    path = tmp_path / "noise.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StageError, match=r"noise\.safetensors"):
        load_noise(tmp_path)


def test_quantise_rounds_within_epsilon() -> None:
    assert quantise(np.array([-16.4, -0.6, 0.4, 15.6, 99.0]), 16).tolist() == [-16, -1, 0, 16, 16]
    with pytest.raises(AssertionError, match="epsilon"):
        NoiseTable(np.full((1, 3, 2, 2), 17, np.int8), ("a",), 16)
    many = np.random.default_rng(0).normal(0, 12, (600, 3, 2, 2))
    assert np.array_equal(quantise(many, 16), np.clip(np.rint(many), -16, 16))
    for extreme in (-16, 16):
        NoiseTable(np.full((1, 3, 2, 2), extreme, np.int8), ("a",), 16)
    with pytest.raises(AssertionError, match="epsilon"):
        NoiseTable(np.full((1, 3, 2, 2), -128, np.int8), ("a",), 16)
