"""Who is protected, and which photos are held out.

Roles are drawn by seed: `protected`, `auxiliary` (others whose clean photos the noise search sees) and `other`. Within each identity
80/20 photos train/test (Huang et al., ICLR 2021, section 4.4); photos that a perceptual hash calls the same are never on both sides.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.artifacts import read_table, write_json, write_table
from pipeline.config import SplitConfig
from pipeline.errors import RequestError
from pipeline.runtime import say
from pipeline.shards import CropTable, crop_table

SPLIT_COLUMNS = ["photo", "identity", "label", "role", "part", "shard", "row"]
READ = 256  # crops in memory at a time
DISTANCES = 2**22  # distances between hashes in memory at a time


def perceptual_hash(crop: np.ndarray) -> np.ndarray:
    """64 bits (bool) of a uint8 H×W×3 RGB crop: signs of the low DCT frequencies of its 32×32 grey thumbnail against their median.

    The usual pHash: robust to recompression and small changes of size and light, different for different photos of a face.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(thumbnail)[:8, :8].ravel()
    return low > np.median(low[1:])


def near_duplicates(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Group numbers (N,) of photos whose hashes (N, 64) bool are linked by distances of at most `bits` (union-find).

    A group's number is its first photo. Few rows of distances are held at a time, so that a folder of many thousands is no matter.
    """
    group = np.arange(len(hashes))
    code = np.packbits(hashes, axis=1).view(np.uint64)[:, 0]
    rows = max(1, DISTANCES // max(1, len(code)))
    for start in range(0, len(code), rows):
        distance = np.bitwise_count(code[start : start + rows, None] ^ code[None, :])
        for i, j in zip(*np.nonzero(np.triu(distance <= bits, start + 1)), strict=True):
            a, b = group[start + i], group[j]
            if a != b:
                group[group == max(a, b)] = min(a, b)
    return group


def hashes_of(places: CropTable) -> np.ndarray:
    """Perceptual hashes bool (N, 64) of the crops of a table, few of them in memory at a time."""
    hashes = np.empty((len(places), 64), bool)
    order = np.lexsort((places.row, places.shard))  # as they lie on disk
    for start in range(0, len(order), READ):
        part = order[start : start + READ]
        hashes[part] = [perceptual_hash(crop) for crop in places.crops(part)]
    return hashes


def hold_out(groups: np.ndarray, fraction: float, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """Which of an identity's photos are held out (N,) bool, whole groups only, and how many photos had to change sides.

    A plain draw comes first; test photos with a near-duplicate in training move to training, and photos without one take their place.
    """
    order = generator.permutation(len(groups))
    wanted = max(1, round(len(groups) * fraction))
    test = np.zeros(len(groups), bool)
    test[order[:wanted]] = True
    size, inside = np.bincount(groups), np.bincount(groups[test], minlength=groups.max() + 1)
    straddling = [i for i in order[:wanted] if inside[groups[i]] < size[groups[i]]]
    test[straddling] = False
    alone = [i for i in order[wanted:] if size[groups[i]] == 1]
    test[alone[: len(straddling)]] = True
    return test, len(straddling)


def choose_protected(names: list[str], config: SplitConfig, generator: np.random.Generator) -> list[str]:
    """The protected identities: those asked for by name, or as many as asked for, drawn by seed."""
    if isinstance(config.identities, tuple):
        known = set(names)
        unknown = [name for name in config.identities if name not in known]
        if unknown:
            raise RequestError(
                f"IDENTITIES: {unknown[0]!r} is not among the {len(names)} identities with at least {config.min_photos} aligned photos"
            )
        return list(config.identities)
    if config.identities > len(names):
        raise RequestError(f"IDENTITIES={config.identities}: only {len(names)} identities have at least {config.min_photos} aligned photos")
    return list(generator.choice(names, config.identities, replace=False))


def split_photos(config: SplitConfig, aligned: Path, output: Path) -> None:
    """Write `split.json` (counts) and, last, `split.parquet` at `output`: a row a photo, columns `SPLIT_COLUMNS`.

    `label` numbers the identities that train the recogniser, 0-based in the order of their names.

    Raises:
        RequestError: fewer identities than asked for, or an unknown name.
    """
    manifest = read_table(aligned / "manifest.parquet", ["photo", "identity", "shard", "row"], only=True)
    generator = np.random.default_rng((config.seed, 0x51))
    counts = manifest["identity"].value_counts()
    names = sorted(counts[counts >= config.min_photos].index)
    everyone = config.setting == "full" and isinstance(config.identities, int)  # a list of names is who there is, in the full setting
    protected = [] if everyone else choose_protected(names, config, generator)
    rest = sorted(set(names) - set(protected))
    if config.max_identities is not None:
        room = max(0, config.max_identities - len(protected))
        rest = sorted(generator.choice(rest, min(room, len(rest)), replace=False)) if rest else []
    if config.setting == "full":
        protected, rest = rest if everyone else protected, []
    if len(protected) + len(rest) < 2:
        raise RequestError(f"IDENTITIES={config.identities}: training a recogniser needs at least 2 identities, {len(protected)} found")
    auxiliary = set(generator.choice(rest, min(config.auxiliary, len(rest)), replace=False)) if rest else set()
    used = sorted(protected + rest)
    role = dict.fromkeys(used, "other") | dict.fromkeys(auxiliary, "auxiliary") | dict.fromkeys(protected, "protected")

    table: Any = manifest[manifest["identity"].isin(used)]
    table = table.assign(label=table["identity"].map({name: label for label, name in enumerate(used)}), role=table["identity"].map(role))
    table = table.sort_values(["label", "photo"], ignore_index=True)
    hashes = hashes_of(crop_table(table, aligned))
    test, moved = np.zeros(len(table), bool), 0
    for label, (start, end) in enumerate(pairwise(np.searchsorted(table["label"], np.arange(len(used) + 1)).tolist())):
        groups = near_duplicates(hashes[start:end], config.duplicate_bits)
        test[start:end], changed = hold_out(groups, config.test_fraction, np.random.default_rng((config.seed, 0x52, label)))
        moved += changed
    table = table.assign(part=np.where(test, "test", "train"))[SPLIT_COLUMNS]
    facts = {
        "identities": {kind: sum(value == kind for value in role.values()) for kind in ("protected", "auxiliary", "other")},
        "photos": {part: int((table["part"] == part).sum()) for part in ("train", "test")},
        "left_out": {"identities": len(counts) - len(used), "too_few_photos": int((counts < config.min_photos).sum())},
        "duplicates_moved": moved,
    }
    write_json(output.with_suffix(".json"), facts)
    write_table(output, table)
    say(
        f"split: {facts['identities']['protected']} identities protected, {facts['identities']['auxiliary']} auxiliary, "
        f"{facts['identities']['other']} other; {facts['photos']['train']} photos train, {facts['photos']['test']} test; "
        f"{moved} near-duplicates moved out of the test photos"
    )
