"""The report's tables of what lies beyond naming by one trainer: verification, search, detection of the noise, other trainers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.evaluation.verdict import EARLY
from pipeline.report.cells import INVALID, Cell, Table, cell, deviation, head, rate_order, rate_text
from pipeline.report.table import GROUPS, accuracy_of
from pipeline.report.validity import counts, counts_elsewhere
from pipeline.report.views import called, from_where, headline_arm, seeds_of, was_known
from pipeline.report.words import NOT_MEASURED, NOT_RECORDED, OF_EACH_SEED, at, interval, is_number, number, percent


def without_interval(metrics: dict[str, Any]) -> str:
    """What stands where there is no interval: runs that are joined have theirs in their own reports."""
    return OF_EACH_SEED if len(seeds_of(metrics)) > 1 else NOT_MEASURED


def verification_table(metrics: dict[str, Any]) -> Table:
    """Verification of each arm's model, of people never trained on, of the protected and of the others."""
    lines: list[tuple[str, Any]] = []
    for arm, record in metrics["arms"].items():
        found = record.get("verification")
        lines.append((arm, found))
        lines += [(arm, one) for one in (at(found, "groups") or {}).values() if one]
    rates = sorted({rate for _, one in lines for rate in at(one, "tar_at_far") or {}}, key=rate_order, reverse=True)
    rows = []
    for arm, one in lines:
        auc, span, eer = (at(one, key) for key in ("auc", "auc_ci95", "eer"))
        tars = [at(one, "tar_at_far", rate) for rate in rates]
        counted = [cell(at(one, key), number(at(one, key))) for key in ("identities", "pairs")]
        of = str(at(one, "of") or NOT_RECORDED)
        known = isinstance(span, list) and all(map(is_number, span))
        between = f"{span[0]:.3f}–{span[1]:.3f}" if known else without_interval(metrics)
        found = [
            cell(auc, number(auc, 4)), cell(span[0] if known else None, between), cell(eer, percent(eer)),
            *[cell(tar, percent(tar)) for tar in tars],
        ]  # fmt: skip
        shown = found if one is None or counts(metrics, arm) else [INVALID] * len(found)
        rows.append([head(arm), Cell(of, of), *shown, *counted])
    note = (
        "All photos are clean ones that no training of this run used. "
        "AUC is 0.5 for a model that cannot tell people apart and 1 for one that always can; its interval is resampled by identity. A rate "
        "that would rest on less than one pair of two people is not measured."
    )
    columns = ["Arm", "Pairs of", "AUC", "95% interval", "EER", *[f"TAR at FAR {rate_text(rate)}" for rate in rates], "People", "Pairs"]
    return Table("verification", "Do two photos show the same person?", columns, rows, note)


def lfw_table(metrics: dict[str, Any]) -> Table | None:
    """Verification by LFW's protocol, of each arm's model and of the reference that shows the protocol to be right."""
    found = {}
    for arm, record in metrics["arms"].items():
        for name, one in (record.get("lfw") or {}).items():
            if one:  # a reference was trained elsewhere, so no check of the run's own training concerns it
                found[arm if name == "own" else f"reference: {called(metrics, name)}"] = one, name != "own" or counts(metrics, arm)
    if not found:
        return None
    rows = []
    for name, (one, valid) in found.items():
        accuracy, error, auc, eer, pairs = (at(one, key) for key in ("accuracy", "standard_error", "auc", "eer", "pairs"))
        tars = [at(one, "tar_at_far", rate) for rate in ("0.01", "0.001")]
        measured = [
            cell(accuracy, f"{percent(accuracy)} ± {percent(error)}"), cell(auc, number(auc, 4)), cell(eer, percent(eer)),
            *[cell(tar, percent(tar)) for tar in tars],
        ]  # fmt: skip
        counted = [cell(pairs, number(pairs)), cell(at(one, "pairs_left_out"), number(at(one, "pairs_left_out")))]
        rows.append([head(name), *(measured if valid else [INVALID] * len(measured)), *counted])
    note = "Ten folds: the threshold is chosen on nine and tested on the tenth; mean ± standard error. Pairs left out had a face not found."
    columns = ["Recogniser", "Accuracy", "AUC", "EER", "TAR at FAR 1%", "TAR at FAR 0.1%", "Pairs", "Left out"]
    return Table("lfw", "Labeled Faces in the Wild", columns, rows, note)


def identification_table(metrics: dict[str, Any]) -> Table | None:
    """Open-set identification of the protected people by each arm's model, and by those trained elsewhere where there were any."""
    found = {
        (arm, kind): record["identification"][kind]
        for arm, record in metrics["arms"].items()
        for kind in record.get("identification") or {}
        if at(record, "identification", kind)
    }
    if not found:
        return None
    rates = sorted({rate for one in found.values() for rate in at(one, "tpir_at_fpir") or {}}, key=rate_order)
    rows = []
    for (arm, kind), one in found.items():
        model = "trained on this arm’s photos" if kind == "own" else f"{called(metrics, kind)}: {from_where(metrics, arm, kind)}"
        model += "; the cloak was made against it" if was_known(metrics, arm, kind) else ""
        rank1, span = at(one, "rank1"), at(one, "rank1_ci95")
        between = interval(span, at(one, "identities"))
        tpirs = [at(one, "tpir_at_fpir", rate) for rate in rates]
        measured = [
            cell(rank1, percent(rank1), heat=rank1 if is_number(rank1) else None),
            cell(span[0] if isinstance(span, list) else None, without_interval(metrics) if between == NOT_MEASURED else between),
            *[cell(tpir, percent(tpir)) for tpir in tpirs],
        ]
        valid = counts(metrics, arm) if kind == "own" else counts_elsewhere(metrics, arm)
        shown = measured if valid else [INVALID] * len(measured)
        rows.append([head(arm), Cell(model, model), *shown, cell(at(one, "strangers"), number(at(one, "strangers")))])
    note = (
        "Enrolled is each protected person by the mean embedding of the photos this arm publishes, clean ones where it has no noise; "
        "searched for are their clean photos, among clean photos of people who are not enrolled: the others and those kept out of training."
    )
    if "removed" in metrics["arms"]:
        note += " “Removed” was trained without them, as if a protection against training were perfect."
    if all(kind == "own" for _, kind in found):
        note += " By a recogniser trained elsewhere, as face search has one: not measured; give REFERENCE=."
    rated = [f"TPIR at FPIR {rate_text(rate)}" for rate in rates]
    columns = ["Arm", "Recogniser", "Rank 1", "95% interval", *rated, "Photos of people not enrolled"]
    return Table("identification", "Searching the protected people in a gallery", columns, rows, note)


def separability_table(metrics: dict[str, Any]) -> Table | None:
    """What a linear model sees of each arm's noise."""
    rows = []
    for arm, record in metrics["arms"].items():
        one = record.get("separability")
        if not one:
            continue
        auc, before, after, guess = (
            at(one, "detection", "auc"), at(one, "naming", "clean"), at(one, "naming", "protected"), at(one, "naming", "chance"),
        )  # fmt: skip
        rows.append([
            head(arm), cell(auc, number(auc, 3), heat=auc if is_number(auc) else None), cell(before, percent(before)),
            cell(after, percent(after), heat=after if is_number(after) else None), cell(guess, percent(guess)),
        ])  # fmt: skip
    if not rows:
        return None
    note = (
        "Detection: can a linear model on frequencies, shown photos with and without this noise, tell protected from clean photos of "
        "people it has not seen (AUC; 0.5: it cannot, 1: always)? Naming: how often a linear model fitted on the pixels of some photos, "
        "made small, names the person in others of the same kind: clean ones by what it sees of faces, those with noise by that and the "
        "noise. What noise adds is the name that it carries. Whether a network relies on that, accuracy says."
    )
    columns = ["Arm", "Detection", "Naming, clean", "Naming, with noise", "Chance"]
    return Table("separability", "What a linear model sees of the noise", columns, rows, note)


TRIAL_NOTES = {
    "countermeasures": (
        "Accuracy on clean test photos after the last epoch; with early stopping after the protected people’s best epoch. The "
        "stronger the colour, the more is named. A countermeasure says something only where the clean arm still learned; where it did not, "
        "other arms may be spared it. What changes noise alone, as cropping anew does, has no clean arm and needs none."
    ),
    "trainers": (
        "Accuracy on clean test photos after the last epoch. A trainer says something only where it learned the protected people in the "
        "clean arm."
    ),
    "shares": "The rest of their photos leaked clean. Accuracy on clean test photos after the last epoch.",
}


def trial_tables(metrics: dict[str, Any], section: str, column: str, what: str) -> list[Table]:
    """Arm × trial of one section of the metrics, for protected and others, the study's own training first; none where nothing was measured.

    The verdict's arm has its interval beside it, and its best epoch where it is that which the noise lost by.

    Args:
        section: `countermeasures`, `trainers` or `shares`. column: heading of the trials. what: end of the caption, such as "by trainer".
    """
    measured = metrics.get(section) or {}
    titles = metrics.get("trial_titles") or {}
    arms = list(dict.fromkeys([*metrics["arms"], *(arm for record in measured.values() for arm in record)]))
    # Early stopping is known of every arm: where more was tried with noise, the arms that it was tried on are shown.
    tried = [record for name, record in measured.items() if name != EARLY and set(record) - {"clean"}] or list(measured.values())
    arms = [arm for arm in arms if any(arm in record for record in tried)]
    headline = headline_arm(metrics)
    by_peak = {row["trial"] for row in metrics.get("lost_to") or [] if row["peak"]}
    own = {arm: own_record(record) for arm, record in metrics["arms"].items()}
    tables = []
    for group, who in zip(GROUPS, ("protected", "other"), strict=True):
        rows, spans = [], any(at(record, arm, f"{group}_ci95") for record in measured.values() for arm in [headline or ""])
        for name, record in [("", own), *measured.items()]:
            line = [head(str(titles.get(name, name)) if name else "the study’s own training")]
            for arm in arms:
                value, span, best = (at(record, arm, key) for key in (group, f"{group}_ci95", f"{group}_peak"))
                value = accuracy_of(value)
                text = percent(value) + deviation(at(record, arm), f"{group}_sd")
                text += f" (best epoch {percent(best)})" if arm == headline and group == "protected" and name in by_peak else ""
                found = [cell(value, text, heat=value if is_number(value) else None)]
                if spans and arm == headline:
                    found.append(cell(span[0], interval(span)) if isinstance(span, list) else Cell("–", tone="quiet"))
                line += [INVALID] * len(found) if is_number(value) and not counts(metrics, arm) else found
            rows.append(line)
        if any(is_number(accuracy_of(at(record, arm, group))) for record in measured.values() for arm in arms):
            columns = [column, *[text for arm in arms for text in [arm, *(["95% interval"] if spans and arm == headline else [])]]]
            tables.append(Table(f"{section}-{group}", f"Accuracy of {who} people {what}", columns, rows))
    if tables:
        tables[-1] = replace(tables[-1], note=TRIAL_NOTES[section])
    return tables


def own_record(record: dict[str, Any]) -> dict[str, Any]:
    """An arm's accuracies in the study itself in the shape that a trial's have."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        one = record.get(group)
        found |= {group: accuracy_of(one), f"{group}_ci95": at(one, "ci95"), f"{group}_sd": at(one, "sd")}
    return found
