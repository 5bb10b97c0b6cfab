"""Verdicts against the saved baseline."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.baseline import compare, empty_baseline, updated, verdict_of
from benchmarks.machine import machine_key
from benchmarks.results import summarise
from benchmarks.row import Pair
from tests.benchmarks.fakes import HARDWARE, empty_results, fake_row


def record(*ratios: float, **values: Any) -> dict[str, Any]:
    """A measured row with these paired ratios."""
    return summarise(fake_row("r", [], **values), [Pair(ratio, 1.0) for ratio in ratios])


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        ((6.0, 6.2, 6.1), (3.0, 3.1, 3.2), "slower"),
        ((3.0, 3.1, 3.2), (6.0, 6.2, 6.1), "faster"),
        ((6.0, 6.2, 6.1), (6.0, 6.1, 6.2), "same"),
        ((5.0, 6.0, 7.0), (4.0, 4.9, 6.0), "same"),  # the intervals meet
        ((6.0, 6.01, 6.02), (5.9, 5.91, 5.92), "same"),  # repeats agree, yet processes differ by as much
        ((6.0, 6.0, 6.0), (5.0, 5.0, 5.0), "slower"),
        ((6.0, 6.0, 8.0), (4.2, 5.9, 5.9), "same"),  # apart, but by less than the repeats scatter
        ((6.0, 6.0), (3.0, 3.0), "unclear"),
    ],
)
def test_slower_is_more_than_the_noise(before: tuple[float, ...], now: tuple[float, ...], state: str) -> None:
    assert verdict_of(record(*now), record(*before)).state == state


def test_seconds_and_rates_are_judged_alike() -> None:
    slow, quick = ([Pair(value, 12.0) for value in values] for values in ((4, 4.1, 4.2), (2, 2.1, 2.05)))
    row = fake_row("r", [], unit="s", lower_is_better=True)
    assert verdict_of(summarise(row, slow), summarise(row, quick)).state == "slower"
    assert verdict_of(summarise(row, quick), summarise(row, slow)).state == "faster"


def test_what_cannot_be_compared_is_said_and_does_not_fail() -> None:
    assert verdict_of(record(6, 6, 6), None).state == "new"
    assert verdict_of(record(1, 1, 1), record(6, 6, 6, against="another-side")).state == "unclear"


def test_a_limit_counts_as_met_or_missed() -> None:
    limit = {"against": "limit-0.3s", "target": 1.0}
    assert verdict_of(record(2, 2, 2, **limit), record(6, 6, 6, **limit)).state == "same"
    assert verdict_of(record(0.5, 0.5, 0.5, **limit), record(6, 6, 6, **limit)).state == "slower"
    assert verdict_of(record(6, 6, 6, **limit), record(0.5, 0.5, 0.5, **limit)).state == "faster"


def test_baseline_is_kept_by_machine_and_row() -> None:
    results = empty_results()
    key = machine_key(results["hardware"])
    results["rows"] = [record(6, 6, 6), summarise(fake_row("alone", [], against=""), [Pair(1.0)])]
    kept = updated(empty_baseline(), results, key)
    assert list(kept["machines"][key]["rows"]) == ["r"]  # a row without another side has no ratio to keep
    assert [one.state for one in compare(results, kept, key)] == ["same"]
    assert [one.state for one in compare(results, kept, "another machine")] == ["new"]
    results["rows"] = [record(7, 7, 7) | {"name": "second"}]
    both = updated(updated(kept, results, key), results, "another machine")
    assert set(both["machines"][key]["rows"]) == {"r", "second"} and set(both["machines"]["another machine"]["rows"]) == {"second"}
    assert list(kept["machines"][key]["rows"]) == ["r"]  # the input is left alone


def test_key_tells_machines_apart() -> None:
    keys = {machine_key(HARDWARE | change) for change in ({}, {"cores": 4}, {"cpu_precision": "bf16"}, {"gpu": "A100"}, {"cpu": "x"})}
    assert len(keys) == 5
    assert machine_key(HARDWARE | {"load": 9.0}) == machine_key(HARDWARE)
