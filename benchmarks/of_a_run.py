"""What benchmarks share that ask about a run that `make` left: its folders from the command line, and whom targeted noise is to show."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def folders_asked_for(description: str | None, words: list[str] | None = None) -> tuple[Path, Path]:
    """The data folder and the run's, from `--data` and `--run`; ends with exit code 2 where they are not of a run.

    Args:
        description: what `--help` says. words: the command line; None: this process's.
    """
    return folders_in(parser_of_folders(description), words)[:2]


def parser_of_folders(description: str | None) -> argparse.ArgumentParser:
    """Of a command that takes `--data` and `--run`, and perhaps more."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, such as data/synthetic")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with a folder an arm")
    return parser


def folders_in(parser: argparse.ArgumentParser, words: list[str] | None = None) -> tuple[Path, Path, argparse.Namespace]:
    """As `folders_asked_for`, and all options, by a parser of `parser_of_folders`."""
    options = parser.parse_args(words)
    for path in (options.data / "aligned", options.run / "split.parquet"):
        if not path.exists():
            parser.error(f"{path} is missing; give the folders of a run")
    return options.data, options.run, options


def shown_by(table: Any, run: Path, arm: str, classes: int) -> np.ndarray:
    """Whom the noise of a tap arm is to show on each label's photos, int64 (classes,); `StageError` where its config is missing.

    Args:
        table: the run's split. classes: how many the arm's surrogates name.
    """
    import numpy as np

    from pipeline.config import NoiseConfig, load
    from pipeline.noise.tap import next_identity

    protected = np.unique(table.loc[table["role"] == "protected", "label"])
    learned = table.loc[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train"), "label"].to_numpy()
    return next_identity(protected, learned, classes, load(NoiseConfig, run / "config" / f"noise-{arm}.yaml").seed)
