from __future__ import annotations

import numpy as np

from pipeline.faces.choose import AMBIGUOUS, NO_FACE, choose_faces
from pipeline.faces.describe import describe_hog, whiten


def face(person: int, look: int, size: int = 64) -> np.ndarray:
    """A descriptor: the person's direction and some noise, unit norm."""
    found = np.random.default_rng(person).normal(size=size) + 0.4 * np.random.default_rng((person, look)).normal(size=size)
    return (found / np.linalg.norm(found)).astype(np.float32)


def photos(*people: tuple[int, ...]) -> list[np.ndarray]:
    """One photo for each tuple of persons, in its order."""
    return [
        np.stack([face(person, 100 * look + person) for person in some]) if some else np.empty((0, 64), np.float32)
        for look, some in enumerate(people)
    ]


def sizes(*some: tuple[float, ...]) -> list[np.ndarray]:
    return [np.array(one) for one in some]


def test_the_face_that_agrees_not_the_largest() -> None:
    found = choose_faces(photos((1,), (1,), (1,), (2, 1), (1, 2), ()), sizes((50,), (50,), (50,), (90, 40), (40, 90), ()))
    assert found == [0, 0, 0, 1, 0, NO_FACE]


def test_groups_alone_agree_with_each_other() -> None:
    found = choose_faces(photos((1, 2), (3, 1), (1, 4), (5, 1)), sizes((90, 40), (40, 90), (60, 50), (50, 40)))
    assert found == [0, 1, 0, 1]  # the largest is wrong in the last


def test_a_single_face_is_taken_whatever_it_is_like() -> None:
    assert choose_faces(photos((1,), (2,)), sizes((50,), (50,))) == [0, 0]


def test_nothing_to_compare_with_is_ambiguous() -> None:
    assert choose_faces(photos((1, 2)), sizes((90, 40))) == [AMBIGUOUS]
    assert choose_faces([], []) == []


def test_two_strangers_are_ambiguous() -> None:
    group = np.stack([face(7, 1), face(7, 1)])
    assert choose_faces([*photos((1,), (1,), (1,)), group], sizes((50,), (50,), (50,), (80, 30)))[3] == AMBIGUOUS


def test_one_bad_single_does_not_turn_the_others() -> None:
    found = choose_faces(photos(*[(1,)] * 8, (9,), (9, 1)), sizes(*[(50,)] * 9, (90, 40)))
    assert found[9] == 1


def test_hog_is_unit_and_does_not_see_brightness() -> None:
    crops = np.random.default_rng(0).integers(0, 120, (3, 112, 112, 3), np.uint8)
    found = describe_hog(np.concatenate([crops, 2 * crops]))
    assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (found[:3] * found[3:]).sum(1).min() > 0.995
    assert np.isfinite(describe_hog(np.zeros((1, 112, 112, 3), np.uint8))).all()
    assert describe_hog(np.empty((0, 112, 112, 3), np.uint8)).shape[0] == 0


def test_whitening_tells_persons_apart() -> None:
    common = np.random.default_rng(0).normal(size=64) * 5
    described = np.stack([face(person, look) + common for person in range(8) for look in range(6)]).astype(np.float32)
    found = whiten(described)
    cosines = (found @ found.T).reshape(8, 6, 8, 6)
    same = np.mean([cosines[person, :, person].mean() for person in range(8)])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert same > cosines.mean() + 0.2
    few = described[:5]
    assert whiten(few) is few


def test_whitening_is_by_principal_components() -> None:
    for count, size in ((30, 50), (60, 25)):
        described = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
        basis, spread, _ = np.linalg.svd(described.astype(np.float64) - described.mean(0), full_matrices=False)
        variance = spread**2
        expected = basis * spread / np.sqrt(variance + 0.5 * variance.mean())
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        found = whiten(described)
        assert found.shape == (count, min(count, size)) and np.allclose(found @ found.T, expected @ expected.T, atol=1e-5)
