"""What a trial's config says is what is trained: the network and its start, and the countermeasure on the photos that it sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.artifacts import read_json
from pipeline.config import AlignConfig, EvaluateConfig, TrainConfig
from pipeline.countermeasures import processing
from pipeline.models.backbones import WIDTH
from pipeline.models.heads import ArcFaceHead
from pipeline.models.recognisers import Recogniser, make_recogniser
from pipeline.training.faces import FaceSet
from pipeline.training.loop import TestPhotos, batches_of_epoch, fit_countermeasure, train_recogniser
from pipeline.training.stage import test_photos, training_set
from pipeline.training.trial import run_trial
from pipeline.training.trials import TRAINERS, trial_of
from tests.conftest import toy_faces
from tests.study import CPU, Study

CLASSES = 3
STILL = TrainConfig(epochs=1, batch=16, input_size=75, lr=1e-30, flip=False)  # so small a rate that no weight moves


def faces() -> tuple[FaceSet, TestPhotos]:
    """Two training photos of each of three people, and one more to be scored."""
    every = toy_faces(identities=CLASSES, photos=3)
    held_out = np.arange(len(every)) % 3 == 0
    scored = every.where(held_out)
    return every.where(~held_out), TestPhotos(scored, scored.label < 1)


def trained(config: TrainConfig, folder: Path) -> tuple[Recogniser, list[dict[str, Any]]]:
    train, test = faces()
    fitted = fit_countermeasure(config, train, classes=CLASSES, runtime=CPU)
    return train_recogniser(
        config, train, test, classes=CLASSES, runtime=CPU, checkpoint=folder / "c.pt", key="k", report=lambda _: None, fitted=fitted
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same parameters, name by name."""
    mine, others = dict(one.named_parameters()), dict(other.named_parameters())
    return mine.keys() == others.keys() and all(torch.allclose(mine[name], others[name]) for name in mine)


def fresh(*, model: str = "inception-resnet-v1", seed: int = STILL.seed) -> Recogniser:
    return make_recogniser(classes=CLASSES, input_size=75, dropout=0.0, normalise=True, seed=seed, model=model)


@pytest.mark.parametrize("model", get_args(TrainConfig.model_fields["model"].annotation))
def test_the_network_asked_for_is_trained(model: str, tmp_path: Path) -> None:
    of_network = [trial.values for trial in TRAINERS.values() if trial.values.get("model") == model]
    (values,) = [{}] if model == STILL.model else of_network  # each other has one trial
    network, _ = trained(STILL.model_copy(update=values), tmp_path)
    assert same(network, fresh(model=model))
    assert isinstance(network.head, nn.Linear)


def test_fine_tuning_starts_from_the_weights_given(tmp_path: Path) -> None:
    weights, pretrained = tmp_path / "w.safetensors", fresh(seed=5)
    save_file(pretrained.tensors(), weights)
    network, _ = trained(STILL.model_copy(update={"weights": str(weights)}), tmp_path)
    assert same(network.network, pretrained.network)
    assert same(network.head, fresh().head), "of its own people, drawn by the run's seed"


def test_an_arcface_trial_trains_with_the_margin_of_its_config(tmp_path: Path) -> None:
    config = STILL.model_copy(update=trial_of("arcface").values | {"model": "mobilefacenet", "arcface_scale": 16.0})
    losses = []
    for margin in (0.0, 0.4):
        network, (record,) = trained(config.model_copy(update={"arcface_margin": margin}), tmp_path)
        assert isinstance(network.head, ArcFaceHead)
        assert (network.head.scale, network.head.margin) == (16.0, margin)
        losses.append(record["loss"])
    assert losses[1] > losses[0] + 1, "the margin is on in training, where the right class is known"


@dataclass
class Seen:
    """What stands in for the network was given: batches to learn (photos, labels or None, and what it answered), photos to name."""

    learned: list[tuple[Tensor, Tensor | None, Tensor]] = field(default_factory=list)
    named: list[Tensor] = field(default_factory=list)
    network: Any = None


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The loop trains a small linear network that keeps all it is shown."""
    found = Seen()

    class Network(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(3 * 14 * 14, WIDTH), nn.Linear(WIDTH, classes)

        def embed_and_classify(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            found.named.append(x_BCHW)
            embedding = self.layer(F.avg_pool2d(x_BCHW, 8).flatten(1))
            return embedding, self.head(embedding)

        def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
            logits = self.head(self.layer(F.avg_pool2d(x_BCHW, 8).flatten(1)))
            if self.training:
                found.learned.append((x_BCHW.detach(), label_B, logits.detach()))
            return logits

    def make(*, classes: int, **_: Any) -> nn.Module:
        torch.manual_seed(0)
        found.network = Network(classes)
        return found.network

    monkeypatch.setattr("pipeline.training.loop.make_recogniser", make)
    return found


def trained_on(name: str, seen: Seen, folder: Path) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """The one batch that training with a countermeasure shows, its photos as they are, their labels, and the epoch's record."""
    _, (record,) = trained(STILL.model_copy(update={"countermeasure": name}), folder)
    train, _ = faces()
    (order,) = batches_of_epoch(len(train), STILL.batch, seed=STILL.seed, epoch=0)
    clean_BCHW, label_B = train.batch(order, torch.device("cpu"))
    ((x_BCHW, _, _),) = seen.learned
    return x_BCHW, clean_BCHW, label_B, record


def as_batch(crops: np.ndarray) -> Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2) / 255


def is_named_as_it_is(seen: Seen) -> bool:
    """Whether the clean test photos were scored untouched."""
    test = faces()[1].faces
    (named,) = seen.named
    return torch.equal(named, as_batch(test.crops(np.arange(len(test)))))


def test_without_a_countermeasure_photos_are_learned_as_they_are(seen: Seen, tmp_path: Path) -> None:
    x_BCHW, clean_BCHW, label_B, _ = trained_on("none", seen, tmp_path)
    assert torch.equal(x_BCHW, clean_BCHW)
    given = seen.learned[0][1]
    assert given is not None and torch.equal(given, label_B)
    assert is_named_as_it_is(seen)


def test_preprocessing_is_of_training_and_of_test_photos(seen: Seen, tmp_path: Path) -> None:
    x_BCHW, clean_BCHW, _, _ = trained_on("grey", seen, tmp_path)
    everyone = (clean_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert torch.allclose(x_BCHW, as_batch(processing.grey(everyone)))
    test = faces()[1].faces
    (named,) = seen.named
    assert torch.allclose(named, as_batch(processing.grey(test.crops(np.arange(len(test))))))


def test_an_augmentation_is_of_training_photos_only(seen: Seen, tmp_path: Path) -> None:
    x_BCHW, clean_BCHW, _, _ = trained_on("cutout", seen, tmp_path)
    black = (x_BCHW == 0).all(1)
    assert (black.sum((1, 2)) >= 28 * 28).all(), "a quarter at least of a square of half the side"
    assert torch.equal(x_BCHW, clean_BCHW.masked_fill(black[:, None], 0.0))
    assert is_named_as_it_is(seen)


def test_mixed_photos_are_learned_with_mixed_names(seen: Seen, tmp_path: Path) -> None:
    x_BCHW, clean_BCHW, label_B, record = trained_on("mixup", seen, tmp_path)
    _, label, logits = seen.learned[0]
    assert label is None, "no margin for a photo of two people"
    apart_BCHW = clean_BCHW - clean_BCHW.roll(1, 0)
    share = float(((x_BCHW - clean_BCHW.roll(1, 0)) * apart_BCHW).sum() / apart_BCHW.square().sum())
    assert 0 < share < 1
    assert torch.allclose(x_BCHW, share * clean_BCHW + (1 - share) * clean_BCHW.roll(1, 0), atol=1e-5)
    target = share * F.one_hot(label_B, CLASSES) + (1 - share) * F.one_hot(label_B.roll(1), CLASSES)
    assert record["loss"] == pytest.approx(float(F.cross_entropy(logits, target)), abs=1e-4)
    assert is_named_as_it_is(seen)


@pytest.mark.parametrize(("name", "most"), [("adversarial-4", 4 / 255), ("ueraser", 1.0)])
def test_hardened_photos_are_harder_for_the_network_at_hand(seen: Seen, tmp_path: Path, name: str, most: float) -> None:
    x_BCHW, clean_BCHW, label_B, record = trained_on(name, seen, tmp_path)
    moved = (x_BCHW - clean_BCHW).abs().amax((1, 2, 3))
    assert (moved > 1 / 255).all() and float(moved.max()) <= most + 1e-6
    with torch.no_grad():
        as_they_are = F.cross_entropy(seen.network.eval()(clean_BCHW), label_B)
    assert record["loss"] > float(as_they_are)
    assert is_named_as_it_is(seen)


class Darker:
    """Stands in for what is fitted on training photos."""

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor:
        return (1 - x_BCHW) / (1 + index_B[:, None, None, None])

    def asked(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW / 2


def test_what_is_fitted_on_training_photos_is_done_to_every_batch(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: dict[str, Any] = {}

    def fit(crops: Any, count: int, label: np.ndarray, classes: int, seed: int, **_: Any) -> Any:
        fitted.update(crops=crops(np.arange(count)), label=label, classes=classes)
        return Darker()

    monkeypatch.setattr("pipeline.countermeasures.catalogue.fit_orthogonal_projection", fit)
    x_BCHW, clean_BCHW, _, _ = trained_on("orthogonal-projection", seen, tmp_path)
    train, _ = faces()
    (order,) = batches_of_epoch(len(train), STILL.batch, seed=STILL.seed, epoch=0)
    assert torch.equal(x_BCHW, (1 - clean_BCHW) / (1 + torch.from_numpy(order)[:, None, None, None])), "which photo it is is known"
    assert np.array_equal(fitted["crops"], train.crops(np.arange(len(train))))
    assert np.array_equal(fitted["label"], train.label) and fitted["classes"] == CLASSES
    test = faces()[1].faces
    (named,) = seen.named
    assert torch.equal(named, as_batch(test.crops(np.arange(len(test)))) / 2)


def test_projected_photos_are_asked_about_projected_and_others_as_they_are(seen: Seen, tmp_path: Path) -> None:
    """In an epoch's score and in a trial's result."""
    study = Study(tmp_path)
    train, test = training_set(study.table(), "clean", study.aligned, study.run), test_photos(study.table(), study.aligned)
    classes = int(study.table()["label"].max()) + 1
    for name in ("orthogonal-projection", "pattern-subtraction"):
        seen.named.clear()
        config = STILL.model_copy(update=trial_of(name).values)
        fitted = fit_countermeasure(config, train, classes=classes, runtime=CPU)
        assert fitted is not None
        run_trial(config, EvaluateConfig(bootstrap=100), AlignConfig(), name, "clean", study.run, study.data, CPU)
        photos = as_batch(test.faces.crops(np.arange(len(test.faces))))
        wanted = fitted.asked(photos)
        assert torch.equal(wanted, photos) == (name == "pattern-subtraction")
        assert len(seen.named) == 2 and all(torch.allclose(named, wanted, atol=1e-5) for named in seen.named)


def test_a_trial_s_result_is_of_test_photos_as_its_trainer_prepares_them(seen: Seen, tmp_path: Path) -> None:
    """Who learned grey photos makes a new photo grey before asking for the name: in each epoch's score and in the result."""
    study = Study(tmp_path)
    for name, prepared in (("grey", processing.grey), ("cutout", np.copy)):
        seen.named.clear()
        seen.learned.clear()
        config = STILL.model_copy(update=trial_of(name).values)
        run_trial(config, EvaluateConfig(bootstrap=100), AlignConfig(), name, "clean", study.run, study.data, CPU)
        train, test = training_set(study.table(), "clean", study.aligned, study.run), test_photos(study.table(), study.aligned)
        wanted = as_batch(prepared(test.faces.crops(np.arange(len(test.faces)))))
        assert len(seen.named) == 2 and all(torch.allclose(named, wanted) for named in seen.named)
        assert sum(len(x_BCHW) for x_BCHW, _, _ in seen.learned) == len(train)
        assert read_json(study.run / "clean" / "trials" / name / "result.json")["trial"] == name
