"""The train stage: one arm's recogniser, from the split and the crops a scraper would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline.artifacts import clear_left_over, read_table, sha256_of, sha256_of_file, whole_file, write_json, write_text
from pipeline.config import TrainConfig, dump
from pipeline.errors import StageError
from pipeline.models.backbones import TITLES
from pipeline.noise.arms import SURROGATES
from pipeline.runtime import Runtime, say, turn
from pipeline.split import SPLIT_COLUMNS
from pipeline.training.faces import FaceSet, face_set, lay_over
from pipeline.training.keys import training_key
from pipeline.training.loop import TestPhotos, train_recogniser


def training_set(table: Any, arm: str, aligned: Path, run: Path, *, share: float = 1.0, seed: int = 0) -> FaceSet:
    """What the scraper trains on: all training photos, those of protected identities as they were published.

    Args:
        table: the split.
        arm: `clean`: nothing is protected; `removed`: without the protected identities; one of `SURROGATES`: clean photos of protected
            and auxiliary identities, which is what a defender has; else an arm with noise, whose crops are in `<run>/<arm>/protected`.
        share: share of each protected identity's training photos that are protected, drawn by `seed`; the rest leaked before.

    Raises:
        StageError: a training photo of a protected identity has no protected crop.
    """
    train = table[table["part"] == "train"]
    if arm == "removed":
        return face_set(train[train["role"] != "protected"], aligned)
    if arm in SURROGATES:
        return face_set(train[train["role"].isin(("protected", "auxiliary"))], aligned)
    clean = face_set(train, aligned)
    if arm == "clean":
        return clean
    protected = run / arm / "protected"
    over = read_table(protected / "manifest.parquet", ["photo", "part", "shard", "row"])
    over = over[over["part"] == "train"]
    wanted = train[train["role"] == "protected"]
    missing = set(wanted["photo"]) - set(over["photo"])
    if missing:
        raise StageError(f"{protected}: {len(missing)} training photos are not protected, {min(missing)} for one; delete it and run again")
    if share < 1:
        over = over[over["photo"].isin(photos_protected(wanted, share, seed))]
        if over.empty:
            return clean
    faces = face_set(over.assign(label=0), protected)
    return lay_over(clean, train["photo"].to_numpy(), faces, over["photo"].to_numpy())


def photos_protected(table: Any, share: float, seed: int) -> set[str]:
    """Of each identity's photos the share that is protected, rounded, drawn by seed: a larger share holds the smaller ones."""
    chosen: set[str] = set()
    for label, photos in table.groupby("label")["photo"]:
        order = np.random.default_rng((seed, 0x5A, int(label))).permutation(sorted(photos))
        chosen.update(order[: round(share * len(order))])
    return chosen


def test_photos(table: Any, aligned: Path) -> TestPhotos:
    """The held-out photos, always the clean crops."""
    test = table[table["part"] == "test"]
    return TestPhotos(face_set(test, aligned), (test["role"] == "protected").to_numpy())


test_photos.__test__ = False  # type: ignore[attr-defined]


def train_arm(config: TrainConfig, arm: str, run: Path, aligned: Path, runtime: Runtime) -> None:
    """Train one arm, or a clean surrogate of the adversarial arms.

    Writes `weights.safetensors`, `train.json` and, last, `history.jsonl` (a line an epoch) into `<run>/<arm>/model`.
    """
    split, output = run / "split.parquet", run / arm / "model"
    table = read_table(split, SPLIT_COLUMNS)
    train, test = training_set(table, arm, aligned, run, share=config.share, seed=config.seed), test_photos(table, aligned)
    classes = int(table["label"].max()) + 1
    key = training_key(config, arm, run, split)
    kind = "from scratch" if config.weights is None else f"fine-tuned from {Path(config.weights).name}"
    say(
        f"{arm}: training {kind} on {len(train)} photos of {classes} identities, {config.epochs} epochs, "
        f"{runtime.device} {runtime.precision}"
    )

    def report(record: dict[str, Any]) -> None:
        shown = {name: "not scored" if record[name] is None else f"{record[name]:.1%}" for name in ("protected", "others")}
        say(
            f"{arm}: epoch {record['epoch']} of {config.epochs}: loss {record['loss']:.3f}, clean test photos: "
            f"protected identities {shown['protected']}, others {shown['others']} ({record['seconds']:.0f} s)"
        )

    checkpoint = output / "checkpoint.pt"
    with turn(run, runtime):
        model, history = train_recogniser(
            config, train, test, classes=classes, runtime=runtime, checkpoint=checkpoint, key=key, report=report
        )
    if not runtime.ranks.first:
        return
    clear_left_over(output / "weights.safetensors")
    with whole_file(output / "weights.safetensors") as temporary:
        save_file(model.tensors(), temporary)
    facts = {
        "arm": arm,
        "recipe": sha256_of(dump(config).encode()),
        "model": TITLES[config.model],
        "kind": kind,
        "weights_sha256": sha256_of_file(output / "weights.safetensors"),
        "classes": classes,
        "input_size": config.input_size,
        "normalise": config.normalise,
        "photos": len(train),
        **runtime.facts(),
        "seconds": round(sum(record["seconds"] for record in history), 1),
        "peak_memory_mib": peak_memory_mib(runtime),
    }
    write_json(output / "train.json", facts)
    write_text(output / "history.jsonl", "".join(json.dumps(record) + "\n" for record in history))
    checkpoint.unlink(missing_ok=True)


def peak_memory_mib(runtime: Runtime) -> int:
    """Most memory this process held (resident set on the CPU, allocated on a GPU), MiB."""
    if runtime.device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(runtime.torch_device()) / 2**20)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def read_history(path: Path, epochs: int | None = None) -> list[dict[str, Any]]:
    """The records of `history.jsonl`, one an epoch; `StageError` if a line is broken, or one of `epochs` missing (None: any number)."""
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: unreadable ({error}); delete it and run the same command again") from None
    epochs = max(1, len(found)) if epochs is None else epochs
    # A file that was cut at the end of a line reads well, but the best epoch may have been in what is gone.
    if [record.get("epoch") if isinstance(record, dict) else None for record in found] != [*range(1, epochs + 1)]:
        raise StageError(f"{path}: does not hold epochs 1 to {epochs}, each once; delete it and run the same command again")
    return found
