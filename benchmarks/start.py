"""How long a person waits before anything happens: the command line's help, and a stage that needs torch.

python -m benchmarks cli-start stage-start python-start
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.row import Pair, Row, paired

ROOT = Path(__file__).resolve().parents[1]
STARTS = 3  # processes of which the median counts
CLI_LIMIT = 0.3
# What `pipeline/__main__.py` does before a training or a noise stage reads its first file, and the first step, for whose sake torch may
# import half of its compiler.
READY = (
    "import sys; from pipeline.__main__ import parser; "
    "parser().parse_args(['train', '--data', 'd', '--run', 'r', '--arm', 'clean']); "
    "from pipeline import runtime; found = runtime.decide(); "
    "import pipeline.config, pipeline.training.stage, pipeline.noise.against; runtime.prepare_torch(found, 1); "
    "import torch; from pipeline.training.optimiser import SGD; weight = torch.nn.Parameter(torch.ones(1)); weight.sum().backward(); "
    "SGD([weight], momentum=0.9, weight_decay=0.0).step(lr=1.0, clip=1.0)"
)


def rows() -> list[Row]:
    """Start-up times, in seconds."""
    return [
        Row(
            "cli-start",
            "s",
            f"limit-{CLI_LIMIT}s",
            f"`python -m pipeline --help`, median of {STARTS} processes, against {CLI_LIMIT} s.",
            cli_start,
            lower_is_better=True,
            target=1.0,
        ),
        Row(
            "stage-start",
            "s",
            "import-torch",
            "A new process until a training or noise stage can read its first file and take a step, against one that imports torch.",
            paired(lambda: seconds_of("-c", READY, starts=1), lambda: seconds_of("-c", "import torch", starts=1)),
            lower_is_better=True,
        ),
        Row(
            "python-start",
            "s",
            "",
            f"`python -c pass`, median of {STARTS} processes: what any command costs.",
            lambda: Pair(seconds_of("-c", "pass")),
            lower_is_better=True,
            ceiling=True,
        ),
    ]


def cli_start() -> Pair:
    """The help's time against the limit."""
    return Pair(seconds_of("-m", "pipeline", "--help"), CLI_LIMIT)


def seconds_of(*words: str, starts: int = STARTS) -> float:
    """Median wall seconds of `python` with these words, in a new process each time; `RuntimeError` with what it said if it failed."""
    taken = []
    for _ in range(starts):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        taken.append(time.perf_counter() - started)
        if done.returncode:
            raise RuntimeError(f"python {' '.join(words)[:60]} failed: {done.stderr.strip()[-300:]}")
    return median(taken)
