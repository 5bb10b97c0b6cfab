"""What the paper found of the kinds of noise, asked of this run: which of its orderings hold here, on faces and at this scale?

Huang et al., ICLR 2021, tables 1 and 2 and section 4.1 (CIFAR-10, ResNet-18): error-minimizing noise takes 94.8 % to 19.9 % sample-wise
and 16.4 % class-wise; sample-wise random and error-maximizing noise end near clean accuracy; class-wise random noise climbs to about 80 %
before it collapses, class-wise error-maximizing noise to about 50 %, error-minimizing noise never rises. And of backdoors: a network learns
the trigger beside everything else, so its accuracy on clean photos stays (Gu et al. 2017, BadNets).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.accuracy import ROUNDING

HALF = 0.5  # at most this share of the clean accuracy is left
FOUR_FIFTHS = 0.8  # at least this share of it is left
FAR_ABOVE = 0.2  # of accuracy, between two peaks
AS_BEFORE = 0.02  # of AUC: at most so much less
FALLS_TO_CHANCE = 0.5  # at most this share of the clean model's lead over an AUC of 0.5 is left
OWN_LIMIT = "not reported; this project’s own limit"
FULL_AUC = "AUC 0.5321, clean 0.9975, on LFW"


@dataclass(frozen=True)
class Ordering:
    """One finding. `measure` gives, from the protected people's records of `arms` in order, a sentence and whether it holds."""

    claim: str
    published: str
    arms: tuple[str, ...]
    measure: Callable[..., tuple[str, bool]]


def leaves_at_most_half(arm: dict[str, Any], clean: dict[str, Any]) -> tuple[str, bool]:
    """Whether the noise takes half of the clean accuracy or more."""
    return f"{arm['final']:.1%}, clean {clean['final']:.1%}", arm["final"] <= HALF * clean["final"] + ROUNDING


def leaves_four_fifths(arm: dict[str, Any], clean: dict[str, Any]) -> tuple[str, bool]:
    """Whether four fifths of the clean accuracy or more are left."""
    return f"{arm['final']:.1%}, clean {clean['final']:.1%}", arm["final"] >= FOUR_FIFTHS * clean["final"] - ROUNDING


def peaks_far_above(arm: dict[str, Any], other: dict[str, Any]) -> tuple[str, bool]:
    """Whether the first's best epoch is far above the second's."""
    return f"best epochs {arm['peak']:.1%} and {other['peak']:.1%}", arm["peak"] - other["peak"] >= FAR_ABOVE - ROUNDING


def takes_half(arm: str, published: str) -> Ordering:
    """That `arm` leaves at most half of the clean accuracy."""
    return Ordering(f"{arm} leaves at most half of the clean accuracy", published, (arm, "clean"), leaves_at_most_half)


def takes_little(arm: str, published: str) -> Ordering:
    """That `arm` leaves at least four fifths of it."""
    return Ordering(f"{arm} leaves at least four fifths of the clean accuracy", published, (arm, "clean"), leaves_four_fifths)


ORDERINGS = (
    takes_half("error-min", "16.4%, clean 94.8%"),
    takes_half("error-min-samplewise", "19.9%, clean 94.8%"),
    takes_little("random-samplewise", "ends near clean accuracy"),
    takes_little("error-max-samplewise", "ends near clean accuracy"),
    takes_little("backdoor", "a trigger leaves clean accuracy as it was"),
    Ordering("random peaks far above error-min", "about 80%; error-min never rises", ("random", "error-min"), peaks_far_above),
    Ordering("error-max peaks far above error-min", "about 50%; error-min never rises", ("error-max", "error-min"), peaks_far_above),
)


def orderings(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """The orderings whose arms were run: rows {"claim", "published", "here", "holds"}.

    Args:
        arms: metrics by arm, as in `metrics.json`; `protected` holds `final` and `peak`, fractions. Arms without others are of the full
            setting.
    """
    found = []
    for one in ORDERINGS:
        records = [(arms.get(name) or {}).get("protected") for name in one.arms]
        if all(records):
            here, holds = one.measure(*records)
            found.append({"claim": one.claim, "published": one.published, "here": here, "holds": holds})
    return found + verification_findings(arms)


def verification_findings(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """What noise does to verification: in the full setting it must fall towards a guess, in the partial one not for the others."""
    arm, clean = arms.get("error-min") or {}, arms.get("clean") or {}
    full = not clean.get("others")
    mine, before = (auc_of_everyone(one) if full else auc_of_others(one) for one in (arm, clean))
    if mine is None or before is None:
        return []
    here = f"AUC {mine:.4f}, clean {before:.4f}"
    if full:
        holds = falls_to_chance(mine, before)
        return [{"claim": "verification falls towards a guess", "published": FULL_AUC, "here": here, "holds": holds}]
    found = [kept("the others’ AUC", mine, before)]
    unseen = [one["verification"] for one in (arm, clean) if (one.get("verification") or {}).get("of") == "people never trained on"]
    if len(unseen) == 2:
        found.append(kept("AUC of people never trained on", *(one["auc"] for one in unseen)))
    return found


def falls_to_chance(auc: float, before: float) -> bool:
    """Whether noise on everybody takes half of the clean model's lead over a guess, or more."""
    return auc - 0.5 <= FALLS_TO_CHANCE * (before - 0.5) + ROUNDING


def kept(what: str, mine: float, before: float) -> dict[str, Any]:
    """The row that says whether an AUC is what it was in the clean arm."""
    claim, here = f"{what} falls by {AS_BEFORE} at most", f"AUC {mine:.4f}, clean {before:.4f}"
    return {"claim": claim, "published": OWN_LIMIT, "here": here, "holds": before - mine <= AS_BEFORE + ROUNDING}


def auc_of_others(arm: dict[str, Any]) -> float | None:
    """The AUC of an arm's model on the other people it was trained on; None where it was not measured."""
    return ((((arm.get("verification") or {}).get("groups") or {}).get("others")) or {}).get("auc")


def auc_of_everyone(arm: dict[str, Any]) -> float | None:
    """The AUC of an arm's model on LFW where it was measured, else on the run's own photos."""
    lfw = ((arm.get("lfw") or {}).get("own") or {}).get("auc")
    return lfw if lfw is not None else (arm.get("verification") or {}).get("auc")
