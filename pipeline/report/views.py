"""What the report says beside its tables: facts, key numbers, checks, provenance, in the words and digits that a reader sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.evaluation import verdict
from pipeline.evaluation.paired import seed_of
from pipeline.evaluation.seeds import RESAMPLES
from pipeline.noise.arms import ARMS, headline_of
from pipeline.report.cells import noisy
from pipeline.report.table import accuracy_of
from pipeline.report.validity import counts, of_claim_alone, why_run
from pipeline.report.words import NOT_RECORDED, at, duration, interval, is_number, level, number, percent, plural
from pipeline.training.trials import TRAINERS, without_processing

NAMES_SHOWN = 500


def headline_arm(metrics: dict[str, Any]) -> str | None:
    """The arm the verdict speaks of: the first that is meant to protect, else the first with noise."""
    return headline_of(metrics["arms"]) or next(iter(noisy(metrics)), None)


def made_against(metrics: dict[str, Any], arm: str | None) -> list[str]:
    """The recognisers that the arm's cloak was made against, by name; none where it has other noise or is not there."""
    return verdict.made_against(metrics["arms"].get(arm) or {})


def was_known(metrics: dict[str, Any], arm: str | None, kind: str) -> bool:
    """Whether an arm's cloak was made against the existing recogniser `kind`, `pretrained` or the reference's name."""
    place = ("train", "weights_sha256") if kind == "pretrained" else ("evaluate", "reference_sha256")
    digest = at(metrics, "provenance", "config", *place) if kind != "own" else None
    return digest is not None and digest in [one["sha256"] for one in at(metrics, "arms", arm or "", "noise", "against") or []]


def config_of_surrogate(arm: str | None) -> str:
    """The stage whose config says what the arm's surrogate is: trained before, or in the search itself."""
    return "surrogate" if arm in ARMS and ARMS[arm].surrogates else f"noise-{arm}"


def starts_alike(metrics: dict[str, Any], arm: str | None) -> bool:
    """Whether surrogate and recogniser start from the same pretrained weights."""
    theirs, mine = (at(metrics, "provenance", "config", stage, "weights_sha256") for stage in ("train", config_of_surrogate(arm)))
    return theirs is not None and theirs == mine


def from_where(metrics: dict[str, Any], arm: str | None, kind: str) -> str:
    """What the recogniser `kind`, which existed before the run, has to do with the arm's noise."""
    return "with whose weights the noise search began" if kind == "pretrained" and starts_alike(metrics, arm) else "trained elsewhere"


def called(metrics: dict[str, Any], kind: str) -> str:
    """What a reader calls a recogniser that exists: the pretrained network by its file, as the reference is already."""
    path = at(metrics, "provenance", "config", "train", "weights") if kind == "pretrained" else None
    return Path(path).stem if isinstance(path, str) else kind


DATA_SETS = {"webface": "CASIA-WebFace", "celeba": "CelebA", "lfw": "LFW"}


def data_set(metrics: dict[str, Any]) -> str:
    """What a reader calls the data set: its public name, or of the user's own photos their folder; empty where it was not recorded."""
    name = str(at(metrics, "provenance", "dataset", "name") or "")
    path = at(metrics, "provenance", "config", "data", "photos")
    if name == "folder" and isinstance(path, str):
        return f"photos in the folder {Path(path).name!r}"
    return DATA_SETS.get(name, name)


def tried_on(metrics: dict[str, Any], arm: str | None) -> list[str]:
    """The trainers, countermeasures and shares that `arm` has a number under; those that say nothing are left out."""
    silent = {one["trial"] for one in metrics.get("silent") or []}
    every = [(name, arms) for section in ("trainers", "countermeasures", "shares") for name, arms in (metrics.get(section) or {}).items()]
    return [str(name) for name, arms in every if name not in silent and is_number(accuracy_of(at(arms, arm or "", "protected")))]


def draws_of(metrics: dict[str, Any]) -> Any:
    """How many random swaps of two arms a share of them is of."""
    return at(metrics, "provenance", "config", "evaluate", "bootstrap") if len(seeds_of(metrics)) == 1 else RESAMPLES


def seeds_of(metrics: dict[str, Any]) -> list[Any]:
    """The seeds of a run, several where they are joined."""
    return at(metrics, "provenance", "seeds") or []


def people_of_all_seeds(metrics: dict[str, Any], arm: str | None) -> int:
    """How many people are protected in any seed; a person whom two seeds protect is in the joined accuracies twice."""
    names = at(metrics, "arms", arm or "", "protected", "per_identity") or {}
    return len({name.removesuffix(f" (seed {seed_of(name)})") for name in names})


def search_also_saw(metrics: dict[str, Any]) -> int:
    """How many people the search for noise saw clean photos of, besides those it protects; 0 where nothing was searched for."""
    seen = at(metrics, "split", "auxiliary")
    searched = any(at(record, "noise", "rounds") or at(record, "noise", "steps") for record in metrics["arms"].values())
    return seen if searched and is_number(seen) else 0


def largest_change(record: Any) -> float | None:
    """The largest change of a colour value in the arm's crops and photos, in 1/255; None where neither was measured."""
    found = [at(record, kind, "linf") for kind in ("imperceptibility", "photos")]
    return max((one for one in found if is_number(one)), default=None)


def in_each(metrics: dict[str, Any]) -> str:
    """What follows a number of protected people where several seeds protect so many each; empty with one seed."""
    seeds, everyone = seeds_of(metrics), people_of_all_seeds(metrics, headline_arm(metrics))
    return f" in each of {len(seeds)} seeds ({everyone} in all)" if len(seeds) > 1 and everyone else ""


def facts_of(metrics: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Who was protected against what: (question, lines of the answer)."""
    split, data, training = metrics.get("split") or {}, at(metrics, "provenance", "dataset") or {}, metrics.get("training") or {}
    settings = {
        "partial": "Partial: some people are protected, everybody else’s photos stay clean",
        "full": "Full: everybody is protected",
    }
    rejected = data.get("rejected")
    refused = sum(rejected.values()) if isinstance(rejected, dict) else rejected
    reasons = f": {', '.join(f'{why} {count:,}' for why, count in rejected.items())}" if isinstance(rejected, dict) and rejected else ""
    epsilon = {at(record, "noise", "epsilon") for record in metrics["arms"].values()} - {None}
    moved = split.get("duplicates_moved")
    photos = [f"{plural(data.get('photos'), 'photo', 'photos')}; faces aligned in {number(data.get('aligned'))}"]
    photos.append(f"rejected {number(refused)}{reasons}")
    held = [f"{number(split.get('train'))} to train on, {number(split.get('test'))} held out to test"]
    used: list[Any] = [data.get("aligned"), split.get("train"), split.get("test")]
    if all(map(is_number, used)) and used[0] > used[1] + used[2]:
        held.append(f"the other {used[0] - used[1] - used[2]:,} are of people kept out of training")
    if is_number(moved):
        held.append(f"{plural(moved, 'near-duplicate', 'near-duplicates')} moved out of the test photos")
    kind = str(training.get("kind") or "").strip()
    how = f"{training.get('model') or 'model ' + NOT_RECORDED}, {kind if kind.startswith('fine') else 'trained ' + (kind or NOT_RECORDED)}"
    people, classes, seeds = metrics.get("identities"), metrics.get("classes"), seeds_of(metrics)
    beyond = data["identities"] - classes if is_number(data.get("identities")) and is_number(classes) else 0
    seen = search_also_saw(metrics)
    left_out = f", {beyond:,} of them kept out of all training" if beyond > 0 else ""
    return [
        (
            "Protected" if noisy(metrics) else "Looked at",
            [plural(people, "person", "people") + in_each(metrics), f"of {number(classes)} the recogniser learns"],
        ),
        ("Setting", [settings.get(str(metrics.get("setting")), str(metrics.get("setting") or NOT_RECORDED))]),
        ("Against", [how, plural(training.get("epochs"), "epoch", "epochs")]),
        *([("Change allowed", [", ".join(level(one) for one in sorted(epsilon)) + " a colour value"])] if epsilon else []),
        ("Data set", [data_set(metrics) or NOT_RECORDED, plural(data.get("identities"), "person", "people") + left_out]),
        ("Photos", photos),
        ("Split", held),
        *([("Noise search also sees", [f"Clean photos of {plural(seen, 'other person', 'other people')}"])] if seen else []),
        ("Chance level", [f"{percent(metrics.get('chance'))}: a guess among {number(classes)}"]),
        ("Seed" if len(seeds) == 1 else "Seeds", [", ".join(f"number {seed}" for seed in seeds) or NOT_RECORDED]),
    ]


def key_numbers(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The few numbers on top: (what, value, small print, style class)."""
    arm = headline_arm(metrics)
    if arm is None:
        return []
    mine, clean = metrics["arms"][arm], metrics["arms"].get("clean")
    valid, blank = counts(metrics, arm), ("invalid", "")
    found = [
        (f"Protected people ({arm}), last epoch", *(last(mine, "protected") if valid else blank), "protected"),
        ("Protected people, best epoch", *(peak(mine) if valid else blank), "protected"),
    ]
    if clean:
        found.append(("Same people, without protection", *(last(clean, "protected") if counts(metrics, "clean") else blank), ""))
    if not ("others" in mine and mine["others"] is None):
        without = f"{last(clean, 'others')[0]} without protection" if clean and counts(metrics, "clean") else ""
        found.append(("Other people, last epoch", last(mine, "others")[0] if valid else "invalid", without, "others"))
    if valid and (tried := fought(metrics)):
        worst = max(tried, key=lambda one: one["accuracy"])
        when = ", best epoch" if worst["peak"] else ""
        found.append(("Protected people, worst trial of another trainer", percent(worst["accuracy"]), worst["title"] + when, "protected"))
    psnr = at(mine, "imperceptibility", "psnr_db")
    found.append(("Largest change of a pixel", level(largest_change(mine)), f"PSNR of the face {number(psnr, 1, ' dB')}", ""))
    return found


def fought(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """What was lost to and held against of those who fight the noise: other trainers and countermeasures.

    The best epoch is the study's own training, and where some photos are clean there is less noise to fight.
    """
    aside = {verdict.EARLY, *(metrics.get("shares") or {})}
    return [one for key in ("lost_to", "held_against") for one in metrics.get(key) or [] if one["trial"] not in aside]


def last(record: Any, group: str) -> tuple[str, str]:
    """The final accuracy and its interval."""
    value, span = at(record, group, "final"), at(record, group, "ci95")
    return percent(value), f"95% interval {interval(span)}" if is_number(value) else ""


def peak(record: Any) -> tuple[str, str]:
    """The best accuracy of the protected and its epoch."""
    value, epoch = at(record, "protected", "peak"), at(record, "protected", "peak_epoch")
    several = is_number(at(record, "protected", "sd"))
    return percent(value), f"epoch {epoch}" if is_number(epoch) else "mean of the seeds’ own" if several else ""


def result_is_invalid(metrics: dict[str, Any]) -> bool:
    """Whether what the verdict would speak of is invalid: the run, or the arm that it is about."""
    arm = headline_arm(metrics)
    return bool(why_run(metrics)) or (arm is not None and not counts(metrics, arm))


def asked_of(metrics: dict[str, Any]) -> set[str]:
    """The recognisers that exist, by the hash of their files, on which something was built in this run that the noise held against."""
    weights, reference = (
        at(metrics, "provenance", "config", stage, key) for stage, key in (("train", "weights_sha256"), ("evaluate", "reference_sha256"))
    )
    found = {weights}  # where there are weights, the study's own training starts from them
    for one in metrics.get("held_against") or []:
        trial = TRAINERS.get(without_processing(one["trial"]))
        found |= {reference} if trial is not None and trial.reference else set()
    return found - {None}


HEADINGS = {"fails": "Not protected", "invalid": "No claim", "unrated": "Result"}


def heading_of(metrics: dict[str, Any]) -> str:
    """The verdict in a few words; of several seeds, in how many of them it is so where they disagree."""
    state = state_of(metrics)
    if state == "invalid" and result_is_invalid(metrics):
        return "Invalid: no claim"
    if state == "holds":
        lost = metrics.get("lost_to") or []
        if any(one["trial"] not in (metrics.get("shares") or {}) for one in lost):
            return "Protected, but not against every trainer"
        if lost:
            return "Protected, but not by a part of the photos"
        if not fought(metrics):
            return "Protected from the study’s own training"
        known = at(metrics, "arms", headline_arm(metrics) or "", "noise", "against")
        every = known and {one["sha256"] for one in known} <= asked_of(metrics)
        return "Protected from the recognisers it was made against" if every else "Protected from all that was tried"
    if state != "fails":
        return HEADINGS[state]
    seeds = metrics.get("by_seed") or []
    bad = [one for one in seeds if one["verdict_state"] == "fails"]
    named = [one for one in bad if one["fails_by"] != "others"]
    where = f" in {len(named or bad)} of {len(seeds)} seeds" if len(named or bad) < len(seeds) else ""
    if metrics.get("fails_by") == "others":
        return f"Protected, but{where} others are recognised less well"
    if metrics.get("fails_by") == "verification":
        return f"Rarely named, but{where} still told apart"
    return f"{HEADINGS[state]}{where}"


def checks_of(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Validity checks: name, detail, `word` on how it ended, and a state: good, bad (it leaves the run no claim) or warn (it does not)."""
    found = []
    headline = headline_arm(metrics)
    for one in metrics.get("checks") or []:
        matters = one.get("arm") in (None, "clean", headline)
        state = "good" if one.get("ok") else "bad" if matters else "warn"
        arm = one.get("arm")
        of_all = "nothing can be claimed" if of_claim_alone(one) else "every result is invalid"
        word = "ok" if one.get("ok") else f"not ok: {of_all if arm in (None, 'clean') else 'this arm’s result is invalid'}"
        found.append({"name": str(one.get("name")), "detail": str(one.get("detail") or ""), "state": state, "word": word})
    return found


def state_of(metrics: dict[str, Any]) -> str:
    """`holds`, `fails` or `invalid` as the run says; without its word `invalid` if a check failed, else `unrated`."""
    stated = metrics.get("verdict_state")
    if stated in ("holds", "fails", "invalid"):
        return stated
    return "invalid" if any(one["state"] == "bad" for one in checks_of(metrics)) else "unrated"


def provenance_of(metrics: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Where it all came from: blocks of (name, value)."""
    source = metrics.get("provenance") or {}
    dirty = source.get("dirty")
    commit = str(source.get("commit") or NOT_RECORDED)
    note = {True: " with uncommitted changes", False: ""}.get(dirty, "") if isinstance(dirty, bool) else f" (clean or not: {NOT_RECORDED})"
    other = "" if source.get("one_commit", True) else "; other seeds were made by another commit or with other changes"
    run = [
        ("Run", str(metrics.get("run") or NOT_RECORDED)),
        ("Commit that wrote it", commit + note + other),
        ("Created", str(source.get("created") or NOT_RECORDED)),
        ("Data set SHA-256", str(at(source, "dataset", "sha256") or NOT_RECORDED)),
        ("Schema", str(metrics.get("schema", NOT_RECORDED))),
    ]
    stages = {str(stage): value for stage, value in (source.get("seconds") or {}).items()}
    times = [(stage, duration(value)) for stage, value in stages.items()]
    trained = {arm: at(record, "training", "seconds") for arm, record in metrics["arms"].items()}
    if not any(stage.startswith("train") for stage in stages):
        times += [(f"training, {arm}", duration(value)) for arm, value in trained.items() if is_number(value)]
    return {
        "This report": run,
        "Hardware": flat(source.get("hardware")),
        "Trained on": trained_on(metrics),
        "Time": times or [("stages", NOT_RECORDED)],
        "Packages": [(str(name), str(found or "not installed")) for name, found in (source.get("packages") or {}).items()]
        or [("packages", NOT_RECORDED)],
    }


def trained_on(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What each arm was trained on, in one entry where that is the same: on other hardware the same training is another draw."""
    facts = {arm: [at(record, "training", key) for key in ("device", "precision", "processes")] for arm, record in metrics["arms"].items()}
    words = {
        arm: f"{device}, {precision}, {plural(processes, 'process', 'processes')}" if device else NOT_RECORDED
        for arm, (device, precision, processes) in facts.items()
    }
    return list(words.items()) if len(set(words.values())) > 1 else [("every arm", word) for word in set(words.values())]


def flat(value: Any) -> list[tuple[str, str]]:
    """A dict's entries as text, or the value itself."""
    if isinstance(value, dict) and value:
        return [(str(name), str(one)) for name, one in value.items()]
    return [("machine", str(value) if value else NOT_RECORDED)]
