"""The search for error-minimizing noise of a run's photos, and what all noise goes on by that a network is needed for.

Apart from the stage, because a drawn pattern needs neither torch nor the seconds that importing it takes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import sha256_of_files
from pipeline.config import NoiseConfig, dump
from pipeline.errors import StageError
from pipeline.faces.geometry import CROP_SIZE
from pipeline.models.recognisers import make_recogniser
from pipeline.noise.arms import Arm
from pipeline.noise.error_min import SearchResult, search_noise
from pipeline.noise.table import row_names
from pipeline.runtime import Runtime, free_memory, hash_seed, say
from pipeline.training.faces import face_set
from pipeline.training.keys import code_in

TABLES = 2  # float32 tables of noise at the least: the noise, and the directions it is to go; with momentum also the direction so far


def search(
    config: NoiseConfig, arm: Arm, table: Any, names: tuple[str, ...], split: Path, aligned: Path, checkpoint: Path, runtime: Runtime
) -> SearchResult:
    """Error-minimizing noise of `names` on the training photos of protected and auxiliary identities."""
    table = table[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train")]
    protected = sorted(table.loc[table["role"] == "protected", "identity"].unique())
    identities = protected + sorted(set(table["identity"]) - set(protected))
    labels = table["identity"].map({name: code for code, name in enumerate(identities)})
    faces = face_set(table.assign(label=labels), aligned)
    keys = row_names(table, arm.per)
    carries = (table["role"] == "protected") | (config.search == "all")
    carrying = [*names, *sorted(set(keys[carries]) - set(names))]
    check_memory(len(carrying), arm, runtime)
    place = {name: code for code, name in enumerate(carrying)}
    row_N = keys.map(place).where(carries, -1).to_numpy(np.int64)
    weights = None if config.weights is None else Path(config.weights)

    def make_surrogate(number: int) -> torch.nn.Module:
        model = make_recogniser(
            classes=len(identities),
            input_size=config.input_size,
            dropout=config.dropout,
            normalise=config.normalise,
            seed=surrogate_seed(config.seed, number),
            weights=weights,
        )
        return model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]

    say(
        f"{config.arm}: searching {len(carrying)} patterns for {len(protected)} identities on {int((row_N >= 0).sum())} photos, "
        f"{len(identities)} classes, {config.surrogates} surrogate(s) of at most {config.rounds} rounds"
    )

    whose = "other people's photos" if config.binding else "noisy photos"

    def report(record: dict[str, float]) -> None:
        say(
            f"{config.arm}: round {record['round']:.0f} of at most {config.rounds * config.surrogates}: "
            f"surrogate loss {record['loss']:.3f}, error on {whose} {record['error']:.1%}, mean |delta| {record['mean_abs']:.1f}/255"
        )

    result = search_noise(
        config,
        make_surrogate,
        faces,
        row_N,
        rows=len(carrying),
        runtime=runtime,
        report=report,
        checkpoint=checkpoint,
        key=search_key(config, arm, split),
    )
    return replace(result, delta=result.delta[: len(names)])


def rows_of(carrying: Any, arm: Arm, names: tuple[str, ...]) -> np.ndarray:
    """The place of each photo's row among `names`, int64 (N,)."""
    place = {name: code for code, name in enumerate(names)}
    return row_names(carrying, arm.per).map(place).to_numpy(np.int64)


def search_key(config: NoiseConfig, arm: Arm, split: Path) -> str:
    """What a search that was killed goes on by: its config, the photos that were split, and its code."""
    return dump(config) + sha256_of_files([split, split.with_suffix(".json"), *code_of_search(arm.method)])


def code_of_search(method: str) -> list[Path]:
    """The source files by which noise of `method` is searched: a search that was killed goes on by the same only."""
    room, training = Path(__file__).parent, ("at_hand.py", "faces.py", "learner.py", "optimiser.py", "replayed.py", "shared.py")
    names = {
        "error-min": ("error_min.py", "asked.py"),
        "error-max": ("descent.py", "error_max.py"),
        "tap": ("descent.py", "tap.py"),
        "fawkes": ("descent.py", "fawkes.py"),
        "cloak": ("descent.py", "cloak.py", "fawkes.py", "known.py", "tap.py"),
    }[method]
    if method != "error-min":
        names = (*names, "against.py")
    own = [*(room / name for name in (*names, "transforms.py", "searched.py")), room.parent / "countermeasures" / "compression.py"]
    return [*own, *code_in("models"), *(room.parent / "training" / name for name in training)]


def check_memory(rows: int, arm: Arm, runtime: Runtime, *, tables: int = TABLES) -> None:
    """Noise of every photo of WebFace is 59 GB of float32: said before hours of work, rather than killed by the system in their middle.

    Raises:
        StageError: so many `tables` do not fit what the device has free.
    """
    needed, free = tables * rows * 3 * CROP_SIZE * CROP_SIZE * 4, free_memory(runtime.device)
    if free is not None and needed > free:
        raise StageError(
            f"noise of {rows} patterns, one per {arm.per}, takes at least {needed / 2**30:.1f} GiB of memory; "
            f"{free / 2**30:.1f} GiB are free on {runtime.device}: protect fewer people with IDENTITIES=, or with SETTING=partial"
        )


def surrogate_seed(seed: int, number: int) -> int:
    """The seed of surrogate `number`: never the downstream model's, whose initial weights the defender cannot know."""
    return hash_seed(seed, 0x5066, number)
