"""metrics.csv: complete, readable back, harmless in a spreadsheet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.table import COLUMNS, metrics_frame, spreadsheet_safe
from tests.report.sample import NASTY, sample_metrics


def test_frame_reads_back_from_csv():
    frame = metrics_frame(sample_metrics())
    text = frame.to_csv(index=False)
    back = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values={column: [""] for column in ("value", "lo", "hi", "epoch")})
    back["epoch"] = back["epoch"].astype("Int64")
    pd.testing.assert_frame_equal(frame, back, check_dtype=False)
    assert list(frame.columns) == COLUMNS
    assert not frame.duplicated(["arm", "group", "metric", "epoch", "identity"]).any()


def test_names_of_digits_are_read_back_as_documented():
    metrics = sample_metrics()
    for arm in metrics["arms"].values():
        for group in ("protected", "others"):
            each = arm[group]
            names = {name: f"{place:07d}" for place, name in enumerate(each["per_identity"])}
            each |= {key: {names[name]: value for name, value in each[key].items()} for key in ("per_identity", "test_photos")}
    text = metrics_frame(metrics).to_csv(index=False)
    assert "0000045" not in set(pd.read_csv(io.StringIO(text))["identity"]), "guessed types lose zeros"
    words = (Path(__file__).parents[2] / "reports" / "README.md").read_text(encoding="utf-8")
    assert 'dtype={"identity": str}' in words
    assert "0000045" in set(pd.read_csv(io.StringIO(text), dtype={"identity": str})["identity"])


def test_frame_holds_every_number():
    metrics = sample_metrics()
    frame = metrics_frame(metrics)

    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]

    def one(arm: str, group: str, metric: str) -> dict[str, Any]:
        (found,) = [row for row in rows if (row["arm"], row["group"], row["metric"]) == (arm, group, metric)]
        return found

    def value(arm: str, group: str, metric: str) -> float:
        return one(arm, group, metric)["value"]

    mine = metrics["arms"]["error-min"]
    assert value("error-min", "protected", "accuracy") == mine["protected"]["final"]
    assert value("error-min", "noise", "converged") == 1
    assert value("error-min", "photos", "recrop_correlation min") == mine["photos"]["recrop_correlation"]["min"]
    assert value("clean", "verification", "tar_at_far 0.001") == metrics["arms"]["clean"]["verification"]["tar_at_far"]["0.001"]
    others = one("random", "others", "accuracy")
    assert [others["lo"], others["hi"]] == metrics["arms"]["random"]["others"]["ci95"]
    peak = one("error-min", "protected", "peak accuracy")
    assert (peak["value"], peak["epoch"]) == (0.1425, 3)
    assert sum(row["metric"] == "accuracy of identity" for row in rows) == 3 * (50 + 100)
    assert NASTY in {row["identity"] for row in rows}


def numbers_in(value: Any) -> list[float]:
    """Every number below a value, those of lists and dicts in it included."""
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers_in(one)]
    if isinstance(value, list):
        return [number for one in value for number in numbers_in(one)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_no_number_of_the_arms_and_trials_is_left_out():
    metrics = sample_metrics()
    frame = metrics_frame(metrics)
    held = {round(float(value), 9) for column in ("value", "lo", "hi", "epoch") for value in frame[column].dropna()}
    held |= {round(float(name.rsplit(" ", 1)[1]), 9) for name in frame["metric"] if name.startswith("roc: tar at far ")}
    for section in ("arms", "countermeasures", "trainers", "shares", "paired"):
        assert {round(number, 9) for number in numbers_in(metrics[section])} <= held, section


def test_a_measure_that_is_new_is_in_the_table_too():
    metrics = sample_metrics()
    metrics["arms"]["error-min"] |= {"confidence": {"protected": 0.25, "others": {"mean": 0.5}}, "margin": 0.75}
    rows = metrics_frame(metrics).query("arm == 'error-min' and group in ('confidence', 'arm') and metric != 'valid'")
    assert rows[["group", "metric", "value"]].to_numpy().tolist() == [
        ["confidence", "protected", 0.25],
        ["confidence", "others mean", 0.5],
        ["arm", "margin", 0.75],
    ]


def test_names_are_no_formulas():
    assert spreadsheet_safe("=cmd|calc") == "'=cmd|calc"
    assert [spreadsheet_safe(name) for name in ("", "n000123", NASTY)] == ["", "n000123", NASTY]
    assert not any(str(name).startswith(("=", "+", "-", "@")) for name in metrics_frame(sample_metrics())["identity"])


def test_frame_tolerates_what_is_missing():
    frame = metrics_frame({"schema": 1, "arms": {"clean": {"others": None, "protected": {"final": None}}}})
    assert len(frame) and frame["value"].dropna().empty
    counted = metrics_frame({"arms": {}, "countermeasures": {"jpeg-75": {"clean": {"protected": 0.5, "others": {"final": 0.75}}}}})
    assert counted["value"].dropna().tolist() == [0.5, 0.75]
