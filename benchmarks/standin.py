"""A stand-in of CASIA-WebFace's size: as many crops of as many identities in as many files, random blocks instead of faces.

Identities are long-tailed as there: a log-normal between 2 and 804 photos. The first 1/10 of the identities is a set of a tenth's size, so
that sets of several sizes share their files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import read_table, write_table
from pipeline.shards import write_shard

PHOTOS, IDENTITIES = 490_623, 10_575
FEWEST, MOST = 2, 804  # photos of an identity of WebFace
SPREAD = 0.9  # of the logarithm of an identity's photos
SIDE = 112
CROP_BYTES = SIDE * SIDE * 3
CHUNK_PHOTOS = 200  # whole identities are put together until there are so many, as `pipeline/faces/stage.py` does


def photos_of_identities(share: float = 1.0) -> np.ndarray:
    """How many photos each identity has, int64 (K,); of the whole set 490,623 in all."""
    from scipy.stats import norm

    quantile = norm.ppf((np.arange(IDENTITIES) + 0.5) / IDENTITIES)
    low, high = 1.0, 1000.0
    while high - low > 1e-9:  # the median that gives the total
        middle = (low + high) / 2
        low, high = (middle, high) if sizes(middle, quantile).sum() <= PHOTOS else (low, middle)
    photos = sizes(low, quantile)
    photos[-(PHOTOS - photos.sum()) - 100 : -100] += 1  # what rounding left over, not to those who have the most
    assert photos.sum() == PHOTOS and photos.min() >= FEWEST and photos.max() <= MOST
    return np.random.default_rng(0).permutation(photos)[: max(3, round(IDENTITIES * share))]


def sizes(median: float, quantile: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(median * np.exp(SPREAD * quantile), FEWEST, MOST)).astype(np.int64)


def blocks(count: int, seed: int) -> Iterator[np.ndarray]:
    """`count` crops of random blocks of 8 px, in parts."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, CHUNK_PHOTOS):
        small = generator.integers(0, 256, (min(CHUNK_PHOTOS, count - start), SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        yield small.repeat(8, axis=1).repeat(8, axis=2)


def write_standin(aligned: Path, share: float, *, holes: bool = False) -> Any:
    """Write crops and manifest as the align stage leaves them; returns the manifest.

    Args:
        holes: files without content, which take no space and read as zeros: for measuring memory, not for results.
    """
    import pandas as pd

    photos = photos_of_identities(share)
    whole = np.repeat(np.arange(len(photos)), photos)
    number = np.arange(len(whole)) - np.repeat(np.cumsum(photos) - photos, photos)
    chunk, filled, chunks = np.empty(len(photos), np.int64), 0, 0
    for one, count in enumerate(photos.tolist()):
        if filled and filled + count > CHUNK_PHOTOS:
            chunks, filled = chunks + 1, 0
        chunk[one], filled = chunks, filled + count
    in_chunk = np.bincount(chunk, weights=photos).astype(np.int64)
    for code, count in enumerate(in_chunk.tolist()):
        path = aligned / shard_name(code)
        if holes:
            write_shard(path, (0, SIDE, SIDE, 3), [])
            with open(path, "r+b") as stream:
                np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)})
                stream.truncate(stream.tell() + count * CROP_BYTES)
        else:
            write_shard(path, (count, SIDE, SIDE, 3), blocks(count, code))
    names = [f"{one:07d}/{i:04d}.png" for one, i in zip(whole.tolist(), number.tolist(), strict=True)]
    table = pd.DataFrame({"photo": names, "sha256": [hashlib.sha256(name.encode()).hexdigest() for name in names]})
    table = table.assign(identity=[f"{one:07d}" for one in whole.tolist()], score=1.0)
    for column, values in (("box", [0.0, 0.0, 112.0, 112.0]), ("landmarks", [50.0] * 10), ("matrix", [1.0, 0, 0, 0, 1, 0])):
        table[column] = [np.array(values)] * len(table)
    first = np.cumsum(in_chunk) - in_chunk
    table = table.assign(
        shard=[shard_name(code) for code in chunk[whole].tolist()], row=np.arange(len(whole)) - first[chunk[whole]], width=SIDE, height=SIDE
    )
    write_table(aligned / "manifest.parquet", table)
    return table


def shard_name(code: int) -> str:
    return f"crops-{code:05d}.npy"


def take(aligned: Path, share: float, output: Path) -> None:
    """A smaller set of the first identities of a larger one; files are linked, not copied."""
    table = read_table(aligned / "manifest.parquet", ["identity", "shard"])
    identities = len(photos_of_identities(share))
    table = table[table["identity"] < f"{identities:07d}"]
    output.mkdir(parents=True, exist_ok=True)
    for name in table["shard"].unique():
        os.link(aligned / name, output / name)
    write_table(output / "manifest.parquet", table)


def plain_split(manifest: Any) -> Any:
    """A split without looking at the crops, which may be holes: every fifth photo is held out, nobody is protected."""
    import pandas as pd

    label = pd.factorize(manifest["identity"])[0]
    table = manifest[["photo", "identity"]].assign(label=label, role="other")
    part = np.where(np.arange(len(manifest)) % 5 == 0, "test", "train")
    return table.assign(part=part, shard=manifest["shard"], row=manifest["row"])
