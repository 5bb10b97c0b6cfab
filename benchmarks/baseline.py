"""Ratios kept from an earlier run, and which row has become slower since by more than the noise between repeats.

Only ratios are kept, by kind of machine: they hold across moments and, roughly, across machines of one kind; seconds do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.results import meets
from benchmarks.row import LIMIT

SCHEMA = 1
LEAST_REPEATS = 3  # fewer have no spread to speak of
FLOOR = 0.05  # of the ratio: what processes of the same code differ by though repeats within one agree
KEPT = ("against", "ratio", "ratio_min", "ratio_max", "repeats", "target")

State = Literal["slower", "faster", "same", "new", "unclear"]


@dataclass(frozen=True)
class Verdict:
    """What became of a row since the baseline. Only `slower` is bad news; `new` has no baseline, `unclear` cannot be compared."""

    name: str
    state: State
    detail: str


def empty_baseline() -> dict[str, Any]:
    """A baseline of no machine."""
    return {"schema": SCHEMA, "machines": {}}


def read_baseline(path: Path) -> dict[str, Any]:
    """The saved baselines; empty where there is no file. `RequestError` if it is something else."""
    from pipeline.artifacts import read_json
    from pipeline.errors import RequestError

    if not path.exists():
        return empty_baseline()
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("machines"), dict):
        raise RequestError(f"--baseline {path}: not a baseline of schema {SCHEMA}; `--save-baseline` writes one")
    return found


def updated(baseline: dict[str, Any], results: dict[str, Any], key: str) -> dict[str, Any]:
    """The baseline with this machine's rows replaced by those of `results` that have a ratio; other rows and machines stay."""
    kept = baseline["machines"].get(key, {}).get("rows", {})
    fresh = {row["name"]: {name: row[name] for name in KEPT} for row in results["rows"] if row["ratio"] is not None}
    machine = {"commit": results["commit"], "created": results["created"], "rows": dict(sorted((kept | fresh).items()))}
    return {"schema": SCHEMA, "machines": dict(sorted((baseline["machines"] | {key: machine}).items()))}


def compare(results: dict[str, Any], baseline: dict[str, Any], key: str) -> list[Verdict]:
    """A verdict for each row of `results` that has a ratio."""
    saved = baseline["machines"].get(key, {}).get("rows", {})
    return [verdict_of(row, saved.get(row["name"])) for row in results["rows"] if row["ratio"] is not None]


def verdict_of(now: dict[str, Any], before: dict[str, Any] | None) -> Verdict:
    """Compare one row's paired ratios with the saved ones.

    Slower: the intervals of ratios do not meet, and the median fell by more than the larger spread of the two (and by more than `FLOOR`).
    A row held against a limit rather than against another run has no paired ratio, and its seconds drift: there it counts that it met
    the target then and misses it now.
    """
    name = now["name"]
    if before is None:
        return Verdict(name, "new", f"{now['ratio']:.2f}, no baseline for this kind of machine")
    if before["against"] != now["against"]:
        return Verdict(name, "unclear", f"was measured against {before['against']}, now against {now['against']}")
    change = f"{before['ratio']:.2f} → {now['ratio']:.2f}"
    if now["against"].startswith(LIMIT):
        was, is_now = meets(before), meets(now)
        state: State = "slower" if was and is_now is False else "faster" if was is False and is_now else "same"
        return Verdict(name, state, f"{change} of what is asked, {'met' if is_now else 'missed'}")
    if min(before["repeats"], now["repeats"]) < LEAST_REPEATS:
        return Verdict(name, "unclear", f"{change}, fewer than {LEAST_REPEATS} repeats")
    noise = max(spread(before), spread(now), FLOOR * before["ratio"])
    detail = f"{change}, noise ±{noise:.2f}"
    if now["ratio_max"] < before["ratio_min"] and before["ratio"] - now["ratio"] > noise:
        return Verdict(name, "slower", detail)
    if now["ratio_min"] > before["ratio_max"] and now["ratio"] - before["ratio"] > noise:
        return Verdict(name, "faster", detail)
    return Verdict(name, "same", detail)


def spread(row: dict[str, Any]) -> float:
    """Largest minus smallest paired ratio."""
    return row["ratio_max"] - row["ratio_min"]
