"""From what a user asks for to one snapshot a stage: everything is checked here, before anything is written.

What the profile does not say is a default of `pipeline/config.py`; the variables of `make` override a few of either. A snapshot is
rewritten only when its content changes, so Make reruns a stage exactly when its own parameters did.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.artifacts import write_if_changed
from pipeline.asked_for import (
    cloaked_from,
    detector_pack,
    given_to,
    identities_asked_for,
    identities_in,
    lfw_asked_for,
    one_of,
    reference_asked_for,
    source_asked_for,
    weights_asked_for,
    whole_number,
)
from pipeline.config import (
    DATASETS,
    AlignConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    NoiseConfig,
    ReportConfig,
    SplitConfig,
    TrainConfig,
    dump,
    explain,
    load,
    load_profile,
)
from pipeline.errors import RequestError, StageError
from pipeline.noise.arms import ARMS, SURROGATES, headline_of
from pipeline.training.trials import Means, is_the_study, trial_of, trials_asked_for

SURROGATE_SEED = 1_000_003
PROFILE_EPSILON = 16  # of 255: what the steps in the profiles are for


@dataclass(frozen=True)
class Request:
    """The variables of `make`, as text, as the user gave them."""

    profile: str
    dataset: str
    photos: str
    identities: str
    setting: str
    arms: str
    epsilon: str
    seeds: str
    detector: str
    detector_pack: str
    recogniser_weights: str
    surrogate_weights: str
    show_people: str
    matrix: str = ""
    lfw: str = ""
    reference: str = ""
    cloak_against: str = ""
    noise: str = ""


def build(kind: type[Config], section: str, *values: dict[str, Any]) -> Config:
    """A stage config from a profile's section and overrides, later ones winning; `RequestError` names `section` and what is wrong there."""
    merged: dict[str, Any] = {}
    for part in values:
        merged |= part
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise RequestError(explain(error, section)) from None


def write_snapshots(request: Request, profiles: Path, data: Path, run: Path) -> list[Path]:
    """Check the request whole, then write `data/{data,align}.yaml` and `run/config/*.yaml`; returns those that changed.

    Snapshots of trials that an earlier request asked for are written anew, too, or removed where there can be no such trial now: the report
    joins every result that belongs to its snapshot.

    Raises:
        RequestError: names the variable, its value and what is allowed; nothing was written.
    """
    from pipeline.photos import recordio
    from pipeline.photos.stage import check_source, fingerprint, source_of

    profile = load_profile(profiles / f"{request.profile}.yaml")
    dataset = one_of("DATASET", request.dataset, DATASETS)
    setting = one_of("SETTING", request.setting, ("partial", "full"))
    one_of("DETECTOR", request.detector, ("mtcnn", "scrfd"))
    epsilon = whole_number("EPSILON", request.epsilon, 1, 64)
    seed = whole_number("SEEDS", request.seeds, 0, 2**31 - 1)
    identities = identities_asked_for(request.identities)
    of_profile = f"PROFILE={request.profile}: "
    arms = request.arms.split()
    if not arms or len(set(arms)) != len(arms):
        raise RequestError(f"ARMS={request.arms!r}: allowed are different names out of {', '.join(ARMS)}")
    for arm in arms:
        one_of("ARMS", arm, tuple(ARMS))
    if setting == "full" and "removed" in arms:
        raise RequestError(f"ARMS={request.arms!r}: SETTING=full protects everyone, so removed leaves nobody to train on; leave it out")
    downstream = weights_asked_for("RECOGNISER_WEIGHTS", request.recogniser_weights)
    surrogate = weights_asked_for("SURROGATE_WEIGHTS", request.surrogate_weights)
    given = given_to(arms, request.noise, epsilon)
    source = source_asked_for(dataset, request.photos)
    check_source(dataset, source)
    lfw = lfw_asked_for(request.lfw, dataset, source)
    reference = reference_asked_for(request.reference)
    pack = detector_pack(request.detector_pack, "DETECTOR=scrfd") if request.detector == "scrfd" else {}

    synthetic = dataset == "synthetic"
    everyone = setting == "full" and isinstance(identities, int)  # then the number says nothing
    sections = {name: profile.get(name) or {} for name in ("data", "align", "align_synthetic", "split", "train", "evaluate")}
    noise = profile.get("noise") or {}
    data_values: dict[str, Any] = {"dataset": dataset}
    if synthetic:
        data_values = sections["data"] | data_values
        count = build(DataConfig, f"{of_profile}data", data_values).identities
        if isinstance(identities, int) and identities >= count and not everyone:
            rendered_are = f"PROFILE={request.profile} renders {count} identities, and SETTING=partial leaves some unprotected"
            raise RequestError(f"IDENTITIES={identities}: allowed are 1 to {count - 1}: {rendered_are}; or SETTING=full")
    else:
        assert source is not None
        if not everyone:
            identities = identities_in(dataset, source, identities, setting)
        data_values |= {"photos": source, "fingerprint": fingerprint(dataset, Path(source))}
    rendered = sections["align_synthetic"] if synthetic else {}
    aligned = source is not None and source_of(dataset, Path(source)) is recordio
    align_values = {"detector": request.detector, **pack, "already_aligned": aligned}
    if dataset == "lfw":  # each of its photos is cut about the person it is named after, and many of its people have only one
        align_values["face"] = "centre"
    split_values = {"setting": setting, "identities": identities, "seed": seed}
    refine = profile.get("train_from_weights") or {} if downstream else {}
    refine_noise = profile.get("noise_from_weights") or {} if surrogate else {}
    common = {"seed": seed, "epsilon": epsilon}

    snapshots: dict[Path, Any] = {
        data / "data.yaml": build(DataConfig, f"{of_profile}data", data_values),
        data / "align.yaml": build(AlignConfig, f"{of_profile}align", sections["align"], rendered, align_values),
        run / "config" / "split.yaml": build(SplitConfig, f"{of_profile}split", sections["split"], split_values),
        run / "config" / "train.yaml": build(TrainConfig, f"{of_profile}train", sections["train"], refine, {"seed": seed}, downstream),
        run / "config" / "evaluate.yaml": build(
            EvaluateConfig,
            f"{of_profile}evaluate",
            sections["evaluate"],
            {"seed": seed, "lfw": lfw, **reference},
        ),
        run / "config" / "report.yaml": ReportConfig(
            arms=tuple(arms),
            real_faces=not synthetic,
            consented=one_of("SHOW_PEOPLE", request.show_people, ("no", "consented")) == "consented",
        ),
    }
    for name, model in SURROGATES.items():
        if any(name in ARMS[arm].surrogates for arm in arms):
            # Another seed than the downstream model's, whose initial weights the defender cannot know.
            own = {"seed": seed + SURROGATE_SEED, "model": model}
            # Weights are those of the study's own kind of network; another kind begins from scratch, as the profile trains.
            known = surrogate and model == snapshots[run / "config" / "train.yaml"].model
            start = (profile.get("train_from_weights") or {}, surrogate) if known else ()
            snapshots[run / "config" / f"{name}.yaml"] = build(TrainConfig, f"{of_profile}train", sections["train"], *start, own)
    for arm in arms:
        if ARMS[arm].method == "none":
            continue
        own = {"arm": arm, **ARMS[arm].values, **given.get(arm, {})}
        values = [noise.get(ARMS[arm].method) or {}]
        if ARMS[arm].method == "error-min":
            values += [refine_noise, surrogate]
        if ARMS[arm].method == "cloak":
            # At the size at which the profile builds on pretrained weights, whatever this run's own recogniser starts from.
            tuned = build(TrainConfig, f"{of_profile}train", sections["train"], profile.get("train_from_weights") or {})
            values.append(cloaked_from(request.cloak_against) | {"input_size": tuned.input_size})
        if arm == "cloak-error-min":
            values.append({"beneath": beneath_a_cloak(noise.get("error-min") or {}, common, f"{of_profile}noise for {arm}")})
        if arm != ARMS[arm].method:
            values.append(noise.get(arm) or {})  # what an arm needs of its own goes over what pretrained weights do to all
        snapshots[run / "config" / f"noise-{arm}.yaml"] = build_noise(f"{of_profile}noise for {arm}", *values, common, own)
    means = Means(weights=downstream, reference=reference, photos=not align_values["already_aligned"])
    snapshots |= trial_snapshots(request, profile, snapshots[run / "config" / "train.yaml"], means, run, seed)
    for path in (run / "config" / "trials").glob("*.yaml"):
        if path not in snapshots:
            path.unlink()
    return [path for path, config in snapshots.items() if write_if_changed(path, dump(config))]


def about(profiles: Path, profile: str, dataset: str) -> str:
    """What a profile's study is, costs and is expected to find, in a few lines; empty where its section `about` says nothing."""
    told = load_profile(profiles / f"{profile}.yaml").get("about") or {}
    if not told:
        return ""
    lines = [f"PROFILE={profile}: {told['study']}"]
    lines += [f"  {what:9}{told[what]}" for what in ("hardware", "cost", "expected") if what in told]
    if dataset != told.get("dataset", dataset):
        lines.append(f"  note     cost and figures are those of DATASET={told['dataset']}; DATASET={dataset} has others")
    return "\n".join(lines)


def no_claim(run: Path) -> str:
    """Why a study of the snapshots in `run` ends in numbers, but in no claim, in one line; empty where nothing speaks against one."""
    from pipeline.evaluation.accuracy import FEWEST_IDENTITIES

    split, arms = load(SplitConfig, run / "config" / "split.yaml"), load(ReportConfig, run / "config" / "report.yaml").arms
    count = split.identities if isinstance(split.identities, int) else len(split.identities)
    everyone = split.setting == "full" and isinstance(split.identities, int)  # how many those are, the split will tell
    reasons = []
    if count < FEWEST_IDENTITIES and not everyone:
        reasons.append(f"{count} identities are protected, {FEWEST_IDENTITIES} or more are needed")
    if "clean" not in arms:
        reasons.append("clean is not in ARMS")
    if headline_of(arms) is None:
        reasons.append("no error-min arm is in ARMS, nor tap-robust, tap-ensemble or one named cloak…")
    return f"a study of this gives numbers, but no claim: {'; '.join(reasons)}" if reasons else ""


def trial_snapshots(
    request: Request, profile: dict[str, Any], own: TrainConfig, means: Means, run: Path, seed: int
) -> dict[Path, TrainConfig]:
    """One training config a trial of MATRIX: the recipe it starts from, what its name says, and the profile's values for it.

    One, too, for every trial that has a snapshot from before, where it can still be made.
    """
    try:
        names = trials_asked_for(request.matrix, means, own)
    except ValueError as error:
        raise RequestError(f"MATRIX: {error}") from None
    scratch, tuned, extra = profile.get("train") or {}, profile.get("train_from_weights") or {}, profile.get("trials") or {}
    folder = run / "config" / "trials"
    before = sorted(path.stem for path in folder.glob("*.yaml") if path.stem not in names)
    found: dict[Path, TrainConfig] = {}
    for name in [*names, *before]:
        try:
            trial = trial_of(name)
        except ValueError:
            continue  # a name that there was once
        if means.missing(trial) or is_the_study(trial, own):
            continue
        base = {"own": own.model_dump(), "scratch": scratch, "tuned": scratch | tuned}[trial.base]
        values = trial.values | (extra.get(name) or {}) | {"seed": seed}
        if name == "recropped-scrfd":
            kept = name in before and not request.detector_pack
            pack = pack_of(folder / f"{name}.yaml") if kept else detector_pack(request.detector_pack, "MATRIX=recropped-scrfd")
            if not pack:
                continue
            values["recropped"] = trial.values["recropped"] | pack
        found[folder / f"{name}.yaml"] = build(TrainConfig, f"PROFILE={request.profile}: trial {name}", base, means.start(trial), values)
    return found


def pack_of(snapshot: Path) -> dict[str, str]:
    """The insightface pack that a trial's snapshot names, as `detector_pack` gives it; empty where it cannot be read."""
    try:
        recropped = load(TrainConfig, snapshot).recropped
    except StageError:
        return {}
    return recropped.model_dump(include={"detector_pack", "detector_pack_sha256"}) if recropped and recropped.detector_pack else {}


def build_noise(section: str, *values: dict[str, Any]) -> NoiseConfig:
    """A noise config; its step is as much of epsilon as the profile's is of `PROFILE_EPSILON`, so that runs differ in epsilon alone."""
    found = build(NoiseConfig, section, *values)
    return found.model_copy(update={"step": found.step * found.epsilon / PROFILE_EPSILON})


def beneath_a_cloak(searched: dict[str, Any], common: dict[str, Any], section: str) -> NoiseConfig:
    """The profile's search for error-minimizing noise with half of epsilon, rounded down.

    From scratch in any case: who starts from pretrained weights is the cloak's to stop.
    """
    if common["epsilon"] < 2:
        raise RequestError(f"EPSILON={common['epsilon']}: allowed are 2 to 64 with cloak-error-min, which divides it by two")
    return build_noise(section, searched, common, {"arm": "error-min", "epsilon": common["epsilon"] // 2})
