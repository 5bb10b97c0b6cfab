"""From what a user asks for to one snapshot a stage: everything is checked here, before anything is written.

What the profile does not say is a default of `pipeline/config.py`; the variables of `make` override a few of either. A snapshot is
rewritten only when its content changes, so Make reruns a stage exactly when its own parameters did.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.artifacts import sha256_of_file, sha256_of_files, write_if_changed
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
from pipeline.noise.arms import ARMS, headline_of
from pipeline.photos.lfw import PAIRS_FILE
from pipeline.training.trials import Means, is_the_study, trial_of, trials_asked_for

SURROGATE_SEED = 1_000_003
PROFILE_EPSILON = 16  # of 255: what the steps in the profiles are for
KNOWN_RECOGNISERS = (".safetensors", ".onnx")  # how files end that `noise/known.py` reads


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


def one_of(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value`, if it is allowed; otherwise `RequestError` naming the variable and what is."""
    if value not in allowed:
        raise RequestError(f"{variable}={value}: allowed are {', '.join(allowed)}")
    return value


def whole_number(variable: str, value: str, low: int, high: int) -> int:
    """`value` as a whole number within [low, high]; otherwise `RequestError`."""
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise RequestError(f"{variable}={value}: allowed are whole numbers from {low} to {high}")
    return int(value)


def composed(name: str) -> str:
    """`name` in Unicode's form NFC: an ö is typed as one character, and where a folder came from a Mac it is often an o and its dots."""
    return unicodedata.normalize("NFC", name)


def identities_asked_for(value: str) -> int | tuple[str, ...]:
    """How many identities, or the names in a file with one a line, sorted: in which order they stand there says nothing."""
    path = Path(value)
    if not path.is_file():
        try:
            return whole_number("IDENTITIES", value, 1, 1_000_000)
        except RequestError as error:
            raise RequestError(f"{error}, or a file with one name a line (there is none called that)") from None
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"IDENTITIES={value}: not readable as text ({error})") from None
    if not names:
        raise RequestError(f"IDENTITIES={value}: the file names nobody; allowed is one identity a line")
    spelt = [composed(name) for name in names]
    repeated = sorted({name for name in spelt if spelt.count(name) > 1})
    if repeated:
        raise RequestError(f"IDENTITIES={value}: {repeated[0]!r} stands there more than once")
    return tuple(sorted(names))


def weights_asked_for(variable: str, value: str) -> dict[str, str]:
    """Path and SHA-256 of a weights file; empty if none was asked for."""
    if not value:
        return {}
    path = Path(value)
    if path.suffix != ".safetensors" or not path.is_file():
        raise RequestError(f"{variable}={value}: not there; allowed is the path of a .safetensors file, or nothing (from scratch)")
    return {"weights": str(path.resolve()), "weights_sha256": sha256_of_file(path)}


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
    pack = detector_pack(request, "DETECTOR=scrfd") if request.detector == "scrfd" else {}

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
    if any(ARMS[arm].surrogate for arm in arms):
        # Another seed than the downstream model's, whose initial weights the defender cannot know.
        own = {"seed": seed + SURROGATE_SEED}
        refined = profile.get("train_from_weights") or {} if surrogate else {}
        snapshots[run / "config" / "surrogate.yaml"] = build(TrainConfig, f"{of_profile}train", sections["train"], refined, own, surrogate)
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
        if ARMS[arm].surrogate:
            # The surrogate is trained by the downstream recipe, so it looks at faces the same way.
            trained = snapshots[run / "config" / "surrogate.yaml"]
            values.append({"input_size": trained.input_size, "normalise": trained.normalise})
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
        reasons.append("no error-min arm is in ARMS, nor cloak")
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
            pack = pack_of(folder / f"{name}.yaml") if kept else detector_pack(request, "MATRIX=recropped-scrfd")
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


def identities_in(dataset: str, source: str, identities: int | tuple[str, ...], setting: str) -> int | tuple[str, ...]:
    """The identities asked for, names as their folders are spelt.

    Refuses those that the source cannot have, before any face is looked for: where folders are identities, that is quick to see.

    Raises:
        RequestError: more than there are, a name that is no folder, or whose folder holds no photo, or with SETTING=partial nobody left who
            is not protected.
    """
    from pipeline.photos.folder import counted, identity_folders, photo_entries, unread_in
    from pipeline.photos.source import PHOTO_SUFFIXES
    from pipeline.photos.stage import by_folder

    if not by_folder(dataset, Path(source)):
        return identities
    folders = {path.name for path in identity_folders(Path(source))}
    most = len(folders) - (setting == "partial")
    if most < 1:
        raise RequestError(f"PHOTOS={source}: holds one folder; noise is searched against other people, so at least two are needed")
    if isinstance(identities, int):
        count = identities
    else:
        ordered = sorted(folders)
        # A line is read without the blanks around it, so a folder's name with some is found without them, too.
        spelling = {composed(name.strip()): name for name in ordered} | {composed(name): name for name in ordered}
        spelling |= {name: name for name in ordered}
        missing = [name for name in identities if name not in spelling and composed(name) not in spelling]
        if missing:
            raise RequestError(f"IDENTITIES: {missing[0]!r} is no folder in PHOTOS={source}")
        identities = tuple(spelling[name] if name in spelling else spelling[composed(name)] for name in identities)
        for name in identities:
            if not photo_entries(Path(source) / name):
                inside = counted(unread_in(Path(source) / name)) or "nothing"
                raise RequestError(
                    f"IDENTITIES: {name!r}: that folder in PHOTOS={source} holds no photo of a format that is read: {inside}; allowed are "
                    f"{' '.join(sorted(PHOTO_SUFFIXES))}"
                )
        count = len(identities)
    if count > most:
        others = "" if setting == "full" else ": SETTING=partial leaves some unprotected; or SETTING=full"
        raise RequestError(f"IDENTITIES={count}: allowed are 1 to {most} of the {len(folders)} folders in PHOTOS={source}{others}")
    return identities


def source_asked_for(dataset: str, photos: str) -> str | None:
    """The absolute path of the photos; none for synthetic ones."""
    if dataset == "synthetic":
        if photos:
            raise RequestError(f"PHOTOS={photos}: synthetic photos are rendered; for your own give DATASET=folder as well")
        return None
    if not photos:
        raise RequestError(f"PHOTOS is empty: DATASET={dataset} needs the path of the photos")
    try:
        path = str(Path(photos).expanduser().absolute())
    except RuntimeError:
        raise RequestError(f"PHOTOS={photos}: nobody of that name has a home here; write the folder out") from None
    plain = os.path.normpath(path)  # one folder, one spelling, or all would be done anew; after a link `..` leads elsewhere
    if os.path.exists(plain) and os.path.exists(path) and os.path.samefile(plain, path):
        path = plain
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"PHOTOS={path!r}: a name in it is not UTF-8; rename that folder") from None
    return path


def lfw_asked_for(value: str, dataset: str, source: str | None) -> str | None:
    """The absolute path of LFW, for verification; none if it was not asked for. `source`: the photos of the data set itself."""
    if not value:
        return None
    if source is not None and (dataset == "lfw" or Path(source).resolve() == Path(value).resolve()):
        raise RequestError(
            f"LFW={value}: the ten folds hold photos that PHOTOS={source} trains on; leave LFW= empty: people who are kept out of training "
            f"are verified anyway"
        )
    if not (Path(value) / PAIRS_FILE).is_file():
        raise RequestError(f"LFW={value}: allowed is a folder of LFW with {PAIRS_FILE} in it, or nothing")
    return str(Path(value).absolute())


def given_to(arms: list[str], value: str, epsilon: int) -> dict[str, dict[str, str]]:
    """By arm, the patterns that it takes from an earlier run; empty where none were given."""
    if not value:
        return {}
    from pipeline.noise.given import patterns_asked_for  # reads arrays: only where there are some

    return patterns_asked_for(value, arms, epsilon)


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


def cloaked_from(value: str) -> dict[str, Any]:
    """Paths and SHA-256 of the recognisers that a cloak is made against."""
    try:
        paths = [Path(word).expanduser() for word in shlex.split(value)]  # a shell leaves `~` in quotes as it is
    except (ValueError, RuntimeError) as error:  # quotes that do not end; `~nobody`
        raise RequestError(f"CLOAK_AGAINST={value}: not to be read as words ({error}); paths with spaces go in quotes") from None
    allowed = "allowed are paths of recognisers: .safetensors (facenet-pytorch's InceptionResnetV1) or .onnx (insightface's)"
    if not paths:
        raise RequestError(f"ARMS: cloak is made against recognisers that exist: give CLOAK_AGAINST=; {allowed}")
    for path in paths:
        if path.suffix not in KNOWN_RECOGNISERS:
            raise RequestError(f"CLOAK_AGAINST={value}: {path} is no such file; {allowed}")
        if not path.is_file():
            raise RequestError(f"CLOAK_AGAINST={value}: {path} is not there; {allowed}")
    digests = [sha256_of_file(path) for path in paths]
    twice = [str(path) for path, digest in zip(paths, digests, strict=True) if digests.count(digest) > 1]
    if twice:
        raise RequestError(f"CLOAK_AGAINST={value}: {' and '.join(twice)} are one recogniser; each counts once")
    return {"against": [str(path.absolute()) for path in paths], "against_sha256": digests}


def reference_asked_for(value: str) -> dict[str, str]:
    """Absolute path and SHA-256 of an ONNX recogniser that was trained elsewhere; empty if it was not asked for."""
    if not value:
        return {}
    if not value.endswith(".onnx") or not Path(value).is_file():
        raise RequestError(f"REFERENCE={value}: not there; allowed is the path of an insightface recogniser (.onnx), or nothing")
    return {"reference": str(Path(value).absolute()), "reference_sha256": sha256_of_file(Path(value))}


def detector_pack(request: Request, wanted_by: str) -> dict[str, str]:
    """Absolute path of the insightface pack that scrfd needs, and a digest of its models."""
    if not request.detector_pack or not Path(request.detector_pack).is_dir():
        raise RequestError(f"DETECTOR_PACK={request.detector_pack}: {wanted_by} needs the folder of a local insightface pack (det_*.onnx)")
    pack = Path(request.detector_pack).absolute()
    return {"detector_pack": str(pack), "detector_pack_sha256": sha256_of_files(sorted(pack.glob("*.onnx")))}
