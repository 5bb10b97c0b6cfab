"""The report in seven answers, for a reader who has never seen the project."""

from __future__ import annotations

from typing import Any

from pipeline.evaluation.accuracy import ROUNDING
from pipeline.evaluation.orderings import FALLS_TO_CHANCE, auc_of_others
from pipeline.evaluation.verdict import EARLY, how_much
from pipeline.report.cells import noisy
from pipeline.report.limits import ASKS_REFERENCE, EXISTING, ONE_SEED, RENDERED, TRIED_BY, WITHOUT_SEARCH, limits_of
from pipeline.report.validity import counts, counts_elsewhere
from pipeline.report.views import (
    called,
    checks_of,
    data_set,
    draws_of,
    from_where,
    headline_arm,
    in_each,
    largest_change,
    made_against,
    people_of_all_seeds,
    search_also_saw,
    seeds_of,
    starts_alike,
    state_of,
    tried_on,
    was_known,
)
from pipeline.report.words import NOT_RECORDED, at, by_chance, interval, is_number, level, number, percent, plural, points

VISIBLE = 30.0  # dB of PSNR, the rule of thumb of the glossary


def answers_of(metrics: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(question, sentences of the answer), from the headline arm; empty where no arm carries noise."""
    arm = headline_arm(metrics)
    if arm is None:
        return []
    record = metrics["arms"][arm]
    found = [
        ("Who was protected?", who(metrics, arm)),
        ("Against what?", against(metrics, arm)),
        ("How sure is it?", how_sure(metrics, arm, record)),
        ("How visible is it?", how_visible(record, pictures=not metrics.get("panels_note"))),
        ("Does the owner’s own software still work?", how_useful(metrics, arm, record)),
        ("When does it fail?", when_it_fails(metrics, arm, record)),
        ("What next?", what_next(metrics, arm)),
    ]
    return [(question, sentences) for question, sentences in found if sentences]


def who(metrics: dict[str, Any], arm: str) -> list[str]:
    """Whose photos carry noise, which, and whose do not."""
    people = (
        f"{plural(metrics.get('identities'), 'person', 'people')}{in_each(metrics)} of the {number(metrics.get('classes'))} a recogniser "
        "learns to name."
    )
    setting = {
        "partial": f"All their photos for training carry noise ({arm}); everybody else’s stay clean.",
        "full": f"Everybody’s photos for training carry noise ({arm}).",
    }
    more = [other for other in noisy(metrics) if other != arm]
    others = [f"These answers are about {arm}; the tables have the other kinds of noise, too."] if more else []
    data = data_set(metrics) or NOT_RECORDED
    rendered = "The people do not exist: their photos are rendered." if data.startswith("synthetic") else f"Data set: {data}."
    return [people, *[text for key, text in setting.items() if key == metrics.get("setting")], *others, rendered]


def against(metrics: dict[str, Any], arm: str) -> list[str]:
    """Which training the noise is held against."""
    training = metrics.get("training") or {}
    kind = str(training.get("kind") or NOT_RECORDED)
    how = kind if kind.startswith("fine") else f"trained {kind}"
    epochs = plural(training.get("epochs"), "epoch", "epochs")
    found = [f"{training.get('model') or 'A network'}, {how} on this run’s own face crops with the noise on them, {epochs}."]
    if known := made_against(metrics, arm):
        found.append(f"And whoever takes the embeddings of {' or '.join(known)}, against which the cloak was made.")
    seen = search_also_saw(metrics)
    everyone: Any = metrics.get("classes")
    mine: Any = metrics.get("identities")
    others = everyone - mine if is_number(everyone) and is_number(mine) else 0
    if others > 0 and seen:
        found.append(f"The noise search had clean training photos of {seen:,} of the {others:,} other people.")
    if starts_alike(metrics, arm):
        found.append("It began with the very weights that the recogniser begins with, which a defender rarely knows.")
    tried = tried_on(metrics, arm)
    also = ["stopping at the best epoch"] if EARLY in tried else []
    for section, one, many in (
        ("trainers", "other trainer", "other trainers"),
        ("countermeasures", "countermeasure", "countermeasures"),
        ("shares", "share of protected photos", "shares of protected photos"),
    ):
        if count := len([name for name in tried if name in (metrics.get(section) or {}) and name != EARLY]):
            also.append(plural(count, one, many))
    if also:
        found.append(f"Also tried: {', '.join(also)}.")
    return [*found, *what_counts(metrics)]


def what_counts(metrics: dict[str, Any]) -> list[str]:
    """The rule of the verdict; nothing where its limits were not recorded."""
    names = ("protected_at_most", "peak_at_most", "others_within", "others_auc_within")
    last, best, others, auc = (at(metrics, "provenance", "config", "evaluate", name) for name in names)
    if not is_number(last) or not is_number(best):
        return []
    rule = f"the protected are named on at most {percent(last)} of clean photos after the last epoch and {percent(best)} after the best"
    if metrics.get("setting") == "full":
        rule += f", and verification’s AUC falls by at least {1 - FALLS_TO_CHANCE:.0%} of what it is above a guess"
    elif is_number(others) and is_number(auc):
        rule += f", and others lose at most {others * 100:g} points of accuracy and {auc:g} of verification’s AUC"
    return [f"It counts as holding where {rule}: limits of the run’s configuration, the same for every arm."]


def how_sure(metrics: dict[str, Any], arm: str, record: dict[str, Any]) -> list[str]:
    """Intervals, the comparison with the clean arm, seeds and checks."""
    failed = [one["name"] for one in checks_of(metrics) if one["state"] != "good"]
    checks = len(metrics.get("checks") or [])
    passed = f"Validity checks: all {checks} passed." if checks else "Validity checks: not recorded."
    verdict = [f"Validity checks: {checks - len(failed)} of {checks} passed; not: {', '.join(failed)}." if failed else passed]
    if state_of(metrics) == "invalid" or not counts(metrics, arm):
        return ["Nothing is claimed.", *verdict]
    mine = record.get("protected") or {}
    people = people_of_all_seeds(metrics, arm)
    found = [
        f"Named on {percent(mine.get('final'))} of their clean photos; 95% interval {interval(mine.get('ci95'))} over {people} people."
    ]
    each, photos = mine.get("per_identity") or {}, mine.get("test_photos") or {}
    if each and people == len(each) == len(photos):
        never = sum(accuracy == 0 for accuracy in each.values())
        most = max(each.values())
        nobody = f", nobody on more than {percent(most)} of theirs" if 0 < most < 1 else ""
        found.append(f"That is of {sum(photos.values()):,} photos; {plural(never, 'person is', 'people are')} never named{nobody}.")
    limit, span = at(metrics, "provenance", "config", "evaluate", "protected_at_most"), mine.get("ci95")
    decides = metrics.get("fails_by") in (None, "naming")  # else another limit does
    if decides and is_number(limit) and isinstance(span, list) and span[0] <= limit < span[1]:
        others = "other seeds or people" if len(seeds_of(metrics)) > 1 else "other people"
        found.append(f"The interval reaches across the limit of {percent(limit)}: with {others} it might have ended the other way.")
    compared = person_by_person(metrics, arm, "protected")
    if compared:
        found.append(f"{compared[0].upper()}{compared[1:]}.")
    seeds = seeds_of(metrics)
    spread = f"standard deviation {percent(mine['sd'])}" if is_number(mine.get("sd")) else "how much runs differ is not known"
    found.append(f"{plural(len(seeds), 'seed', 'seeds')}: {spread}.")
    return [*found, *verdict]


def person_by_person(metrics: dict[str, Any], arm: str, group: str, against: str = "clean") -> str:
    """How a group's accuracy differs from another arm's, and how sure that is; empty where too few were compared or one is invalid."""
    if not counts(metrics, arm) or not counts(metrics, against):
        return ""
    other = "no protection" if against == "clean" else f"{against} noise"
    for one in metrics.get("paired") or []:
        if (one.get("arm"), one.get("against"), one.get("group")) == (arm, against, group) and one.get("ci95"):
            low, high = map(points, one["ci95"])
            swapped = "which of the two whole seeds had" if len(seeds_of(metrics)) > 1 else "which of the two each person had"
            often = by_chance(one.get("p"), draws_of(metrics))
            alone = f"; drawing {swapped} by chance does as much in {often} of cases" if is_number(one.get("p")) else ""
            return f"person by person {points(one['difference'])} points against {other} (95% interval {low} to {high}{alone})"
    return ""


def how_visible(record: dict[str, Any], *, pictures: bool) -> list[str]:
    """The change in numbers and in a word."""
    seen, whole = record.get("imperceptibility") or {}, record.get("photos") or {}
    psnr: Any = seen.get("psnr_db")
    ssim: Any = seen.get("ssim")
    found = [f"No colour value changes by more than {level(largest_change(record))}."]
    if is_number(psnr):
        word = "visible" if psnr < VISIBLE else "perhaps hard to see"
        found.append(
            f"On the face the change is {word}: PSNR {number(psnr, 1, ' dB')}, SSIM {number(ssim, 3)}. Nobody was asked"
            f"{': see the pictures below' if pictures else ''}."
        )
    if is_number(whole.get("psnr_db")):
        on_photo = f"PSNR {number(whole['psnr_db'], 1, ' dB')}, SSIM {number(whole.get('ssim'), 3)}"
        found.append(f"On the whole photo {on_photo}, since nothing changes outside the square around the face.")
    return found


def how_useful(metrics: dict[str, Any], arm: str, record: dict[str, Any]) -> list[str]:
    """What a detector and recognisers that exist already make of the protected photos."""
    utility = record.get("utility") or {}
    seen: Any = utility.get("detector")
    found: list[str] = []
    if is_number(at(seen, "found")):
        found.append(f"The detector finds the face again in {percent(seen['found'])} of {number(at(seen, 'photos'))} protected photos.")
    matched = {name: one for name, one in (utility.get("match") or {}).items() if one}
    for name, one in matched.items():
        whose = ", which the cloak was made against," if was_known(metrics, arm, name) else ""
        found.append(
            f"{called(metrics, name)}{whose} still takes a protected and a clean photo for one person’s in {percent(one['protected'])} "
            f"of pairs ({percent(one['clean'])} of pairs of clean ones)."
        )
    if not matched:
        found.append("Whether a recogniser still knows the owner was not measured.")
    return found


def taught_nothing(silent: dict[str, Any]) -> str:
    """Why a trial says nothing."""
    if silent["clean"] is None:
        return "it was not tried without noise"
    if "others" in silent:
        return f"with noise it leaves a recogniser that names other people, too, on only {percent(silent['others'])}"
    return f"without noise, too, it leaves a recogniser that names only {percent(silent['clean'])}"


def verified_worse(metrics: dict[str, Any], arm: str, *, of_seeds: bool) -> str:
    """How much worse other people are verified, which may be all that an arm costs them; empty where that is allowed.

    Args:
        of_seeds: the means of several seeds, of which one lost more than is allowed: any loss is said.
    """
    auc, before = (auc_of_others(metrics["arms"].get(name) or {}) for name in (arm, "clean"))
    allowed: Any = 0.0 if of_seeds else at(metrics, "provenance", "config", "evaluate", "others_auc_within")
    if auc is None or before is None or not is_number(allowed) or before - auc <= allowed + ROUNDING:
        return ""
    return f"comparing two of their photos, the recogniser has an AUC of {number(auc, 3)} instead of {number(before, 3)}"


def when_it_fails(metrics: dict[str, Any], arm: str, record: dict[str, Any]) -> list[str]:
    """What it lost to in this run, and what no noise against training prevents."""
    known = made_against(metrics, arm)
    found = ["It is not made to hide anybody from face search that exists already."]
    if known:
        found = [f"It was made against {' and '.join(known)}; a recogniser that is none of these may know everybody all the same."]
    state = state_of(metrics)
    if state != "invalid":
        own = {
            "naming": ["the study’s own training"],
            "peak": ["the study’s own training, stopped at its best epoch"],
            "verification": ["whoever compares two faces with the study’s own recogniser, which names few but tells people apart"],
        }
        cause = metrics.get("fails_by")
        if cause == "others":
            each = metrics.get("by_seed") or []
            bad = [str(one["seed"]) for one in each if one["fails_by"] == "others"]
            compared = [one for against in ("clean", "random") if (one := person_by_person(metrics, arm, "others", against))]
            if worse := verified_worse(metrics, arm, of_seeds=bool(bad)):
                compared = [worse, *[f"in naming, {one}" for one in compared]]
            where = f" in {len(bad)} of {len(each)} seeds ({', '.join(bad)}), more than allowed; over all seeds" if bad else ":"
            found.append(f"Other people are recognised less well{where} {'; '.join(compared) or 'by more than allowed'}.")
        lost = metrics.get("lost_to") or []
        told = cause == "peak" and any(one["trial"] == EARLY for one in lost)  # early stopping is that, with its numbers
        names = own.get(cause or "naming", []) if state == "fails" and not told else []
        names += [f"{one['title']} ({how_much(one)})" for one in lost]
        if names or cause != "others":
            found.append(f"Lost to: {', '.join(names)}." if names else "Lost to nothing that was tried here.")
        found += [
            f"{one['title'][0].upper()}{one['title'][1:]} says nothing here: {taught_nothing(one)}." for one in metrics.get("silent") or []
        ]
    own_search = {
        name: at(metrics, "arms", name, "identification", "own", "rank1") if counts(metrics, name) else None
        for name in (arm, "clean", "removed")
    }
    if state != "invalid" and is_number(own_search[arm]):
        words = {"clean": "without protection", "removed": "had it never seen them"}
        others = [f"{percent(own_search[name])} {text}" for name, text in words.items() if is_number(own_search[name])]
        asked = at(record, "identification", "own", "identities")
        others += [f"a guess {percent(1 / asked)}"] if is_number(asked) and asked else []
        found.append(
            f"Used for face search instead of naming, the recogniser puts the right person first in {percent(own_search[arm])} of searches "
            f"({', '.join(others)})."
        )
    for name, one in (record.get("identification") or {}).items():
        if name != "own" and counts_elsewhere(metrics, arm) and at(one, "rank1") is not None:
            whose = "which it was made against" if was_known(metrics, arm, name) else from_where(metrics, arm, name)
            before = at(metrics, "arms", "clean", "identification", name, "rank1")
            without = f" ({percent(before)} without protection)" if is_number(before) else ""
            found.append(f"{called(metrics, name)}, {whose}, puts them first in {percent(one['rank1'])} of searches{without}.")
    auc = at(record, "separability", "detection", "auc")
    if is_number(auc):
        found.append(f"A linear detector of the noise reaches an AUC of {number(auc, 2)}: 1 finds every protected photo, 0.5 is a guess.")
    return found


NEXT = {
    "invalid": "First mend what the verdict names: until then nothing is claimed.",
    "holds": "Rely on it against no more than was tried.",
    "fails": "Do not take these people for protected.",
}


def what_next(metrics: dict[str, Any], arm: str) -> list[str]:
    """What the verdict allows, what was not tried, and how whoever made the report can try it."""
    state = state_of(metrics)
    found = [NEXT[state]] if state in NEXT else []
    if metrics.get("fails_by") == "others":
        found = ["Weigh first what it costs other people."]
    elif state == "holds" and metrics.get("lost_to"):
        found = ["Do not rely on it against what it lost to, nor against what was not tried."]
    if state == "invalid" or not counts(metrics, arm):
        return found  # first things first, and whatever was tried may have given no number that counts
    limits = [one for one in limits_of(metrics) if not one.measured and one.could_be_tried and one.title != EXISTING]
    if not limits:
        return found
    found.append(f"Not tried here: {', '.join(one.title[0].lower() + one.title[1:] for one in limits)}.")
    titles = {one.title for one in limits}
    sets = list(dict.fromkeys(name for title, name in TRIED_BY.items() if title in titles))
    if "countermeasures" in sets:
        sets = [name for name in sets if name != "core"]  # which are among them
    given = ", with REFERENCE= for the embeddings of a recogniser that exists" if titles & ASKS_REFERENCE else ""
    how = [f'`make matrix MATRIX="{" ".join(sets)}"`{given}'] if sets else []
    if WITHOUT_SEARCH[0] in titles:
        how += [f'`make study ARMS="{" ".join(dict.fromkeys([*metrics["arms"], "lsp"]))}"` for patterns without a search']
    how += ['`make study SEEDS="0 1 2"` for other seeds'] if ONE_SEED[0] in titles else []
    how += ["DATASET= and PHOTOS= for real faces"] if RENDERED[0] in titles else []
    return [*found, f"Whoever made this report can try more, with all else as it was: {'; '.join(how)}."] if how else found
