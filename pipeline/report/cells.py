"""What stands in a table of the report: cells, and the table itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.report.words import NOT_MEASURED, NOT_RECORDED, OF_EACH_SEED, TOO_FEW, at, is_number


@dataclass(frozen=True)
class Cell:
    """What stands in a table: `text` for people, `sort` for sorting, `tone` a style class, `heat` a share for a coloured ground."""

    text: str
    sort: float | str | None = None
    tone: str = ""
    heat: float | None = None


@dataclass(frozen=True)
class Table:
    """One table. `spans` are headings over several columns, (text, columns), the first column not counted."""

    key: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    spans: list[tuple[str, int]] = field(default_factory=list)
    foot: list[list[Cell]] = field(default_factory=list)

    def numeric(self, column: int) -> bool:
        """Whether the column holds numbers, and so stands flush right."""
        cells = [row[column] for row in self.rows]
        return column > 0 and (any(is_number(one.sort) for one in cells) or all(one.sort is None for one in cells))


INVALID = Cell("invalid", tone="warn")  # instead of a number that a failed check took the meaning from


def cell(value: Any, text: str, *, tone: str = "", heat: float | None = None) -> Cell:
    """A cell of a number; what was not measured is toned down."""
    missing = text in (NOT_MEASURED, NOT_RECORDED, OF_EACH_SEED, TOO_FEW)
    return Cell(text, value if is_number(value) else None, tone or ("missing" if missing else ""), heat)


def head(name: str) -> Cell:
    """The first cell of a row."""
    return Cell(name, name)


def noisy(metrics: dict[str, Any]) -> dict[str, Any]:
    """The arms that changed photos: all that carry noise or measures of it."""
    return {arm: record for arm, record in metrics["arms"].items() if record.keys() & {"noise", "imperceptibility", "photos"}}


def rate_order(rate: str) -> float:
    """A false accept rate as a number; what is none sorts last."""
    try:
        return float(rate)
    except ValueError:
        return -1.0


def rate_text(rate: str) -> str:
    """0.001 → 0.1%."""
    value = rate_order(rate)
    return f"{value * 100:g}%" if value >= 0 else rate


def deviation(record: Any, key: str = "sd") -> str:
    """ " ± 0.8" (percentage points) where several seeds were run, else nothing."""
    spread = at(record, key)
    return f" ± {spread * 100:.1f}" if is_number(spread) else ""
