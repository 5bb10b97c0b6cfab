"""Trials joined for the report: what other trainers, countermeasures and shares did to each arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json
from pipeline.config import TrainConfig, load
from pipeline.training.matrix import is_current, result_of
from pipeline.training.trials import PRETRAINED, REFERENCES, TRAINERS, Trial, trial_of

SECTIONS = {"countermeasure": "countermeasures", "trainer": "trainers", "share": "shares"}


def collect_trials(arms: list[str], run: Path) -> dict[str, Any]:
    """`countermeasures`, `trainers` and `shares`: name → arm → accuracies of protected and others, and `trial_titles`: name → words.

    Only results that belong to the run as it is now are joined.
    """
    found: dict[str, Any] = {section: {} for section in SECTIONS.values()} | {"trial_titles": {}}
    snapshots = {path.stem for path in (run / "config" / "trials").glob("*.yaml")}
    order = [name for name in TRAINERS if name in snapshots] + sorted(snapshots - set(TRAINERS), key=by_number)
    for name in order:
        trial = trial_of(name)
        results = {arm: read_json(result_of(arm, name, run)) for arm in arms if is_current(arm, name, run)}
        if results:
            found[SECTIONS[trial.kind]][name] = {arm: accuracies(result) for arm, result in results.items()}
            found["trial_titles"][name] = titled(trial, load(TrainConfig, run / "config" / "trials" / f"{name}.yaml"))
    return found


def titled(trial: Trial, config: TrainConfig) -> str:
    """What a trial is called in the report: embeddings by the file of the network that gives them."""
    words, path = (REFERENCES, config.reference) if trial.reference else (PRETRAINED, config.weights)
    return trial.title.replace(words, f"embeddings of {Path(path).stem}") if path else trial.title


def by_number(name: str) -> tuple[str, float]:
    """Sorts `jpeg-95` before `jpeg-10`: the gentlest first."""
    kind, _, number = name.rpartition("-")
    return (kind, -float(number)) if kind and number.replace(".", "").isdigit() else (name, 0.0)


def accuracies(result: dict[str, Any]) -> dict[str, Any]:
    """A trial's numbers as the report wants them: fractions of clean test photos."""
    found: dict[str, Any] = {}
    for group in ("protected", "others"):
        record = result[group]
        found[group] = None if record is None else record["final"]
        if record is not None:
            found |= {f"{group}_peak": record["peak"], f"{group}_ci95": record["ci95"]}
    return found | {"seconds": result["seconds"]}


def early_stopping(metrics: dict[str, Any]) -> dict[str, Any]:
    """A trainer who stops when the protected people are named best: each arm's peak, and the others' accuracy at that epoch.

    It costs nothing beyond the study, so every run has this countermeasure.
    """
    found = {}
    for arm, record in metrics.items():
        if record["protected"] is None:
            continue
        epoch = record["protected"]["peak_epoch"]
        others = None if record["others"] is None else record["others"]["by_epoch"][epoch - 1]
        found[arm] = {"protected": record["protected"]["peak"], "others": others}
    return found
