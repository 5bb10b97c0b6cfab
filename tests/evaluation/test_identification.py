"""Open-set identification and classifiers on frozen embeddings, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import accuracy, identification
from pipeline.evaluation.identification import enrol, identify
from pipeline.evaluation.probes import last_layer_refit, linear_probe, linear_svm, nearest_neighbour


def at_angles(*degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)


def test_templates_are_normalised_means() -> None:
    templates, identities = enrol(at_angles(0, 20, 90), np.array([7, 7, 3]))
    assert identities.tolist() == [3, 7]
    assert templates == pytest.approx(at_angles(90, 10), abs=1e-6)


def test_rank_1_and_the_strangers_threshold() -> None:
    gallery, label = at_angles(0, 90, 180), np.array([0, 1, 2])
    # Identity 0's second probe is nearer to identity 1; identity 2's probe is right but 40 degrees away.
    probe, probe_label = at_angles(5, 50, 95, 140), np.array([0, 0, 1, 2])
    # Ten strangers: the best is 10 degrees off a template, the next 30 degrees, the rest 44 or more.
    stranger = at_angles(-10, 120, *[-44 - i for i in range(8)])
    found = identify(gallery, label, probe, probe_label, stranger, resamples=100, seed=0)
    assert found is not None
    assert found["rank1"] == 0.75
    # One of ten strangers may pass: the threshold is the second best score, cos 30°, which the probe at 140° does not reach.
    assert found["tpir_at_fpir"] == {"0.01": None, "0.1": 0.5}
    assert (found["identities"], found["gallery"], found["probes"], found["strangers"]) == (3, 3, 4, 10)
    alone = identify(gallery[:1], label[:1], probe[:2], probe_label[:2], stranger, resamples=100, seed=0)
    assert alone is not None and alone["rank1"] is None, "one person in the gallery is every probe's best match"
    assert identify(gallery[:0], label[:0], probe, probe_label, stranger, resamples=100, seed=0) is None


def test_scores_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    (gallery, label), (probe, wanted), (stranger, _) = clusters(3, 1), clusters(5, 2), clusters(7, 3)
    whole = identify(gallery, label, probe, wanted, stranger[::2], resamples=200, seed=0)
    monkeypatch.setattr(identification, "SCORES", 25)
    monkeypatch.setattr(accuracy, "RESAMPLED", 13)
    assert identify(gallery, label, probe, wanted, stranger[::2], resamples=200, seed=0) == whole
    monkeypatch.setattr(identification, "MOST_PROBES", 10)
    few = identify(gallery, label, probe, wanted, stranger, resamples=200, seed=0)
    assert few is not None and whole is not None
    assert (few["probes"], whole["probes"]) == (10, 30)
    assert few["rank1"] * 10 == pytest.approx(round(few["rank1"] * 10))


def clusters(photos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    centre = np.random.default_rng(0).normal(size=(6, 16))
    points = np.repeat(centre, photos, 0) + np.random.default_rng(seed).normal(0, 0.3, (6 * photos, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(6) * 3, photos)


@pytest.mark.parametrize("classify", [nearest_neighbour, linear_svm, linear_probe])
def test_classifiers_on_embeddings(classify) -> None:
    train, label = clusters(8, 1)
    test, wanted = clusters(5, 2)
    assert (classify(train, label, test) == wanted).mean() > 0.95
    shuffled = np.random.default_rng(3).permutation(label)
    assert (classify(train, shuffled, test) == wanted).mean() < 0.6


def test_refit_needs_few_photos_and_depends_on_its_seed_alone() -> None:
    train, label = clusters(8, 1)
    test, wanted = clusters(5, 2)
    first = last_layer_refit(train, label, test, photos=2, seed=0)
    assert (first == wanted).mean() > 0.8
    assert np.array_equal(first, last_layer_refit(train, label, test, photos=2, seed=0))
    # With one photo each from a poisoned set where labels are permuted, nothing is left.
    assert (last_layer_refit(train, np.roll(label, 8), test, photos=8, seed=0) == wanted).mean() < 0.2
