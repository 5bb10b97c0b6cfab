"""Countermeasures by name: which there are, how a name is read, what it is called in a report.

Imports only the standard library, so that a config can be checked without torch. A name has one spelling, because it ends up in paths:
`jpeg-75`, not `jpeg-075`; `blur-1.0`, not `blur-1`.
"""

from __future__ import annotations

import re

PLAIN: dict[str, str] = {
    "none": "no countermeasure",
    "grey": "greyscale",
    "cutout": "Cutout, half the side",
    "mixup": "MixUp",
    "cutmix": "CutMix",
    "strong": "strong augmentation (flip, affine, colour, grey, blur, erasing)",
    "ueraser": "UEraser (the worst of 5 augmentations)",
    "orthogonal-projection": "orthogonal projection, of test photos too (without the authors’ augmentation)",
    "pattern-subtraction": "subtracting each person’s pattern, estimated from their photos",
}
"""Names without a number, and their titles."""

NUMBERED: dict[str, tuple[str, type[int] | type[float], float, float, str]] = {
    "jpeg": ("Q", int, 1, 100, "JPEG, quality {}"),
    "blur": ("SIGMA", float, 0.1, 20.0, "Gaussian blur, σ {} px"),
    "resize": ("N", int, 8, 111, "shrunk to {} px and back"),
    "bits": ("N", int, 1, 7, "{} bits a colour"),
    "shift": ("N", int, 1, 28, "random shift up to {} px"),
    "adversarial": ("R", int, 1, 32, "adversarial training, radius {}/255"),
}
"""Kinds whose name ends in a number: its letter, type, smallest and largest value, and the title."""

PROCESSING = ("grey", "jpeg", "blur", "resize", "bits")
"""Kinds that are done to photos before anything is trained, or asked, and need nothing but the photo."""

CORE: tuple[str, ...] = ("grey", "jpeg-75", "jpeg-50", "jpeg-25", "blur-1.0", "orthogonal-projection", "pattern-subtraction", "mixup")
"""What every report should try: cheap, and between them they undo most published noise."""

FULL: tuple[str, ...] = (
    "grey",
    *(f"jpeg-{quality}" for quality in (95, 75, 50, 25, 10)),
    "blur-1.0",
    "blur-2.0",
    "resize-56",
    "shift-6",
    "bits-4",
    "cutout",
    "mixup",
    "cutmix",
    "strong",
    "ueraser",
    "adversarial-4",
    "orthogonal-projection",
    "pattern-subtraction",
)
"""All that is worth a training run each."""


def parse_name(name: str) -> tuple[str, float]:
    """Kind and number of a name: `jpeg-75` gives ("jpeg", 75), `grey` gives ("grey", 0). Whole numbers come as int.

    Raises:
        ValueError: there is no such countermeasure, or its number is out of range or not in its one spelling.
    """
    if name in PLAIN:
        return name, 0
    kind, _, text = name.partition("-")
    if kind not in NUMBERED:
        numbered = [f"{kind}-{letter}" for kind, (letter, *_) in NUMBERED.items()]
        raise ValueError(f"countermeasure {name!r}: allowed are {', '.join([*PLAIN, *numbered])}")
    letter, number, low, high, _ = NUMBERED[kind]
    what = "a whole number" if number is int else "a number with its decimals, as in 1.0,"
    allowed = f"countermeasure {name!r}: allowed is {kind}-{letter}, {letter} {what} from {number(low)} to {number(high)}"
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text):
        raise ValueError(allowed)
    value = float(text)
    value = int(value) if number is int else value
    if str(value) != text or not low <= value <= high:
        raise ValueError(allowed)
    return kind, value


def check_name(name: str) -> str:
    """The name itself; `ValueError` where `parse_name` raises it."""
    parse_name(name)
    return name


def title_of(name: str) -> str:
    """Plain words for a report: `jpeg-75` is "JPEG, quality 75". `ValueError` where `parse_name` raises it."""
    kind, value = parse_name(name)
    return PLAIN[kind] if kind in PLAIN else NUMBERED[kind][4].format(value)
