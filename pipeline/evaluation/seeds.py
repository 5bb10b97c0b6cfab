"""Several seeds of one study joined: means, standard deviations, and intervals resampled by seed and identity."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from pipeline.errors import StageError
from pipeline.evaluation.orderings import orderings
from pipeline.evaluation.paired import compare_arms
from pipeline.evaluation.trials import SECTIONS

RESAMPLES = 2000


def join_seeds(runs: list[dict[str, Any]], *, name: str) -> dict[str, Any]:
    """One `metrics.json` from those of the same study with different seeds.

    Accuracies become means over seeds, with `sd` (over seeds, n − 1) and `by_seed` beside them; `ci95` is resampled by seed and, within
    each, by identity. Identities are kept apart by seed, because each seed protects others. What is neither (imperceptibility, ROC) is
    the first run's.

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
        if record.get("verification"):
            record["verification"]["auc"] = mean([one["verification"]["auc"] for one in every])
            record["verification"]["eer"] = mean([one["verification"]["eer"] for one in every])
    joined["paired"] = compare_arms(joined["arms"], resamples=RESAMPLES, seed=0)
    joined["orderings"] = orderings(joined["arms"])
    for section in SECTIONS.values():
        joined[section] = join_section([run.get(section) or {} for run in runs])
    joined["checks"] = [
        check | {"name": f"seed {seed}: {check['name']}"} for seed, run in zip(seeds, runs, strict=True) for check in run["checks"]
    ]
    joined["split"]["protected_names"] = sorted({who for run in runs for who in run["split"]["protected_names"]})
    joined["panels_note"] = "The pictures are in the reports of the single seeds."
    states = [run["verdict_state"] for run in runs]
    state = next((state for state in ("invalid", "fails") if state in states), "holds")
    joined["verdict_state"] = state
    joined["verdict"] = say(joined, seeds, states)
    return joined


def say(joined: dict[str, Any], seeds: list[int], states: list[str]) -> str:
    """The joined verdict: what each seed found, then the means."""
    arm = next((name for name in joined["arms"] if name.startswith("error-min")), None)
    counted = ", ".join(f"{states.count(state)} {state}" for state in ("holds", "fails", "invalid") if state in states)
    sentence = f"Over {len(seeds)} seeds ({counted}):"
    if arm is None or "clean" not in joined["arms"]:
        return f"{sentence} no error-minimizing and clean arm to compare."
    mine, before = joined["arms"][arm]["protected"], joined["arms"]["clean"]["protected"]
    return (
        f"{sentence} protected people are named on {mine['final']:.1%} ± {mine['sd']:.1%} of their clean photos (at the best epoch "
        f"{mine['peak']:.1%}, without protection {before['final']:.1%} ± {before['sd']:.1%})."
    )


def without_seed(value: Any) -> Any:
    """A configuration without its seeds, and without the trials, which a seed may lack."""
    if isinstance(value, dict):
        return {key: without_seed(inner) for key, inner in value.items() if key != "seed"}
    return value


def mean(values: list[float]) -> float:
    """The mean, rounded as all accuracies are."""
    return round(float(np.mean(values)), 4)


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
    """Trials over seeds: means of those that every seed has."""
    joined: dict[str, Any] = {}
    for name in sections[0]:
        if not all(name in section for section in sections):
            continue
        arms = [arm for arm in sections[0][name] if all(arm in section[name] for section in sections)]
        joined[name] = {}
        for arm in arms:
            every = [section[name][arm] for section in sections]
            joined[name][arm] = {
                group: None if every[0][group] is None else mean([one[group] for one in every]) for group in ("protected", "others")
            }
    return joined
