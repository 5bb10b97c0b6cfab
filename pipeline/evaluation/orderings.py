"""What the paper found of the kinds of noise, asked of this run: which of its orderings hold here, on faces and at this scale?

Huang et al., ICLR 2021, tables 1 and 2 and section 4.1 (CIFAR-10, ResNet-18): error-minimizing noise takes 94.8 % to 19.9 % sample-wise
and 16.4 % class-wise; sample-wise random and error-maximizing noise end near clean accuracy; class-wise random noise climbs to about 80 %
before it collapses, class-wise error-maximizing noise to about 50 %, error-minimizing noise never rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROTECTS = 0.5  # at most this share of the clean accuracy is left
PROTECTS_LITTLE = 0.8  # at least this share of it is left
FAR_ABOVE = 0.2  # of accuracy, between two peaks


@dataclass(frozen=True)
class Ordering:
    """One finding. `measure` gives, from the protected people's records of `arms` in order, a sentence and whether it holds."""

    claim: str
    published: str
    arms: tuple[str, ...]
    measure: Callable[..., tuple[str, bool]]


def protects(arm: dict[str, Any], clean: dict[str, Any]) -> tuple[str, bool]:
    """Whether the noise takes half of the clean accuracy or more."""
    return f"{arm['final']:.1%}, clean {clean['final']:.1%}", arm["final"] <= PROTECTS * clean["final"]


def protects_little(arm: dict[str, Any], clean: dict[str, Any]) -> tuple[str, bool]:
    """Whether four fifths of the clean accuracy or more are left."""
    return f"{arm['final']:.1%}, clean {clean['final']:.1%}", arm["final"] >= PROTECTS_LITTLE * clean["final"]


def peaks_far_above(arm: dict[str, Any], other: dict[str, Any]) -> tuple[str, bool]:
    """Whether the first's best epoch is far above the second's."""
    return f"best epochs {arm['peak']:.1%} and {other['peak']:.1%}", arm["peak"] - other["peak"] >= FAR_ABOVE


ORDERINGS = (
    Ordering("error-min protects", "16.4%, clean 94.8%", ("error-min", "clean"), protects),
    Ordering("error-min-samplewise protects", "19.9%, clean 94.8%", ("error-min-samplewise", "clean"), protects),
    Ordering("random-samplewise protects little", "ends near clean accuracy", ("random-samplewise", "clean"), protects_little),
    Ordering("error-max-samplewise protects little", "ends near clean accuracy", ("error-max-samplewise", "clean"), protects_little),
    Ordering("random peaks far above error-min", "about 80%; error-min never rises", ("random", "error-min"), peaks_far_above),
    Ordering("error-max peaks far above error-min", "about 50%; error-min never rises", ("error-max", "error-min"), peaks_far_above),
)


def orderings(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """The orderings whose arms were run: rows {"claim", "published", "here", "holds"}.

    Args:
        arms: metrics by arm, as in `metrics.json`; `protected` holds `final` and `peak`, fractions.
    """
    found = []
    for one in ORDERINGS:
        records = [(arms.get(name) or {}).get("protected") for name in one.arms]
        if all(records):
            here, holds = one.measure(*records)
            found.append({"claim": one.claim, "published": one.published, "here": here, "holds": holds})
    return found
