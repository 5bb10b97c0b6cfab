"""Trials by name: a trainer other than the study's, or one who fights the noise, tried on every arm beside the study itself.

A trial is the run's own training recipe with a few values changed, so it differs from the study in what its name says and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.countermeasures.names import CORE as CORE_COUNTERMEASURES
from pipeline.countermeasures.names import FULL as FULL_COUNTERMEASURES
from pipeline.countermeasures.names import PROCESSING, check_name, parse_name, title_of

if TYPE_CHECKING:
    from pipeline.config import TrainConfig


@dataclass(frozen=True)
class Trial:
    """`values` go over the training config. `base`: the run's own recipe, the profile's from scratch, or its fine-tuning."""

    kind: str  # "countermeasure", "trainer" or "share"
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    base: str = "own"
    weights: bool = False  # starts from pretrained weights
    reference: bool = False  # takes the embeddings of a recogniser that was trained elsewhere, on whatever network
    photos: bool = False  # starts from whole protected photos, not from crops
    noise_only: bool = False  # changes nothing where nothing is protected: the clean arm's result is that of the study itself


INPUT_SIZES = range(75, 225)  # px; InceptionResnetV1 takes no less than 75
# Whose embeddings a trial takes; the report puts the network's file in their place.
PRETRAINED, REFERENCES = "Frozen pretrained embeddings", "Reference’s embeddings"
TRAINERS: dict[str, Trial] = {
    "scratch": Trial("trainer", "InceptionResnetV1, from scratch", base="scratch"),
    "resnet18": Trial("trainer", "ResNet-18, from scratch", {"model": "resnet18"}, base="scratch"),
    "mobilefacenet": Trial("trainer", "MobileFaceNet, from scratch", {"model": "mobilefacenet"}, base="scratch"),
    "arcface": Trial("trainer", "InceptionResnetV1 with ArcFace head, from scratch", {"head": "arcface"}, base="scratch"),
    "fine-tune": Trial("trainer", "InceptionResnetV1, fine-tuned", base="tuned", weights=True),
    "linear-probe": Trial("trainer", f"{PRETRAINED}, linear probe", {"trainer": "linear-probe"}, weights=True),
    "svm": Trial("trainer", f"{PRETRAINED}, linear SVM", {"trainer": "svm"}, weights=True),
    "nearest-neighbour": Trial("trainer", f"{PRETRAINED}, nearest photo", {"trainer": "nearest-neighbour"}, weights=True),
    "linear-probe-reference": Trial("trainer", f"{REFERENCES}, linear probe", {"trainer": "linear-probe"}, reference=True),
    "svm-reference": Trial("trainer", f"{REFERENCES}, linear SVM", {"trainer": "svm"}, reference=True),
    "nearest-neighbour-reference": Trial(
        "trainer", f"{REFERENCES}, nearest photo", {"trainer": "nearest-neighbour"}, reference=True),
}  # fmt: skip
FROZEN = tuple(name for name, trial in TRAINERS.items() if "trainer" in trial.values)  # who takes embeddings and trains no network
AFTER = "-after-"
RECROPPED = Trial("countermeasure", "faces found and cropped anew in the protected photos", {"recropped": {}}, photos=True, noise_only=True)
DETECTORS = {"mtcnn": "MTCNN", "scrfd": "SCRFD"}
RECROPPINGS = ("recropped", "recropped-jpeg-Q", *(f"recropped-{detector}" for detector in DETECTORS))
REFIT = Trial("countermeasure", "last layer refitted on a few clean photos (DFR)", {"trainer": "last-layer-refit"})
SETS: dict[str, tuple[str, ...]] = {
    "core": CORE_COUNTERMEASURES,
    "countermeasures": ("recropped", "recropped-jpeg-75", *FULL_COUNTERMEASURES, "last-layer-refit"),
    "trainers": (*TRAINERS, "input-112"),  # crops have 112 px: a network that looks at all of them
    "shares": ("share-20", "share-40", "share-60", "share-80"),
}
# Who takes embeddings of a network that exists, of the photos as they are and as a scraper may leave them: what a cloak is to stand.
BEFORE_EMBEDDING = ("grey", "jpeg-75", "jpeg-50", "blur-1.0", "resize-56")
SETS["embeddings"] = (*FROZEN, *(f"{name}{AFTER}{how}" for name in ("svm", "svm-reference") for how in BEFORE_EMBEDDING))
SETS["full"] = (*SETS["countermeasures"], *SETS["trainers"], *SETS["shares"])


def trial_of(name: str) -> Trial:
    """The trial called `name`: a trainer, a countermeasure, one after the other, or `share-N`; `ValueError` says what is allowed."""
    if name in TRAINERS:
        return TRAINERS[name]
    if AFTER in name:
        return processed_trial(name)
    if name == "last-layer-refit":
        return REFIT
    if name == "recropped" or name.startswith("recropped-"):
        return recropped_trial(name)
    if name.startswith("input-"):
        return input_trial(name)
    if name.startswith("share-"):
        percent = name.removeprefix("share-")
        if percent.isascii() and percent.isdigit() and 0 <= int(percent) <= 100:
            return Trial("share", f"only {percent}% of each person’s photos protected", {"share": int(percent) / 100}, noise_only=True)
        raise ValueError(f"{name!r}: allowed are share-0 to share-100")
    try:
        check_name(name)
    except ValueError as error:
        raise ValueError(
            f"{error}; or a trainer: {', '.join(TRAINERS)}; or, as in svm{AFTER}jpeg-75, a trainer on processed photos; "
            f"or {', '.join(RECROPPINGS)}, last-layer-refit, input-N, share-N; "
            f"or a set: {', '.join(SETS)}"
        ) from None
    return Trial("countermeasure", title_of(name), {"countermeasure": name})


def input_trial(name: str) -> Trial:
    """`input-112` and the like: the study’s training at another size than that of the search for noise."""
    size = name.removeprefix("input-")
    if not (size.isascii() and size.isdigit() and int(size) in INPUT_SIZES):
        raise ValueError(f"{name!r}: allowed are input-{INPUT_SIZES[0]} to input-{INPUT_SIZES[-1]}")
    return Trial("trainer", f"crops enter the network at {size} px", {"input_size": int(size)})


def without_processing(name: str) -> str:
    """The trial on photos as they are of one on processed photos; of another its own name."""
    return name.partition(AFTER)[0]


def processed_trial(name: str) -> Trial:
    """`svm-after-jpeg-75` and the like: embeddings of everybody's photos, test photos too, after a countermeasure that changes photos."""
    trainer, _, how = name.partition(AFTER)
    kind = parse_name(how)[0] if trainer in FROZEN else ""
    if kind not in PROCESSING:
        allowed = f"{', '.join(FROZEN)}, then {AFTER}, then {', '.join(PROCESSING)} with its number"
        raise ValueError(f"{name!r}: allowed are {allowed}")
    asked = TRAINERS[trainer]
    return replace(asked, title=f"{asked.title} ({title_of(how)})", values=asked.values | {"countermeasure": how})


def recropped_trial(name: str) -> Trial:
    """`recropped`, or that after what changes everybody's photos: JPEG, or another detector; `ValueError` says what is allowed.

    Those teach another thing without noise, too, so they are tried on the clean arm as well.
    """
    how = name.removeprefix("recropped").removeprefix("-")
    if not how:
        return RECROPPED
    if how in DETECTORS:
        return Trial("countermeasure", f"faces found and cropped anew with {DETECTORS[how]}", {"recropped": {"detector": how}}, photos=True)
    try:
        kind, quality = parse_name(how)
    except ValueError:
        kind, quality = "", 0
    if kind != "jpeg":
        raise ValueError(f"{name!r}: allowed are {', '.join(RECROPPINGS)}, Q a whole number from 1 to 100")
    title = f"photos saved as JPEG, quality {quality}, then faces found and cropped anew"
    return Trial("countermeasure", title, {"recropped": {"jpeg": quality}}, photos=True)


@dataclass(frozen=True)
class Means:
    """What a run has to try trials with: pretrained weights of the study's own network and a recogniser from elsewhere, each as the
    values of a training config (empty: none was given), and whole photos, not crops alone.
    """

    weights: dict[str, Any]
    reference: dict[str, Any]
    photos: bool

    def missing(self, trial: Trial) -> str:
        """What `trial` needs that is not there, in words for a message; empty where nothing is missing."""
        if trial.photos and not self.photos:
            return "looks for faces in whole photos: this data set is of crops that are aligned already"
        if trial.weights and not self.weights:
            return "starts from pretrained weights: give RECOGNISER_WEIGHTS="
        if trial.reference and not self.reference:
            return "uses the embeddings of a recogniser that was trained elsewhere: give REFERENCE="
        return ""

    def start(self, trial: Trial) -> dict[str, Any]:
        """What `trial` starts from, as values of a training config."""
        if trial.reference:
            return {"weights": None, "weights_sha256": None} | self.reference
        return self.weights if trial.weights else {}


def is_the_study(trial: Trial, own: TrainConfig) -> bool:
    """Whether `trial` changes nothing in the run's `own` training, so that it would say nothing new."""
    base = "scratch" if own.weights is None else "tuned"
    return trial.base in ("own", base) and all(getattr(own, name) == value for name, value in trial.values.items())


def trials_asked_for(text: str, means: Means, own: TrainConfig) -> list[str]:
    """The names behind `MATRIX`: one of `SETS` (`full` is all of them), or names, in order and once each.

    From a set, what this run lacks the means for or does anyway (its own trainer, its own input size) is left out.

    Args:
        own: the run's own training.

    Raises:
        ValueError: an unknown name, one that needs what there is not, or one that would be the study's own training again.
    """
    found: list[str] = []
    for word in text.split():
        for name in SETS.get(word, (word,)):
            trial = trial_of(name)
            why = means.missing(trial) or ("is this run's own training: it would try nothing new" if is_the_study(trial, own) else "")
            if why:
                if word in SETS:
                    continue
                raise ValueError(f"{name!r} {why}")
            if name not in found:
                found.append(name)
    return found
