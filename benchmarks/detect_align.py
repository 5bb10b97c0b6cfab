"""Detection and alignment against facenet-pytorch as its users call it, and whether the same faces are found.

    python -m benchmarks.detect_align [--photos <folder>] [--min-face 40] [--photos-timed 400] [--photos-compared 400] [--pairs 5]

Ours is the align stage itself on two processes: reading, decoding, detection, choice of the face, crops and manifest written. The other side
is one process with torch's default threads: for each photo, `Image.open`, `MTCNN(keep_all=True).detect(photo, landmarks=True)`, the same
alignment of each face of at least the score that ours accepts, all kept in memory. Both are timed after one small chunk, so that imports
and weights are loaded; what a stage takes to start is printed apart. `--photos` is a folder with one folder an identity; without it,
photos are rendered. `DETECT_ALIGN_PHOTOS` names the folder for `make bench`, `DETECT_ALIGN_PACK` an insightface pack for SCRFD's row.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.row import Pair, Row

PHOTOS_AT = "DETECT_ALIGN_PHOTOS"
PACK_AT = "DETECT_ALIGN_PACK"
WORKERS = 2
TIMED, COMPARED = 240, 400  # photos
RENDERED = 8  # photos an identity, where none are given


@dataclass(frozen=True)
class Photos:
    """Some photos: a folder, the names below it with their identities, and what they are."""

    root: Path
    names: list[tuple[str, str]]
    text: str


@cache
def some_photos(root: Path | None, count: int) -> Photos:
    """`count` photos drawn (seed 0) from a folder with one folder an identity; of None, rendered photos."""
    if root is None:
        from pipeline.photos.synthetic import encode_photo

        folder = Path(tempfile.mkdtemp(prefix="detect-align-"))
        names = []
        for number in range(count):
            identity, photo = divmod(number, RENDERED)
            name = f"id{identity:04d}/{photo:04d}.jpg"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(encode_photo(seed=0, identity=identity, photo=photo))
            names.append((name, f"id{identity:04d}"))
        return Photos(folder, names, f"{count} rendered photos of 250 px")
    found = sorted(path for path in root.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise SystemExit(f"--photos {root}: expected is one folder an identity with photos in it")
    chosen = sorted(np.random.default_rng(0).choice(len(found), min(count, len(found)), replace=False))
    names = [(str(found[index].relative_to(root)), found[index].parent.name) for index in chosen]
    return Photos(root, names, f"{len(names)} photos of {root.name}")
