"""Validity checks: what must be true before a number means anything. What fails one is marked invalid, and no claim is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import EvaluateConfig, SplitConfig
from pipeline.evaluation.accuracy import FEWEST_IDENTITIES
from pipeline.evaluation.check_names import CLEAN_ARM, CLEAN_LEARNED, ENOUGH_IDENTITIES, SAME_RECIPE
from pipeline.evaluation.tested import digest_of_clean, digest_of_protected
from pipeline.shards import crop_table
from pipeline.split import hashes_of, near_duplicates

Check = dict[str, Any]


def check(name: str, ok: bool, detail: str, *, arm: str | None = None) -> Check:
    """One check. Where it fails, the result of `arm` is invalid, or without one that of the whole run (`CLAIM_ALONE`: its claim only)."""
    return {"name": name, "ok": bool(ok), "detail": detail, "arm": arm}


def mark_invalid(arms: dict[str, Any], checks: list[Check]) -> None:
    """Write into each arm, as `invalid`, what makes its numbers invalid: the arm's own failed checks, in words."""
    for name, arm in arms.items():
        failed = [one for one in checks if one["arm"] == name and not one["ok"]]
        arm["invalid"] = [f"{one['name'].removeprefix(f'{name}: ')}: {one['detail']}" for one in failed]


def split_checks(table: Any, hashes_of_photos: Any, config: SplitConfig, aligned: Path) -> list[Check]:
    """No photo, and no near-duplicate of one, on both sides of the split."""
    digest = table["photo"].map(hashes_of_photos)
    both = set(digest[table["part"] == "train"]) & set(digest[table["part"] == "test"])
    hashes, part = hashes_of(crop_table(table, aligned)), table["part"].to_numpy()
    straddling = 0
    for photos in table.groupby("identity").indices.values():
        groups = near_duplicates(hashes[photos], config.duplicate_bits)
        train, test = groups[part[photos] == "train"], groups[part[photos] == "test"]
        straddling += int(np.isin(test, train).sum())
    return [
        check("no photo on both sides", not both, f"{len(both)} photos are in training and in test"),
        check(
            "no near-duplicate on both sides",
            straddling == 0,
            f"{straddling} test photos have a near-duplicate in training (perceptual hash, {config.duplicate_bits} of 64 bits)",
        ),
    ]


def arm_checks(arms: dict[str, Any], config: EvaluateConfig, epsilon: int, protected_names: set[str]) -> list[Check]:
    """What the arms' metrics themselves say of their validity."""
    found: list[Check] = []
    clean = arms.get("clean")
    if clean is None:
        found.append(check(CLEAN_ARM, False, "there is no clean arm to compare with; add it to ARMS"))
    else:
        finals = {group: clean[group]["final"] for group in ("protected", "others") if clean[group] is not None}
        words = {"protected": "the people to protect are named on", "others": "others on"}
        named = ", ".join(f"{words[group]} {final:.1%}" for group, final in finals.items())
        floor = f"without protection {named} of their photos, at least {config.clean_floor:.0%} is needed for a claim"
        found.append(check(CLEAN_LEARNED, min(finals.values()) >= config.clean_floor, floor))
    recipes = {arm["training"]["recipe"] for arm in arms.values()}
    found.append(check(SAME_RECIPE, len(recipes) == 1, f"{len(recipes)} training configuration(s)"))
    count = len(protected_names)
    wanted = f"{count} protected, an interval resampled by identity needs {FEWEST_IDENTITIES}"
    found.append(check(ENOUGH_IDENTITIES, count >= FEWEST_IDENTITIES, wanted))
    for name, arm in arms.items():
        if "noise" not in arm:
            continue
        largest = max(arm[kind]["linf"] for kind in ("imperceptibility", "photos") if kind in arm)
        kept = f"largest change {largest}/255 of {epsilon}/255"
        found.append(check(f"{name}: epsilon kept on disk", largest <= epsilon, kept, arm=name))
        if arm["noise"]["converged"] is not None:
            done = "converged" if arm["noise"]["converged"] else "did not converge"
            detail = f"{done} in {arm['noise']['rounds']} rounds, surrogate error {arm['noise']['error']:.1%}"
            found.append(check(f"{name}: noise converged", arm["noise"]["converged"], detail, arm=name))
    return found


def tested_checks(arms: dict[str, Any], table: Any, aligned: Path, run: Path) -> list[Check]:
    """Each arm was scored on the clean crops of the protected people's test photos, and not on protected ones.

    Args:
        arms: metrics by arm; `tested` is the digest of what the arm's recogniser was really shown (`pipeline.evaluation.tested`).
        table: the split. aligned: folder of the clean crops. run: the run's folder, with each arm's protected crops.
    """
    clean = digest_of_clean(table, aligned)
    found = []
    for name, arm in arms.items():
        tested, manifest = arm.get("tested"), run / name / "protected" / "manifest.parquet"
        protected = digest_of_protected(table, manifest.parent) if manifest.exists() else None
        detail = "scored on the clean crops of the protected people’s held-out photos"
        if tested is not None and tested == protected:
            detail = "scored on protected versions of the held-out photos: that names the noise, not the face"
        elif tested != clean:
            detail = "not scored on the clean held-out photos as they are now"
        found.append(check(f"{name}: test photos are clean", tested == clean and tested != protected, detail, arm=name))
    return found
