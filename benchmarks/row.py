"""One row of `make bench`: what is measured, against what, one pair of runs at a time.

Times differ between machines and moments, so what counts is the ratio of two sides measured one right after the other in one process (or in
two alike). A module of `benchmarks/` that has a function `rows() -> list[Row]` takes part; it imports what is heavy inside its functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BASELINE = Path(__file__).parent / "baseline.json"
LIMIT = "limit"  # an `against` that starts so is a number that was asked for, not something that was run


class Unavailable(Exception):
    """Raised by `rows` or `measure` where this machine lacks what is needed (photos, a GPU); the message says what. The row is skipped."""


@dataclass(frozen=True)
class Pair:
    """One repeat: `value` and, of the side it is held against, `other`, both in the row's unit; None where there is no other side."""

    value: float
    other: float | None = None


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: as in `bench.json`, such as `noise-search`.
        unit: of the values: `images/s`, `s`, `MiB`, `TFLOP/s`.
        against: name of the other side, such as `plain-reference`; empty where there is none; `limit-…` where it is a fixed number.
        text: one sentence for the page: what runs, on what data, on both sides.
        measure: runs both sides once, one after the other.
        lower_is_better: seconds and bytes; a rate is better higher.
        target: the smallest ratio that is asked for; None: none is.
        gpu: needs a CUDA device.
        ceiling: a limit of the machine that other rows are seen against, not something this project does.
    """

    name: str
    unit: str
    against: str
    text: str
    measure: Callable[[], Pair]
    lower_is_better: bool = False
    target: float | None = None
    gpu: bool = False
    ceiling: bool = False

    def ratio(self, pair: Pair) -> float | None:
        """How many times better the value is than the other side: above 1 is faster or smaller. None where there is no other side."""
        if pair.other is None:
            return None
        return pair.other / pair.value if self.lower_is_better else pair.value / pair.other


def paired(ours: Callable[[], float], other: Callable[[], float], *, warm: bool = True) -> Callable[[], Pair]:
    """A `measure` that runs both sides one right after the other, and the other one first every second time.

    What drifts (clock, temperature, neighbours) then speaks for each side as often as against it.

    Args:
        warm: before the first pair, run both sides once unmeasured: first calls pay for caches that later ones find filled.
    """
    turns = itertools.count()

    def measure() -> Pair:
        turn = next(turns)
        if turn == 0 and warm:
            ours()
            other()
        if turn % 2:
            against = other()
            return Pair(ours(), against)
        return Pair(ours(), other())

    return measure
