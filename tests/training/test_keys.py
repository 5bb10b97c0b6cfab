"""What a trained model belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts import write_json, write_text
from pipeline.config import EvaluateConfig, TrainConfig, dump
from pipeline.training.keys import code_that_trains, training_key, trial_key
from pipeline.training.matrix import is_current
from tests.study import Study


def test_countermeasures_concern_only_what_is_trained_with_one() -> None:
    without, grey = ({path.parent.name for path in code_that_trains(TrainConfig(countermeasure=name))} for name in ("none", "grey"))
    assert without == {"training", "models", "pipeline"} and grey == without | {"countermeasures"}


def flip_byte(path: Path) -> None:
    """Change one byte in the middle of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(tmp_path_factory.mktemp("study"))
    made.noise("random")
    weights = made.run / "random" / "model" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(100))  # whose network it is plays no part
    return made


NOISY = "random/protected/crops-00000.npy"
MODEL = "random/model/weights.safetensors"


@pytest.mark.parametrize(
    ("trial", "values", "inputs", "others"),
    [
        ("grey", {"countermeasure": "grey"}, ["split.parquet", "split.json", "random/protected/manifest.parquet", NOISY], [MODEL]),
        ("last-layer-refit", {"trainer": "last-layer-refit"}, ["split.json", NOISY, MODEL], []),
    ],
)
def test_a_trial_is_current_until_a_byte_of_what_it_saw_changes(
    study: Study, trial: str, values: dict[str, str], inputs: list[str], others: list[str]
) -> None:
    config = TrainConfig.model_validate(values)
    write_text(study.run / "config" / "trials" / f"{trial}.yaml", dump(config))
    write_text(study.run / "config" / "evaluate.yaml", dump(EvaluateConfig()))
    key = trial_key(config, EvaluateConfig(), "random", study.run, study.split)
    write_json(study.run / "random" / "trials" / trial / "result.json", {"key": key})
    for name in (*inputs, *others):
        assert is_current("random", trial, study.run)
        flip_byte(study.run / name)
        assert is_current("random", trial, study.run) == (name in others), name
        flip_byte(study.run / name)


def test_a_killed_training_does_not_go_on_with_other_photos(study: Study) -> None:
    def keys() -> dict[str, str]:
        return {arm: training_key(TrainConfig(), arm, study.run, study.split) for arm in ("clean", "random")}

    whole = keys()
    for name, concerned in (("split.json", {"clean", "random"}), (NOISY, {"random"})):
        flip_byte(study.run / name)
        assert {arm for arm, key in keys().items() if key != whole[arm]} == concerned, name
        flip_byte(study.run / name)
    assert keys() == whole
