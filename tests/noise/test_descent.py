"""Descent of noise against networks that stay as they are: several at once, through transforms, and after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.noise import descent
from pipeline.noise.cloak import leave
from pipeline.noise.descent import Objective, descend
from pipeline.noise.transforms import transformed
from tests.conftest import toy_faces
from tests.study import CPU

FACES = toy_faces(identities=2, photos=3)
SETTINGS: dict[str, Any] = {
    "rows": 6, "epsilon": 16, "steps": 6, "travel": 2.5, "batch": 4, "runtime": CPU, "seed": 1, "report": lambda _step, _loss: None,
}  # fmt: skip


class Pixels:
    """A network whose embedding is a thumbnail of one colour."""

    def __init__(self, colour: int, strength: float = 1.0) -> None:
        self.colour, self.strength = colour, strength

    def embed(self, x_BCHW: Tensor) -> Tensor:
        shown = (x_BCHW[:, self.colour : self.colour + 1] - 0.5) * self.strength
        return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(shown, 28).flatten(1), dim=1)


def objective(network: Pixels) -> tuple[Objective, np.ndarray, np.ndarray]:
    """Leave one's own mean for the other's; own means and targets by label (2, D)."""
    x_BCHW, label_B = FACES.batch(np.arange(6), torch.device("cpu"))
    own = torch.nn.functional.normalize(torch.stack([network.embed(x_BCHW)[label_B == label].mean(0) for label in (0, 1)]), dim=1)
    return leave(network, own, own.flip(0)), own.numpy(), own.flip(0).numpy()


def seen_by(network: Pixels, delta: np.ndarray) -> np.ndarray:
    x_BCHW, _ = FACES.batch(np.arange(6), torch.device("cpu"))
    return network.embed((x_BCHW + torch.from_numpy(delta) / 255).clamp(0, 1)).numpy()


@pytest.mark.parametrize("transforms", [False, True])
def test_each_of_several_networks_sees_somebody_else(transforms: bool) -> None:
    networks = Pixels(0), Pixels(2)
    (red, *_), (blue, *_) = map(objective, networks)
    delta = descend([red, blue], FACES, np.arange(6), transforms=transforms, **SETTINGS)[0]
    assert np.abs(delta).max() <= 16
    for network in networks:
        _, own, target = objective(network)
        clean, cloaked = seen_by(network, np.zeros_like(delta)), seen_by(network, delta)
        moved = ((cloaked - clean) * (target - own)[FACES.label]).sum(1)
        assert (moved.mean() if transforms else moved.min()) > 0.1
        assert ((clean - cloaked) * own[FACES.label]).sum() > 0.1
    assert not np.array_equal(delta, descend([red], FACES, np.arange(6), transforms=transforms, **SETTINGS)[0])


def test_networks_in_turn_are_asked_one_a_pass_beside_the_others() -> None:
    asked: list[str] = []

    def told(name: str, colour: int) -> descent.Objective:
        loss = objective(Pixels(colour))[0]

        def telling(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
            asked.append(name)
            return loss(x_BCHW, label_B)

        return telling

    delta = descend([told("each", 0)], FACES, np.arange(6), in_turn=[told("even", 1), told("odd", 2)], **SETTINGS)[0]
    passes = [["each", "odd" if number % 2 else "even"] for number in range(1, SETTINGS["steps"] + 1)]
    assert asked == [name for one in passes for name in one * 2], "photos in batches of four, then two"
    for colour in range(3):
        network = Pixels(colour)
        _, own, target = objective(network)
        moved = ((seen_by(network, delta) - seen_by(network, np.zeros_like(delta))) * (target - own)[FACES.label]).sum(1)
        assert moved.min() > 0.05


def test_no_network_speaks_louder_than_another() -> None:
    red, blue = (objective(Pixels(colour))[0] for colour in (0, 2))

    def loud(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        return 1000 * red(x_BCHW, label_B)

    alike = [descend([one, blue], FACES, np.arange(6), **SETTINGS)[0] for one in (red, loud)]
    assert np.abs(alike[0] - alike[1]).max() < 1e-3


def test_photos_are_transformed_anew_in_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def watch(x_BCHW: Tensor, changes: Any) -> Tensor:
        drawn.append(changes.size.tolist())
        return transformed(x_BCHW, changes)

    monkeypatch.setattr(descent, "transformed", watch)
    descend([objective(Pixels(0))[0]], FACES, np.arange(6), transforms=True, **SETTINGS)
    assert len(drawn) == 2 * SETTINGS["steps"], "photos in batches of four, then two"
    assert len({tuple(one) for one in drawn}) == len(drawn)


def test_a_share_of_photos_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[int] = []

    def watch(x_BCHW: Tensor, changes: Any) -> Tensor:
        changed.append(len(x_BCHW))
        return torch.full_like(transformed(x_BCHW, changes), 0.25)

    def seen(x_BCHW: Tensor, _label_B: Tensor) -> Tensor:
        shown.append(int((x_BCHW == 0.25).flatten(1).all(1).sum()))
        return x_BCHW.mean((1, 2, 3))

    monkeypatch.setattr(descent, "transformed", watch)
    for untouched, least, most in ((0.0, 36, 36), (0.5, 8, 28), (1.0, 0, 0)):
        changed.clear()
        shown: list[int] = []
        descend([seen], FACES, np.arange(6), transforms=True, untouched=untouched, **SETTINGS)
        assert least <= sum(changed) <= most, "of six photos in six passes"
        assert sum(shown) == sum(changed), "what was transformed is what the network sees"


def test_momentum_keeps_a_direction_that_one_pass_alone_speaks_against() -> None:
    def found(momentum: float) -> np.ndarray:
        passes = [1]

        def brighter_but_once(x_BCHW: Tensor, _label_B: Tensor) -> Tensor:
            return x_BCHW.mean((1, 2, 3)) * (1 if passes[0] == 3 else -1)

        settings = SETTINGS | {"report": lambda number, _loss: passes.__setitem__(0, number + 1), "travel": 0.6}
        return descend([brighter_but_once], FACES, np.arange(6), momentum=momentum, **settings)[0]

    without, kept = found(0.0), found(0.9)
    step = 0.6 * 16 / SETTINGS["steps"]
    free = np.abs(kept) < 15  # neither stopped at epsilon
    assert free.any() and np.allclose((kept - without)[free], 2 * step, atol=1e-3)


def test_a_descent_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_SECONDS", -1)
    objectives = [objective(Pixels(colour))[0] for colour in (0, 2)]
    how = {"transforms": True, "untouched": 0.5, "momentum": 0.9}
    whole = descend(objectives, FACES, np.arange(6), **how, **SETTINGS)[0]

    def killed(number: int, _loss: float) -> None:
        if number == 4:
            raise KeyboardInterrupt

    class Clock:
        now, tick = 0.0, 1.0

        def perf_counter(self) -> float:
            self.now += self.tick
            return self.now

    monkeypatch.setattr(descent, "time", clock := Clock())
    passes: list[int] = []
    kept: dict[str, Any] = how | {"checkpoint": tmp_path / "checkpoint.pt", "key": "k"}
    with pytest.raises(KeyboardInterrupt):
        descend(objectives, FACES, np.arange(6), **SETTINGS | {"report": killed}, **kept)
    clock.tick = 0.0
    found, seconds = descend(objectives, FACES, np.arange(6), **SETTINGS | {"report": lambda number, _loss: passes.append(number)}, **kept)
    assert seconds > 3, "what three passes took before the kill"
    assert passes == [4, 5, 6] and "going on from there" in capsys.readouterr().err
    assert np.array_equal(found, whole)
    passes.clear()
    again: dict[str, Any] = SETTINGS | kept | {"report": lambda number, _loss: passes.append(number), "key": "other"}
    descend(objectives, FACES, np.arange(6), **again)
    assert passes[0] == 1, "another search's state is not taken"
