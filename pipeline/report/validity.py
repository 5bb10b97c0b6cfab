"""Which results are invalid: where a check failed, the report says "invalid" instead of a number, and which check it was.

A check fails at one of three levels:

- Of the whole run: the clean arm learned too little, a photo or a near-duplicate of one is on both sides of the split, recipes differ.
  Every accuracy of every arm is invalid. So it is where a check of the clean arm itself failed: all others are compared with it.
- Of one arm: its noise did not converge, exceeds epsilon, or it was not tested on the clean photos. Every accuracy of that arm is invalid.
- Of the claim alone: too few people for an interval, no clean arm to compare with, or no arm that is meant to protect. Nothing is wrong
  with the numbers that are there, so they are shown; the verdict says that they prove nothing.

Accuracies here are all that the trained recogniser was asked: naming, verification, search, under each trainer and countermeasure. What was
measured of the photos and the noise (its size, how visible it is, how its search ended, whether detectors still find the face) is not. Nor
is what a recogniser trained elsewhere finds: it is invalid only with the photos that it searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipeline.evaluation.check_names import CLAIM_ALONE, TRAINING_ALONE
from pipeline.noise.arms import headline_of
from pipeline.report.words import at

REASON = re.compile(r"((?:seed \d+: )?[^:]*)(?:: (.*))?", re.DOTALL)  # a check's name, of joined seeds with its seed, and what it found


def of_claim_alone(check: dict[str, Any]) -> bool:
    """Whether the check, where it fails, leaves no claim but takes no number away."""
    return without_seed(str(check.get("name"))) in CLAIM_ALONE


def without_seed(name: str) -> str:
    """A check's name, which joined seeds have with the seed before it."""
    return re.sub(r"^seed \d+: ", "", name)


def why_run(metrics: dict[str, Any]) -> list[str]:
    """Why no accuracy of the run counts, a failed check each ("name: what it found"); empty where that is not so."""
    failed = [one for one in metrics.get("checks") or [] if not one.get("ok") and one.get("arm") is None]
    found = [f"{one.get('name')}: {one.get('detail') or 'no details'}" for one in failed if not of_claim_alone(one)]
    found += [f"{reason} (clean arm)" for reason in why_alone(metrics, "clean")]
    if found or failed or metrics.get("verdict_state") != "invalid":
        return found
    headline = headline_of(metrics.get("arms") or {})
    return [] if headline is None or why_alone(metrics, headline) else ["verdict: invalid, though no check is said to have failed"]


def why_alone(metrics: dict[str, Any], arm: str) -> list[str]:
    """The arm's own failed checks, as the run recorded them."""
    return [str(one) for one in at(metrics, "arms", arm, "invalid") or []]


def why_invalid(metrics: dict[str, Any], arm: str) -> list[str]:
    """Why the accuracies of an arm are invalid: the run's reasons, else its own; empty where they count."""
    return why_run(metrics) or why_alone(metrics, arm)


def counts(metrics: dict[str, Any], arm: str) -> bool:
    """Whether the accuracies of an arm mean anything."""
    return not why_invalid(metrics, arm)


def counts_elsewhere(metrics: dict[str, Any], arm: str) -> bool:
    """Whether what a recogniser trained elsewhere found in an arm's photos means anything, which rests on no training here."""
    reasons = [found[1] for found in map(REASON.match, why_run(metrics) + why_alone(metrics, arm)) if found]
    return all(without_seed(name) in TRAINING_ALONE for name in reasons)


def valid_arms(metrics: dict[str, Any]) -> dict[str, Any]:
    """The arms whose accuracies count."""
    return {arm: record for arm, record in metrics["arms"].items() if counts(metrics, arm)}


def explained(metrics: dict[str, Any]) -> list[str]:
    """What is invalid and why, a sentence each, without what the verdict has said already; empty where all counts."""
    verdict = str(metrics.get("verdict"))

    def said(reasons: list[str]) -> str:
        parts = [(found[1], found[2] or "") for found in map(REASON.fullmatch, reasons) if found]
        return "; ".join(f"the check “{name}” failed" + (f" ({what})" if what not in verdict else "") for name, what in parts)

    if why_run(metrics):
        return [f"The whole run is invalid: {said(why_run(metrics))}."]
    return [f"{arm} is invalid: {said(why)}." for arm in metrics["arms"] if (why := why_alone(metrics, arm))]


def left_out(metrics: dict[str, Any], arms: Iterable[str]) -> str:
    """Which of `arms` the figures of accuracies leave out, and which checks failed; empty where they have all."""

    def names(reasons: list[str]) -> str:
        return "not ok: " + ", ".join(dict.fromkeys(found[1] for found in map(REASON.match, reasons) if found))

    if why_run(metrics):
        return f"Every arm is left out, because the run is invalid ({names(why_run(metrics))})."
    missing = [f"{arm} ({names(why)})" for arm in arms if (why := why_alone(metrics, arm))]
    return f"Left out, because invalid: {', '.join(missing)}." if missing else ""
