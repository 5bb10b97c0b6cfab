"""What each stage costs as the data grow, as it stands in the page of `make bench`: from the `webface.json` of `benchmarks.webface`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.webface import cost
from pipeline.report import figures
from pipeline.report.cells import Cell, Table, cell, head
from pipeline.report.words import number

GUIDES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # seconds a crop, of the grey lines
SIZE = (390, 330)  # CSS pixels
LABEL_APART = 0.045  # of the figure's height


def read_growth(path: Path) -> dict[str, Any] | None:
    """What `benchmarks.webface` measured; None where there is no such file. `RequestError` if it is something else."""
    from pipeline.artifacts import read_json
    from pipeline.errors import RequestError

    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != 1 or not found.get("sizes"):
        raise RequestError(f"{path} is not what `python -m benchmarks.webface` writes; delete it, or run that again")
    return found


def growth_table(result: dict[str, Any]) -> Table:
    """Seconds of each stage at each size, how they grow, and memory at the largest."""
    sizes, of_what = result["sizes"], "of the processor" if result["device"] == "cpu" else f"on {result['device']}"
    rows = []
    for stage, exponent in result["growth"].items():
        seconds = [cost(size["stages"][stage]) for size in sizes]
        grows = Cell("one size", tone="missing") if exponent is None else cell(exponent, f"size^{exponent:.2f}")
        least, most = (size["stages"][stage]["above_mib"] for size in (sizes[0], sizes[-1]))
        memory = cell(most, f"{least:,.0f} to {most:,.0f} MiB" if len(sizes) > 1 else f"{most:,.0f} MiB")
        rows.append([head(stage), *(cell(one, f"{one:.2f} s") for one in seconds), grows, memory])
    columns = ["Stage", *(f"{size['crops']:,} crops" for size in sizes), "Grows as", "Memory"]
    note = (
        f"Seconds {of_what}, each stage in a process of its own on crops that are generated; growth is from the last size but one to the "
        "last: 1 is linear, 0 does not depend on size. What a network does is kept to the same few photos at every size, since its cost is "
        "a photo’s times their number. Memory is the peak above the process’s start, at the smallest and at the largest size. All of "
        f"WebFace is {result['whole']:,} crops."
    )
    return Table("growth", "Cost against size", columns, rows, note)


def growth_figure(result: dict[str, Any], *, key: str) -> Markup | None:
    """Seconds of each stage against the number of crops, both axes logarithmic; what is linear runs along the grey lines."""
    crops = [size["crops"] for size in result["sizes"]]
    if len(crops) < 2:
        return None
    curves = {stage: [cost(size["stages"][stage]) for size in result["sizes"]] for stage in result["growth"]}
    low, high = min(map(min, curves.values())) / 1.5, max(map(max, curves.values())) * 1.5
    with figures.canvas(*SIZE) as (drawing, axes):
        axes.set_position((0.1, 0.11, 0.55, 0.86))
        axes.set(xscale="log", yscale="log", xlim=(crops[0] / 1.1, crops[-1] * 1.1), ylim=(low, high))
        axes.set_xticks(crops, [f"{count:,}" for count in crops])
        ticks = [tick for tick in (0.01, 0.1, 1, 10, 100, 1000, 10000) if low <= tick <= high]
        axes.set_yticks(ticks, [f"{tick:g} s" for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(length=0, labelsize=10)
        for a_crop in GUIDES:
            axes.plot(crops, [a_crop * count for count in crops], color=figures.GRID, linewidth=1.2)
        for seconds in curves.values():
            axes.plot(crops, seconds, color=figures.PROTECTED, linewidth=1.6, marker="o", markersize=4)
        height = -1.0
        for stage in sorted(curves, key=lambda name: curves[name][-1]):
            place = float(axes.transAxes.inverted().transform(axes.transData.transform((crops[-1], curves[stage][-1])))[1])
            height = max(place, height + LABEL_APART)
            exponent = result["growth"][stage]
            axes.annotate(
                f"{stage}: size^{exponent:.2f}", (crops[-1], curves[stage][-1]), (1.04, height), textcoords="axes fraction",
                va="center", fontsize=10, color=figures.INK, annotation_clip=False,
            )  # fmt: skip
        words = [f"{stage} {number(seconds[0], 2)} to {number(seconds[-1], 2)} s" for stage, seconds in curves.items()]
        told = f"From {crops[0]:,} to {crops[-1]:,} crops: {'; '.join(words)}."
        return figures.as_inline(drawing, key=key, title="Seconds of each stage against the number of crops", description=told)
