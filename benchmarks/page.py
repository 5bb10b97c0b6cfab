"""`reports/bench/index.html`: one self-contained page, made of `bench.json`, `webface.json` and the comparison with the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.baseline import Verdict, compare, read_baseline
from benchmarks.growth import growth_figure, growth_table, read_growth
from benchmarks.machine import describe_machine, machine_key
from benchmarks.results import figure, meets, new_results, problem
from benchmarks.row import BASELINE
from benchmarks.webface import GROWTH_FILE
from pipeline.report import figures
from pipeline.report.cells import Cell, Table, cell, head
from pipeline.report.page import fill
from pipeline.report.words import duration, number

OWN_TEMPLATES = Path(__file__).parent / "templates"
TONES = {"slower": "warn", "faster": "good"}
MARKS = {True: ("met", "good"), False: ("missed", "warn"), None: ("–", "quiet")}


def write_page(results: dict[str, Any], verdicts: list[Verdict], key: str, output: Path) -> None:
    """Write `output/index.html`, with what is in `output/webface.json` where that is there.

    Args:
        results: `bench.json`, schema 1. verdicts: of the rows that have a ratio. key: the kind of machine.
    """
    from pipeline.artifacts import write_text

    write_text(output / "index.html", build_page(results, verdicts, key, read_growth(output / GROWTH_FILE)))


def write_again(output: Path) -> Path:
    """Write `output/index.html` from the files in `output`, and return its path; without a `bench.json` it has no rows."""
    from pipeline.artifacts import read_json
    from pipeline.provenance import revision

    path = output / "bench.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    if problem(results, path):
        results = new_results(describe_machine(), revision())
    key = machine_key(results["hardware"])
    write_page(results, compare(results, read_baseline(BASELINE), key), key, output)
    return output / "index.html"


def build_page(results: dict[str, Any], verdicts: list[Verdict], key: str, growth: dict[str, Any] | None = None) -> str:
    """The page's text; everything from `results` and `growth` (`webface.json`) is escaped."""
    rows = results["rows"]
    asked = [row for row in rows if row["target"] is not None and row["ratio"] is not None]
    content = {
        "headline": headline(asked),
        "missed": any(meets(row) is False for row in asked),
        "figure": ratio_figure(asked, key="ratios"),
        "tables": [one for one in (asked_table(asked), other_table(rows), ceilings_table(rows), baseline_table(verdicts)) if one.rows],
        "growth": growth_table(growth) if growth else None,
        "growth_figure": growth_figure(growth, key="growth") if growth else None,
        "growth_commit": commit_of(growth) if growth else "",
        "texts": [(row["name"], row["text"]) for row in rows],
        "skipped": sorted(results["skipped"].items()),
        "failed": sorted(results["failed"].items()),
        "facts": facts_of(results, key),
        "commands": commands_of(rows),
    }
    return fill("bench.html.j2", content, folder=OWN_TEMPLATES)


def headline(asked: list[dict[str, Any]]) -> str:
    """One sentence: how many targets are met, and which are not."""
    if not asked:
        return "No row with a target was measured."
    missed = [row["name"] for row in asked if not meets(row)]
    text = f"{len(asked) - len(missed)} of {len(asked)} targets met"
    return f"{text}; missed: {', '.join(missed)}." if missed else f"{text}."


def values_of(row: dict[str, Any]) -> list[Cell]:
    """Median, spread of repeats and number of repeats of a row's own value."""
    unit = row["unit"]
    spread = f"{figure(row['min'])} to {figure(row['max'])}"
    return [
        cell(row["value"], f"{figure(row['value'])} {unit}"),
        cell(row["max"] - row["min"], spread),
        cell(row["repeats"], str(row["repeats"])),
    ]


def ratio_cells(row: dict[str, Any]) -> list[Cell]:
    """Median and spread of the paired ratios."""
    if row["ratio"] is None:
        return [Cell("no other side", None, "missing"), Cell("–", None, "quiet")]
    width = row["ratio_max"] - row["ratio_min"]
    return [cell(row["ratio"], f"{row['ratio']:.2f}×", tone="strong"), cell(width, f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}")]


def asked_table(asked: list[dict[str, Any]]) -> Table:
    """Rows with a target."""
    rows = []
    for row in asked:
        word, tone = MARKS[meets(row)]
        target = cell(row["target"], f"{row['target']:g}×")
        rows.append([head(row["name"]), *ratio_cells(row), target, Cell(word, word, tone), head(row["against"]), *values_of(row)])
    columns = ["Row", "Ratio", "of repeats", "Asked", "", "Against", "Value", "of repeats", "Repeats"]
    note = "Medians. A ratio is taken within each pair of runs, one right after the other; above 1 is faster, or smaller."
    return Table("asked", "What was asked for", columns, rows, note)


def other_table(rows: list[dict[str, Any]]) -> Table:
    """Rows without a target that are no ceilings."""
    found = [row for row in rows if row["target"] is None and not row.get("ceiling")]
    lines = [[head(row["name"]), *values_of(row), *ratio_cells(row), head(row["against"] or "–")] for row in found]
    return Table("others", "Without a target", ["Row", "Value", "of repeats", "Repeats", "Ratio", "of repeats", "Against"], lines)


def ceilings_table(rows: list[dict[str, Any]]) -> Table:
    """What the machine can do."""
    lines = [[head(row["name"]), *values_of(row), *ratio_cells(row), head(row["against"] or "–")] for row in rows if row.get("ceiling")]
    columns = ["Row", "Value", "of repeats", "Repeats", "Ratio", "of repeats", "Against"]
    return Table("ceilings", "The machine’s own ceilings", columns, lines)


def baseline_table(verdicts: list[Verdict]) -> Table:
    """What became of each row since the baseline."""
    lines = [[head(one.name), Cell(one.state, one.state, TONES.get(one.state, "quiet")), head(one.detail)] for one in verdicts]
    note = "Slower: the ratios’ intervals do not meet, and the median fell by more than the noise between repeats."
    return Table("baseline", "Against the saved baseline", ["Row", "State", "Ratio then → now"], lines, note)


def commit_of(results: dict[str, Any]) -> str:
    """The commit that was measured, and whether files differed from it."""
    return str(results["commit"] or "no git checkout") + (", with changes" if results["dirty"] else "")


def facts_of(results: dict[str, Any], key: str) -> list[tuple[str, list[str]]]:
    """Where and when: (what, lines)."""
    hardware = results["hardware"]
    found = [
        ("Processor", [str(hardware.get("cpu")), str(hardware.get("cpu_model", "")), f"{hardware.get('cores')} cores for this process"]),
        ("GPU", [str(hardware.get("gpu") or "none")]),
        ("Precision", [f"{hardware.get('cpu_precision')} on the CPU"]),
        ("System", [str(hardware.get("system")), f"{number(hardware.get('memory_gib'), 1)} GiB of memory"]),
        ("Load at the start", [f"{number(hardware.get('load'), 2)} processes waiting or running"]),
        ("Kind of machine", [key]),
        ("Commit", [commit_of(results)]),
        ("Measured", [str(results["created"]), f"in {duration(results['seconds'])}"]),
        ("Packages", [f"{name} {version}" for name, version in (hardware.get("packages") or {}).items() if version]),
    ]
    return [(name, [line for line in lines if line]) for name, lines in found]


def commands_of(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(command, what it does)."""
    repeats = max((row["repeats"] for row in rows), default=5)
    return [
        ("make bench", "measures all of this again"),
        (f"python -m benchmarks --repeats {repeats} --check", "the same, and says which row has become slower than the baseline"),
        ("python -m benchmarks noise-search inference", "some rows only"),
        ("python -m benchmarks --resume", "goes on after a kill"),
        ("python -m benchmarks --save-baseline", "keeps the ratios as this kind of machine’s baseline"),
        ("python -m benchmarks.webface", "cost against size, up to a tenth of WebFace; `--help` says how to measure the whole"),
        ("python -m benchmarks.study_time --against REVISION", "times `make study` of two revisions, one after the other"),
    ]


def ratio_figure(asked: list[dict[str, Any]], *, key: str) -> Markup | None:
    """Each row's ratio as a share of what was asked, on a logarithmic axis: median, and a bar from the smallest to the largest repeat."""
    if not asked:
        return None
    shares = [[row[name] / row["target"] for name in ("ratio_min", "ratio", "ratio_max")] for row in asked]
    low, high = min(0.5, *(one[0] for one in shares)) * 0.9, max(2.0, *(one[2] for one in shares)) * 1.1
    height = 40 + 46 * len(asked)
    words = []
    with figures.canvas(390, height) as (drawing, axes):
        axes.set_position((0.01, 30 / height, 0.98, 1 - 34 / height))
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(len(asked) - 0.5, -0.62)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(length=0)
        axes.grid(axis="x", color=figures.GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.axvline(1, color=figures.INK, linewidth=1.4)
        for place, (row, (least, middle, most)) in enumerate(zip(asked, shares, strict=True)):
            colour = figures.PROTECTED if middle >= 1 else figures.OTHERS
            axes.plot([least, most], [place + 0.14] * 2, color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot([middle], [place + 0.14], marker="o" if middle >= 1 else "s", markersize=7, color=colour, linestyle="none")
            text = f"{row['name']}  {row['ratio']:.2f}× of {row['target']:g}×"
            axes.annotate(
                text, (0, place - 0.24), xycoords=("axes fraction", "data"), ha="left", va="center", fontsize=12, color=figures.INK
            )
            words.append(f"{row['name']} {row['ratio']:.2f} of {row['target']:g} asked")
        return figures.as_inline(drawing, key=key, title="Ratio as a share of what was asked", description="; ".join(words) + ".")
