"""The verdict: what the study shows in a few sentences, failures named first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import EvaluateConfig
from pipeline.evaluation.accuracy import ROUNDING
from pipeline.evaluation.checks import Check
from pipeline.evaluation.orderings import FALLS_TO_CHANCE, auc_of_everyone, auc_of_others, falls_to_chance
from pipeline.noise.arms import headline_of
from pipeline.training.trials import trial_of

EARLY = "early-stopping"  # no training of its own: the study's, at its best epoch
MOST_NAMED = 3  # of what was lost to and of what was held against; `lost_to`, `held_against` and the tables have all


def verdict(
    arms: dict[str, Any],
    checks: list[Check],
    config: EvaluateConfig,
    trials: dict[str, Any],
    *,
    identities: int,
    classes: int,
) -> dict[str, Any]:
    """What a run shows.

    Args:
        arms: metrics by arm. checks: all validity checks. trials: as `collect_trials` gives them, early stopping among them.

    Returns:
        {"verdict" (a few sentences), "verdict_state" (`holds`, `fails` or `invalid`), "fails_by" (why it fails: `naming`, protected people
        are named; `peak`, at the best epoch only; `verification`, everybody is protected and few are named, but the recogniser tells
        people apart all the same; `others`, the protected are not named, but other people are recognised less well; else None),
        "lost_to", "held_against" (rows {"trial", "title", "accuracy" (of protected people), "peak" (bool: that of the best epoch),
        "others" (their accuracy; of early stopping, and where it is lower than the clean arm's by more than is allowed)}, the worst
        first), "silent" (rows {"trial", "title", "clean"}: what taught the clean recogniser too little to say anything, or, with
        "others", what taught that of the arm itself too little of people whom nothing protects)}. Where the result is invalid the
        sentences hold no accuracy of it.
    """
    headline = headline_of(arms)
    nothing: dict[str, Any] = {"verdict_state": "invalid", "fails_by": None, "lost_to": [], "held_against": [], "silent": []}
    failed = [one for one in checks if not one["ok"] and one["arm"] in (None, "clean", headline)]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return nothing | {"verdict": f"No claim: the check “{failed[0]['name']}” failed ({failed[0]['detail']}){more}."}
    if headline is None:
        return nothing | {"verdict": "No claim: no arm that is meant to protect was run; add error-min to ARMS."}
    arm, clean = arms[headline], arms["clean"]
    mine, before = arm["protected"], clean["protected"]
    held, lost, silent = sorted_trials(headline, trials, config)
    ends_low, stays_low = mine["final"] <= config.protected_at_most, mine["peak"] <= config.peak_at_most
    if not ends_low:  # its best epoch may lie under its own limit all the same, where the last one's is lower
        held = [row for row in held if row["trial"] != EARLY]
    harm = harm_to_others(arm, clean, config)
    trainer = how_trained(arm)
    compared = still_compared(arm, clean)
    fails_by = "naming" if not ends_low else "peak" if not stays_low else "verification" if compared else "others" if harm else None
    if fails_by is None:
        opening = f"Holds against {trainer}"
    elif fails_by == "others":
        opening = f"Does not hold: the protected are safe from {trainer}, but {harm}"
    elif fails_by == "verification":
        opening = f"Does not hold: {few_named(mine['final'])} after {trainer}, but {compared}"
    elif fails_by == "peak":
        opening = f"Does not hold: safe from {trainer} at its last epoch only (named on {mine['peak']:.1%} at its best)"
    else:
        opening = f"Does not hold against {trainer}"
    facts = (
        f"The study’s own training, on photos of {identities} of {classes} people with {headline} noise, names them on {mine['final']:.1%} "
        f"of their clean photos ({before['final']:.1%} without protection)"
    )
    if arm["others"] is not None:
        facts += f" and the others on {arm['others']['final']:.1%} ({clean['others']['final']:.1%} without)"
    else:
        auc, auc_before = (auc_of_everyone(one) for one in (arm, clean))
        if auc is not None and auc_before is not None:
            facts += f"; comparing two faces, the recogniser reaches an AUC of {auc:.3f} ({auc_before:.3f} without)"
    sentences = f"{opening}{beyond(held, lost)}. {facts}.{searching(arm, clean, config.protected_at_most)}{made_for(arm)}"
    return {
        "verdict": sentences + nothing_else(held + lost, silent),
        "verdict_state": "holds" if fails_by is None else "fails",
        "fails_by": fails_by,
        "lost_to": lost,
        "held_against": held,
        "silent": silent,
    }


def how_trained(arm: dict[str, Any]) -> str:
    """What the study's own recogniser is an example of, in words."""
    kind = str(arm["training"]["kind"])
    return f"{'training ' if kind == 'from scratch' else ''}{kind.replace('fine-tuned', 'fine-tuning')} on unprocessed crops"


def few_named(accuracy: float) -> str:
    """How few are named, in words."""
    return "nobody is named" if accuracy == 0 else f"{accuracy:.1%} of photos are named"


def nothing_else(judged: list[dict[str, Any]], silent: list[dict[str, Any]]) -> str:
    """Said where the study's own training is all that the verdict rests on; empty where it is not.

    Args:
        judged: rows of what was held against or lost to. silent: rows of what says nothing.
    """
    if any(row["trial"] != EARLY and trial_of(row["trial"]).kind != "share" for row in judged):
        return ""
    if silent:
        return " Whatever else was tried taught a recogniser too little to say anything."
    return " No other trainer or countermeasure was tried."


def harm_to_others(arm: dict[str, Any], clean: dict[str, Any], config: EvaluateConfig) -> str:
    """What `arm` costs the people it does not protect, where that is more than `config` allows; empty where it is not."""
    if arm["others"] is None:
        return ""
    auc, before = (auc_of_others(one) for one in (arm, clean))
    if auc is not None and before is not None and before - auc > config.others_auc_within + ROUNDING:
        return f"verification of other people gets worse (AUC {auc:.3f} for {before:.3f})"
    loss = clean["others"]["final"] - arm["others"]["final"]
    if loss <= config.others_within + ROUNDING:
        return ""
    return f"other people’s accuracy falls by {loss * 100:.1f} points ({config.others_within * 100:g} are allowed)"


def still_compared(arm: dict[str, Any], clean: dict[str, Any]) -> str:
    """Where everybody is protected, whether the recogniser tells people apart all the same; empty where it cannot or others are left.

    Then no name is learned by anybody's photos, and comparing two faces is what a recogniser is good for (the paper, section 4.4: AUC).
    """
    auc, before = (auc_of_everyone(one) for one in (arm, clean))
    if arm["others"] is not None or auc is None or before is None or falls_to_chance(auc, before):
        return ""
    limit = 0.5 + FALLS_TO_CHANCE * (before - 0.5)
    return f"the recogniser tells people apart all the same (AUC {auc:.3f} for {before:.3f}; at most {limit:.3f} is allowed)"


def sorted_trials(
    headline: str, trials: dict[str, Any], config: EvaluateConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """The trials that the arm `headline` held against, those it lost to, the worst first, and those that say nothing.

    By the verdict's own limits. A trainer may stop at any epoch, so a trial is lost where its last epoch or its best one is above its
    limit, however little the clean arm learns under it. Below the limits it is held against only if the clean arm did learn, and the arm
    itself names other people at least half as well: who is taught nothing says nothing of noise. What concerns noise alone, such as a
    share of protected photos, needs no clean arm: it is the study's own.
    """
    held, lost, silent = [], [], []
    for section in ("trainers", "countermeasures", "shares"):
        for name, arms in trials[section].items():
            mine, clean = arms.get(headline, {}), arms.get("clean", {}).get("protected")
            final, peak = mine.get("protected"), mine.get("protected_peak")
            early = name == EARLY  # whose accuracy is a peak
            title = trials["trial_titles"].get(name, name)
            compared = early or not trial_of(name).noise_only
            ends_high = final is not None and final > (config.peak_at_most if early else config.protected_at_most)
            peaks_high = peak is not None and peak > config.peak_at_most
            # What the clean arm learned next to nothing under was not tried on the others.
            unproven = compared and ((clean is None and final is not None) or (clean is not None and clean < config.clean_floor))
            theirs, theirs_clean = mine.get("others"), arms.get("clean", {}).get("others")
            costs = None if theirs is None or theirs_clean is None else theirs_clean - theirs
            if not ends_high and not peaks_high:
                if unproven:
                    silent.append({"trial": name, "title": title, "clean": clean})
                    continue
                if costs is not None and not early and costs > theirs:  # less than half is left
                    silent.append({"trial": name, "title": title, "clean": clean, "others": theirs})
                    continue
            if final is None:
                continue
            row = {
                "trial": name,
                "title": title,
                "accuracy": peak if peaks_high and not ends_high else final,
                "peak": peaks_high and not ends_high,
            }
            if costs is not None and (early or costs > config.others_within + ROUNDING):
                row["others"] = theirs
            (lost if ends_high or peaks_high else held).append(row)
    worst_first = [sorted(rows, key=lambda row: -row["accuracy"]) for rows in (held, lost)]
    return worst_first[0], worst_first[1], silent


def beyond(held: list[dict[str, Any]], lost: list[dict[str, Any]]) -> str:
    """What follows the opening: what it lost to and what it held against, the worst first."""
    words = f"; lost to {listed(lost)}" if lost else ""
    return words + (f"; held against {listed(held)}" if held else "")


def listed(rows: list[dict[str, Any]]) -> str:
    """Names with accuracies, at most `MOST_NAMED`."""
    names = [f"{row['title']} ({how_much(row)})" for row in rows[:MOST_NAMED]]
    more = len(rows) - len(names)
    if more:
        return f"{', '.join(names)} and {more} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def how_much(row: dict[str, Any]) -> str:
    """A trial's accuracy in words: of what epoch, and what it costs the trainer in other people."""
    others = f", when others are named on {row['others']:.1%}" if row.get("others") is not None else ""
    return f"{row['accuracy']:.1%}{' at its best epoch' if row['peak'] else ''}{others}"


def searching(arm: dict[str, Any], clean: dict[str, Any], at_most: float) -> str:
    """Whether the recogniser, which cannot name the protected, still finds them in a gallery; empty where not measured or it cannot."""
    mine, before = (((one.get("identification") or {}).get("own") or {}).get("rank1") for one in (arm, clean))
    if mine is None or before is None or mine <= at_most:
        return ""
    found = f"puts the right person first in {mine:.1%} of searches ({before:.1%} without)"
    return f" Used for face search instead of naming, its recogniser {found}."


def made_against(arm: dict[str, Any]) -> list[str]:
    """The recognisers that an arm's cloak was made against, by their files' names without the ending; none for other noise."""
    return [Path(one["name"]).stem for one in (arm.get("noise") or {}).get("against") or []]


def made_for(arm: dict[str, Any]) -> str:
    """Which recognisers a cloak was made against, in a sentence; empty for other noise."""
    known = made_against(arm)
    if not known:
        return ""
    return f" The cloak was made against {' and '.join(known)}: what it does to these says little of another recogniser."
