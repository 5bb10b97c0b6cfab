"""Figures as inline SVG: drawn by matplotlib, coloured by the page's own style sheet, read aloud by their description.

matplotlib knows no CSS variables, so figures are drawn in stand-in colours that `as_inline` replaces by `var(--…)`; a figure then follows
the page into dark mode and print. Text stays text. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from pipeline.noise.arms import headline_of
from pipeline.report.words import NOT_MEASURED, at, interval, is_number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins for the style sheet's variables.
INK, MUTED, GRID, PROTECTED, OTHERS, ON_BUBBLE = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--rule", PROTECTED: "--protected", OTHERS: "--others", ON_BUBBLE: "--on-bubble"}
COLOURS = {"protected": PROTECTED, "others": OTHERS}
MARKERS = {"protected": "o", "others": "s"}
PLOT = (360, 236)  # CSS pixels of an accuracy-by-epoch figure
BINS = 40  # of the per-identity figure: accuracies within 2.5 % share a circle


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` × `height` CSS pixels with one plain axis; no state outside is touched for longer than this block."""
    import matplotlib  # heavy: only where a figure is really drawn
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "font.size": 11,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "text.parse_math": False,
        "axes.unicode_minus": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def as_inline(figure: Figure, *, key: str, title: str, description: str) -> Markup:
    """The figure as an `<svg>` that can stand in a page: ids prefixed with `key`, no name space, no font, no fixed size."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    text = re.sub(r"<svg[^>]*>", "", text, count=1).replace("xlink:href", "href")
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # matplotlib repeats each text in a comment
    text = re.sub(r"font(-family)?: [^;\"]*'DejaVu Sans'[^;\"]*;? ?", keep_font_size, text)
    text = re.sub(r'id="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    names = f'role="img" aria-labelledby="{key}-title {key}-desc"'
    words = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(description)}</desc>'
    return Markup(f'<svg class="plot" {box.group()} {names}>{words}{text}')


def keep_font_size(match: re.Match[str]) -> str:
    """A font declaration without its family: the page's own family is inherited, size and weight stay."""
    size = re.search(r"([\d.]+)px", match.group())
    if size is None:
        return ""
    weight = "font-weight: 600; " if re.search(r"\b(bold|600|700)\b", match.group()) else ""
    return f"{weight}font-size: {size.group(1)}px; "


def percent_axis(axes: Axes, which: str) -> None:
    """0 to 100 % with light grid lines, on the x or y axis."""
    ticks = [0, 0.25, 0.5, 0.75, 1]
    labels = ["0%", "25%", "50%", "75%", "100%"]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, labels)
    axes.grid(axis=which, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left" if which == "y" else "bottom"].set_visible(False)


def accuracy_by_epoch(arm: str, record: dict[str, Any], chance: Any, baseline: Any = None, *, key: str) -> Markup | None:
    """One arm: accuracy of protected and others on clean test photos after each epoch, chance, and the protected's peak.

    Args:
        record: the arm's metrics. baseline: `by_epoch` of the protected identities in the clean arm, drawn thin for comparison.

    Returns:
        The SVG, or None where no epoch was scored.
    """
    curves = {group: points_of(at(record, group, "by_epoch")) for group in ("protected", "others")}
    curves = {group: points for group, points in curves.items() if points}
    if not curves:
        return None
    last = max(epoch for points in curves.values() for epoch, _ in points)
    with canvas(*PLOT) as (figure, axes):
        axes.set_position((0.115, 0.15, 0.755, 0.79))
        percent_axis(axes, "y")
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlim(1 - 0.03 * max(last - 1, 1), last + 0.001)
        axes.set_xticks(epoch_ticks(last), [str(epoch) for epoch in epoch_ticks(last)])
        axes.set_xlabel("epoch", fontsize=11)
        if is_number(chance):
            axes.axhline(chance, color=MUTED, linewidth=1.3, linestyle=(0, (1, 2)))
        ghost = points_of(baseline)
        if ghost:
            axes.plot(*zip(*ghost, strict=True), color=PROTECTED, linewidth=1.1, linestyle=(0, (4, 3)), alpha=0.75)
        for group in ("others", "protected"):
            if group in curves:
                style = {
                    "color": COLOURS[group],
                    "linewidth": 2.4 if group == "protected" else 1.7,
                    "solid_capstyle": "round",
                    "clip_on": False,
                }
                axes.plot(*zip(*curves[group], strict=True), **style, marker=MARKERS[group], markersize=4 if last <= 20 else 0)
        mark_ends(axes, {group: points[-1] for group, points in curves.items()})
        if arm != "clean" and "protected" in curves:
            mark_peak(axes, best_of(curves["protected"]), [*curves.values(), ghost])
        return as_inline(figure, key=key, title=f"{arm}: accuracy by epoch", description=say_curves(curves, chance))


def points_of(by_epoch: Any) -> list[tuple[int, float]]:
    """(epoch, accuracy) of the epochs that were scored."""
    return [(epoch, value) for epoch, value in enumerate(by_epoch or [], 1) if is_number(value)]


def best_of(points: list[tuple[int, float]]) -> tuple[int, float]:
    """The first of the points with the highest accuracy."""
    return max(points, key=lambda point: (point[1], -point[0]))


def epoch_ticks(last: int) -> list[int]:
    """A handful of whole epochs, the first and the last among them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if last / step <= 8)
    middle = [epoch for epoch in range(step, last, step) if epoch > 1 and last - epoch >= step / 2]
    return [1, *middle, *([last] if last > 1 else [])]


def mark_ends(axes: Axes, ends: dict[str, tuple[int, float]]) -> None:
    """The last value of each curve, written to its right; labels keep apart."""
    places = sorted((value, group) for group, (_, value) in ends.items())
    heights = [value for value, _ in places]
    if len(heights) == 2 and heights[1] - heights[0] < 0.07:
        middle = min(max(sum(heights) / 2, 0.035), 0.985)
        heights = [middle - 0.035, middle + 0.035]
    for (value, group), height in zip(places, heights, strict=True):
        axes.annotate(
            percent(value), (ends[group][0], height), xytext=(7, 0), textcoords="offset points", va="center",
            color=COLOURS[group], fontsize=11, fontweight="bold" if group == "protected" else "normal", annotation_clip=False,
        )  # fmt: skip


def mark_peak(axes: Axes, peak: tuple[int, float], lines: list[list[tuple[int, float]]]) -> None:
    """A ring around the best epoch of the protected identities, with its value where it covers the least of `lines`."""
    epoch, value = peak
    axes.plot([epoch], [value], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=PROTECTED, markeredgewidth=1.4)
    words = f"peak {percent(value)}, epoch {epoch}"
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    place = axes.get_position()
    per_x, per_y = (right - left) / (place.width * PLOT[0]), (high - low) / (place.height * PLOT[1])  # data units of a pixel
    wide, tall = len(words) * 5.9 * per_x, 15 * per_y
    drawn = [point for line in lines for point in between(line)]
    best: tuple[float, float, float] | None = None
    for shift in (0, -0.5, 0.5):
        for rise in (9, 20, -9, -20, 34, -34):
            x = min(max(epoch + shift * wide, left + wide / 2), right - wide / 2)
            y = value + rise * per_y + (tall / 2 if rise > 0 else -tall / 2)
            if not low + tall / 2 <= y <= high - tall / 2:
                continue
            hidden = sum(abs(px - x) < wide / 2 + 2 * per_x and abs(py - y) < tall / 2 + 2 * per_y for px, py in drawn)
            badness = hidden + abs(rise) / 100 + abs(shift) / 10
            if best is None or badness < best[0]:
                best = (badness, x, y)
    if best is not None:
        axes.text(best[1], best[2], words, ha="center", va="center", fontsize=11, color=PROTECTED)


def between(line: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Points along a line through `line`, a dozen an epoch."""
    steps = [step / 12 for step in range(12)]
    pairs = itertools.pairwise(line)
    return [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in pairs for t in steps]


def say_curves(curves: dict[str, list[tuple[int, float]]], chance: Any) -> str:
    """The figure in words."""
    words = []
    for group, points in curves.items():
        epoch, value = best_of(points)
        name = "protected identities" if group == "protected" else "other identities"
        words.append(
            f"{name} start at {percent(points[0][1])}, peak at {percent(value)} in epoch {epoch} and end at {percent(points[-1][1])}"
        )
    return "Accuracy on clean test photos: " + "; ".join(words) + f". Chance is {percent(chance)}."


def rows_of_arms(axes: Axes, names: list[str], *, above: float) -> None:
    """One row an arm from top to bottom, its name written above the row so that narrow screens lose no width to it."""
    axes.set_ylim(len(names) - 0.5, -0.62)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.035, 1.035)
    percent_axis(axes, "x")
    for place, name in enumerate(names):
        axes.text(-0.035, place - above, name, ha="left", va="center", fontsize=13, fontweight="bold", color=INK)
        if place:
            axes.axhline(place - 0.56, color=GRID, linewidth=0.7)


def accuracy_intervals(arms: dict[str, Any], chance: Any, *, key: str) -> Markup | None:
    """Final accuracy of protected and others in every arm, with 95 % intervals."""
    names = [arm for arm, record in arms.items() if any(is_number(at(record, group, "final")) for group in COLOURS)]
    if not names:
        return None
    words = []
    height = 34 + 62 * len(names)
    with canvas(390, height) as (figure, axes):
        axes.set_position((0.01, 24 / height, 0.98, 1 - 26 / height))
        rows_of_arms(axes, names, above=0.34)
        if is_number(chance):
            axes.axvline(chance, color=MUTED, linewidth=1.3, linestyle=(0, (1, 2)))
        for place, arm in enumerate(names):
            said = []
            for group, shift in (("protected", 0.0), ("others", 0.26)):
                value, span = at(arms[arm], group, "final"), at(arms[arm], group, "ci95")
                if not is_number(value):
                    continue
                if interval(span) != NOT_MEASURED:
                    axes.plot(span, [place + shift] * 2, color=COLOURS[group], linewidth=5, alpha=0.35, solid_capstyle="butt")
                axes.plot([value], [place + shift], marker=MARKERS[group], markersize=8, color=COLOURS[group], linestyle="none")
                right = value < 0.8
                edge = (span[1] if right else span[0]) if interval(span) != NOT_MEASURED else value
                axes.annotate(
                    percent(value), (edge, place + shift), xytext=(9 if right else -9, 0), textcoords="offset points",
                    ha="left" if right else "right", va="center", fontsize=12, color=COLOURS[group],
                )  # fmt: skip
                said.append(f"{group} {percent(value)} (95% interval {interval(span)})")
            words.append(f"{arm}: {', '.join(said)}")
        return as_inline(figure, key=key, title="Final accuracy with 95% intervals", description="; ".join(words) + ".")


def accuracy_per_identity(arms: dict[str, Any], chance: Any, *, key: str) -> Markup | None:
    """How the protected identities' own accuracies are spread in each arm: a circle's area is the number of identities there."""
    spread = {arm: counts_of(at(record, "protected", "per_identity")) for arm, record in arms.items()}
    spread = {arm: counts for arm, counts in spread.items() if counts}
    if not spread:
        return None
    most = max(count for counts in spread.values() for count in counts.values())
    words = []
    height = 34 + 62 * len(spread)
    with canvas(390, height) as (figure, axes):
        axes.set_position((0.01, 24 / height, 0.98, 1 - 26 / height))
        rows_of_arms(axes, list(spread), above=0.34)
        axes.set_xlim(-0.05, 1.05)
        if is_number(chance):
            axes.axvline(chance, color=MUTED, linewidth=1.3, linestyle=(0, (1, 2)))
        for place, (arm, counts) in enumerate(spread.items()):
            for value, count in sorted(counts.items()):
                size = max(5.0, 29.0 * (count / most) ** 0.5)
                axes.plot(
                    [value], [place + 0.12], marker="o", markersize=size, color=PROTECTED, alpha=0.32, markeredgewidth=0, linestyle="none"
                )
                if size >= 15:
                    axes.text(value, place + 0.12, str(count), ha="center", va="center", fontsize=11, color=ON_BUBBLE)
                elif len(counts) <= 12:
                    axes.annotate(
                        str(count), (value, place + 0.12), xytext=(0, -size / 2 - 2), textcoords="offset points",
                        ha="center", va="top", fontsize=10, color=MUTED,
                    )  # fmt: skip
            words.append(f"{arm}: {say_spread(at(arms[arm], 'protected', 'per_identity'))}")
        return as_inline(figure, key=key, title="Accuracy of each protected identity", description="; ".join(words) + ".")


def say_spread(per_identity: dict[str, Any]) -> str:
    """How accuracies are spread, in words; from the accuracies themselves, not from the circles they are drawn in."""
    values = [value for value in per_identity.values() if is_number(value)]
    least, *quartiles, most = (percent(float(value)) for value in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    low = sum(value <= 0.25 for value in values)
    lower, median, upper = quartiles
    return (
        f"of {len(values)} identities the least recognised is at {least}, the quartiles are {lower}, {median} and {upper}, "
        f"the most recognised is at {most}; {low} are recognised on a quarter of their photos or less"
    )


def counts_of(per_identity: Any) -> Counter[float]:
    """How many identities have each accuracy, rounded to 1 / BINS."""
    values = [value for value in (per_identity or {}).values() if is_number(value)]
    return Counter(round(value * BINS) / BINS for value in values)


ROC_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def roc_curves(arms: dict[str, Any], *, key: str) -> Markup | None:
    """Verification of every arm's model: true against false accept rate, the clean arm's in the colour of the others."""
    curves = {arm: at(record, "verification", "roc") for arm, record in arms.items()}
    curves = {arm: one for arm, one in curves.items() if isinstance(one, dict) and one.get("far") and len(one["far"]) == len(one["tar"])}
    if not curves:
        return None
    with canvas(*PLOT) as (figure, axes):
        axes.set_position((0.115, 0.15, 0.845, 0.79))
        percent_axis(axes, "y")
        axes.set_ylim(-0.02, 1.04)
        axes.set_xscale("log")
        low = min(rate for one in curves.values() for rate in one["far"] if rate > 0)
        axes.set_xlim(low, 1)
        axes.minorticks_off()
        ticks = [10.0**power for power in range(-6, 1) if 10.0**power >= low]
        axes.set_xticks(ticks, [f"{tick * 100:g}%" for tick in ticks])
        axes.set_xlabel("false accept rate; upwards the true accept rate", fontsize=11)
        words = []
        # More than a few lines cannot be told apart: those that a reader asks for have a name, the others are a faint background.
        headline = headline_of(curves)
        named = list(curves) if len(curves) <= len(ROC_DASHES) else [arm for arm in ("clean", headline, "random") if arm in curves]
        for arm, one in curves.items():
            points = [(far, tar) for far, tar in zip(one["far"], one["tar"], strict=True) if far > 0]
            words.append(f"{arm}: AUC {at(arms[arm], 'verification', 'auc')}")
            if arm in named:
                colour = OTHERS if arm == "clean" else PROTECTED if arm == headline else MUTED
                style: dict[str, Any] = {"color": colour, "linewidth": 1.8, "linestyle": ROC_DASHES[named.index(arm)], "label": arm}
            else:
                first = arm == next(name for name in curves if name not in named)
                style = {"color": MUTED, "linewidth": 0.8, "alpha": 0.6, "label": "other arms" if first else None, "zorder": 1}
            axes.plot(*zip(*points, strict=True), **style)
        axes.legend(frameon=False, fontsize=10, loc="lower right", labelcolor=INK)
        return as_inline(figure, key=key, title="Verification: ROC of every arm", description="; ".join(words) + ".")
