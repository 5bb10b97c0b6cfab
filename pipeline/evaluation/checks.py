"""Validity checks: what must be true before a number of the run means anything, and the verdict that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import EvaluateConfig, SplitConfig
from pipeline.evaluation.trials import lost_to
from pipeline.shards import crop_table
from pipeline.split import hashes_of, near_duplicates

Check = dict[str, Any]
FEWEST_IDENTITIES = 20  # below this an interval resampled by identity is too rough to rest a claim on


def check(name: str, ok: bool, detail: str, *, blocks: bool) -> Check:
    """One check; `blocks` says that the verdict is invalid where it fails."""
    return {"name": name, "ok": ok, "detail": detail, "blocks": blocks}


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
        check("no photo on both sides", not both, f"{len(both)} photos are in training and in test", blocks=True),
        check(
            "no near-duplicate on both sides",
            straddling == 0,
            f"{straddling} test photos have a near-duplicate in training (perceptual hash, {config.duplicate_bits} of 64 bits)",
            blocks=True,
        ),
    ]


def arm_checks(arms: dict[str, Any], config: EvaluateConfig, epsilon: int, protected_names: set[str]) -> list[Check]:
    """What the arms' metrics themselves say of their validity."""
    found: list[Check] = []
    clean = arms.get("clean")
    if clean is None:
        found.append(check("clean arm", False, "there is no clean arm to compare with; add it to ARMS", blocks=True))
    else:
        finals = [clean[group]["final"] for group in ("protected", "others") if clean[group] is not None]
        found.append(
            check(
                "clean arm learned",
                min(finals) >= config.clean_floor,
                f"accuracy without protection {min(finals):.1%}, at least {config.clean_floor:.0%} is needed for a claim",
                blocks=True,
            )
        )
    recipes = {arm["training"]["recipe"] for arm in arms.values()}
    found.append(check("same recipe in every arm", len(recipes) == 1, f"{len(recipes)} training configuration(s)", blocks=True))
    for name, arm in arms.items():
        if "noise" not in arm:
            continue
        largest = max(arm[kind]["linf"] for kind in ("imperceptibility", "photos") if kind in arm)
        found.append(
            check(f"{name}: epsilon kept on disk", largest <= epsilon, f"largest change {largest}/255 of {epsilon}/255", blocks=True)
        )
        if arm["noise"]["converged"] is not None:
            done = "converged" if arm["noise"]["converged"] else "did not converge"
            detail = f"{done} in {arm['noise']['rounds']} rounds, surrogate error {arm['noise']['error']:.1%}"
            found.append(check(f"{name}: noise converged", bool(arm["noise"]["converged"]), detail, blocks=False))
    count = len(protected_names)
    enough = count >= FEWEST_IDENTITIES
    found.append(check("enough identities for intervals", enough, f"{count} protected, {FEWEST_IDENTITIES} wanted", blocks=False))
    return found


def verdict(
    arms: dict[str, Any],
    checks: list[Check],
    config: EvaluateConfig,
    trials: dict[str, Any],
    *,
    identities: int,
    classes: int,
    chance: float,
) -> tuple[str, str]:
    """What the study shows in a sentence or two, failures named, and its state: `holds`, `fails` or `invalid`."""
    failed = [one for one in checks if one["blocks"] and not one["ok"]]
    if failed:
        return f"No claim: {failed[0]['name']} failed ({failed[0]['detail']}).", "invalid"
    headline = next((name for name in arms if name.startswith("error-min")), None)
    if headline is None:
        return "No claim: no error-minimizing arm was run; add error-min to ARMS.", "invalid"
    arm, clean = arms[headline], arms["clean"]
    mine, before = arm["protected"], clean["protected"]
    kind = arm["training"]["kind"]
    facts = (
        f"trained {kind} on the protected photos of {identities} of {classes} people, a recogniser names them on {mine['final']:.1%} of "
        f"their clean photos (at its best epoch {mine['peak']:.1%}; {before['final']:.1%} without protection; chance {chance:.1%})"
    )
    lost = 0.0
    if arm["others"] is not None:
        lost = clean["others"]["final"] - arm["others"]["final"]
        facts += f", the others on {arm['others']['final']:.1%} ({clean['others']['final']:.1%} without)"
    held, lost_trials = lost_to(headline, trials, config)
    beyond = f" Lost to: {', '.join(lost_trials)}." if lost_trials else ""
    beyond += f" Held against: {', '.join(held)}." if held else ""
    low = mine["final"] <= config.protected_at_most and mine["peak"] <= config.peak_at_most
    fair = abs(lost) <= config.others_within
    if low and fair:
        return f"Protected against this trainer: {facts}.{beyond}", "holds"
    reasons = []
    if not low:
        reasons.append(
            f"above the limits of {config.protected_at_most:.0%} at the last epoch and {config.peak_at_most:.0%} at the best one"
        )
    if not fair:
        reasons.append(f"the others' accuracy moved by more than {config.others_within:.0%}")
    known = "; fine-tuning from pretrained weights is known to resist this noise" if kind != "from scratch" else ""
    return f"Not protected against this trainer: {facts}; {' and '.join(reasons)}{known}.{beyond}", "fails"
