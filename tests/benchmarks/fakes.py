"""Made-up rows: sides that take no time and say what they are told to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.results import new_results
from benchmarks.row import Pair, Row

HARDWARE = {
    "cpu": "Fast <b>CPU</b>", "cpu_model": "family 1 model 2 avx2", "cores": 2, "cpu_precision": "fp32", "system": "Linux",
    "memory_gib": 8.0, "load": 0.5, "packages": {"torch": "2.15.0", "gone": None},
}  # fmt: skip
PROVENANCE = {"commit": "c0ffee", "dirty": False}


def fake_row(name: str, pairs: Iterable[tuple[float, float | None]], **values: Any) -> Row:
    """A row whose repeats are `pairs`, one after the other; once they are used up, `StopIteration` as a failure would be."""
    turns = iter(pairs)
    values = {"unit": "images/s", "against": "plain-reference", "text": f"what {name} runs"} | values
    return Row(name, measure=lambda: Pair(*next(turns)), **values)


def empty_results() -> dict[str, Any]:
    return new_results(dict(HARDWARE), dict(PROVENANCE)) | {"created": "2026-01-02T03:04:05+00:00"}
