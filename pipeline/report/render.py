"""`index.html` of a run: one self-contained file, a pure function of its metrics and a few images."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.artifacts import write_text
from pipeline.noise.arms import ARMS, is_of, is_targeted
from pipeline.report import figures, tables, tables_beyond, views
from pipeline.report.answers import answers_of
from pipeline.report.limits import limits_of
from pipeline.report.page import fill
from pipeline.report.validity import explained, left_out, valid_arms
from pipeline.report.words import at

MOST_BYTES = 4_900_000  # of the file: it is sent by mail
LONGEST_SIDE = 480  # px; larger photos are shown smaller
NOISE_GAIN = 10


@dataclass(frozen=True)
class Panel:
    """A photo before and after protection. `original` and `protected`: uint8 H×W×3, RGB, of one shape."""

    identity: str
    photo: str
    arm: str
    original: np.ndarray = field(repr=False)
    protected: np.ndarray = field(repr=False)
    kind: Literal["crop", "photo"] = "crop"

    def __post_init__(self) -> None:
        assert self.original.dtype == self.protected.dtype == np.uint8
        assert self.original.shape == self.protected.shape and self.original.ndim == 3 and self.original.shape[2] == 3


@dataclass(frozen=True)
class Picture:
    """A panel as it stands in the page: three PNG data URIs and what to say of them."""

    identity: str
    photo: str
    arm: str
    kind: str
    images: tuple[tuple[str, str, str], ...]  # caption, data URI, text alternative
    width: int
    height: int
    size_note: str

    def cost(self) -> int:
        """Bytes it adds to the page, tags included."""
        return sum(len(uri) for _, uri, _ in self.images) + 1500


def render_report(metrics: dict[str, Any], panels: list[Panel], output: Path) -> None:
    """Write `output/index.html`.

    Args:
        metrics: `metrics.json`, schema 1 (`reports/README.md`); keys it lacks are shown as not measured.
        panels: photos to show. Where they are too many for one mail, each arm's first ones are shown and the page says how many are not.
    """
    content = content_of(metrics)
    room = MOST_BYTES - len(build_page(content).encode("utf-8"))
    chosen = choose([picture_of(panel) for panel in panels], room)
    write_text(output / "index.html", build_page(content, chosen, left_out=len(panels) - len(chosen)))


def build_page(content: dict[str, Any], pictures: list[Picture] | None = None, *, left_out: int = 0) -> str:
    """The page's text, from what `content_of` gives. All of it but figures is escaped."""
    by_arm: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures or []:
        by_arm[picture.arm].append(picture)
    return fill("index.html.j2", content | {"pictures": dict(by_arm), "left_out": left_out, "gain": NOISE_GAIN})


def content_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """All that the template shows but for the pictures."""
    arms, chance = metrics["arms"], metrics.get("chance")
    valid = valid_arms(metrics)
    baseline = at(valid, "clean", "protected", "by_epoch")
    curves = {
        arm: figures.accuracy_by_epoch(arm, record, chance, None if arm == "clean" else baseline, key=f"curve{place}")
        for place, (arm, record) in enumerate(valid.items())
    }
    return {
        "run": str(metrics.get("run") or ""),
        "identities": metrics.get("identities"),
        "verdict": str(metrics.get("verdict") or "No verdict was recorded."),
        "state": views.state_of(metrics),
        "lost_to": metrics.get("lost_to") or [],
        "invalid": explained(metrics),
        "not_drawn": left_out(metrics, arms),
        "heading": views.heading_of(metrics),
        "headline": views.headline_arm(metrics),
        "seeds": views.seeds_of(metrics),
        "cloaked": any(views.made_against(metrics, arm) for arm in arms),
        "targeted": [arm for arm in arms if is_targeted(arm)],
        "per_photo": [arm for arm in arms if is_of(arm, "error-min") and ARMS[arm].per == "photo"],
        "answers": answers_of(metrics),
        "key_numbers": views.key_numbers(metrics),
        "facts": views.facts_of(metrics),
        "protected_names": [str(name) for name in at(metrics, "split", "protected_names") or []],
        "names_shown": views.NAMES_SHOWN,
        "arm_texts": [(arm, ARMS[arm].text) for arm in arms if arm in ARMS],
        "accuracy": tables.accuracy_table(metrics),
        "curves": {arm: curve for arm, curve in curves.items() if curve is not None},
        "intervals_figure": figures.accuracy_intervals(valid, chance, key="intervals"),
        "identities_figure": figures.accuracy_per_identity(valid, chance, key="spread"),
        "identities_table": tables.identity_table(metrics),
        "visibility": tables.visibility_table(metrics),
        "photos": tables.photos_table(metrics),
        "panels_note": str(metrics.get("panels_note") or ""),
        "noise": tables.noise_table(metrics),
        "verification": tables_beyond.verification_table(metrics),
        "roc_figure": figures.roc_curves(valid, key="roc"),
        "lfw": tables_beyond.lfw_table(metrics),
        "separability": tables_beyond.separability_table(metrics),
        "utility": tables.utility_table(metrics),
        "paired": tables.paired_table(metrics),
        "orderings": tables.orderings_table(metrics),
        "identification": tables_beyond.identification_table(metrics),
        "trainers": tables_beyond.trial_tables(metrics, "trainers", "Trainer", "by trainer"),
        "countermeasures": tables_beyond.trial_tables(metrics, "countermeasures", "Countermeasure", "under countermeasures"),
        "shares": tables_beyond.trial_tables(metrics, "shares", "Protected", "by share of their photos that is protected"),
        "checks": views.checks_of(metrics),
        "limits": limits_of(metrics),
        "provenance": views.provenance_of(metrics),
        "config": config_text(at(metrics, "provenance", "config")),
    }


def config_text(config: Any) -> str:
    """The run's configuration as YAML; empty where none was recorded."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else ""


def picture_of(panel: Panel) -> Picture:
    """Encode a panel: original, the change times `NOISE_GAIN` around mid grey, protected."""
    change = amplified_change(panel.original, panel.protected)
    height, width = shown_size(*panel.original.shape[:2])
    what = "Face crop" if panel.kind == "crop" else "Photo"
    who = f"{what.lower()} of {panel.identity}"
    amplified = f"Change of the {who} in arm {panel.arm}, {NOISE_GAIN} times amplified"
    images = (
        ("Original", data_uri(panel.original, height, width), f"Original {who}"),
        (f"Change × {NOISE_GAIN}", data_uri(change, height, width), amplified),
        ("Protected", data_uri(panel.protected, height, width), f"Protected {who} in arm {panel.arm}"),
    )
    full_height, full_width = panel.original.shape[:2]
    note = f"{full_width} × {full_height} px" + ("" if height == full_height else f", shown at {width} × {height}")
    return Picture(panel.identity, panel.photo, panel.arm, panel.kind, images, width, height, note)


def amplified_change(original: np.ndarray, protected: np.ndarray) -> np.ndarray:
    """128 + 10 (protected − original), clipped: uint8 H×W×3, RGB; grey where nothing changed."""
    change = protected.astype(np.int16) - original.astype(np.int16)
    return np.clip(128 + NOISE_GAIN * change, 0, 255).astype(np.uint8)


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width within `LONGEST_SIDE`, the ratio kept."""
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def data_uri(image: np.ndarray, height: int, width: int) -> str:
    """An RGB image as PNG data URI, made smaller first if it is larger than asked for."""
    import cv2

    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def choose(pictures: list[Picture], room: int) -> list[Picture]:
    """As many pictures as fit into `room` bytes: each arm's first crop, then each arm's first photo, then the second ones, …"""
    turn: dict[tuple[str, str], int] = defaultdict(int)
    order = []
    for place, picture in enumerate(pictures):
        order.append((turn[picture.arm, picture.kind], picture.kind == "photo", place))
        turn[picture.arm, picture.kind] += 1
    kept = []
    for _, _, place in sorted(order):
        if pictures[place].cost() <= room:
            room -= pictures[place].cost()
            kept.append(place)
    return [pictures[place] for place in sorted(kept)]
