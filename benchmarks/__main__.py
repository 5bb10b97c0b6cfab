"""`python -m benchmarks`: measure rows, write `bench.json` and a page, compare with the saved baseline.

    python -m benchmarks                       # all rows, 5 pairs each
    python -m benchmarks noise-search inference --repeats 9
    python -m benchmarks --resume              # go on where a killed run was
    python -m benchmarks --check               # and say which row has become slower than the baseline; exit code 1 if one has

Exit codes: 0 done; 1 a row failed, or `--check` found one slower; 2 the request is wrong. Progress goes to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.row import BASELINE, Row


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("names", nargs="*", metavar="NAME", help="rows to measure; none: all (`--list` lists them)")
    found.add_argument("--repeats", type=int, default=5, help="pairs of runs of each row (default 5)")
    found.add_argument("--output", type=Path, default=Path("reports/bench"), help="folder of bench.json and index.html")
    found.add_argument("--resume", action="store_true", help="keep what --output has of the same commit and machine, measure the rest")
    found.add_argument("--baseline", type=Path, default=BASELINE, help="file of saved ratios (default benchmarks/baseline.json)")
    found.add_argument("--save-baseline", action="store_true", help="keep this run's ratios as the baseline of this kind of machine")
    found.add_argument("--check", action="store_true", help="compare with the baseline; exit code 1 if a row has become slower")
    found.add_argument("--gpu", action="store_true", help="only the rows that need a GPU")
    found.add_argument("--list", action="store_true", help="list the rows and stop")
    return found


def main(words: list[str] | None = None) -> int:
    """Measure what is asked for; returns the exit code."""
    from benchmarks.results import collect
    from pipeline.errors import RequestError, StageError

    args = parser().parse_args(words)
    try:
        rows, unavailable = collect()
        if args.list:
            for row in rows:
                print(f"{row.name:<24} {row.unit:<9} {('against ' + row.against) if row.against else '':<26} {row.text}")
            for module, reason in unavailable.items():
                print(f"{module:<24} has no rows here: {reason}")
            return 0
        return run(args, rows, unavailable)
    except (RequestError, StageError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; the same command with --resume goes on where it was", file=sys.stderr)
        return 130


def run(args: argparse.Namespace, rows: list[Row], unavailable: dict[str, str]) -> int:
    """Measure, write, compare."""
    from benchmarks.baseline import compare, read_baseline, updated
    from benchmarks.growth import read_growth
    from benchmarks.machine import describe_machine, machine_key
    from benchmarks.page import write_page
    from benchmarks.results import measure_rows, new_results, sentence
    from benchmarks.webface import GROWTH_FILE
    from pipeline.artifacts import write_json
    from pipeline.provenance import revision
    from pipeline.runtime import say

    read_growth(args.output / GROWTH_FILE)  # for the page; what is damaged is said before hours of measuring
    chosen = choose(rows, args.names, gpu_only=args.gpu, repeats=args.repeats)
    hardware = describe_machine()
    key = machine_key(hardware)
    baseline = read_baseline(args.baseline)
    path = args.output / "bench.json"
    results = resumed(path, key, revision()) if args.resume and path.exists() else new_results(hardware, revision())
    results["skipped"] |= unavailable
    if "gpu" not in hardware:
        results["skipped"] |= {row.name: "needs a CUDA device, this machine has none" for row in chosen if row.gpu}
        chosen = [row for row in chosen if not row.gpu]
    order = [row.name for row in rows]
    measure_rows(chosen, results, repeats=args.repeats, save=lambda found: write_json(path, found), say=say, order=order)
    write_json(path, results)
    verdicts = compare(results, baseline, key)
    write_page(results, verdicts, key, args.output)
    report(results, sentence)
    slower = [one for one in verdicts if one.state == "slower"]
    if args.check:
        print("\nagainst the baseline of this kind of machine:" if key in baseline["machines"] else f"\nno baseline for {key}")
        for one in verdicts:
            print(f"{one.state.upper() if one.state == 'slower' else one.state:<8} {one.name:<24} {one.detail}")
    if args.save_baseline:
        write_json(args.baseline, updated(baseline, results, key))
        print(f"baseline: {args.baseline} ({key})")
    print(f"page: {args.output / 'index.html'}")
    return 1 if results["failed"] or (args.check and slower) else 0


def choose(rows: list[Row], names: list[str], *, gpu_only: bool, repeats: int) -> list[Row]:
    """The rows asked for; `RequestError` where one is unknown or the number of repeats makes no sense."""
    from pipeline.errors import RequestError

    unknown = sorted(set(names) - {row.name for row in rows})
    if unknown:
        raise RequestError(f"no row {', '.join(unknown)}; there are {', '.join(row.name for row in rows)}")
    if repeats < 1:
        raise RequestError(f"--repeats {repeats}: allowed is 1 or more")
    return [row for row in rows if (not names or row.name in names) and (row.gpu or not gpu_only)]


def resumed(path: Path, key: str, now: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left; `RequestError` if it is of another commit or kind of machine: such pairs are not mixed with new ones."""
    from benchmarks.machine import machine_key
    from benchmarks.results import problem
    from pipeline.artifacts import read_json
    from pipeline.errors import RequestError

    found = read_json(path)
    wrong = problem(found, path)
    if wrong is None and (found["commit"], machine_key(found["hardware"])) != (now["commit"], key):
        wrong = f"{path} is of another commit or kind of machine"
    if wrong is not None:
        raise RequestError(f"--resume: {wrong}; leave --resume out to start anew")
    return found


def report(results: dict[str, Any], sentence: Any) -> None:
    """All rows in plain text on stdout."""
    for row in results["rows"]:
        print(sentence(row))
    for name, reason in results["skipped"].items():
        print(f"{name:<24} skipped: {reason}")
    for name, reason in results["failed"].items():
        print(f"{name:<24} FAILED: {reason}")


if __name__ == "__main__":
    sys.exit(main())
