"""`bench.json`: pairs of runs become medians and ratios; written whole after every pair, read back to go on.

Rows are measured in turns: each once, then each once more. The repeats of a row so lie minutes apart, and their spread holds the drift of
the machine (clock, neighbours) that a comparison with another day will meet; five repeats in one go would agree with each other and
say nothing of that. Within a pair both sides run one right after the other, so drift falls out of the ratio. A run that is killed has every
row, each with fewer repeats.
"""

from __future__ import annotations

import datetime
import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import benchmarks
from benchmarks.row import Pair, Row, Unavailable

SCHEMA = 1
DIGITS = 6


def collect(package: Any = benchmarks) -> tuple[list[Row], dict[str, str]]:
    """The rows of every module in the package that has `rows()`, and why a module has none here (by its name).

    Raises:
        ValueError: two rows have one name.
    """
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for found in pkgutil.iter_modules(package.__path__):
        source = Path(package.__path__[0]) / f"{found.name}.py"
        if not source.is_file() or "\ndef rows(" not in source.read_text(encoding="utf-8"):
            continue  # unread: experiments are commands of their own, and importing them may take seconds
        try:
            rows += importlib.import_module(f"{package.__name__}.{found.name}").rows()
        except Unavailable as reason:
            skipped[found.name] = str(reason)
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"more than one row is called {', '.join(twice)}")
    return rows, skipped


def new_results(hardware: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """An empty `bench.json`."""
    return {
        "schema": SCHEMA,
        "hardware": hardware,
        **provenance,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "rows": [],
        "skipped": {},
        "failed": {},
    }


def measure_rows(
    rows: list[Row],
    results: dict[str, Any],
    *,
    repeats: int,
    save: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
    order: list[str] | None = None,
) -> None:
    """Bring every row to `repeats` pairs, in turns, and `save` after each.

    Args:
        results: as `new_results` or an earlier run left it; changed in place. A row that cannot run here, or that fails, is left out from
            then on and its reason noted under `skipped` or `failed`.
        order: names in the order that rows are listed in; None: that of `rows`.
    """
    place = {name: number for number, name in enumerate(order or [row.name for row in rows])}
    pairs = {record["name"]: [Pair(*pair) for pair in record["pairs"]] for record in results["rows"]}
    out: set[str] = set()
    for turn in range(1, repeats + 1):
        for row in rows:
            done = pairs.setdefault(row.name, [])
            if row.name in out or len(done) >= turn:
                continue
            started = time.perf_counter()
            try:
                pair = checked(row.measure())
            except Unavailable as reason:
                results["skipped"][row.name] = str(reason)
                out.add(row.name)
                say(f"{row.name}: skipped: {reason}")
            except Exception as error:  # one broken row must not cost the others
                results["failed"][row.name] = f"{type(error).__name__}: {error}"
                out.add(row.name)
                say(f"{row.name}: FAILED: {type(error).__name__}: {error}")
            else:
                done.append(pair)
                results["failed"].pop(row.name, None)
                results["skipped"].pop(row.name, None)
                record = summarise(row, done)
                kept = [one for one in results["rows"] if one["name"] != row.name] + [record]
                results["rows"] = sorted(kept, key=lambda one: place.get(one["name"], len(place)))
                say(f"{turn} of {repeats}  {sentence(record, last=pair)}  ({time.perf_counter() - started:.0f} s)")
            results["seconds"] = round(results["seconds"] + time.perf_counter() - started, 1)
            save(results)


def checked(pair: Pair) -> Pair:
    """The same pair; `ValueError` where a side is not a finite number above 0, of which no ratio could be taken."""
    if not all(math.isfinite(value) and value > 0 for value in (pair.value, pair.other if pair.other is not None else 1.0)):
        raise ValueError(f"measured {pair.value} and {pair.other}: numbers above 0 are needed")
    return pair


def summarise(row: Row, pairs: list[Pair]) -> dict[str, Any]:
    """A row of `bench.json`: medians over pairs. The ratio is the median of the pairs' ratios, not the ratio of medians."""
    values = [pair.value for pair in pairs]
    ratios = [ratio for pair in pairs if (ratio := row.ratio(pair)) is not None]
    return {
        "name": row.name,
        "unit": row.unit,
        "value": shorten(median(values)),
        "min": shorten(min(values)),
        "max": shorten(max(values)),
        "repeats": len(pairs),
        "against": row.against,
        "ratio": shorten(median(ratios)) if ratios else None,
        "ratio_min": shorten(min(ratios)) if ratios else None,
        "ratio_max": shorten(max(ratios)) if ratios else None,
        "target": row.target,
        "lower_is_better": row.lower_is_better,
        "gpu": row.gpu,
        "ceiling": row.ceiling,
        "text": row.text,
        "pairs": [[shorten(pair.value), None if pair.other is None else shorten(pair.other)] for pair in pairs],
    }


def shorten(value: float) -> float:
    """Six significant digits; more is noise."""
    return float(f"{float(value):.{DIGITS}g}")


def sentence(record: dict[str, Any], *, last: Pair | None = None) -> str:
    """A row in one line of text; with `last`, that pair instead of the medians."""
    value = record["value"] if last is None else last.value
    text = f"{record['name']:<24} {figure(value):>9} {record['unit']:<9}"
    if record["ratio"] is None:
        return text.rstrip()
    if last is not None:
        return f"{text} against {figure(last.other or 0.0)} ({record['against']})"
    spread = f"{record['ratio_min']:.2f} to {record['ratio_max']:.2f}"
    target = "" if record["target"] is None else f", asked: {record['target']:g}: {'met' if meets(record) else 'MISSED'}"
    return f"{text} {record['ratio']:6.2f}× {record['against']} ({spread}{target})"


def meets(record: dict[str, Any]) -> bool | None:
    """Whether the row's ratio is what was asked for; None where nothing was."""
    if record["target"] is None or record["ratio"] is None:
        return None
    return record["ratio"] >= record["target"]


def figure(value: float) -> str:
    """Three significant digits at least, no exponent: 0.0123, 4.56, 78.9, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def problem(results: Any, path: Path) -> str | None:
    """What is wrong with a file that should be `bench.json`; None if nothing is."""
    keys = {"schema", "hardware", "commit", "dirty", "created", "seconds", "rows", "skipped", "failed"}
    if not isinstance(results, dict) or not keys <= results.keys() or results["schema"] != SCHEMA:
        return f"{path} is not a bench.json of schema {SCHEMA}"
    wanted = {"name", "unit", "value", "min", "max", "repeats", "against", "ratio", "pairs"}
    broken: Iterable[Any] = (row for row in results["rows"] if not isinstance(row, dict) or not wanted <= row.keys())
    return f"{path} has a row that lacks keys" if any(True for _ in broken) else None
