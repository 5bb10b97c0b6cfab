"""Classifiers on frozen embeddings where they must differ from one another; what they share is in `test_identification.py`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pipeline.evaluation.probes import last_layer_refit, linear_probe, linear_svm, nearest_neighbour


def unit(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_neighbour_goes_by_angle_and_follows_single_photos() -> None:
    # Identity 4 has one photo far from its others: a neighbour finds it, as no single direction of identity 4 could.
    train = unit(np.array([[1, 0.0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0.1]]))
    label = np.array([4, 4, 9, 9, 4])
    assert nearest_neighbour(train, label, unit(np.array([[-1, 0.2], [0.3, 1], [1, 0.3]]))).tolist() == [4, 9, 4]


def test_linear_models_ignore_one_mislabelled_photo() -> None:
    generator = np.random.default_rng(0)
    centre = generator.normal(size=(2, 8))
    train = unit(np.repeat(centre, 30, 0) + generator.normal(0, 0.2, (60, 8)))
    label = np.repeat([3, 5], 30)
    label[0] = 5
    for classify in (linear_svm, linear_probe):
        assert classify(train, label, train[:1]).tolist() == [3], classify.__name__
    assert nearest_neighbour(train, label, train[:1]).tolist() == [5]


def test_linear_probe_converges_on_embeddings_of_usual_size() -> None:
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(60), 8)
    embedding = unit(generator.normal(size=(60, 512))[label] + generator.normal(0, 1.0, (480, 512)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns where it does not converge
        predicted = linear_probe(embedding, label, embedding[::8])
    assert (predicted == np.arange(60)).mean() > 0.95


@pytest.mark.parametrize("photos", [1, 3])
def test_refit_sees_at_most_so_many_photos_an_identity(photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def note(embedding: np.ndarray, label: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        seen.append(np.stack([embedding[:, 0], label]))
        return np.zeros(len(wanted), np.int64)

    monkeypatch.setattr("pipeline.evaluation.probes.linear_probe", note)
    embedding = np.arange(22, dtype=np.float32)[:, None]
    label = np.repeat([2, 7, 8], [10, 10, 2])  # the last has two photos only
    for seed in (0, 0, 1):
        last_layer_refit(embedding, label, embedding, photos=photos, seed=seed)
    first, again, other = seen
    assert np.bincount(first[1].astype(int))[[2, 7, 8]].tolist() == [photos, photos, min(photos, 2)]
    assert (label[first[0].astype(int)] == first[1]).all() and len(np.unique(first[0])) == first.shape[1]
    assert np.array_equal(first, again) and not np.array_equal(first, other)
