"""Crops for benchmarks: blocks where only time counts, rendered faces where a search has to converge."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.training.faces import FaceSet


def block_crops(*, identities: int, photos: int, seed: int = 0) -> FaceSet:
    """Crops of random 8×8 blocks, half of them the identity's own: as good as faces for timing, and quickly told apart."""
    import numpy as np

    random = np.random.default_rng(seed)
    own = random.integers(0, 256, (identities, 1, 14, 14, 3))
    each = random.integers(0, 256, (identities, photos, 14, 14, 3))
    small = np.where(random.random((identities, 1, 14, 14, 1)) < 0.5, own, each).astype(np.uint8)
    return labelled(small.reshape(-1, 14, 14, 3).repeat(8, axis=1).repeat(8, axis=2), photos)


@cache
def face_crops(*, identities: int, photos: int, seed: int = 0) -> FaceSet:
    """Crops of the synthetic people, aligned by the renderer's own landmarks."""
    import numpy as np

    from pipeline.faces.geometry import similarity_transform, warp_crop
    from pipeline.photos.synthetic import photo_landmarks, render_photo

    crops = []
    for identity in range(identities):
        for photo in range(photos):
            matrix = similarity_transform(photo_landmarks(seed=seed, identity=identity, photo=photo))
            crops.append(warp_crop(render_photo(seed=seed, identity=identity, photo=photo), matrix))
    return labelled(np.stack(crops), photos)


def labelled(crops, photos: int) -> FaceSet:
    """A set of one shard, `photos` crops an identity: uint8 (N, 112, 112, 3)."""
    import numpy as np

    from pipeline.training.faces import FaceSet

    count = len(crops)
    return FaceSet((crops,), np.zeros(count, np.int64), np.arange(count), np.arange(count) // photos)
