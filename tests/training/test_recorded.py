"""What was trained says what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import read_json
from pipeline.config import AlignConfig, EvaluateConfig
from pipeline.distributed import Ranks
from pipeline.runtime import Runtime
from pipeline.training.stage import train_arm
from pipeline.training.trial import run_trial
from tests.study import CPU, TRAIN, Study

SMALL = TRAIN.model_copy(update={"model": "mobilefacenet"})
HERE = {"device": "cpu", "precision": "fp32", "processes": 1}


def recorded(path: Path) -> dict[str, Any]:
    found = read_json(path)
    return {name: found.get(name) for name in HERE}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


def test_an_arm_and_a_trial_say_where_they_were_trained(study: Study) -> None:
    train_arm(SMALL, "clean", study.run, study.aligned, CPU)
    assert recorded(study.run / "clean" / "model" / "train.json") == HERE
    config = SMALL.model_copy(update={"countermeasure": "grey"})
    run_trial(config, EvaluateConfig(bootstrap=100), AlignConfig(), "grey", "clean", study.run, study.data, CPU)
    assert recorded(study.run / "clean" / "trials" / "grey" / "result.json") == HERE


def test_a_kill_while_weights_were_written_leaves_nothing_for_long(study: Study) -> None:
    """Each would be as large as the weights."""
    folder = study.run / "clean" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in (".weights.safetensors.1.tmp", ".tmplRN9OS"):
        (folder / left_over).write_bytes(b"half")
    train_arm(SMALL, "clean", study.run, study.aligned, CPU)
    assert sorted(path.name for path in folder.iterdir()) == ["history.jsonl", "train.json", "weights.safetensors"]


def test_of_several_gpus_the_kind_is_said() -> None:
    one = Runtime(device="cuda:3", workers=1, precision="bf16", ranks=Ranks(3, 4, 3))
    assert one.facts() == {"device": "cuda", "precision": "bf16", "processes": 4}
