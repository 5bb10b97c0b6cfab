"""What a trained model and a trial's result belong to: config, the files that training saw, and code. Without torch: asking is quick."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import sha256_of, sha256_of_files
from pipeline.config import EvaluateConfig, TrainConfig, dump
from pipeline.noise.arms import SURROGATES

ROOM = Path(__file__).resolve().parents[1]
CODE = ("training", "models")
BESIDE = ("shards.py", "distributed.py", "shared_memory.py")  # what all stages share is in no key, as in no `CODE_…` of the Makefile


def training_inputs(arm: str, run: Path, split: Path) -> list[Path]:
    """The files that decide what an arm's training sees."""
    everyones = [split, split.with_suffix(".json")]  # the latter says what photos and crops the split is of
    if arm in ("clean", "removed", *SURROGATES):
        return everyones
    protected = run / arm / "protected"
    return [*everyones, protected / "manifest.parquet", *sorted(protected.glob("crops-*.npy"))]


def code_in(*folders: str) -> list[Path]:
    """The source files in folders of the project's package, in order."""
    return sorted(path for folder in folders for path in (ROOM / folder).glob("*.py"))


def code_that_trains(config: TrainConfig) -> list[Path]:
    """The source files that decide what a training does; those of countermeasures where it has one."""
    folders = (*CODE, *(() if config.countermeasure == "none" else ("countermeasures",)))
    return [*code_in(*folders), *(ROOM / name for name in BESIDE)]


def code_that_embeds(config: TrainConfig) -> list[Path]:
    """The source files that decide what a frozen network makes of a photo."""
    return [*code_that_trains(config), ROOM / "onnx_session.py"]


def training_key(config: TrainConfig, arm: str, run: Path, split: Path) -> str:
    """What a training that was killed goes on by: its config, the arm's inputs and the code that trains."""
    return dump(config) + arm + sha256_of_files([*training_inputs(arm, run, split), *code_that_trains(config)])


def trial_key(config: TrainConfig, scoring: EvaluateConfig, arm: str, run: Path, split: Path) -> str:
    """What a trial's result belongs to: its config, what its intervals are drawn with, the arm's inputs, and all code that it runs."""
    code = code_that_embeds(config) + ([] if config.recropped is None else code_in("faces", "photos"))
    inputs = training_inputs(arm, run, split)
    if config.trainer == "last-layer-refit":
        inputs.append(run / arm / "model" / "weights.safetensors")
    code += [ROOM / "evaluation" / "probes.py", ROOM / "evaluation" / "accuracy.py"]
    drawn = f"{scoring.bootstrap} {scoring.seed}"
    return sha256_of((dump(config) + drawn + arm + sha256_of_files(inputs) + sha256_of_files(code)).encode())
