"""What a trained model belongs to."""

from __future__ import annotations

from pipeline.config import TrainConfig
from pipeline.training.keys import code_that_trains


def test_countermeasures_concern_only_what_is_trained_with_one() -> None:
    without, grey = ({path.parent.name for path in code_that_trains(TrainConfig(countermeasure=name))} for name in ("none", "grey"))
    assert without == {"training", "models"} and grey == without | {"countermeasures"}
