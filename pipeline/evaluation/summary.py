"""The run's `metrics.json`: every arm's metrics, the checks, the verdict and where it all came from."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts import read_json, read_table, sha256_of
from pipeline.config import EvaluateConfig, NoiseConfig, ReportConfig, SplitConfig, load
from pipeline.errors import StageError
from pipeline.evaluation.check_names import CLEAN_LEARNED
from pipeline.evaluation.checks import arm_checks, mark_invalid, split_checks, tested_checks
from pipeline.evaluation.orderings import orderings
from pipeline.evaluation.paired import compare_arms
from pipeline.evaluation.trials import SECTIONS, collect_trials, early_stopping
from pipeline.evaluation.verdict import EARLY, verdict
from pipeline.noise.arms import ARMS, SURROGATES
from pipeline.provenance import PACKAGES, hardware, installed, revision
from pipeline.runtime import Runtime
from pipeline.split import SPLIT_COLUMNS


def summarise_run(arms: list[str], data: Path, run: Path, runtime: Runtime) -> dict[str, Any]:
    """Join what the stages wrote into schema 1 of `metrics.json` (`reports/README.md`).

    A pure reading of files but for provenance (time, commit, machine).
    """
    config = load(EvaluateConfig, run / "config" / "evaluate.yaml")
    split_config = load(SplitConfig, run / "config" / "split.yaml")
    hidden = not load(ReportConfig, run / "config" / "report.yaml").faces_shown
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    split_facts = read_json(run / "split.json")
    manifest = read_table(data / "aligned" / "manifest.parquet", ["photo", "sha256", "identity"])
    rejects = read_table(data / "aligned" / "rejects.parquet", ["photo", "identity", "reason"])
    metrics = {arm: read_metrics(run / arm / "metrics.json") for arm in arms}
    names = set(table.loc[table["role"] == "protected", "identity"])
    classes = int(table["label"].max()) + 1
    hashes = manifest.set_index("photo")["sha256"]
    asked = [load(NoiseConfig, run / "config" / f"noise-{arm}.yaml").epsilon for arm in arms if "noise" in metrics[arm]]
    checks = split_checks(table, hashes, split_config, data / "aligned") + tested_checks(metrics, table, data / "aligned", run)
    checks += arm_checks(metrics, config, max(asked, default=0), names)
    mark_invalid(metrics, checks)
    chance = round(1 / classes, 4)
    trials = collect_trials(arms, run)
    trials["countermeasures"] = {EARLY: early_stopping(metrics)} | trials["countermeasures"]
    trials["trial_titles"][EARLY] = "early stopping"
    found = verdict(metrics, checks, config, trials, identities=len(names), classes=classes)
    valid = {arm: record for arm, record in metrics.items() if not record["invalid"]}
    learned = all(one["ok"] for one in checks if one["name"] == CLEAN_LEARNED)  # where it did not, four fifths of nothing is nothing
    train_config = yaml.safe_load((run / "config" / "train.yaml").read_text(encoding="utf-8"))
    first = metrics[arms[0]]["training"]
    return {
        "schema": 1,
        "run": run.name,
        **found,
        "setting": split_config.setting,
        "identities": len(names),
        "classes": classes,
        "chance": chance,
        "training": {"kind": first["kind"], "epochs": train_config["epochs"], "model": first["model"]},
        "split": split_facts["photos"]
        | {
            "duplicates_moved": split_facts["duplicates_moved"],
            "auxiliary": split_facts["identities"]["auxiliary"],
            "protected_names": sorted(names),
        },
        "panels_note": "The photos show real people, so none is shown here (SHOW_PEOPLE=consented shows them)." if hidden else "",
        "provenance": {
            **revision(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seeds": [split_config.seed],
            "config": configs(data, run, arms) | {"trials": trial_configs(run, trials, train_config)},
            "dataset": {
                "name": data.name,
                "identities": int(manifest["identity"].nunique()),
                "photos": len(manifest) + len(rejects),
                "aligned": len(manifest),
                "rejected": {reason: int(count) for reason, count in sorted(rejects["reason"].value_counts().items())},
                "sha256": sha256_of("".join(sorted(manifest["sha256"])).encode()),
            },
            "packages": {name: installed(name) for name in PACKAGES},
            "hardware": hardware(runtime),
            "seconds": seconds(data, run, arms),
        },
        "arms": metrics,
        "paired": compare_arms(valid, resamples=config.bootstrap, seed=config.seed),
        "orderings": orderings(valid) if learned else [],
        **trials,
        "checks": checks,
    }


def read_metrics(path: Path) -> dict[str, Any]:
    """An arm's metrics; `StageError` names the file if it is missing, broken or holds something else."""
    found = read_json(path)
    if not isinstance(found, dict) or not {"protected", "others", "training"} <= found.keys():
        raise StageError(f"{path}: holds no metrics of an arm; delete it and run the same command again")
    return found


def configs(data: Path, run: Path, arms: list[str]) -> dict[str, Any]:
    """Every snapshot that these arms came from, by stage; those of other arms, of an earlier request, are left out."""
    stages = {"split", "train", "evaluate", *(f"noise-{arm}" for arm in arms), *surrogates_of(arms)}
    own = [path for path in sorted((run / "config").glob("*.yaml")) if path.stem in stages]
    paths = [data / "data.yaml", data / "align.yaml", *own]
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


def trial_configs(run: Path, trials: dict[str, Any], own: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each trial that was joined, what its training's snapshot has other than the run's `own`."""
    found = {}
    for name in sorted(name for section in SECTIONS.values() for name in trials[section]):
        path = run / "config" / "trials" / f"{name}.yaml"
        if path.exists():  # early stopping is no training of its own
            snapshot = yaml.safe_load(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in snapshot.items() if key not in own or own[key] != value}
    return found


def surrogates_of(arms: list[str]) -> list[str]:
    """The names of the clean surrogates' snapshots and trainings that the arms need."""
    return [name for name in SURROGATES if any(name in ARMS[arm].surrogates for arm in arms)]


def seconds(data: Path, run: Path, arms: list[str]) -> dict[str, float]:
    """Wall seconds of each stage, as measured when it last ran; those of arms of an earlier request are left out."""
    unasked = {*ARMS, *SURROGATES} - {*arms, *surrogates_of(arms)}
    others = {f"{stage}-{arm}" for stage in ("noise", "protect", "train", "evaluate") for arm in unasked}
    paths = sorted((data / "timings").glob("*.json")) + sorted((run / "timings").glob("*.json"))
    return {path.stem: read_json(path)["seconds"] for path in paths if path.stem not in others}
