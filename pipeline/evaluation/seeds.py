"""Several seeds of one study joined: means, standard deviations, and intervals resampled by seed and identity."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from pipeline.config import EvaluateConfig
from pipeline.errors import RequestError, StageError
from pipeline.evaluation.accuracy import FEWEST_IDENTITIES, interval_of_few, wide_enough
from pipeline.evaluation.check_names import CLEAN_LEARNED
from pipeline.evaluation.orderings import auc_of_everyone, orderings
from pipeline.evaluation.paired import compare_arms
from pipeline.evaluation.trials import SECTIONS
from pipeline.evaluation.verdict import (
    beyond,
    few_named,
    harm_to_others,
    how_trained,
    made_for,
    nothing_else,
    searching,
    still_compared,
)
from pipeline.noise.arms import headline_of

RESAMPLES = 2000
CAUSES = ("naming", "peak", "verification", "others")  # why a study fails (`fails_by`), the worst first
# What an arm's record holds besides measures, whose numbers become means over seeds (`linf` the largest): joined otherwise, or the first's.
NO_MEASURES = ("protected", "others", "invalid", "tested", "training", "noise")


def join_seeds(runs: list[dict[str, Any]], *, name: str) -> dict[str, Any]:
    """One `metrics.json` from those of the same study with different seeds.

    Accuracies become means over seeds, with `sd` (over seeds, n − 1) and `by_seed` beside them; `ci95` is resampled by seed and, within
    each, by identity. Identities are kept apart by seed, because each seed protects others. All other measures become means over seeds,
    the largest change of a pixel the largest of any; ROC and the facts of the noise are the first seed's.

    The study holds if it holds in every seed; where one is invalid, nothing is claimed. What trials show, `judged_trials` says.

    Raises:
        RequestError: fewer than two runs, or one of several seeds.
        StageError: the runs differ in more than their seed, or share one; their arms are the same, in the same order.
    """
    first = runs[0]
    several = [run["run"] for run in runs if len(run["provenance"]["seeds"]) != 1]
    if len(runs) < 2 or several:
        given = f"{several[0]} is of several seeds already" if several else f"{first['run']} alone has nothing to be joined with"
        raise RequestError(f"RUNS: {given}; allowed are reports of two or more seeds, one each")
    seeds = [seed for run in runs for seed in run["provenance"]["seeds"]]
    if len(set(seeds)) != len(seeds):
        raise StageError(f"seeds {seeds}: each run must have another one")
    common = [arm for arm in first["arms"] if all(arm in run["arms"] for run in runs)]
    if any(list(run["arms"]) != common for run in runs):
        have = "; ".join(f"{run['run']} has arms {' '.join(run['arms'])}" for run in runs)
        command = f'make study SEEDS="{" ".join(map(str, seeds))}" ARMS="{" ".join(common)}"'
        raise StageError(f"{have}: run {command}, all else as before")
    for other in runs[1:]:
        if configured(other) != configured(first):
            raise StageError(f"{other['run']}: its configuration differs from {first['run']}'s in more than the seed; run both again")
    joined = copy.deepcopy(first)
    joined["run"] = name
    made_by = {(run["provenance"].get("commit"), run["provenance"].get("dirty")) for run in runs}
    joined["provenance"] |= {"seeds": seeds, "one_commit": len(made_by) == 1}
    for arm, record in joined["arms"].items():
        every = [run["arms"][arm] for run in runs]
        for group in ("protected", "others"):
            if record[group] is not None:
                record[group] = join_group([one[group] for one in every], seeds)
        for key in [key for key in record if key not in NO_MEASURES]:
            record[key] = mean_of([one.get(key) for one in every])
        record["invalid"] = [f"seed {seed}: {why}" for seed, one in zip(seeds, every, strict=True) for why in one.get("invalid") or []]
    valid = {arm: record for arm, record in joined["arms"].items() if not record["invalid"]}
    joined["paired"] = compare_arms(valid, resamples=RESAMPLES, seed=0)
    learned = all(one["ok"] for run in runs for one in run["checks"] if one["name"] == CLEAN_LEARNED)
    joined["orderings"] = orderings(valid) if learned else []
    joined |= join_trials(runs)
    joined["checks"] = [
        check | {"name": f"seed {seed}: {check['name']}"} for seed, run in zip(seeds, runs, strict=True) for check in run["checks"]
    ]
    joined["split"]["protected_names"] = sorted({who for run in runs for who in run["split"]["protected_names"]})
    joined["panels_note"] = "The pictures are in the reports of the single seeds."
    states = [run["verdict_state"] for run in runs]
    state = next((state for state in ("invalid", "fails") if state in states), "holds")
    causes = [run.get("fails_by") for run in runs] if state == "fails" else []
    joined |= {"verdict_state": state, "fails_by": next((cause for cause in CAUSES if cause in causes), None)}
    joined["by_seed"] = [
        {"seed": seed, "verdict_state": run["verdict_state"], "fails_by": run.get("fails_by")}
        for seed, run in zip(seeds, runs, strict=True)
    ]
    joined |= judged_trials([] if state == "invalid" else runs)
    joined["verdict"] = say(joined, runs, seeds, states)
    return joined


def say(joined: dict[str, Any], runs: list[dict[str, Any]], seeds: list[int], states: list[str]) -> str:
    """The joined verdict: in how many seeds it held, what it lost to, then the means. Of an invalid study no number is said."""
    if "invalid" in states:
        which = states.index("invalid")
        return f"No claim: {states.count('invalid')} of {len(seeds)} seeds are invalid. Seed {seeds[which]}: {runs[which]['verdict']}"
    arm = headline_of(joined["arms"])
    assert arm is not None and "clean" in joined["arms"], "without them every seed is invalid"
    (mine, before), (theirs, theirs_before) = (
        [joined["arms"][name][group] for name in (arm, "clean")] for group in ("protected", "others")
    )
    others = f" The others are named on {spread(theirs)} (without {spread(theirs_before)})." if theirs and theirs_before else ""
    if not others:
        auc, auc_before = (auc_of_everyone(joined["arms"][name]) for name in (arm, "clean"))
        known = auc is not None and auc_before is not None
        others = f" Comparing two faces, the recogniser reaches an AUC of {auc:.3f} ({auc_before:.3f} without)." if known else ""
    stored = joined["provenance"]["config"].get("evaluate") or {}  # perhaps of an earlier version, whose other keys say nothing here
    config = EvaluateConfig.model_validate({key: stored[key] for key in EvaluateConfig.model_fields if key in stored})
    trainer, held = how_trained(joined["arms"][arm]), states.count("holds")
    named = {"naming", "peak"} & {run.get("fails_by") for run in runs}
    if held == len(states):
        opening = f"Holds against {trainer}, over {held} seeds"
    elif held:
        opening = f"Holds in only {held} of {len(seeds)} seeds against {trainer}"
    elif named:
        opening = f"Does not hold against {trainer}, over {len(seeds)} seeds"
    else:
        opening = f"Does not hold, over {len(seeds)} seeds, though few are named after {trainer}"
    return (
        f"{opening}{beyond(joined['held_against'], joined['lost_to'])}. "
        f"People protected with {arm} noise are named on {spread(mine)} of their clean photos (at the best epoch {mine['peak']:.1%}, "
        f"without protection {spread(before)}; mean ± standard deviation over seeds).{others}"
        f"{why_not(runs, seeds, arm, config)}{searching(joined['arms'][arm], joined['arms']['clean'], config.protected_at_most)}"
        f"{made_for(joined['arms'][arm])}{nothing_else(joined['held_against'] + joined['lost_to'], joined['silent'])}"
    )


def why_not(runs: list[dict[str, Any]], seeds: list[int], arm: str, config: EvaluateConfig) -> str:
    """Of each seed that did not hold, why; empty where all did."""
    reasons = []
    for run, seed in zip(runs, seeds, strict=True):
        if run["verdict_state"] != "fails":
            continue
        mine, clean = run["arms"][arm], run["arms"]["clean"]
        if run.get("fails_by") == "others":
            reasons.append(f"in seed {seed} the protected are safe, but {harm_to_others(mine, clean, config)}")
        elif run.get("fails_by") == "verification":
            reasons.append(f"in seed {seed} {few_named(mine['protected']['final'])}, but {still_compared(mine, clean)}")
        elif run.get("fails_by") == "peak":
            reasons.append(f"in seed {seed} they are named on {mine['protected']['peak']:.1%} at its best epoch")
        else:
            reasons.append(f"in seed {seed} they are named on {mine['protected']['final']:.1%}")
    return f" Why it does not hold: {'; '.join(reasons)}." if reasons else ""


def spread(record: dict[str, Any]) -> str:
    """The mean accuracy and its deviation over seeds."""
    return f"{record['final']:.1%} ± {record['sd']:.1%}"


def configured(run: dict[str, Any]) -> Any:
    """What must be the same in every seed: all but the seed, and but the trials, which `join_trials` tells apart."""
    return without_seed({stage: values for stage, values in run["provenance"]["config"].items() if stage != "trials"})


def without_seed(value: Any) -> Any:
    """A stage's configuration without its seed."""
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
        return {name: mean_of([one.get(name) for one in here], name) for name in dict.fromkeys(name for one in here for name in one)}
    if key.endswith("ci95"):
        return None
    if isinstance(first, bool) or not isinstance(first, (int, float)):
        return first
    if key == "linf":
        return max(here)
    return first if all(one == first for one in here) else mean(here)


def join_group(records: list[dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Protected or others of one arm over seeds. `ci95` is None where a seed has too few identities, or no `test_photos` recorded."""
    finals = [record["final"] for record in records]
    curves = [record["by_epoch"] for record in records]
    by_epoch = [None if any(one is None for one in values) else mean(list(values)) for values in zip(*curves, strict=True)]
    peaks, epochs = [record["peak"] for record in records], {record["peak_epoch"] for record in records}
    counted = all("test_photos" in record for record in records)

    def each(key: str) -> dict[str, Any]:
        by_seed = [(seed, record.get(key) or {}) for seed, record in zip(seeds, records, strict=True)]
        return {f"{name} (seed {seed})": value for seed, values in by_seed for name, value in values.items()}

    return {
        "final": mean(finals),
        "sd": round(float(np.std(finals, ddof=1)), 4),
        "by_seed": finals,
        "peak": mean(peaks),
        "peak_epoch": epochs.pop() if len(epochs) == 1 else None,  # a mean of several seeds' own best epochs has none
        "by_epoch": by_epoch,
        "ci95": interval_by_seed_and_identity([hits_and_photos(record) for record in records]) if counted else None,
        "per_identity": each("per_identity"),
        "test_photos": each("test_photos"),
    }


def hits_and_photos(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of each identity of a group the photos recognised and the photos there are, float64 (K,) each."""
    photos = np.array([record["test_photos"][name] for name in record["per_identity"]], float)
    return np.rint(np.array(list(record["per_identity"].values())) * photos), photos


def interval_by_seed_and_identity(counts: list[tuple[np.ndarray, np.ndarray]]) -> list[float] | None:
    """95 % interval of the mean over seeds of the share of photos recognised; seeds and, in each, identities are resampled.

    That is a hierarchical bootstrap, made `wide_enough` for few seeds and widened to `interval_of_few` people where that is wider: of all
    seeds' identities, but no more than one seed's at the least, since seeds may draw the same. A seed that is drawn twice has its
    identities redrawn twice.

    Args:
        counts: of each seed, its identities' photos recognised and photos there are, float64 (K,) each.

    Returns:
        [low, high], or None where a seed has fewer than `FEWEST_IDENTITIES`.
    """
    if min(len(photos) for _, photos in counts) < FEWEST_IDENTITIES:
        return None
    generator = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        shares = []
        for seed in generator.integers(0, len(counts), len(counts)):
            hits, photos = counts[seed]
            drawn = generator.integers(0, len(hits), len(hits))
            shares.append(hits[drawn].sum() / photos[drawn].sum())
        means.append(np.mean(shares))
    low, high = np.percentile(means, [2.5, 97.5])
    hits, photos = (np.concatenate(every) for every in zip(*counts, strict=True))
    few = interval_of_few(hits, photos, people=min(len(photos) for _, photos in counts))
    by_seed = np.array([hits.sum() / photos.sum() for hits, photos in counts])
    return wide_enough([min(float(low), few[0]), max(float(high), few[1])], by_seed, least=0.0, most=1.0)


def join_trials(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """`countermeasures`, `trainers`, `shares` and `trial_titles` over seeds: means and standard deviations.

    Of each trial those seeds count that tried it on the most arms, so that all its numbers are of the same seeds; where these are not all,
    its title says so.
    """
    titles = {name: title for run in runs for name, title in (run.get("trial_titles") or {}).items()}
    joined: dict[str, Any] = {section: {} for section in SECTIONS.values()} | {"trial_titles": titles}
    for section in SECTIONS.values():
        for name in dict.fromkeys(name for run in runs for name in run.get(section) or {}):
            tried = [run[section][name] for run in runs if name in (run.get(section) or {})]
            tried = [one for one in tried if len(one) == max(map(len, tried))]
            arms = [arm for arm in tried[0] if all(arm in one for one in tried)]
            joined[section][name] = {arm: join_trial([one[arm] for one in tried]) for arm in arms}
            if len(tried) < len(runs):
                titles[name] = f"{titles.get(name, name)}, in {len(tried)} of {len(runs)} seeds"
    return joined


def join_trial(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One trial of one arm over seeds."""
    joined = {key: mean_of([one.get(key) for one in records], key) for key in records[0]}
    for group in ("protected", "others"):
        values = [one[group] for one in records if one[group] is not None]
        if len(values) == len(records) > 1:
            joined[f"{group}_sd"] = round(float(np.std(values, ddof=1)), 4)
    return joined


def judged_trials(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """`lost_to`, `held_against` and `silent` over seeds, from the rows that each seed's own verdict has.

    A seed judges a trial that it lost to or held against. What any seed lost to is lost to; what every seed that judges it held against
    is held against; what no seed judges, but some found to say nothing, is silent. Titles say in how many seeds where it is not in all.
    Accuracies are means over the seeds that ended so, the worst first; `peak` is true where any of them is a best epoch's.
    """
    judged: dict[str, list[tuple[bool, dict[str, Any]]]] = {}
    silent: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for key in ("lost_to", "held_against"):
            for row in run.get(key) or []:
                judged.setdefault(row["trial"], []).append((key == "lost_to", row))
        for row in run.get("silent") or []:
            silent.setdefault(row["trial"], []).append(row)
    found: dict[str, list[dict[str, Any]]] = {"lost_to": [], "held_against": [], "silent": []}
    for trial, verdicts in judged.items():
        lost = [row for is_lost, row in verdicts if is_lost]
        rows = lost or [row for _, row in verdicts]
        joined: dict[str, Any] = {
            "trial": trial,
            "title": rows[0]["title"] + in_how_many(len(rows), len(verdicts), len(runs)),
            "accuracy": mean([row["accuracy"] for row in rows]),
            "peak": any(row["peak"] for row in rows),
        }
        if all("others" in row for row in rows):
            joined["others"] = mean([row["others"] for row in rows])
        found["lost_to" if lost else "held_against"].append(joined)
    for rows in found.values():
        rows.sort(key=lambda row: -row["accuracy"])
    for trial, rows in silent.items():
        if trial not in judged:
            clean = [row["clean"] for row in rows if row["clean"] is not None]
            others = [row["others"] for row in rows if "others" in row]
            row = {"trial": trial, "title": rows[0]["title"], "clean": mean(clean) if clean else None}
            found["silent"].append(row | ({"others": mean(others)} if len(others) == len(rows) else {}))
    return found


def in_how_many(ended_so: int, judged: int, seeds: int) -> str:
    """What follows a trial's title: in how many of the seeds that judge it it ended so, and how many those are; empty where all did."""
    if judged < seeds:
        return f", judged in {judged} of {seeds} seeds" + (f" and lost in {ended_so}" if ended_so < judged else "")
    return f", in {ended_so} of {seeds} seeds" if ended_so < judged else ""
