"""What `MATRIX` may name: nothing that the run's own training is already."""

from __future__ import annotations

import pytest

from pipeline.config import TrainConfig
from pipeline.training.trials import SETS, Means, trials_asked_for

MEANS = Means({"weights": "w.safetensors"}, {"reference": "r.onnx"}, photos=True)
SCRATCH = TrainConfig(input_size=96)
TUNED = TrainConfig(input_size=112, weights="w.safetensors")


@pytest.mark.parametrize(
    ("own", "same", "others"),
    [
        (SCRATCH, ["none", "share-100", "share-0100", "scratch", "input-96"], ["fine-tune", "input-112", "share-99", "share-0", "svm"]),
        (TUNED, ["none", "share-100", "fine-tune", "input-112"], ["scratch", "input-96", "resnet18", "grey", "recropped"]),
    ],
)
def test_a_trial_that_is_the_study_is_refused_by_name_and_left_out_of_sets(own: TrainConfig, same: list[str], others: list[str]) -> None:
    for name in same:
        with pytest.raises(ValueError, match=f"^'{name}' is this run's own training: it would try nothing new"):
            trials_asked_for(f"grey {name}", MEANS, own)
    assert trials_asked_for(" ".join(others), MEANS, own) == others
    assert trials_asked_for("trainers", MEANS, own) == [name for name in SETS["trainers"] if name not in same]
