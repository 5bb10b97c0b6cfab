"""Several seeds of one study joined: means, standard deviations, and intervals resampled by seed and identity."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from pipeline.config import EvaluateConfig
from pipeline.errors import StageError
from pipeline.evaluation.orderings import orderings
from pipeline.evaluation.paired import compare_arms
from pipeline.evaluation.trials import SECTIONS
from pipeline.evaluation.verdict import beyond, headline_of, sorted_trials

RESAMPLES = 2000
# Measures of an arm whose numbers become means over seeds; `linf` becomes the largest.
AVERAGED = ("verification", "lfw", "identification", "separability", "utility", "imperceptibility", "photos")


def join_seeds(runs: list[dict[str, Any]], *, name: str) -> dict[str, Any]:
    """One `metrics.json` from those of the same study with different seeds.

    Accuracies become means over seeds, with `sd` (over seeds, n − 1) and `by_seed` beside them; `ci95` is resampled by seed and, within
    each, by identity. Identities are kept apart by seed, because each seed protects others. All other measures become means over seeds,
    the largest change of a pixel the largest of any; ROC and the facts of the noise are the first seed's.

    Raises:
        StageError: the runs differ in more than their seed, or share one.
    """
    first = runs[0]
    seeds = [seed for run in runs for seed in run["provenance"]["seeds"]]
    if len(set(seeds)) != len(seeds):
        raise StageError(f"seeds {seeds}: each run must have another one")
    for other in runs[1:]:
        if without_seed(other["provenance"]["config"]) != without_seed(first["provenance"]["config"]):
            raise StageError(f"{other['run']}: its configuration differs from {first['run']}'s in more than the seed; run both again")
        if set(other["arms"]) != set(first["arms"]):
            raise StageError(f"{other['run']}: has arms {', '.join(other['arms'])}, {first['run']} has {', '.join(first['arms'])}")
    joined = copy.deepcopy(first)
    joined["run"] = name
    joined["provenance"]["seeds"] = seeds
    for arm, record in joined["arms"].items():
        every = [run["arms"][arm] for run in runs]
        for group in ("protected", "others"):
            if record[group] is not None:
                record[group] = join_group([one[group] for one in every], seeds)
        for key in AVERAGED:
            if record.get(key):
                record[key] = mean_of([one.get(key) for one in every])
        record["invalid"] = [f"seed {seed}: {why}" for seed, one in zip(seeds, every, strict=True) for why in one.get("invalid") or []]
    valid = {arm: record for arm, record in joined["arms"].items() if not record["invalid"]}
    joined["paired"] = compare_arms(valid, resamples=RESAMPLES, seed=0)
    joined["orderings"] = orderings(valid)
    for section in SECTIONS.values():
        joined[section] = join_section([run.get(section) or {} for run in runs])
    joined["checks"] = [
        check | {"name": f"seed {seed}: {check['name']}"} for seed, run in zip(seeds, runs, strict=True) for check in run["checks"]
    ]
    joined["split"]["protected_names"] = sorted({who for run in runs for who in run["split"]["protected_names"]})
    joined["panels_note"] = "The pictures are in the reports of the single seeds."
    states = [run["verdict_state"] for run in runs]
    state = next((state for state in ("invalid", "fails") if state in states), "holds")
    config = EvaluateConfig.model_validate(joined["provenance"]["config"].get("evaluate") or {})
    headline = headline_of(joined["arms"])
    trials = {section: joined[section] for section in SECTIONS.values()} | {"trial_titles": joined.get("trial_titles") or {}}
    held, lost, silent = [], [], []
    if headline is not None and state != "invalid":
        held, lost, silent = sorted_trials(headline, trials, config)
    joined |= {"verdict_state": state, "lost_to": lost, "held_against": held, "silent": silent}
    joined["verdict"] = say(joined, runs, seeds, states)
    return joined


def say(joined: dict[str, Any], runs: list[dict[str, Any]], seeds: list[int], states: list[str]) -> str:
    """The joined verdict: in how many seeds it held, what it lost to, then the means. Of an invalid study no number is said."""
    if "invalid" in states:
        which = states.index("invalid")
        return f"No claim: {states.count('invalid')} of {len(seeds)} seeds are invalid. Seed {seeds[which]}: {runs[which]['verdict']}"
    arm = headline_of(joined["arms"])
    assert arm is not None and "clean" in joined["arms"], "without them every seed is invalid"
    mine, before = joined["arms"][arm]["protected"], joined["arms"]["clean"]["protected"]
    kind = str(joined["arms"][arm]["training"]["kind"]).replace("fine-tuned", "fine-tuning")
    trainer = f"{'training ' if kind == 'from scratch' else ''}{kind} on unprocessed crops"
    held = states.count("holds")
    opening = "Holds" if held == len(states) else "Does not hold" if held == 0 else f"Holds in {held} of {len(seeds)} seeds only"
    return (
        f"{opening} against {trainer}, over {len(seeds)} seeds{beyond(joined['held_against'], joined['lost_to'])}. "
        f"Protected people are named on {mine['final']:.1%} ± {mine['sd']:.1%} of their clean photos (at the best epoch "
        f"{mine['peak']:.1%}, without protection {before['final']:.1%} ± {before['sd']:.1%}; mean ± standard deviation over seeds)."
    )


def without_seed(value: Any) -> Any:
    """A configuration without its seeds, and without the trials, which a seed may lack."""
    if isinstance(value, dict):
        return {key: without_seed(inner) for key, inner in value.items() if key != "seed"}
    return value


def mean(values: list[float]) -> float:
    """The mean, rounded as all accuracies are."""
    return round(float(np.mean(values)), 4)


def mean_of(values: list[Any], key: str = "") -> Any:
    """Seeds' measures of one shape joined: numbers become means, in dicts key by key; a seed without one leaves it to the others.

    Intervals of single seeds have no mean and become None; other lists and words are the first seed's.
    """
    here = [value for value in values if value is not None]
    if not here:
        return None
    first = here[0]
    if isinstance(first, dict):
        return {name: mean_of([one.get(name) for one in here], name) for name in first}
    if key.endswith("ci95"):
        return None
    if isinstance(first, bool) or not isinstance(first, (int, float)):
        return first
    if key == "linf":
        return max(here)
    return first if all(one == first for one in here) else mean(here)


def join_group(records: list[dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Protected or others of one arm over seeds."""
    finals = [record["final"] for record in records]
    curves = [record["by_epoch"] for record in records]
    by_epoch = [None if any(one is None for one in values) else mean(list(values)) for values in zip(*curves, strict=True)]
    peaks = [record["peak"] for record in records]
    scored = [(value, -epoch) for epoch, value in enumerate(by_epoch, 1) if value is not None]
    return {
        "final": mean(finals),
        "sd": round(float(np.std(finals, ddof=1)), 4),
        "by_seed": finals,
        "peak": mean(peaks),
        "peak_epoch": -max(scored)[1],
        "by_epoch": by_epoch,
        "ci95": interval_by_seed_and_identity([list(record["per_identity"].values()) for record in records]),
        "per_identity": {
            f"{name} (seed {seed})": value
            for seed, record in zip(seeds, records, strict=True)
            for name, value in record["per_identity"].items()
        },
    }


def interval_by_seed_and_identity(accuracies: list[list[float]]) -> list[float]:
    """95 % interval of the mean over seeds and identities, both resampled (a hierarchical bootstrap).

    Args:
        accuracies: one list a seed, of its identities' accuracies.
    """
    generator = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, len(accuracies), len(accuracies))
        means.append(np.mean([generator.choice(accuracies[seed], len(accuracies[seed])).mean() for seed in drawn]))
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def join_section(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Trials over seeds: means and standard deviations, of those that every seed has."""
    joined: dict[str, Any] = {}
    for name in sections[0]:
        if not all(name in section for section in sections):
            continue
        arms = [arm for arm in sections[0][name] if all(arm in section[name] for section in sections)]
        joined[name] = {}
        for arm in arms:
            every = [section[name][arm] for section in sections]
            joined[name][arm] = {key: mean_of([one.get(key) for one in every], key) for key in every[0]}
            for group in ("protected", "others"):
                values = [one[group] for one in every if one[group] is not None]
                if len(values) == len(every):
                    joined[name][arm][f"{group}_sd"] = round(float(np.std(values, ddof=1)), 4)
    return joined
