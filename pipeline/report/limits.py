"""What a report of this kind does not show, said in every report unless the run measured it.

Each statement is from the literature named in it; figures are the cited papers' own, on their own data, and are marked so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.noise.arms import ARMS, is_of, is_targeted
from pipeline.report.validity import counts, counts_elsewhere
from pipeline.report.views import (
    called,
    config_of_surrogate,
    headline_arm,
    made_against,
    search_also_saw,
    seeds_of,
    starts_alike,
    tried_on,
    was_known,
)
from pipeline.report.words import at, is_number, number, percent
from pipeline.training.trials import TRAINERS, trial_of, without_processing


@dataclass(frozen=True)
class Limit:
    """One thing the numbers above say nothing about. `measured` says where it was measured after all, or is empty.

    `could_be_tried`: False for what is a fact about the run or was tried in vain, rather than something left undone.
    """

    title: str
    text: str
    measured: str = ""
    could_be_tried: bool = True


EMBEDDINGS = "Fine-tuning and pretrained embeddings"
EXISTING = "Recognisers that are already trained"
STRANGERS = "Strangers in training"
OTHER_NETWORKS = "Other architectures and sizes"
OPEN_SET = "open-set"
SEARCHED_BY = f"{OPEN_SET} identification by "

# title, words of which the names have one under which it was measured (trials, "open-set identification by …"), text
KNOWN = (
    (
        EMBEDDINGS,
        ("fine-tune", "probe", "neighbour", "svm"),
        "Face recognisers are usually built on a network that already knows faces: by fine-tuning it, or by comparing its embeddings. "
        "Noise made against training from scratch is known to be much weaker there, so a study that only trains from scratch flatters the "
        "protection. What is built on the embeddings of a network that the search did not have may not be hindered at all.",
    ),
    (
        "Simple image processing",
        ("jpeg", "grey", "blur", "resize", "shift", "bits"),
        "Simple image processing can undo the noise. On the protected CIFAR-10 of Image Shortcut Squeezing (ICML 2023), training reached "
        "21.1% as is, 93.0% after conversion to grey and 81.5% after JPEG at quality 10.",
    ),
    (
        "Adversarial training",
        ("adversarial",),
        "Training against small worst-case changes (L∞ of 4 or 8 of 255) largely undoes error-minimizing noise "
        "(Robust Unlearnable Examples, ICLR 2022).",
    ),
    (
        "Strong augmentation and projections",
        ("mixup", "cutmix", "cutout", "strong", "ueraser", "projection", "subtraction", "last-layer-refit"),
        "Mixing photos, training on the worst of several strong augmentations (UEraser), or removing the directions in which noise of this "
        "kind is linearly separable (orthogonal projection, NeurIPS 2023) are aimed at exactly this noise. So is estimating a person’s "
        "pattern from what all of their photos share, and subtracting it.",
    ),
    (
        "Photos that are already out",
        ("share-",),
        "In the study itself every protected person had all training photos protected. Clean photos published earlier cannot be "
        "protected afterwards; where only a part is protected, accuracy is about that of training on the clean rest (Huang et al., ICLR "
        "2021). And whoever trains "
        "tomorrow chooses the method after the photos were protected (Radiya-Dixit et al., ICLR 2022).",
    ),
    (
        EXISTING,
        (OPEN_SET,),
        "Noise against training is not made to hide a face from a recogniser that exists already and only compares photos, "
        "which is how faces are searched for in practice. A cloak is made against such recognisers, one by one.",
    ),
    (
        OTHER_NETWORKS,
        ("resnet18", "mobilefacenet", "arcface", "input-"),
        "The study itself trains one network, which crops enter at one size. In the original study class-wise noise carried over to "
        "three other networks on CIFAR-10 (accuracy 13.5–16.9%).",
    ),
    (
        "Photos cropped anew",
        ("recropped",),
        "The study’s own training used the protected crops themselves. A scraper finds and crops the face in the protected photo again, "
        "perhaps with another detector than this run’s and after a platform saved the photo as JPEG, which shifts and rescales the noise. "
        "The table “The way back to the photo” says how like the noise is that comes back with this run’s own alignment.",
    ),
    (
        STRANGERS,
        (),
        "The search for noise saw clean training photos of the other people that the recogniser trains on (“Noise search also sees”). "
        "A defender usually does not know whose photos the trainer will add.",
    ),
)  # fmt: skip

RENDERED = (
    "Real faces",
    "The people of this run do not exist: their photos are rendered. Real photos may be harder or easier to learn and to protect.",
)
SAME_WEIGHTS = (
    "Weights other than those the search began with",
    "The noise was searched with a network that started from the very weights that the recogniser starts from. A defender rarely knows "
    "those; against a recogniser that starts elsewhere the noise may hold less.",
)
CLOAKED = (
    "Recognisers that the cloak was not made against",
    "The cloak was made against {}. What it does to these says little of a recogniser that is none of them, one that will be trained later "
    "among them.",
)
KNOWN_BEFORE = (
    "Countermeasures that the search knew",
    "The noise was searched through random shifts of up to {shift} px, resizing to {sizes[0]}–{sizes[1]} px and back, blur of σ "
    "{blur[0]}–{blur[1]} px, greyscale and JPEG of quality {jpeg[0]}–{jpeg[1]}. What it holds against among these it was made for; what "
    "lies outside says more about the next trainer’s choice.",
)
WITHOUT_SEARCH = (
    "What the search adds to a pattern",
    "That random noise protects nobody does not show that the search is what protects: its pixels are drawn one by one, so a network that "
    "sees smaller crops averages much of it away, and it is weaker than searched noise of the same ε{}. Coarse patches at ±ε that nobody "
    "searched for (lsp) are the control for that; Yu et al. (KDD 2022) found such noise as effective as searched one.",
)
ONE_SEED = (
    "Other seeds",
    "The run has one seed: one draw of protected people, one search for noise, one training an arm. The intervals say how much "
    "accuracy varies between identities, not between runs.",
)
PATIENCE = "Networks were given the study’s own epochs; whoever trains for longer may learn more, from protected photos too."
# title → the set of MATRIX that tries it
TRIED_BY = {
    EMBEDDINGS: "trainers",
    "Simple image processing": "core",
    "Adversarial training": "countermeasures",
    "Strong augmentation and projections": "core",
    "Photos that are already out": "shares",
    OTHER_NETWORKS: "trainers",
    "Photos cropped anew": "countermeasures",
    SAME_WEIGHTS[0]: "trainers",
    CLOAKED[0]: "trainers",
}
ASKS_REFERENCE = {EMBEDDINGS, SAME_WEIGHTS[0], CLOAKED[0]}  # RECOGNISER_WEIGHTS would make the study itself another one


def without_search(metrics: dict[str, Any], arm: str) -> Limit:
    """What the search adds: of an arm whose patterns, one a person, were searched for, beside drawn ones."""
    weaker = [at(metrics, "arms", name, "imperceptibility", "psnr_db") for name in ("random", arm)]
    visible = f" (PSNR {number(weaker[0], 1)} for {number(weaker[1], 1, ' dB')})" if all(map(is_number, weaker)) else ""
    left = [at(metrics, "arms", name, "protected", "final") if counts(metrics, name) else None for name in ("lsp", arm)]
    measured = f"Measured in this run: lsp leaves {percent(left[0])} named, {arm} {percent(left[1])}." if all(map(is_number, left)) else ""
    return Limit(WITHOUT_SEARCH[0], WITHOUT_SEARCH[1].format(visible), measured)


def searched_with(metrics: dict[str, Any], arm: str | None) -> str:
    """How near the surrogate was to the recogniser, in a sentence; empty where no noise was searched or that was not recorded."""
    theirs, mine = (at(metrics, "provenance", "config", stage, "input_size") for stage in ("train", config_of_surrogate(arm)))
    if not is_number(theirs) or not is_number(mine) or not (is_of(arm, "error-min") or is_targeted(arm)):
        return ""
    size = "at the same input size" if theirs == mine else f"at {mine:g} px where the recogniser has {theirs:g}"
    start = "the same pretrained weights" if starts_alike(metrics, arm) else "other initial weights"
    beside = [one["model"] for one in at(metrics, "arms", arm or "", "noise", "surrogates") or []][1:]
    others = f", and with a {' and a '.join(beside)}" if beside else ""
    return f" The noise was searched with a network of the recogniser’s own kind, {size}, from {start}{others}."


def unknown_to(metrics: dict[str, Any], arm: str | None, name: str) -> bool:
    """Whether what was measured under `name` is of a recogniser that the arm's cloak was not made against: another one, or trained anew."""
    if name.startswith(SEARCHED_BY):
        return not was_known(metrics, arm, name.removeprefix(SEARCHED_BY))
    trial = TRAINERS.get(without_processing(name))
    kind = "" if trial is None else "reference" if trial.reference else "pretrained" if trial.weights else "own"
    return bool(kind) and not was_known(metrics, arm, kind)


def is_about(name: str, word: str) -> bool:
    """Whether what was measured under `name` is of the kind that `word` stands for; a recogniser's file may be called anything."""
    if name.startswith(SEARCHED_BY):
        return word == OPEN_SET
    return word in without_processing(name).lower()


def listed(metrics: dict[str, Any], names: list[str]) -> str:
    """What was measured, in the words of the tables."""
    titles = metrics.get("trial_titles") or {}
    words = [
        SEARCHED_BY + called(metrics, name.removeprefix(SEARCHED_BY)) if name.startswith(SEARCHED_BY) else titles.get(name, name)
        for name in names
    ]
    return "; ".join(map(str, words))


def limits_of(metrics: dict[str, Any]) -> list[Limit]:
    """The statements that apply to this run, each with what of it the run measured; what gave an invalid result was not measured."""
    arm = headline_arm(metrics)
    names = tried_on(metrics, arm) if counts(metrics, arm or "") else []
    if counts_elsewhere(metrics, arm or ""):
        elsewhere = {kind for record in metrics["arms"].values() for kind in record.get("identification") or {}} - {"own"}
        names += [f"{SEARCHED_BY}{kind}" for kind in sorted(elsewhere)]
    silent = [str(one["trial"]) for one in metrics.get("silent") or []]
    tuned = str(at(metrics, "training", "kind") or "").startswith("fine-tuned")
    found = []
    for title, words, text in KNOWN:
        if title == STRANGERS and not search_also_saw(metrics):
            continue
        # Whoever embeds processed photos trains nothing on them.
        done = [name for name in names if any(is_about(name, word) for word in words)]
        measured = f"Measured in this run: {listed(metrics, done)}." if done else ""
        if title == EMBEDDINGS and tuned:
            frozen = [name for name in done if name != "fine-tune"]
            measured = "In this run the recogniser was fine-tuned from pretrained weights; "
            measured += f"also measured: {listed(metrics, frozen)}." if frozen else "what frozen embeddings give was not measured."
        more = searched_with(metrics, arm) if title == OTHER_NETWORKS else ""
        # What taught a recogniser too little leaves the question open, but not untried.
        in_vain = [] if measured else [name for name in silent if any(is_about(name, word) for word in words)]
        if in_vain:
            more += f" Tried in this run, where it says nothing: {listed(metrics, in_vain)}."
        if any("trainer" not in trial_of(name).values for name in in_vain):  # the others take embeddings and train no network
            more += f" {PATIENCE}"
        found.append(Limit(title, text + more, measured, could_be_tried=not in_vain))
    noise = at(metrics, "arms", arm, "noise") if arm else None
    if isinstance(through := at(noise, "transforms"), dict):
        beneath = " The pattern beneath the cloak was searched without them." if at(noise, "beneath") else ""
        found.append(Limit(KNOWN_BEFORE[0], KNOWN_BEFORE[1].format(**through) + beneath, could_be_tried=False))
    if known := made_against(metrics, arm):
        by_others = [listed(metrics, [name]) for name in names if unknown_to(metrics, arm, name)]
        own = not tuned or not was_known(metrics, arm, "pretrained")  # fine-tuning from what the cloak knows is none of the others
        by_others = [*(["the study’s own training"] if own else []), *by_others]
        measured = f"Measured in this run: {'; '.join(by_others)}." if by_others else ""
        found.append(Limit(CLOAKED[0], CLOAKED[1].format(" and ".join(known)), measured))
    if is_of(arm, "error-min") and ARMS[str(arm)].per == "identity":
        found.append(without_search(metrics, str(arm)))
    if starts_alike(metrics, arm):
        elsewhere = [name for name in names if without_processing(name).endswith("-reference")]
        found.append(Limit(*SAME_WEIGHTS, f"Measured in this run with another network: {listed(metrics, elsewhere)}." if elsewhere else ""))
    if str(at(metrics, "provenance", "dataset", "name") or "").startswith("synthetic"):
        found.append(Limit(*RENDERED))
    if len(seeds_of(metrics)) == 1:
        found.append(Limit(*ONE_SEED))
    return found
