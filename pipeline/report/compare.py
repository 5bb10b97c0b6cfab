"""Two or more runs in one page: synthetic against real, epsilon 8 against 16, one seed against another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, write_text
from pipeline.errors import RequestError, StageError
from pipeline.noise.arms import protecting_arms
from pipeline.report import figures
from pipeline.report.cells import INVALID, Cell, Table, cell, deviation, head
from pipeline.report.page import fill
from pipeline.report.table import GROUPS, accuracy_of, metrics_frame
from pipeline.report.validity import counts, explained, left_out
from pipeline.report.views import data_set, fought, headline_arm, result_is_invalid, seeds_of, state_of
from pipeline.report.words import NOT_RECORDED, at, interval, is_number, number, percent
from pipeline.training.trials import TRAINERS, without_processing

SECTIONS = (
    ("trainers", "Protected people, by trainer"),
    ("countermeasures", "Protected people, under countermeasures"),
    ("shares", "Protected people, by share of their photos that is protected"),
)
STATES = {
    "partly": ("protected, with losses", "warn"),
    "holds": ("protected from all that was tried", "good"),
    "alone": ("protected from its own training", "good"),  # a run that tries nothing else loses nothing either
    "costly": ("protected, others recognised less well", "bad"),
    "fails": ("not protected", "bad"),
    "invalid": ("no claim", "warn"),
    "unrated": ("not rated", "quiet"),
}


def compare_runs(folders: list[Path], output: Path) -> None:
    """Write `metrics.csv` (as each run's, with a column `run`) and `index.html` of the runs whose reports are in `folders` into `output`.

    Raises:
        RequestError: fewer than two runs, one twice, or one without a report.
        StageError: a report's `metrics.json` is damaged.
    """
    names = [folder.name for folder in folders]
    if len(folders) < 2 or len(set(names)) != len(names):
        raise RequestError(f"RUNS={' '.join(names)!r}: allowed are two or more different runs, named as their folders in reports/")
    for folder in folders:
        if not (folder / "metrics.json").is_file():
            raise RequestError(f"RUNS: {folder} has no metrics.json; run `make study` or `make report` for it first")
    import pandas as pd

    runs = [metrics_in(folder) for folder in folders]
    frames = []
    for name, run in zip(names, runs, strict=True):
        frame = metrics_frame(run)
        frame.insert(0, "run", name)
        frames.append(frame)
    write_text(output / "metrics.csv", pd.concat(frames, ignore_index=True).to_csv(index=False))
    write_text(output / "index.html", build_comparison(runs))


def metrics_in(folder: Path) -> dict[str, Any]:
    """The `metrics.json` of a report. To compare makes none anew, so what is damaged takes another command than this one."""
    try:
        return read_json(folder / "metrics.json")
    except StageError as error:
        told = str(error).split("; delete ")[0]
        raise StageError(f"{told}; delete {folder / 'index.html'}, run `make study` for that run, and then this again") from None


def build_comparison(runs: list[dict[str, Any]]) -> str:
    """The page's text; everything from the runs is escaped."""
    curves = []
    for place, run in enumerate(runs):
        baseline = at(run, "arms", "clean", "protected", "by_epoch") if counts(run, "clean") else None
        for arm in compared_arms(run):
            key = f"run{place}-{arm}"
            if counts(run, arm) and (figure := figures.accuracy_by_epoch(arm, run["arms"][arm], run.get("chance"), baseline, key=key)):
                curves.append((name_of(run), arm, figure))
    content = {
        "runs": [(name_of(run), str(run.get("verdict") or ""), state_words(run), explained(run)) for run in runs],
        "tables": [one for one in (accuracy_of_runs(runs), conditions_of_runs(runs), *trials_of_runs(runs)) if one is not None],
        "curves": curves,
        "not_drawn": [f"{name_of(run)}: {text[0].lower()}{text[1:]}" for run in runs if (text := left_out(run, compared_arms(run)))],
    }
    return fill("compare.html.j2", content)


def name_of(run: dict[str, Any]) -> str:
    """What the run is called."""
    return str(run.get("run") or NOT_RECORDED)


def compared_arms(run: dict[str, Any]) -> list[str]:
    """The arms that are compared: all that are meant to protect, the verdict's first; else the first with noise, if there is any."""
    first = headline_arm(run)
    return protecting_arms(run["arms"]) or ([first] if first else [])


def state_words(run: dict[str, Any]) -> tuple[str, str]:
    """A run's verdict in a word or a few, and its style class."""
    state = state_of(run)
    if state == "invalid" and result_is_invalid(run):
        return INVALID.text, INVALID.tone
    if state == "fails" and run.get("fails_by") == "others":
        return STATES["costly"]
    if state == "holds" and not run.get("lost_to") and not fought(run):
        return STATES["alone"]
    return STATES["partly" if state == "holds" and run.get("lost_to") else state]


def accuracy_of_runs(runs: list[dict[str, Any]]) -> Table:
    """Each run's arms that are meant to protect against its clean arm."""
    rows = []
    for run in runs:
        for arm in compared_arms(run) or [""]:
            word, tone = state_words(run) if arm == (headline_arm(run) or "") else ("see its first arm", "quiet")
            line = [head(name_of(run)), Cell(word, word, tone), Cell(arm or "none", arm or "none")]
            for group in GROUPS:
                line += accuracies(run, "clean", group)[:1] + accuracies(run, arm, group)[: 3 if group == "protected" else 1]
            rows.append(line)
    columns = ["Run", "Verdict", "Arm", "Clean", "With noise", "95% interval", "Best epoch", "Clean", "With noise"]
    note = (
        "Accuracy on clean test photos, last epoch. Each arm that is meant to protect has a row; the verdict is about a run’s first one. "
        "Where checks failed no accuracy is shown: the verdicts above say why, metrics.csv has the numbers."
    )
    return Table("runs", "What each run found", columns, rows, note, [("", 2), ("Protected people", 4), ("Other people", 2)])


def accuracies(run: dict[str, Any], arm: str, group: str) -> list[Cell]:
    """Last epoch, interval and best epoch of a group in an arm, of nobody and of invalid numbers the words for that."""
    record = at(run, "arms", arm)
    one = at(record, group)
    if isinstance(record, dict) and group in record and one is None:
        return [Cell("nobody", tone="missing")] * 3
    if one is not None and not counts(run, arm):
        return [INVALID] * 3
    final, span, peak = (at(one, key) for key in ("final", "ci95", "peak"))
    return [
        cell(final, percent(final) + deviation(one), heat=final if group == "protected" else None),
        cell(span[0] if span else None, interval(span, len(at(one, "per_identity") or {}) or None)),
        cell(peak, percent(peak)),
    ]


def text_cell(value: Any) -> Cell:
    """A cell of text, sorted as such."""
    text = str(value or NOT_RECORDED)
    return Cell(text, text, "" if value else "missing")


def conditions_of_runs(runs: list[dict[str, Any]]) -> Table:
    """What the runs were: data, setting, trainer, and of each arm compared its strength and visibility."""
    rows = []
    for run in runs:
        data, kind = data_set(run), at(run, "training", "kind")
        seeds = " ".join(map(str, seeds_of(run))) or NOT_RECORDED
        for arm in compared_arms(run) or [""]:
            mine = at(run, "arms", arm)
            epsilon, psnr, ssim = (
                at(mine, "noise", "epsilon"),
                at(mine, "imperceptibility", "psnr_db"),
                at(mine, "imperceptibility", "ssim"),
            )
            rows.append([
                head(name_of(run)), Cell(arm or "none", arm or "none"), text_cell(data), text_cell(run.get("setting")),
                cell(run.get("identities"), f"{number(run.get('identities'))} of {number(run.get('classes'))}"),
                text_cell(kind), text_cell(seeds), cell(epsilon, f"{number(epsilon)}/255"), cell(psnr, number(psnr, 1, " dB")),
                cell(ssim, number(ssim, 3)),
            ])  # fmt: skip
    columns = ["Run", "Arm", "Data", "Setting", "Protected", "Trainer", "Seeds", "ε", "PSNR", "SSIM"]
    return Table("conditions", "What the runs were", columns, rows)


def network_of(run: dict[str, Any], trial: str) -> str:
    """What tells trials of one name apart: the network that exists and that they are built on, by the run's own title; else nothing."""
    known = TRAINERS.get(without_processing(trial))
    return str(at(run, "trial_titles", trial) or "") if known is not None and (known.reference or known.weights) else ""


def trials_of_runs(runs: list[dict[str, Any]]) -> list[Table]:
    """Trials that any run has: accuracy of the protected people in the clean arm and those compared."""
    tables = []
    arms = [(run, arm) for run in runs for arm in ["clean", *compared_arms(run)]]
    for section, caption in SECTIONS:
        trials = list(dict.fromkeys((name, network_of(run, name)) for run in runs for name in run.get(section) or {}))
        rows = []
        for name, network in trials:
            titles = [at(run, "trial_titles", name) for run in runs if network_of(run, name) == network]
            line = [head(next((str(title) for title in titles if title), name))]
            for run, arm in arms:
                value = accuracy_of(at(run, section, name, arm, "protected")) if network_of(run, name) == network else None
                if is_number(value) and not counts(run, arm):
                    line.append(INVALID)
                else:
                    line.append(cell(value, percent(value) if is_number(value) else "–", heat=value if is_number(value) else None))
            rows.append(line)
        if rows:
            note = "Each run’s own noise. A trial says something only where the clean arm still learned; – is not measured."
            spans = [(name_of(run), 1 + len(compared_arms(run))) for run in runs]
            columns = ["Trial", *(arm for _, arm in arms)]
            tables.append(Table(f"all-{section}", caption, columns, rows, note, spans))
    return tables
