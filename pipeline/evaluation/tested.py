"""Which photos a recogniser was scored on: their digest, so that nobody need take on trust that they were clean.

A protection looks perfect where the photos that it is tested on carry the noise, too: the network then names the noise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import read_table
from pipeline.shards import CropTable, crop_table

if TYPE_CHECKING:
    from pipeline.training.faces import FaceSet

MOST_DIGESTED = 2000  # photos, evenly over the protected people: enough to notice, little to read
READ = 256  # crops in memory at a time


def spread_evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` positions, evenly apart, int64: of a table in order of identity, photos of all identities."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)) if count else np.empty(0, np.int64)


def digest_of(faces: FaceSet | CropTable) -> str:
    """SHA-256 of the crops of a set in its order, of at most `MOST_DIGESTED` of them."""
    index, digest = spread_evenly(len(faces), MOST_DIGESTED), hashlib.sha256()
    for start in range(0, len(index), READ):
        digest.update(faces.crops(index[start : start + READ]).tobytes())
    return digest.hexdigest()


def tested_photos(table: Any) -> Any:
    """The held-out photos of protected people, rows of the split in its order."""
    return table[(table["part"] == "test") & (table["role"] == "protected")]


def digest_of_clean(table: Any, aligned: Path) -> str:
    """The digest that a recogniser scored on clean photos of the protected people has."""
    return digest_of(crop_table(tested_photos(table), aligned))


def digest_of_protected(table: Any, protected: Path) -> str | None:
    """The digest that it would have, had it been scored on the protected versions; None where there are none (sample-wise noise)."""
    wanted = tested_photos(table)
    rows = read_table(protected / "manifest.parquet", ["photo", "shard", "row"]).set_index("photo")
    if not set(wanted["photo"]) <= set(rows.index):
        return None
    return digest_of(crop_table(rows.loc[wanted["photo"]], protected))
