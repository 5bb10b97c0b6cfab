"""The arms of the study by name: what each puts on the photos of the protected identities.

`per` says what one row of the noise table belongs to: an identity (one pattern for all photos, later ones too), a single photo, or nobody
(`clean` and `removed` have no noise). `surrogates` says that the noise is made against networks that have learned the clean photos before;
a cloak is made against recognisers that exist (CLOAK_AGAINST), over an error-minimizing pattern in `cloak-error-min`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

# Networks that learn the clean photos before noise is made against them: each one's folder beside the arms, and its `TrainConfig.model`.
SURROGATES = {"surrogate": "inception-resnet-v1", "surrogate-mobilefacenet": "mobilefacenet"}
OWN = ("surrogate",)  # of the study's own kind


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        method: how its noise is made, by a module here that `stage.py` calls (drawn) or `searched.py` (what needs torch); none: no noise.
        text: one sentence for reports.
        values: what sets the arm apart from others of its method, as values of its `NoiseConfig`, over the profile's.
    """

    method: Literal["none", "random", "error-min", "error-max", "tap", "fawkes", "cloak", "lsp", "backdoor"]
    per: Literal["nobody", "identity", "photo"]
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    surrogates: tuple[str, ...] = ()  # out of `SURROGATES`
    published: bool = False  # whole photos, and held-out ones too, are protected, as a person would publish them


ARMS: dict[str, Arm] = {
    "clean": Arm("none", "nobody", "Nothing protected: the baseline."),
    "removed": Arm("none", "nobody", "The protected people's photos are left out of training: no protection against training can do more."),
    "random": Arm("random", "identity", "One uniformly random pattern a person: the paper's control."),
    "random-samplewise": Arm("random", "photo", "Another uniformly random pattern on every photo."),
    "error-max": Arm("error-max", "identity", "One pattern a person that makes a trained network err (adversarial).", surrogates=OWN),
    "error-max-samplewise": Arm("error-max", "photo", "A pattern a photo that makes a trained network err.", surrogates=OWN),
    "error-min": Arm("error-min", "identity", "One error-minimizing pattern a person.", published=True),
    "error-min-grey": Arm(
        "error-min",
        "identity",
        "One error-minimizing pattern a person without colour: greyscale takes nothing of it away.",
        {"grey": True},
        published=True,
    ),
    "error-min-samplewise": Arm("error-min", "photo", "An error-minimizing pattern a photo."),
    "error-min-released": Arm(
        "error-min",
        "identity",
        "Error-minimizing noise by the update rule of the authors' code.",
        {"rule": "released"},
        published=True,
    ),
    "error-min-robust": Arm(
        "error-min",
        "identity",
        "Error-minimizing noise searched through shifts, resizing, blur, light, greyscale, JPEG.",
        {"transforms": True},
        published=True,
    ),
    "error-min-bound": Arm(
        "error-min",
        "identity",
        "As error-min-robust, but searched on other people's faces: the pattern has to outweigh the face.",
        {"transforms": True, "binding": True},
        published=True,
    ),
    "lsp": Arm("lsp", "identity", "Linearly separable patches: blocks of 8 px in colours of the person's own."),
    "tap": Arm("tap", "photo", "Targeted adversarial: a network sees the next protected person in every photo.", surrogates=OWN),
    "tap-robust": Arm(
        "tap",
        "photo",
        "Targeted adversarial, made through shifts, resizing, blur, light, greyscale, JPEG: a network sees the next protected person.",
        {"transforms": True},
        surrogates=OWN,
        published=True,
    ),
    "tap-ensemble": Arm(
        "tap",
        "photo",
        "As tap-robust, but against two unlike networks at once: an InceptionResnetV1 and a MobileFaceNet.",
        {"transforms": True},
        surrogates=tuple(SURROGATES),
        published=True,
    ),
    "fawkes": Arm("fawkes", "photo", "Feature cloak: every photo's embedding is moved towards a distant person's.", surrogates=OWN),
    "cloak": Arm(
        "cloak",
        "photo",
        "Feature cloak against recognisers that exist (CLOAK_AGAINST): to each of them every photo shows the same distant person.",
        {"transforms": True},
        published=True,
    ),
    "cloak-error-min": Arm(
        "cloak",
        "photo",
        "An error-minimizing pattern a person with half of ε, and over it a cloak (CLOAK_AGAINST) with the other half.",
        {"transforms": True},
        published=True,
    ),
    "cloak-tap": Arm(
        "cloak",
        "photo",
        "Targeted adversarial as tap-ensemble, and at once a cloak (CLOAK_AGAINST): networks old and new see the next protected person.",
        {"transforms": True},
        surrogates=tuple(SURROGATES),
        published=True,
    ),
    "backdoor": Arm("backdoor", "identity", "A small trigger patch in the corner, one a person."),
}


def arm_of(name: str) -> Arm:
    """The arm called `name`; `ValueError` names the allowed ones."""
    if name not in ARMS:
        raise ValueError(f"arm {name!r}: allowed are {', '.join(ARMS)}")
    return ARMS[name]


def is_of(arm: str | None, method: str) -> bool:
    """Whether there is such an arm and its noise is made by `method`."""
    return arm in ARMS and ARMS[arm].method == method


def is_targeted(arm: str | None) -> bool:
    """Whether there is such an arm and its photos show the next of the protected to networks that have learned them all (`tap.py`)."""
    return is_of(arm, "tap") or (is_of(arm, "cloak") and bool(ARMS[str(arm)].surrogates))


def protecting_arms(arms: Iterable[str]) -> list[str]:
    """Those of `arms` that are meant to protect, and are no control: error-minimizing noise in its order, then targeted, then a cloak."""
    arms = [arm for arm in arms if is_of(arm, "error-min") or (arm in ARMS and ARMS[arm].published)]
    return [arm for method in ("error-min", "tap", "cloak") for arm in arms if is_of(arm, method)]


def headline_of(arms: Iterable[str]) -> str | None:
    """The arm a verdict is about: the first that is meant to protect."""
    return next(iter(protecting_arms(arms)), None)
