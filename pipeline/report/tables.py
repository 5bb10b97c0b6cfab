"""The report's tables of the study itself: accuracies, the noise, how visible it is, what goes on working."""

from __future__ import annotations

from typing import Any

from pipeline.evaluation.orderings import ORDERINGS
from pipeline.report.cells import INVALID, Cell, Table, cell, deviation, head, noisy, rate_text
from pipeline.report.table import GROUPS
from pipeline.report.validity import counts, why_run
from pipeline.report.views import called, draws_of, made_against, seeds_of, was_known
from pipeline.report.words import (
    NOT_MEASURED,
    NOT_RECORDED,
    at,
    by_chance,
    duration,
    interval,
    is_number,
    level,
    number,
    percent,
    points,
    yes_no,
)

IDENTITY_ROWS = 200


def accuracy_table(metrics: dict[str, Any]) -> Table:
    """Protected and others in every arm: last epoch, interval by identity, best epoch."""
    rows = []
    for arm, record in metrics["arms"].items():
        line = [head(arm)]
        for group in GROUPS:
            one = record.get(group)
            if one is not None and not counts(metrics, arm):
                line += [INVALID] * 3
                continue
            if one is None and group in record:
                line += [Cell("nobody", tone="missing"), Cell("–", tone="missing"), Cell("–", tone="missing")]
                continue
            final, span, peak, epoch = (at(one, key) for key in ("final", "ci95", "peak", "peak_epoch"))
            when = f" (epoch {epoch})" if is_number(peak) and is_number(epoch) else ""
            line += [
                cell(final, percent(final) + deviation(one), tone="strong" if is_number(final) else ""),
                cell(span[0] if isinstance(span, list) else None, interval(span, len(at(one, "per_identity") or {}) or None)),
                cell(peak, percent(peak) + when),
            ]
        rows.append(line)
    caption = "Accuracy on clean test photos"
    if why_run(metrics):
        caption += ": invalid"
    elif metrics.get("verdict_state") == "invalid":
        caption += ": nothing is claimed from it"
    chance = metrics.get("chance")
    seeds = seeds_of(metrics)
    again = (
        f" Means over {len(seeds)} seeds ± standard deviation; intervals are resampled by seed, too, and never narrower than Student’s "
        "of the seeds’ means; best epochs are each seed’s own."
        if len(seeds) > 1
        else ""
    )
    foot = [[head("chance level"), *[cell(chance, percent(chance)), Cell(""), Cell("")] * len(GROUPS)]]
    return Table(
        "accuracy",
        caption,
        ["Arm", *["Last epoch", "95% interval", "Best epoch"] * len(GROUPS)],
        rows,
        "“Protected” are the same people in every arm, so the clean arm is their baseline. Intervals are resampled by identity." + again,
        [("Protected people", 3), ("Other people", 3)],
        foot,
    )


def paired_table(metrics: dict[str, Any]) -> Table | None:
    """Arms compared person by person."""
    rows = []
    for one in metrics.get("paired") or []:
        difference, span, chance = (at(one, key) for key in ("difference", "ci95", "p"))
        people = at(one, "identities")
        low_to_high = f"{points(span[0])} to {points(span[1])}" if isinstance(span, list) else interval(None, people)
        found = [
            cell(difference, f"{points(difference)} points" if is_number(difference) else percent(None)),
            cell(span[0] if isinstance(span, list) else None, low_to_high),
            cell(chance, by_chance(chance, draws_of(metrics))),
        ]
        valid = counts(metrics, one["arm"]) and counts(metrics, one["against"])
        names = [head(f"{one['arm']} against {one['against']}"), Cell(str(one["group"]), str(one["group"]))]
        rows.append([*names, *(found if valid else [INVALID] * 3), cell(people, number(people))])
    if not rows:
        return None
    note = (
        "Mean over people of the difference of their own accuracies after the last epoch, in percentage points; the interval is resampled "
        "by identity, of several seeds also by seed, and is then never narrower than Student’s of the seeds’ means. By chance: how often "
        "chance alone, swapping the two arms person by person, differs as much; of several seeds they are swapped seed by seed, which says "
        "something from six seeds on."
    )
    columns = ["Arms", "People", "Difference", "95% interval", "By chance", "Count"]
    return Table("paired", "Arms compared person by person", columns, rows, note)


def orderings_table(metrics: dict[str, Any]) -> Table | None:
    """Published findings about kinds of noise, and whether they hold in this run."""
    rows, asked = [], {one.claim: one.arms for one in ORDERINGS}
    for one in metrics.get("orderings") or []:
        holds = bool(one["holds"])
        published, here = (Cell(str(one[key]), str(one[key])) for key in ("published", "here"))
        found = [here, Cell("yes" if holds else "no", int(holds), tone="" if holds else "strong")]
        valid = all(counts(metrics, arm) for arm in asked.get(one["claim"], ("error-min", "clean")))  # those of verification name no arms
        rows.append([head(str(one["claim"])), published, *(found if valid else [INVALID] * 2)])
    if not rows:
        return None
    claims = " ".join(str(one["claim"]) for one in metrics.get("orderings") or [])
    note = "Accuracy of protected people. Found by Huang et al. (ICLR 2021) on CIFAR-10 with a ResNet-18, verification on faces"
    note += "; backdoors by Gu et al. (2017)." if "backdoor" in claims else "."
    note += " Whether the protection holds is for the verdict, whose limits are stricter."
    note += " “Far above”: by 20 points." if "far above" in claims else ""
    note += " “Falls towards a guess”: at least half way." if "towards a guess" in claims else ""
    if any(arm.get("others") for arm in metrics["arms"].values()):
        note += (
            " On CIFAR-10 every class carried the noise. Here other people’s photos are clean: a network that knows a person by the noise "
            "takes that person’s clean photos for somebody else’s, and kinds of noise can protect that did not there."
        )
    if any(one["claim"].startswith("error-max") and not one["holds"] for one in metrics.get("orderings") or []):
        note += (
            " That noise made to mislead a trained network can keep the next one from learning was found by others, too (Fowl et al., "
            "NeurIPS 2021)."
        )
    return Table("orderings", "Does what was published hold here?", ["Finding", "Published", "Here", "As expected"], rows, note)


def identity_table(metrics: dict[str, Any]) -> Table | None:
    """Accuracy of each protected identity in every arm, at most `IDENTITY_ROWS` of them."""
    arms = {arm: at(record, "protected", "per_identity") for arm, record in metrics["arms"].items()}
    arms = {arm: each for arm, each in arms.items() if each}
    names = list(dict.fromkeys(name for each in arms.values() for name in each))
    if not names:
        return None
    shown = [(each, counts(metrics, arm)) for arm, each in arms.items()]
    rows = [
        [head(str(name)), *[cell(at(each, name), percent(at(each, name))) if valid else INVALID for each, valid in shown]]
        for name in names[:IDENTITY_ROWS]
    ]
    note = f"The first {IDENTITY_ROWS} of {len(names):,}; metrics.csv has all." if len(names) > IDENTITY_ROWS else ""
    return Table("identities", "Accuracy of each protected person", ["Identity", *arms], rows, note)


def visibility_table(metrics: dict[str, Any]) -> Table | None:
    """How visible the change is, on the aligned face."""
    rows = []
    for arm, record in noisy(metrics).items():
        seen = record.get("imperceptibility")
        linf, psnr, ssim, lpips, mean = *(at(seen, key) for key in ("linf", "psnr_db", "ssim", "lpips")), at(record, "noise", "mean_abs")
        rows.append([
            head(arm), cell(linf, level(linf)), cell(mean, NOT_MEASURED if not is_number(mean) else f"{mean:.1f}/255"),
            cell(psnr, number(psnr, 1, " dB")), cell(ssim, number(ssim, 3)),
            cell(lpips, number(lpips, 3)),
        ])  # fmt: skip
    if not rows:
        return None
    note = (
        "Measured on the saved files, decoded back; the mean change is of the patterns. The larger PSNR and SSIM, and the smaller LPIPS, "
        "the less visible; where nothing changed, SSIM is 1 and LPIPS 0."
    )
    if not all(is_number(at(record, "imperceptibility", "lpips")) for record in noisy(metrics).values()):
        note += (
            " LPIPS is measured where torchvision’s AlexNet weights (alexnet-owt-7be5be79.pth) lie in hub/checkpoints of torch’s cache: "
            "`make doctor` names the folder."
        )
    return Table("visibility", "Change of the face crops", ["Arm", "Largest change", "Mean change", "PSNR", "SSIM", "LPIPS"], rows, note)


def photos_table(metrics: dict[str, Any]) -> Table | None:
    """How visible the change is on whole photos, and how much of the noise is found when they are cropped again."""
    rows = []
    for arm, record in noisy(metrics).items():
        seen = record.get("photos")
        linf, psnr, ssim, count = (at(seen, key) for key in ("linf", "psnr_db", "ssim", "count"))
        mean, least = at(seen, "recrop_correlation", "mean"), at(seen, "recrop_correlation", "min")
        rows.append([
            head(arm), cell(count, number(count)), cell(linf, level(linf)), cell(psnr, number(psnr, 1, " dB")),
            cell(ssim, number(ssim, 3)), cell(mean, number(mean, 2)), cell(least, number(least, 2)),
        ])  # fmt: skip
    if not rows:
        return None
    note = (
        "A person publishes photos, not crops. The noise is laid back onto the photo; when the face is cropped anew with the same "
        "alignment, the correlation says how like the noise found again is to what was meant: 1 the same pattern, whatever its strength, "
        "0 another."
    )
    columns = ["Arm", "Photos", "Largest change", "PSNR", "SSIM", "Mean correlation", "Least correlation"]
    return Table("photos", "The way back to the photo", columns, rows, note)


def utility_table(metrics: dict[str, Any]) -> Table | None:
    """Whether software that knows faces already still finds and matches the protected ones."""
    rows: list[list[Cell]] = []
    everywhere = [record.get("utility") for record in noisy(metrics).values()]
    for arm, record in noisy(metrics).items():
        utility = record.get("utility") or {}
        seen = utility.get("detector")
        found, moved, photos = at(seen, "found"), at(seen, "landmarks_px"), at(seen, "photos")
        shift = f"; landmarks moved {moved:.1f} px" if is_number(moved) else ""
        what = f"the detector finds the face again, of {number(photos)} photos in which it did{shift}"
        if seen:
            rows.append([head(arm), Cell(what, what), Cell("all of them", "all of them"), cell(found, percent(found))])
        for name, one in (utility.get("match") or {}).items():
            if one:
                before, after, pairs = at(one, "clean"), at(one, "protected"), at(one, "pairs")
                whom = called(metrics, name) + (", which the cloak was made against," if was_known(metrics, arm, name) else "")
                what = f"{whom} matches two photos of a person (TAR at FAR {rate_text(str(at(one, 'far')))}, {number(pairs)} pairs)"
                rows.append([head(arm), Cell(what, what), cell(before, percent(before)), cell(after, percent(after))])
    if not everywhere:
        return None
    matched = any(one for utility in everywhere for one in (at(utility, "match") or {}).values())
    missing = []
    if not any(at(utility, "detector") for utility in everywhere):
        missing.append("the detector finds the face again (asked of whole photos)")
    if not matched:
        known = any(at(utility, "match") for utility in everywhere)
        missing.append(f"an existing recogniser matches two photos of a person: {'too few pairs' if known else 'give REFERENCE='}")
    rows += [[head("all arms"), Cell(what, what), *[cell(None, NOT_MEASURED)] * 2] for what in missing]
    note = "What stays high here is good for the person, whose own software goes on working."
    if matched:
        note += (
            " It is also what noise against training is not made for: to hide anybody from a recogniser that exists already. Matched is a "
            "protected photo to other, clean photos of its owner."
        )
        if any(made_against(metrics, arm) for arm in metrics["arms"]):
            note += " A cloak is to keep the recognisers that it was made against from matching, the person’s own software among them."
    note += " Landmarks are in pixels of the 112 px crop, the median where the face was found."
    return Table("utility", "What goes on working", ["Arm", "What", "Clean photos", "Protected photos"], rows, note)


def noise_table(metrics: dict[str, Any]) -> Table | None:
    """How the noise of each arm was found."""
    rows = []
    for arm, record in noisy(metrics).items():
        noise = record.get("noise") or {}
        rounds, error, epsilon, seconds = (noise.get(key) for key in ("rounds", "error", "epsilon", "seconds"))
        searched = not ("converged" in noise and noise["converged"] is None)
        steps = noise.get("steps")
        done = yes_no(noise.get("converged")) if searched else f"{steps} steps, no test" if is_number(steps) else "not searched"
        tone = {"yes": "good", "no": "warn", NOT_MEASURED: "missing"}.get(done, "quiet")
        method = " · ".join(str(noise[key]) for key in ("method", "rule") if noise.get(key))
        method += " · without colour" if noise.get("grey") else ""
        method += " · through transforms" if noise.get("transforms") else ""
        method += f" · on {noise['binding']}" if noise.get("binding") else ""
        learned = [f"{one['model']} (names {percent(one['names'])} of their clean photos)" for one in noise.get("surrogates") or []]
        method += f" · against {' and '.join(learned)}" if learned else ""
        method += f" · against {', '.join(known)}" if (known := made_against(metrics, arm)) else ""
        method += " · patterns of an earlier run, found on its photos" if noise.get("given") else ""
        if is_number(beneath := at(noise, "beneath", "epsilon")):
            method += f" · over an error-minimizing pattern of {level(beneath)}"
        unmoved = noise.get("error_on_others")
        errs = f"{percent(error)}; on other people’s photos {percent(unmoved)}" if is_number(unmoved) else percent(error)
        rows.append([
            head(arm), Cell(method or NOT_RECORDED, method, "" if method else "missing"), cell(epsilon, level(epsilon)),
            cell(rounds, number(rounds)) if searched else Cell("–", tone="quiet"), Cell(done, done, tone),
            cell(error, errs) if searched else Cell("–", tone="quiet"), cell(seconds, duration(seconds)),
        ])  # fmt: skip
    if not rows:
        return None
    note = ""
    if any(at(record, "noise", "rounds") for record in noisy(metrics).values()):
        note = (
            "The search stops when the surrogate errs on few enough of the noisy photos, after as many rounds as are asked for at the "
            "least, or at its cap of rounds: then it did not converge."
        )
    if any((record.get("noise") or {}).get("binding") for record in noisy(metrics).values()):
        note += (
            " Noise searched on other people’s photos goes all its rounds, and converged if the surrogate then errs on few of its owners’. "
            "On the others’ it errs where a face outweighs the pattern."
        )
    columns = ["Arm", "Method", "ε", "Rounds", "Converged", "Surrogate error", "Time"]
    return Table("noise", "Search for the noise", columns, rows, note)
