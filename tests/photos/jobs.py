"""What worker processes of the tests do: in a module of its own, which they import quickly."""

from __future__ import annotations

from pipeline.errors import StageError


def double(number: int) -> int:
    if number < 0:
        raise StageError(f"job {number}")
    return 2 * number
