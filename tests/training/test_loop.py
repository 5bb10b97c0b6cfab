"""The training loop: seeded, resumable, the same for every arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.errors import StageError
from pipeline.models.recognisers import load_trained, make_recogniser
from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet, lay_over
from pipeline.training.loop import TestPhotos, batches_of_epoch, learning_rate, predict, train_recogniser
from tests.conftest import toy_faces


def halves(faces: FaceSet) -> tuple[FaceSet, TestPhotos]:
    held_out = np.arange(len(faces)) % 4 == 0
    test = faces.where(held_out)
    return faces.where(~held_out), TestPhotos(test, test.label < 1)


def train(config: TrainConfig, faces: FaceSet, cpu: Runtime, folder: Path, report: Any = None) -> tuple[Any, list[dict[str, Any]]]:
    training, test = halves(faces)
    classes = int(faces.label.max()) + 1
    return train_recogniser(
        config, training, test, classes=classes, runtime=cpu, checkpoint=folder / "c.pt", key="k", report=report or (lambda _: None)
    )


@pytest.mark.slow
def test_learns_and_a_killed_run_ends_the_same(cpu: Runtime, tmp_path: Path) -> None:
    faces = toy_faces(identities=3, photos=8)
    config = TrainConfig(epochs=3, batch=6, input_size=75, lr=0.02, dropout=0.2)
    model, history = train(config, faces, cpu, tmp_path / "a")
    assert history[-1]["loss"] < history[0]["loss"]

    class Killed(Exception):
        pass

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(config, faces, cpu, tmp_path / "b", kill)
    epochs: list[int] = []
    resumed, again = train(config, faces, cpu, tmp_path / "b", lambda record: epochs.append(record["epoch"]))
    assert epochs == [2, 3]
    assert [(r["loss"], r["protected"], r["others"]) for r in again] == [(r["loss"], r["protected"], r["others"]) for r in history]
    for one, other in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_initial_weights_and_order_depend_on_the_seed_alone() -> None:
    kind = {"classes": 3, "input_size": 75, "dropout": 0.0, "normalise": True}
    one, same, other = (make_recogniser(**kind, seed=seed).state_dict() for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    orders = [np.concatenate(batches_of_epoch(33, 8, seed=0, epoch=epoch)) for epoch in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert len(orders[0]) == 32  # a last batch of one is left out


def test_schedules() -> None:
    paper = TrainConfig(epochs=50, lr=0.05, schedule="steps", steps_at=(30, 40))
    assert [learning_rate(paper, step=epoch * 10, steps_per_epoch=10) for epoch in (0, 29, 30, 40, 49)] == pytest.approx(
        [0.05, 0.05, 0.005, 0.0005, 0.0005]
    )
    cycle = TrainConfig(epochs=10, lr=0.05, warmup=0.3)
    rates = [learning_rate(cycle, step=step, steps_per_epoch=10) for step in range(100)]
    assert rates[0] == pytest.approx(0.002)
    assert max(rates) == pytest.approx(0.05, rel=1e-3)
    assert 25 < int(np.argmax(rates)) < 35
    assert rates[-1] == pytest.approx(5e-6)


def test_protected_crops_replace_only_their_photos(cpu: Runtime) -> None:
    clean = toy_faces(identities=2, photos=3)
    marked = FaceSet((np.full((2, 112, 112, 3), 7, np.uint8),), np.zeros(2, np.int64), np.arange(2), np.zeros(2, np.int64))
    photos = np.array([f"p{i}" for i in range(6)])
    laid = lay_over(clean, photos, marked, np.array(["p1", "p4"]))
    crops = laid.crops(np.arange(6))
    assert [bool((crop == 7).all()) for crop in crops] == [False, True, False, False, True, False]
    assert np.array_equal(laid.label, clean.label)
    assert np.array_equal(crops[0], clean.shards[0][0])
    x_BCHW, label = laid.batch(np.array([1, 5]), cpu.torch_device())
    assert x_BCHW.shape == (2, 3, 112, 112)
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert float(x_BCHW[0].max()) == pytest.approx(7 / 255)
    assert label.tolist() == [0, 1]


def test_predict_agrees_with_forward(cpu: Runtime) -> None:
    faces = toy_faces(identities=2, photos=3)
    model = make_recogniser(classes=4, input_size=75, dropout=0.5, normalise=True, seed=0).eval()
    labels, embeddings = predict(model, faces, cpu, batch=4)
    with torch.no_grad():
        logits = model(faces.batch(np.arange(6), cpu.torch_device())[0])
    assert labels.tolist() == logits.argmax(1).tolist()
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(StageError, match=r"weights\.safetensors"):
        load_trained(path, classes=2, input_size=75, normalise=True)
    with pytest.raises(StageError, match=r"weights\.safetensors"):
        make_recogniser(classes=2, input_size=75, dropout=0.0, normalise=True, seed=0, weights=path)


def test_real_weights_load(shared: Path) -> None:
    weights = shared / "models" / "inception-resnet-v1-casia-webface.safetensors"
    model = make_recogniser(classes=5, input_size=112, dropout=0.0, normalise=True, seed=0, weights=weights)
    fresh = make_recogniser(classes=5, input_size=112, dropout=0.0, normalise=True, seed=0)
    assert torch.equal(model.head.weight, fresh.head.weight)
    assert not torch.equal(model.network.last_linear.weight, fresh.network.last_linear.weight)
    assert model.network.last_linear.weight.dtype == torch.float32
