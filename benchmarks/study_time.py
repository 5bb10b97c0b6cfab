"""How long `make study` takes at one revision against another, from nothing to the report.

    python -m benchmarks.study_time --against v0.1            # this commit against v0.1: half an hour and more on 2 cores
    python -m benchmarks.study_time --against HEAD~3 --revision HEAD -- PROFILE=smoke IDENTITIES=3

Each revision is cloned into a temporary folder, set up (which is not timed), and runs the study with fresh data, one after the other: both
need all cores. Uncommitted changes do not take part. A clone whose `requirements.lock` is this checkout's uses its `.venv`.
Prints one JSON object: wall seconds of both, and their ratio (above 1: faster than `--against`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(words: list[str] | None = None) -> int:
    """Time both; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="REV", help="the revision to compare with")
    parser.add_argument("--revision", default="HEAD", metavar="REV", help="the revision in question (default HEAD)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns (default 3: a single pair can be far off)")
    parser.add_argument("variables", nargs="*", help="variables of make, such as PROFILE=smoke")
    args = parser.parse_args(words)
    commits = {}
    for revision in (args.revision, args.against):
        found = subprocess.run(
            ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if found.returncode:
            print(f"study_time: {revision}: no such revision", file=sys.stderr)
            return 2
        commits[revision] = found.stdout.strip()
    taken: dict[str, list[float]] = {revision: [] for revision in commits}
    for turn in range(args.repeats):
        for revision in (args.against, args.revision) if turn % 2 == 0 else (args.revision, args.against):
            try:
                taken[revision].append(study_seconds(ROOT, commits[revision], args.variables))
            except subprocess.CalledProcessError as error:
                print(
                    f"study_time: {revision}: `{' '.join(map(str, error.cmd))}` failed with exit code {error.returncode}", file=sys.stderr
                )
                return 1
            print(f"{revision}: {taken[revision][-1]:.0f} s", file=sys.stderr, flush=True)
    ours, other = (taken[revision] for revision in (args.revision, args.against))
    ratios = [before / now for now, before in zip(ours, other, strict=True)]
    result = {
        "revision": commits[args.revision],
        "against": commits[args.against],
        "variables": args.variables,
        "seconds": [round(one, 1) for one in ours],
        "seconds_against": [round(one, 1) for one in other],
        "ratio": round(statistics.median(ratios), 3),
    }
    print(json.dumps(result))
    return 0


def study_seconds(repository: Path, commit: str, variables: list[str]) -> float:
    """Wall seconds of `make study` in a fresh clone at `commit`; what it says goes to stderr. `CalledProcessError` if a command fails."""
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", repository, clone], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=clone, check=True)
        made = repository / ".venv" / "installed.lock"
        settled: list[str] = []
        if made.is_file() and made.read_bytes() == (clone / "requirements.lock").read_bytes():
            # `-o`: the clone's lock is newer than the environment, and the same.
            settled = [f"VENV={repository / '.venv'}", "-o", str(made)]
        subprocess.run(["make", "setup", *settled, *variables], cwd=clone, check=True, stdout=sys.stderr)
        started = time.perf_counter()
        subprocess.run(["make", "study", *settled, *variables], cwd=clone, check=True, stdout=sys.stderr)
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
