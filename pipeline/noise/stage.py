"""The noise stage: one arm's table of deltas from the split and the clean crops."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import read_table
from pipeline.config import NoiseConfig
from pipeline.noise.arms import arm_of
from pipeline.noise.backdoor import trigger_patches
from pipeline.noise.given import patterns_of
from pipeline.noise.lsp import linearly_separable_patches
from pipeline.noise.random import random_noise
from pipeline.noise.table import NoiseTable, quantise, row_names, save_noise
from pipeline.runtime import Runtime, prepare_torch, say, turn
from pipeline.split import SPLIT_COLUMNS


def make_noise(config: NoiseConfig, split: Path, aligned: Path, run: Path, output: Path, runtime: Runtime, *, threads: int = 1) -> None:
    """Write `noise.safetensors` and `noise.json` of `config.arm` into `output`.

    Args:
        split: `split.parquet`; noise is made from training photos only, and for those (a cloak, whose noise is each photo's own: for all).
        aligned: folder of the clean crops' shards.
        run: holds the trained clean surrogates, which the adversarial arms need, each in the folder of its name.
        threads: CPU threads of a search.
    """
    arm = arm_of(config.arm)
    assert (config.arm == "cloak-error-min") == (config.beneath is not None), config.arm
    table = read_table(split, SPLIT_COLUMNS)
    # What is published carries noise whoever trains on it; of the other arms only what the recogniser is trained on.
    carrying = table[(table["role"] == "protected") & ((table["part"] == "train") | arm.published)]
    names = tuple(sorted(row_names(carrying, arm.per).unique()))
    if config.given is not None:
        if runtime.ranks.first:
            patterns, facts = patterns_of(config, names)
            save_noise(output, patterns, facts | {"identities": len(names), "mean_abs": mean_abs(patterns.delta)})
            say(f"{config.arm}: the patterns of {len(names)} people are those of {config.given}; nothing was searched")
        return
    started = time.perf_counter()
    facts: dict[str, Any] = {"method": config.arm, "per": arm.per, "epsilon": config.epsilon, "identities": carrying["identity"].nunique()}
    facts |= {"rounds": 0, "converged": None}
    if arm.method in ("error-min", "cloak") or arm.surrogates:
        from pipeline.noise.against import against_networks
        from pipeline.noise.searched import search
        from pipeline.noise.transforms import describe_transforms

        prepare_torch(runtime, threads)
        with turn(run, runtime):
            if arm.surrogates or arm.method == "cloak":
                found, made = against_networks(config, arm, table, names, split, aligned, run, output, runtime)
                facts |= made
            else:
                result = search(config, arm, table, names, split, aligned, output / "checkpoint.pt", runtime)
                found = result.delta
                facts |= {"rule": config.rule, "min_rounds": config.min_rounds, "seconds": result.seconds, **result.facts()}
                if config.grey:
                    facts["grey"] = True
                if config.transforms:
                    facts["draws"] = config.draws
                if config.binding:
                    facts |= {"binding": "other people's photos", "error_on_others": result.history[-1]["error"]}
        if config.transforms:
            facts["transforms"] = describe_transforms()
        delta = quantise(found, config.epsilon)
    else:
        draw = {"random": random_noise, "lsp": linearly_separable_patches, "backdoor": trigger_patches}[arm.method]
        delta = draw(rows=len(names), epsilon=config.epsilon, seed=config.seed)
    if not runtime.ranks.first:
        return
    facts["seconds"] = round(facts.get("seconds", time.perf_counter() - started), 1)  # a search knows what it took before a kill, too
    facts["mean_abs"] = mean_abs(delta)
    save_noise(output, NoiseTable(delta, names, config.epsilon, arm.per), facts)
    for kept in output.glob("*.pt"):
        kept.unlink()
    if facts["converged"] is False:
        wanted = (config.beneath or config).stop_error
        say(f"{config.arm}: did not converge in {facts['rounds']} rounds (error {facts['error']:.1%}, wanted < {wanted:.0%})")


def mean_abs(delta: np.ndarray) -> float:
    """Mean absolute value of patterns, int8 (K, 3, H, W), in 1/255; a pattern at a time."""
    return round(float(np.mean([np.abs(one.astype(np.int16)).mean() for one in delta])), 3)
