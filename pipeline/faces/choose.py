"""Which face of a group photo is the identity's: the one that agrees with the identity's other photos, not just the largest."""

from __future__ import annotations

import numpy as np

NO_FACE, AMBIGUOUS = "no face", "ambiguous"
ENOUGH = 3  # photos with one face, from which on they alone say what the identity looks like
CERTAINTY = 1.0  # how many standard errors the best face must be ahead of the second, or the photo is ambiguous
ROUNDS = 10


def choose_faces(candidates: list[np.ndarray], sizes: list[np.ndarray]) -> list[int | str]:
    """Choose the identity's face in each of its photos.

    A face's score is its mean likeness to the faces taken in the identity's other photos: in those with one face if there are `ENOUGH` of
    them, otherwise in all, beginning with the largest and repeated until nothing changes. A photo whose best face is not clearly ahead of
    the second, as the other photos see it, or that has nothing to be compared with, is ambiguous.

    Args:
        candidates: of each photo, the descriptors of its faces, float32 N×D, unit norm.
        sizes: of each photo, the sizes of its faces, N, px.

    Returns:
        Of each photo, the index of the face, or 'no face', or 'ambiguous'.
    """
    assert len(candidates) == len(sizes) and all(len(faces) == len(some) for faces, some in zip(candidates, sizes, strict=True))
    alone = [index for index, faces in enumerate(candidates) if len(faces) == 1]
    groups = [index for index, faces in enumerate(candidates) if len(faces) > 1]
    taken = {index: int(np.argmax(sizes[index])) for index in groups} | dict.fromkeys(alone, 0)
    told = alone if len(alone) >= ENOUGH else sorted(taken)
    unsure: set[int] = set()
    for _ in range(ROUNDS):
        before = dict(taken)
        unsure.clear()
        for index in groups:
            others = [candidates[other][before[other]] for other in told if other != index]
            if not others:
                unsure.add(index)
                continue
            likeness = candidates[index] @ np.stack(others).T  # faces × other photos
            second, best = np.argsort(likeness.mean(1), kind="stable")[-2:]
            taken[index] = int(best)
            if not clearly_ahead(likeness[best] - likeness[second]):
                unsure.add(index)
        if taken == before:
            break
    return [AMBIGUOUS if index in unsure else taken.get(index, NO_FACE) for index in range(len(candidates))]


def clearly_ahead(lead: np.ndarray) -> bool:
    """Whether the mean of `lead` (N,), one face's likeness to each other photo less another's, is more than chance.

    In standard errors, because the likeness of weak descriptors is on a smaller scale than that of strong ones.
    """
    if len(lead) == 1:
        return bool(lead[0] > 0.01)
    return bool(lead.mean() > CERTAINTY * max(float(lead.std(ddof=1)), 1e-6) / np.sqrt(len(lead)))
