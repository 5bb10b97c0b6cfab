"""How a number is said: the same digits everywhere, and "not measured" where there is none."""

from __future__ import annotations

import math
from typing import Any

from pipeline.evaluation.accuracy import FEWEST_IDENTITIES

NOT_MEASURED = "not measured"
OF_EACH_SEED = "in each seed’s report"  # where several are joined and no interval of all is computed
NOT_RECORDED = "not recorded"
TOO_FEW = "too few people"


def at(value: Any, *keys: str) -> Any:
    """`value[k1][k2]…`, or None as soon as a key is missing."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number (and not a bool)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def percent(fraction: Any) -> str:
    """0.9512 → 95.1%; shares below a tenth of a percent keep one significant digit."""
    if not is_number(fraction):
        return NOT_MEASURED
    if 0 < abs(fraction) < 0.0005:
        return f"{fraction * 100:.1g}%"
    return f"{fraction:.1%}"


def by_chance(fraction: Any, draws: Any = None) -> str:
    """How often chance alone does as much, to two digits: 0.0005 → 0.05%, 0.102 → 10%.

    Of so many `draws` none that does as much leaves 1 in one more: nothing smaller can be found with them, so that is the most it can be.
    """
    if not is_number(fraction):
        return NOT_MEASURED
    words = f"{fraction * 100:.0f}%" if fraction >= 0.0995 else f"{fraction * 100:.2g}%"
    return f"at most {words}" if is_number(draws) and fraction <= 1.01 / (draws + 1) else words


def interval(pair: Any, people: int | None = None) -> str:
    """[0.91, 0.955] → 91.0–95.5%. Where `people` are too few for one, that is said."""
    if pair is None and people is not None and people < FEWEST_IDENTITIES:
        return TOO_FEW
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(map(is_number, pair)):
        return NOT_MEASURED
    return f"{pair[0] * 100:.1f}–{pair[1] * 100:.1f}%"


def points(fraction: float) -> str:
    """A difference of two accuracies in percentage points, signed: −0.042 → −4.2."""
    return f"{fraction * 100:+.1f}".replace("-", "−")


def number(value: Any, digits: int = 0, unit: str = "") -> str:
    """1234.5 → 1,234.5 with as many decimals as asked for (none for whole numbers given with `digits=0`)."""
    if not is_number(value):
        return NOT_MEASURED
    return f"{value:,.{digits}f}{unit}"


def level(value: Any) -> str:
    """A change of a pixel in 1/255: whole numbers stay whole."""
    if not is_number(value):
        return NOT_MEASURED
    return f"{value:.0f}/255" if float(value).is_integer() else f"{value:.1f}/255"


def duration(seconds: Any) -> str:
    """4.21 → 4.2 s; 200 → 3 min 20 s; 4000 → 1 h 7 min."""
    if not is_number(seconds):
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def yes_no(value: Any) -> str:
    """True → yes, False → no, anything else → not measured."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else NOT_MEASURED


def plural(count: Any, one: str, many: str) -> str:
    """3, "photo", "photos" → 3 photos."""
    if not is_number(count):
        return f"{many}: {NOT_RECORDED}"
    return f"{count:,} {one if count == 1 else many}"
