"""Two or more runs in one page: synthetic against real, epsilon 8 against 16, one seed against another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, write_text
from pipeline.errors import RequestError
from pipeline.report import figures
from pipeline.report.cells import Cell, Table, cell, deviation, head, invalid
from pipeline.report.page import fill
from pipeline.report.table import GROUPS, accuracy_of, metrics_frame
from pipeline.report.views import headline_arm, state_of
from pipeline.report.words import NOT_RECORDED, at, interval, is_number, number, percent

SECTIONS = (
    ("trainers", "Protected people, by trainer"),
    ("countermeasures", "Protected people, under countermeasures"),
    ("shares", "Protected people, by share of their photos that is protected"),
)
STATES = {
    "partly": ("protected, with losses", "warn"),
    "holds": ("protected", "good"),
    "costly": ("protected, others recognised less well", "bad"),
    "fails": ("not protected", "bad"),
    "invalid": ("no claim", "warn"),
    "unrated": ("not rated", "quiet"),
}


def compare_runs(folders: list[Path], output: Path) -> None:
    """Write `metrics.csv` (as each run's, with a column `run`) and `index.html` of the runs whose reports are in `folders` into `output`.

    Raises:
        RequestError: fewer than two runs, one twice, or one without a report.
    """
    names = [folder.name for folder in folders]
    if len(folders) < 2 or len(set(names)) != len(names):
        raise RequestError(f"RUNS={' '.join(names)!r}: allowed are two or more different runs, named as their folders in reports/")
    for folder in folders:
        if not (folder / "metrics.json").is_file():
            raise RequestError(f"RUNS: {folder} has no metrics.json; run `make study` or `make report` for it first")
    import pandas as pd

    runs = [read_json(folder / "metrics.json") for folder in folders]
    frames = []
    for name, run in zip(names, runs, strict=True):
        frame = metrics_frame(run)
        frame.insert(0, "run", name)
        frames.append(frame)
    write_text(output / "metrics.csv", pd.concat(frames, ignore_index=True).to_csv(index=False))
    write_text(output / "index.html", build_comparison(runs))


def build_comparison(runs: list[dict[str, Any]]) -> str:
    """The page's text; everything from the runs is escaped."""
    curves = []
    for place, run in enumerate(runs):
        arm = headline_arm(run)
        if arm is not None:
            baseline = at(run, "arms", "clean", "protected", "by_epoch")
            figure = figures.accuracy_by_epoch(arm, run["arms"][arm], run.get("chance"), baseline, key=f"run{place}")
            if figure is not None:
                curves.append((str(run.get("run") or NOT_RECORDED), arm if counts(run, arm) else f"{arm} (invalid)", figure))
    content = {
        "runs": [(str(run.get("run") or NOT_RECORDED), str(run.get("verdict") or ""), state_words(run)) for run in runs],
        "tables": [one for one in (accuracy_of_runs(runs), conditions_of_runs(runs), *trials_of_runs(runs)) if one is not None],
        "curves": curves,
    }
    return fill("compare.html.j2", content)


def state_words(run: dict[str, Any]) -> tuple[str, str]:
    """A run's verdict in a word or a few, and its style class."""
    state = state_of(run)
    if state == "fails" and run.get("fails_by") == "others":
        return STATES["costly"]
    return STATES["partly" if state == "holds" and run.get("lost_to") else state]


def accuracy_of_runs(runs: list[dict[str, Any]]) -> Table:
    """Each run's headline arm against its clean arm."""
    rows = []
    for run in runs:
        arm = headline_arm(run)
        word, tone = state_words(run)
        name = arm or "none"
        line = [head(str(run.get("run") or NOT_RECORDED)), Cell(word, word, tone), Cell(name, name)]
        for group in GROUPS:
            line += accuracies(run, "clean", group)[:1] + accuracies(run, arm or "", group)[: 3 if group == "protected" else 1]
        rows.append(line)
    columns = ["Run", "Verdict", "Arm", "Clean", "With noise", "95% interval", "Best epoch", "Clean", "With noise"]
    note = "Accuracy on clean test photos, last epoch. Of a run or an arm whose checks failed no number is shown: its own report has them."
    return Table("runs", "What each run found", columns, rows, note, [("", 2), ("Protected people", 4), ("Other people", 2)])


def accuracies(run: dict[str, Any], arm: str, group: str) -> list[Cell]:
    """Last epoch, interval and best epoch of a group in an arm, of nobody and of invalid numbers the words for that."""
    record = at(run, "arms", arm)
    one = at(record, group)
    if isinstance(record, dict) and group in record and one is None:
        return [Cell("nobody", tone="missing")] * 3
    if not counts(run, arm):
        return [Cell("invalid", tone="warn")] * 3
    final, span, peak = (at(one, key) for key in ("final", "ci95", "peak"))
    return [
        cell(final, percent(final) + deviation(one), heat=final if group == "protected" else None),
        cell(span[0] if span else None, interval(span, len(at(one, "per_identity") or {}) or None)),
        cell(peak, percent(peak)),
    ]


def counts(run: dict[str, Any], arm: str) -> bool:
    """Whether the numbers of an arm mean anything: neither the run's own checks nor the arm's failed."""
    return state_of(run) != "invalid" and not invalid(at(run, "arms", arm))


def text_cell(value: Any) -> Cell:
    """A cell of text, sorted as such."""
    text = str(value or NOT_RECORDED)
    return Cell(text, text, "" if value else "missing")


def conditions_of_runs(runs: list[dict[str, Any]]) -> Table:
    """What the runs were: data, setting, strength, trainer, visibility."""
    rows = []
    for run in runs:
        mine = at(run, "arms", headline_arm(run) or "")
        epsilon, psnr, ssim = at(mine, "noise", "epsilon"), at(mine, "imperceptibility", "psnr_db"), at(mine, "imperceptibility", "ssim")
        data, kind = at(run, "provenance", "dataset", "name"), at(run, "training", "kind")
        seeds = " ".join(map(str, at(run, "provenance", "seeds") or [])) or NOT_RECORDED
        rows.append([
            head(str(run.get("run") or NOT_RECORDED)), text_cell(data), text_cell(run.get("setting")),
            cell(run.get("identities"), f"{number(run.get('identities'))} of {number(run.get('classes'))}"),
            text_cell(kind), text_cell(seeds), cell(epsilon, f"{number(epsilon)}/255"), cell(psnr, number(psnr, 1, " dB")),
            cell(ssim, number(ssim, 3)),
        ])  # fmt: skip
    columns = ["Run", "Data", "Setting", "Protected", "Trainer", "Seeds", "ε", "PSNR", "SSIM"]
    return Table("conditions", "What the runs were", columns, rows)


def trials_of_runs(runs: list[dict[str, Any]]) -> list[Table]:
    """Trials that any run has: accuracy of the protected people in the clean and in the headline arm."""
    tables = []
    for section, caption in SECTIONS:
        names = list(dict.fromkeys(name for run in runs for name in run.get(section) or {}))
        rows = []
        for name in names:
            title = next((str(at(run, "trial_titles", name)) for run in runs if at(run, "trial_titles", name)), name)
            line = [head(title)]
            for run in runs:
                for arm in ("clean", headline_arm(run) or ""):
                    value = accuracy_of(at(run, section, name, arm, "protected"))
                    if is_number(value) and not counts(run, arm):
                        line.append(Cell("invalid", tone="warn"))
                    else:
                        line.append(cell(value, percent(value) if is_number(value) else "–", heat=value if is_number(value) else None))
            rows.append(line)
        if rows:
            note = "Each run’s own noise. A trial says something only where the clean arm still learned; – is not measured."
            spans = [(str(run.get("run")), 2) for run in runs]
            tables.append(Table(f"all-{section}", caption, ["Trial", *["Clean", "With noise"] * len(runs)], rows, note, spans))
    return tables
