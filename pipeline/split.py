"""Who is protected, and which photos are held out.

Roles are drawn by seed: `protected`, `auxiliary` (others whose clean photos the noise search sees) and `other`. Within each identity
80/20 photos train/test (Huang et al., ICLR 2021, section 4.4); photos that a perceptual hash calls the same are never on both sides.
Who has too few photos for both sides is left out of everything that is trained; where these are few, more people are, so that verification
is measured on people whom no recogniser has seen.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.artifacts import read_table, sha256_of_files, write_csv, write_json, write_table
from pipeline.config import SplitConfig
from pipeline.errors import RequestError
from pipeline.runtime import say
from pipeline.shards import CropTable, crop_table

SPLIT_COLUMNS = ["photo", "identity", "label", "role", "part", "shard", "row"]
STRANGER = "stranger"
LEFT_OUT_COLUMNS = ["identity", "photos", "reason"]
STRANGERS_SHARE = 0.2  # of those who are not protected at most so many are kept out of training
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
    Where that leaves none, the smallest group is held out. There must be two groups at least.
    """
    assert len(np.unique(groups)) > 1, "one group is either trained on or held out"
    order = generator.permutation(len(groups))
    wanted = max(1, round(len(groups) * fraction))
    test = np.zeros(len(groups), bool)
    test[order[:wanted]] = True
    size, inside = np.bincount(groups), np.bincount(groups[test], minlength=groups.max() + 1)
    straddling = [i for i in order[:wanted] if inside[groups[i]] < size[groups[i]]]
    test[straddling] = False
    alone = [i for i in order[wanted:] if size[groups[i]] == 1]
    test[alone[: len(straddling)]] = True
    if not test.any():
        test = groups == min(groups[order], key=lambda group: size[group])
    elif test.all():
        test &= groups != max(groups[order], key=lambda group: size[group])
    return test, len(straddling)


def choose_protected(counts: Any, names: list[str], config: SplitConfig, generator: np.random.Generator) -> list[str]:
    """The protected identities: those asked for by name, or as many as asked for, drawn by seed.

    Args:
        counts: aligned photos of each identity. names: who can be drawn.
    """
    if isinstance(config.identities, tuple):
        known = set(names)
        for name in config.identities:
            if name not in known:
                raise RequestError(f"IDENTITIES: {why_not(name, int(counts.get(name, 0)), len(names), config)}")
        return list(config.identities)
    if config.identities > len(names):
        raise RequestError(
            f"IDENTITIES={config.identities}: only {len(names)} identities have at least {config.min_photos} aligned photos that are not "
            f"all near-duplicates; min_photos in configs/<profile>.yaml sets how many are needed"
        )
    return list(generator.choice(names, config.identities, replace=False))


def why_not(name: str, photos: int, usable: int, config: SplitConfig) -> str:
    """Why the identity `name`, with so many aligned photos, cannot be protected, in words."""
    rejected = "aligned/rejects.csv, in the data folder, has each of their photos that is not aligned, and why"
    if photos == 0:
        return f"{name!r} is not among the {usable} identities with at least {config.min_photos} aligned photos; {rejected}"
    if photos < config.min_photos:
        needed = f"at least {config.min_photos} are needed (min_photos in configs/<profile>.yaml sets that)"
        return f"{name!r} has {photos} aligned photos, {needed}; {rejected}"
    return f"the {photos} aligned photos of {name!r} are near-duplicates of one another; one that is not is needed, to be held out"


def draw_roles(counts: Any, enough: list[str], alike: set[str], config: SplitConfig) -> dict[str, str]:
    """Who of `enough` without `alike` is `protected`, `auxiliary`, `other` or a `stranger`, by seed; the rest of them is in no role.

    Raises:
        RequestError: there are too few of them, or one who was asked for is none of them.
    """
    generator = np.random.default_rng((config.seed, 0x51))
    names = [name for name in enough if name not in alike]
    everyone = config.setting == "full" and isinstance(config.identities, int)  # a list of names is who there is, in the full setting
    protected = [] if everyone else choose_protected(counts, names, config, generator)
    rest = sorted(set(names) - set(protected))
    if config.max_identities is not None:
        room = max(0, config.max_identities - len(protected))
        rest = sorted(generator.choice(rest, min(room, len(rest)), replace=False)) if rest else []
    if config.setting == "full":
        protected, rest = rest if everyone else protected, []
    if len(protected) + len(rest) < 2:
        raise RequestError(
            f"IDENTITIES={config.identities}: training a recogniser needs at least 2 identities with {config.min_photos} aligned photos "
            f"that are not all near-duplicates, {len(names)} found"
        )
    if config.setting == "partial" and not rest:
        most = min(len(names), config.max_identities or len(names))
        raise RequestError(
            f"IDENTITIES: all {len(protected)} identities would be protected, and SETTING=partial trains on others, too; "
            f"allowed are 1 to {most - 1}, or SETTING=full"
        )
    strangers = choose_strangers(counts, rest, protected, alike, config)
    rest = sorted(set(rest) - set(strangers))
    auxiliary = generator.choice(rest, min(config.auxiliary, len(rest)), replace=False) if rest else []
    roles = dict.fromkeys(rest, "other") | dict.fromkeys(auxiliary, "auxiliary") | dict.fromkeys(protected, "protected")
    return roles | dict.fromkeys(strangers, STRANGER)


def choose_strangers(counts: Any, rest: list[str], protected: list[str], alike: set[str], config: SplitConfig) -> list[str]:
    """Who of `rest` is kept out of training, where those who are left out anyway are fewer than asked for.

    Two aligned photos of a person are enough to verify them, where they are not one shot. In the full setting nobody is: everyone there
    is to be protected.
    """
    anyway = int((counts.drop([*rest, *protected, *alike]) >= 2).sum())
    count = min(config.strangers - anyway, int(len(rest) * STRANGERS_SHARE))
    if config.setting == "full" or count <= 0:
        return []
    return list(np.random.default_rng((config.seed, 0x53)).choice(rest, count, replace=False))


def split_photos(config: SplitConfig, aligned: Path, output: Path) -> None:
    """Write `split.json`, `left_out.csv` and, last, `split.parquet` at `output`: a row a photo, columns `SPLIT_COLUMNS`.

    `split.json` counts, and says by its hash which `manifest.parquet` was split: other photos under the same names, or other crops of the
    same photos, are split alike.

    `label` numbers the identities that train the recogniser, 0-based in the order of their names. `left_out.csv` has a row for everybody
    else of whom there are photos, columns `LEFT_OUT_COLUMNS`; `photos` counts the aligned ones.

    Raises:
        RequestError: fewer identities than asked for, an unknown name, or nobody left who is not protected.
    """
    manifest = read_table(aligned / "manifest.parquet", ["photo", "identity", "shard", "row"], only=True)
    manifest = manifest.sort_values(["identity", "photo"], ignore_index=True)
    counts = manifest["identity"].value_counts()
    enough = sorted(counts[counts >= config.min_photos].index)
    # Only who was drawn is looked at, so who turns out to have near-duplicates alone is left out and the draw made anew.
    groups: dict[str, np.ndarray] = {}
    alike: set[str] = set()
    while True:
        role = draw_roles(counts, enough, alike, config)
        new = role.keys() - groups.keys()
        groups |= groups_of(manifest[manifest["identity"].isin(new)], aligned, config.duplicate_bits)
        found = {name for name in new if len(np.unique(groups[name])) == 1}
        if not found:
            break
        alike |= found

    strangers = {name for name, what in role.items() if what == STRANGER}
    role = {name: what for name, what in role.items() if what != STRANGER}
    used = sorted(role)
    table: Any = manifest[manifest["identity"].isin(used)].reset_index(drop=True)
    table = table.assign(label=table["identity"].map({name: label for label, name in enumerate(used)}), role=table["identity"].map(role))
    test, moved = np.zeros(len(table), bool), 0
    ends = np.searchsorted(table["label"], np.arange(len(used) + 1)).tolist()
    for label, (name, (start, end)) in enumerate(zip(used, pairwise(ends), strict=True)):
        generator = np.random.default_rng((config.seed, 0x52, label))
        test[start:end], changed = hold_out(groups[name], config.test_fraction, generator)
        moved += changed
    table = table.assign(part=np.where(test, "test", "train"))[SPLIT_COLUMNS]
    left_out = left_out_of(counts, set(used), alike, strangers, aligned, config)
    facts = {
        "identities": {kind: sum(value == kind for value in role.values()) for kind in ("protected", "auxiliary", "other")},
        "photos": {part: int((table["part"] == part).sum()) for part in ("train", "test")},
        "left_out": {
            "identities": len(left_out),
            "too_few_photos": int((left_out["photos"] < config.min_photos).sum()),
            "near_duplicates_only": len(alike),
            "for_verification": len(strangers),
        },
        "duplicates_moved": moved,
        "duplicate_bits": config.duplicate_bits,
        "aligned_sha256": sha256_of_files([aligned / "manifest.parquet"]),
    }
    write_json(output.with_suffix(".json"), facts)
    write_csv(output.with_name("left_out.csv"), left_out)
    write_table(output, table)
    say(
        f"split: {facts['identities']['protected']} identities protected, {facts['identities']['auxiliary']} auxiliary, "
        f"{facts['identities']['other']} other; {facts['photos']['train']} photos train, {facts['photos']['test']} test; "
        f"{moved} near-duplicates moved out of the test photos"
    )
    if len(left_out):
        say(f"split: {len(left_out)} identities are left out of training; {output.with_name('left_out.csv')} says why")


def groups_of(table: Any, aligned: Path, bits: int) -> dict[str, np.ndarray]:
    """The groups of near-duplicates of each identity's photos, in the table's order, as `near_duplicates` numbers them."""
    if table.empty:
        return {}
    hashes = hashes_of(crop_table(table, aligned))
    return {name: near_duplicates(hashes[rows], bits) for name, rows in table.groupby("identity").indices.items()}


def without_duplicates(table: Any, aligned: Path, bits: int) -> Any:
    """The rows of a table without all but the first of each identity's near-duplicates."""
    places, groups = table.groupby("identity").indices, groups_of(table, aligned, bits)
    kept = [places[name][group == np.arange(len(group))] for name, group in groups.items()]
    return table.iloc[np.sort(np.concatenate(kept))] if kept else table


def left_out_of(counts: Any, used: set[str], alike: set[str], strangers: set[str], aligned: Path, config: SplitConfig) -> Any:
    """Everybody who is not in `used`, columns `LEFT_OUT_COLUMNS`: `photos` are the aligned ones.

    Args:
        counts: aligned photos of each identity. alike: who has photos enough, but all near-duplicates. strangers: who is kept out so that
            recognisers can be verified on them.
    """
    import pandas as pd

    photos = {str(name): int(count) for name, count in counts.items()}
    rejects = aligned / "rejects.parquet"
    if rejects.exists():  # people without any aligned photo
        photos |= {name: 0 for name in read_table(rejects, ["identity"], only=True)["identity"].unique() if name not in photos}

    def reason(name: str) -> str:
        if photos[name] < config.min_photos:
            return f"fewer than {config.min_photos} aligned photos"
        if name in strangers:
            return "kept out of training, to verify the recognisers on"
        if name in alike:
            return "near-duplicates of one photo only"
        if config.setting == "full" and not isinstance(config.identities, int):
            return "not among those asked for"
        return f"not drawn: {config.max_identities} identities are used at most"

    rows = [(name, photos[name], reason(name)) for name in sorted(photos.keys() - used)]
    return pd.DataFrame(rows, columns=LEFT_OUT_COLUMNS)  # type: ignore[arg-type]
