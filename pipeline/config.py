"""What a stage is told: one frozen model a stage, read from a snapshot file, unknown keys refused.

Values are the defaults below, such as the verdict's limits, unless a profile (`configs/<profile>.yaml`) says otherwise; the variables of
`make` override a few of either. `configure` (in `pipeline/request.py`) joins them and writes a snapshot a stage, rewritten only when its
content changes. Nothing that leaves the result alone (device, workers) is in here: that is `pipeline/runtime.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.countermeasures.names import check_name
from pipeline.errors import RequestError, StageError
from pipeline.training.trials import INPUT_SIZES, trial_of

Dataset = Literal["synthetic", "folder", "webface", "celeba", "lfw"]  # how each is read: `pipeline/photos/stage.py`
DATASETS: tuple[str, ...] = get_args(Dataset)
Setting = Literal["partial", "full"]


class StageConfig(BaseModel):
    """Base of all stage configs: immutable, hashable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(StageConfig):
    """Where the photos come from (`pipeline/photos`)."""

    dataset: Dataset
    photos: str | None = Field(default=None, description="path of the source; none for synthetic")
    fingerprint: str | None = Field(default=None, description="names, sizes and times in the source, so that new photos are noticed")
    identities: int = Field(default=150, ge=2, description="synthetic: how many people are rendered")
    photos_per_identity: int = Field(default=20, ge=2, description="synthetic: photos of each")
    strangers: int = Field(default=0, ge=0, description="synthetic: how many more people, whom nothing is trained on; for verification")
    photos_per_stranger: int = Field(default=6, ge=2, description="synthetic: photos of each, fewer than the split's min_photos")
    size: int = Field(default=250, ge=64, le=2048, description="synthetic: height and width of a photo, px")
    seed: int = Field(default=0, ge=0)


class AlignConfig(StageConfig):
    """Detection and alignment (`pipeline/faces`)."""

    detector: Literal["mtcnn", "scrfd"] = "mtcnn"
    detector_pack: str | None = Field(default=None, description="scrfd: absolute path of a local insightface pack")
    detector_pack_sha256: str | None = None
    min_face: int = Field(default=30, ge=20, description="smallest face accepted, px of the photo; in large photos 1/32 of the longer side")
    min_score: float | None = Field(default=None, ge=0, le=1, description="detections below this are not faces; none: 0.9 mtcnn, 0.5 scrfd")
    face: Literal["identity", "centre"] = Field(
        default="identity", description="in a group photo, the face most like the identity's other photos, or the one nearest the centre"
    )
    max_side: int = Field(default=8192, ge=256, description="photos with a longer side are rejected")
    already_aligned: bool = Field(default=False, description="photos are 112×112 aligned crops (CASIA-WebFace's .rec): no detection")

    def least_score(self) -> float:
        """The score below which a detection is not a face: each detector has its own scale."""
        return (0.9 if self.detector == "mtcnn" else 0.5) if self.min_score is None else self.min_score


class SplitConfig(StageConfig):
    """Who is protected, and which photos are held out (`pipeline/split.py`)."""

    seed: int = Field(default=0, ge=0)
    setting: Setting = "partial"
    identities: int | tuple[str, ...] = Field(default=50, description="how many are protected, drawn by seed; or their names")
    auxiliary: int = Field(default=100, ge=0, description="other identities whose clean photos the noise search sees")
    max_identities: int | None = Field(default=None, description="use at most this many identities of the data set")
    strangers: int = Field(
        default=0, ge=0, description="so many people are kept out of training, to verify the recognisers on; those left out anyway count"
    )
    min_photos: int = Field(default=5, ge=2, description="identities with fewer aligned photos are left out")
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    duplicate_bits: int = Field(default=4, ge=0, le=64, description="perceptual hashes (64 bits) at most this far apart are one photo")


class NoiseConfig(StageConfig):
    """One arm's noise (`pipeline/noise`)."""

    arm: str
    seed: int = Field(default=0, ge=0)
    epsilon: int = Field(default=16, ge=1, le=64, description="largest change of a pixel, in 1/255")
    step: float = Field(default=1.6, gt=0, description="sign step, in 1/255; a profile says it for epsilon 16")
    rule: Literal["identity-mean", "released"] = "identity-mean"
    surrogates: int = Field(default=1, ge=1, le=16, description="surrogates in turn, each from new weights, the noise kept")
    rounds: int = Field(default=15, ge=1, description="cap on rounds of each surrogate; reached without convergence it is said")
    min_rounds: int = Field(
        default=2,
        ge=1,
        description="rounds at the least, however little a surrogate errs: one that knows the faces errs little before there is noise, too",
    )
    batches: int = Field(default=30, ge=1, description="M: surrogate batches a round")
    batch: int = Field(default=32, ge=2)
    stop_error: float = Field(
        default=0.1, ge=0, le=1, description="lambda: stop when the surrogate errs on less of the noisy photos (binding: asked at the end)"
    )
    smooth: float = Field(
        default=0.0, ge=0, le=8, description="identity-mean: the gradient is blurred by this sigma (crop px) before its sign"
    )
    grey: bool = Field(
        default=False, description="identity-mean: noise is the same in red, green and blue: greyscale takes none of it away"
    )
    flip: bool = True
    transforms: bool = Field(default=False, description="networks see photos shifted, resized, grey, as JPEG, and so on")
    draws: int = Field(default=1, ge=1, le=32, description="transforms: versions of each photo in a noise pass")
    binding: bool = Field(default=False, description="error-min: a noise pass puts each person's pattern on other people's photos")
    steps: int = Field(
        default=20, ge=1, description="adversarial arms, cloak: passes of projected gradient descent against networks that stay as they are"
    )
    untouched: float = Field(
        default=0.0, ge=0, le=1, description="adversarial arms, cloak, with transforms: share of photos that a pass leaves as they are"
    )
    step_momentum: float = Field(
        default=0.0, ge=0, le=1, description="adversarial arms, cloak: how much of the direction so far each step keeps"
    )
    travel: float = Field(default=2.5, gt=0, le=20, description="adversarial arms, cloak: how far all steps go together, in epsilons")
    search: Literal["all", "protected"] = Field(default="protected", description="whose photos carry noise during the search")
    lr: float = Field(default=0.05, gt=0)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = Field(default=5.0, gt=0, description="largest gradient norm of the surrogate")
    dropout: float = Field(default=0.6, ge=0, lt=1)
    input_size: int = Field(default=112, ge=INPUT_SIZES[0], le=INPUT_SIZES[-1], description="the surrogate resizes crops to this")
    normalise: bool = Field(default=True, description="the surrogate sees (255 x - 127.5) / 128 rather than x in [0, 1]")
    weights: str | None = Field(default=None, description="safetensors the surrogate starts from; none: from scratch")
    weights_sha256: str | None = None
    against: tuple[str, ...] = Field(default=(), description="cloak: recognisers that exist, safetensors or insightface ONNX")
    against_sha256: tuple[str, ...] = ()
    given: str | None = Field(
        default=None, description="error-min, a pattern a person: noise.safetensors of an earlier run, whose patterns are taken as they are"
    )
    given_sha256: str | None = None
    beneath: NoiseConfig | None = Field(
        default=None, description="cloak-error-min: the search for the pattern beneath the cloak, whose epsilon it takes from this one"
    )


class RecropConfig(StageConfig):
    """What happens to published photos before a scraper cuts the faces out of them (`pipeline/training/recropped.py`)."""

    jpeg: int | None = Field(default=None, ge=1, le=100, description="every photo is a JPEG of this quality; none: files as published")
    detector: Literal["own", "mtcnn", "scrfd"] = Field(default="own", description="finds everybody's faces; own: the run's, as it did")
    detector_pack: str | None = Field(default=None, description="scrfd: absolute path of a local insightface pack")
    detector_pack_sha256: str | None = None

    def everyone(self) -> bool:
        """Whether crops change of people, too, whose photos carry no noise."""
        return self.jpeg is not None or self.detector != "own"


class TrainConfig(StageConfig):
    """The downstream recogniser, the same for every arm (`pipeline/training`)."""

    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=8, ge=1)
    batch: int = Field(default=32, ge=2)
    lr: float = Field(default=0.05, gt=0)
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    steps_at: tuple[int, ...] = Field(default=(), description="steps: the learning rate is divided by 10 after these epochs")
    warmup: float = Field(default=0.3, ge=0, lt=1, description="one-cycle: share of training during which the rate rises")
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = Field(default=5.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    flip: bool = True
    input_size: int = Field(default=112, ge=INPUT_SIZES[0], le=INPUT_SIZES[-1], description="the recogniser resizes crops to this")
    normalise: bool = Field(default=True, description="the recogniser sees (255 x - 127.5) / 128 rather than x in [0, 1]")
    score_every: int = Field(default=1, ge=1, description="clean test photos are scored every so many epochs, and after the last")
    weights: str | None = Field(default=None, description="safetensors to fine-tune from; none: from scratch")
    weights_sha256: str | None = None
    trainer: Literal["sgd", "linear-probe", "nearest-neighbour", "svm", "last-layer-refit"] = Field(
        default="sgd", description="sgd trains the network; the others fit a classifier on frozen embeddings"
    )
    reference: str | None = Field(default=None, description="insightface ONNX recogniser whose embeddings are taken; none: our network's")
    reference_sha256: str | None = None
    model: Literal["inception-resnet-v1", "resnet18", "mobilefacenet"] = "inception-resnet-v1"
    head: Literal["softmax", "arcface"] = "softmax"
    arcface_scale: float = Field(default=32.0, gt=0)
    arcface_margin: float = Field(default=0.3, ge=0, le=1, description="radians")
    countermeasure: str = Field(default="none", description="what the trainer does to photos or training, `pipeline/countermeasures`")
    share: float = Field(default=1.0, ge=0, le=1, description="share of each protected identity's training photos that are protected")
    recropped: RecropConfig | None = Field(default=None, description="faces are found and aligned anew in the published photos")
    clean_photos: int = Field(default=4, ge=1, description="last-layer-refit: clean photos of each identity that the trainer has")

    @field_validator("countermeasure")
    @classmethod
    def known(cls, name: str) -> str:
        """One of `pipeline/countermeasures`."""
        return check_name(name)

    def arcface(self) -> tuple[float, float] | None:
        """(scale, margin) of the ArcFace head; None for softmax."""
        return (self.arcface_scale, self.arcface_margin) if self.head == "arcface" else None


# What a trial's name or the command says, and what only some trials read: not a profile's to say of every training, or of any.
GIVEN_BY_NAME = frozenset((
    "seed", "weights", "weights_sha256", "trainer", "reference", "reference_sha256", "model", "head", "countermeasure", "share",
    "recropped",
))  # fmt: skip
OF_TRIALS = frozenset(("arcface_scale", "arcface_margin", "clean_photos"))
# What the variables of `make` say, or follows from them: in a profile it would go unread, or past the checks that it has there.
OF_NOISE = frozenset(
    ("arm", "seed", "epsilon", "weights", "weights_sha256", "against", "against_sha256", "given", "given_sha256", "beneath")
)
OF_DETECTOR = frozenset(("detector", "detector_pack", "detector_pack_sha256", "already_aligned"))
GIVEN_BY_MAKE = {
    "data": frozenset(("dataset", "photos", "fingerprint")),
    "align": OF_DETECTOR,
    "align_synthetic": OF_DETECTOR,
    "split": frozenset(("seed", "setting", "identities")),
    "noise_from_weights": OF_NOISE,
    "evaluate": frozenset(("seed", "lfw", "reference", "reference_sha256")),
}


class EvaluateConfig(StageConfig):
    """Metrics of an arm and of the run (`pipeline/evaluation`)."""

    bootstrap: int = Field(default=2000, ge=100, description="resamples of identities for the 95 % intervals")
    max_pairs: int = Field(default=200_000, ge=100, description="verification pairs at most, drawn by seed")
    clean_floor: float = Field(default=0.5, ge=0, le=1, description="below this the clean arm did not learn and nothing is claimed")
    protected_at_most: float = Field(default=0.16, ge=0, le=1, description="at or below this, and not above the peak limit, it holds")
    peak_at_most: float = Field(default=0.2, ge=0, le=1)
    others_within: float = Field(default=0.04, ge=0, le=1, description="others may lose at most this against the clean arm")
    others_auc_within: float = Field(default=0.02, ge=0, le=1, description="and at most this of their verification's AUC")
    lfw: str | None = Field(default=None, description="folder of LFW with pairs.txt: each model's verification by its protocol, too")
    reference: str | None = Field(
        default=None, description="insightface ONNX recogniser: measured on LFW, and asked whether it still knows the protected"
    )
    reference_sha256: str | None = None
    seed: int = Field(default=0, ge=0)


class ReportConfig(StageConfig):
    """What the report joins and shows (`pipeline/report`)."""

    arms: tuple[str, ...]
    real_faces: bool = Field(description="the photos show real people: the report shows none of them unless consented")
    consented: bool

    @property
    def faces_shown(self) -> bool:
        """Whether faces may stand in the report."""
        return self.consented or not self.real_faces


class About(StageConfig):
    """What a profile says of itself before its study begins; no stage reads it."""

    study: str
    dataset: str | None = Field(default=None, description="whose photos cost and figures are of")
    hardware: str | None = None
    cost: str | None = None
    expected: str | None = None


Config = TypeVar("Config", bound=StageConfig)


def explain(error: ValidationError, where: str) -> str:
    """One line for a pydantic error: where, which key, what is allowed, what was given."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] == "missing" else f", not {first.get('input')!r}"
    return f"{where}: {key}: {first['msg'].lower()}{given}"


def dump(config: StageConfig) -> str:
    """The snapshot's text: YAML, keys in the model's order, so equal configs give equal bytes."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(kind: type[Config], path: Path) -> Config:
    """Read a stage's snapshot; `StageError` if it is missing or is not one."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StageError(f"{path}: missing; `make` writes it, or `python -m pipeline configure`") from None
    except ValidationError as error:
        raise StageError(explain(error, str(path))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not valid YAML ({error}); delete it and run `make` again") from None


def load_profile(path: Path) -> dict[str, Any]:
    """Read `configs/<profile>.yaml` as nested dicts; what the sections hold is checked when they become stage configs.

    Raises:
        RequestError: no such profile, not YAML, an unknown section, one that is not of lines of key: value, values for an arm or a trial
            that there is not, or what is not for a profile to say.
    """
    from pipeline.noise.arms import ARMS

    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise RequestError(f"PROFILE={path.stem}: no such profile; there are {known}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"PROFILE={path.stem}: {path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(sections, dict):
        raise RequestError(f"PROFILE={path.stem}: {path} has no sections, such as data, split, noise and train")
    allowed = {
        "about",
        "data",
        "align",
        "align_synthetic",
        "split",
        "noise",
        "noise_from_weights",
        "train",
        "train_from_weights",
        "trials",
        "evaluate",
    }
    unknown = sorted(str(name) for name in set(sections) - allowed)
    if unknown:
        raise RequestError(f"PROFILE={path.stem}: unknown section {', '.join(unknown)}; allowed are {', '.join(sorted(allowed))}")
    for name, values in sections.items():
        check_lines(values, f"PROFILE={path.stem}: section {name}")
    for section in ("noise", "trials"):
        for name, values in (sections.get(section) or {}).items():
            check_lines(values, f"PROFILE={path.stem}: {section}: {name}")
    if sections.get("about"):
        try:
            About.model_validate(sections["about"])
        except ValidationError as error:
            raise RequestError(explain(error, f"PROFILE={path.stem}: about")) from None
    noisy = {key for name, arm in ARMS.items() if arm.method != "none" for key in (name, arm.method)}
    for name in sections.get("noise") or {}:
        if name not in noisy:
            raise RequestError(f"PROFILE={path.stem}: noise: {name!r}: allowed are {', '.join(sorted(noisy))}")
    asked = "a variable of `make` says it, or it follows from one"
    for name, given in GIVEN_BY_MAKE.items():
        refuse(sections.get(name) or {}, given, f"PROFILE={path.stem}: {name}", asked)
    # Of a method that needs no surrogate in some arm, only those arms that do.
    methods = {arm.method for arm in ARMS.values()} - {arm.method for arm in ARMS.values() if not arm.surrogates}
    of_surrogates = methods | {name for name, arm in ARMS.items() if arm.surrogates}
    for name, values in (sections.get("noise") or {}).items():
        where = f"PROFILE={path.stem}: noise: {name}"
        refuse(values or {}, OF_NOISE, where, asked)
        if name in of_surrogates:
            refuse(values or {}, frozenset(("input_size", "normalise")), where, "the surrogate looks at faces as `train` says")
        if name == "cloak":
            refuse(values or {}, frozenset(("input_size",)), where, "networks that exist are asked at the size in `train_from_weights`")
    for name, values in (sections.get("trials") or {}).items():
        try:
            trial_of(str(name))
        except ValueError as error:
            raise RequestError(f"PROFILE={path.stem}: trials: {error}") from None
        refuse(values or {}, GIVEN_BY_NAME, f"PROFILE={path.stem}: trials: {name}", "that is what a trial's name says, or the command")
    for name in ("train", "train_from_weights"):
        refuse(
            sections.get(name) or {}, GIVEN_BY_NAME | OF_TRIALS, f"PROFILE={path.stem}: {name}", "every arm trains alike: name it in MATRIX"
        )
    return sections


def check_lines(values: Any, where: str) -> None:
    """`RequestError` unless a section of a profile is of lines of key: value, or empty."""
    if not isinstance(values, dict | None):
        raise RequestError(f"{where} is {values!r}; allowed are lines of key: value")


def refuse(values: dict[str, Any], names: frozenset[str], where: str, why: str) -> None:
    """`RequestError` for what a section of a profile may not say."""
    found = sorted(names & set(values))
    if found:
        raise RequestError(f"{where}: {found[0]} is not for a profile to say ({why})")
