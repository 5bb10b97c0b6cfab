"""The report's tables and facts: what `metrics.json` says, in the words and digits that a reader sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.report.table import GROUPS, accuracy_of
from pipeline.report.words import (
    NOT_MEASURED,
    NOT_RECORDED,
    at,
    duration,
    interval,
    is_number,
    level,
    number,
    percent,
    plural,
    yes_no,
)

NAMES_SHOWN = 500
IDENTITY_ROWS = 200


@dataclass(frozen=True)
class Cell:
    """What stands in a table: `text` for people, `sort` for sorting, `tone` a style class, `heat` a share for a coloured ground."""

    text: str
    sort: float | str | None = None
    tone: str = ""
    heat: float | None = None


@dataclass(frozen=True)
class Table:
    """One table. `spans` are headings over several columns, (text, columns), the first column not counted."""

    key: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    spans: list[tuple[str, int]] = field(default_factory=list)
    foot: list[list[Cell]] = field(default_factory=list)

    def numeric(self, column: int) -> bool:
        """Whether the column holds numbers, and so stands flush right."""
        cells = [row[column] for row in self.rows]
        return column > 0 and (any(is_number(one.sort) for one in cells) or all(one.sort is None for one in cells))


def cell(value: Any, text: str, *, tone: str = "", heat: float | None = None) -> Cell:
    """A cell of a number; what was not measured is toned down."""
    return Cell(text, value if is_number(value) else None, tone or ("missing" if text in (NOT_MEASURED, NOT_RECORDED) else ""), heat)


def head(name: str) -> Cell:
    """The first cell of a row."""
    return Cell(name, name)


def accuracy_table(metrics: dict[str, Any]) -> Table:
    """Protected and others in every arm: last epoch, interval by identity, best epoch."""
    rows = []
    for arm, record in metrics["arms"].items():
        line = [head(arm)]
        for group in GROUPS:
            one = record.get(group)
            if one is None and group in record:
                line += [Cell("nobody", tone="missing"), Cell("–", tone="missing"), Cell("–", tone="missing")]
                continue
            final, span, peak, epoch = (at(one, key) for key in ("final", "ci95", "peak", "peak_epoch"))
            when = f" (epoch {epoch})" if is_number(peak) and is_number(epoch) else ""
            line += [
                cell(final, percent(final) + deviation(one), tone="strong" if is_number(final) else ""),
                cell(span[0] if interval(span) != NOT_MEASURED else None, interval(span)),
                cell(peak, percent(peak) + when),
            ]
        rows.append(line)
    chance = metrics.get("chance")
    seeds = at(metrics, "provenance", "seeds") or []
    again = f" Means over {len(seeds)} seeds ± standard deviation; intervals are resampled by seed, too." if len(seeds) > 1 else ""
    foot = [[head("chance level"), *[cell(chance, percent(chance)), Cell(""), Cell("")] * len(GROUPS)]]
    return Table(
        "accuracy",
        "Accuracy on clean test photos",
        ["Arm", *["Last epoch", "95% interval", "Best epoch"] * len(GROUPS)],
        rows,
        "“Protected” are the same people in every arm, so the clean arm is their baseline. Intervals are resampled by identity." + again,
        [("Protected people", 3), ("Other people", 3)],
        foot,
    )


def deviation(record: Any) -> str:
    """ " ± 0.8" (percentage points) where several seeds were run, else nothing."""
    spread = at(record, "sd")
    return f" ± {spread * 100:.1f}" if is_number(spread) else ""


def visibility_table(metrics: dict[str, Any]) -> Table | None:
    """How visible the change is, on the aligned face."""
    rows = []
    for arm, record in noisy(metrics).items():
        seen = record.get("imperceptibility")
        linf, psnr, ssim, mean = at(seen, "linf"), at(seen, "psnr_db"), at(seen, "ssim"), at(record, "noise", "mean_abs")
        rows.append([
            head(arm), cell(linf, level(linf)), cell(mean, NOT_MEASURED if not is_number(mean) else f"{mean:.1f}/255"),
            cell(psnr, number(psnr, 1, " dB")), cell(ssim, number(ssim, 3)),
        ])  # fmt: skip
    if not rows:
        return None
    note = "Measured on the saved files, decoded back. The larger PSNR and SSIM, the less visible; SSIM is 1 where nothing changed."
    return Table("visibility", "Change of the face crops", ["Arm", "Largest change", "Mean change", "PSNR", "SSIM"], rows, note)


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
        "alignment, the correlation says how much of the noise is found again: 1 is all of it, 0 nothing."
    )
    columns = ["Arm", "Photos", "Largest change", "PSNR", "SSIM", "Mean correlation", "Least correlation"]
    return Table("photos", "The way back to the photo", columns, rows, note)


def noise_table(metrics: dict[str, Any]) -> Table | None:
    """How the noise of each arm was found."""
    rows = []
    for arm, record in noisy(metrics).items():
        noise = record.get("noise") or {}
        rounds, error, epsilon, seconds = (noise.get(key) for key in ("rounds", "error", "epsilon", "seconds"))
        searched = not ("converged" in noise and noise["converged"] is None)
        done = yes_no(noise.get("converged")) if searched else "not searched"
        tone = {"yes": "good", "no": "warn", NOT_MEASURED: "missing"}.get(done, "quiet")
        method = " · ".join(str(noise[key]) for key in ("method", "rule") if noise.get(key))
        rows.append([
            head(arm), Cell(method or NOT_RECORDED, method, "" if method else "missing"), cell(epsilon, level(epsilon)),
            cell(rounds, number(rounds)), Cell(done, done, tone),
            cell(error, percent(error)) if searched else Cell("–", tone="quiet"), cell(seconds, duration(seconds)),
        ])  # fmt: skip
    if not rows:
        return None
    note = "The search stops when the surrogate errs on few enough of the noisy photos, or at its cap of rounds: then it did not converge."
    columns = ["Arm", "Method", "ε", "Rounds", "Converged", "Surrogate error", "Time"]
    return Table("noise", "Search for the noise", columns, rows, note)


def verification_table(metrics: dict[str, Any]) -> Table:
    """Verification of each arm's model, with whatever false accept rates were measured."""
    records = {arm: record.get("verification") for arm, record in metrics["arms"].items()}
    rates = sorted({rate for one in records.values() for rate in at(one, "tar_at_far") or {}}, key=rate_order, reverse=True)
    rows = []
    for arm, one in records.items():
        auc, eer, pairs = at(one, "auc"), at(one, "eer"), at(one, "pairs")
        tars = [at(one, "tar_at_far", rate) for rate in rates]
        rows.append([
            head(arm), cell(auc, number(auc, 4)), cell(eer, percent(eer)), *[cell(tar, percent(tar)) for tar in tars],
            cell(pairs, number(pairs)),
        ])  # fmt: skip
    of = {str(one["of"]) for one in records.values() if isinstance(one, dict) and one.get("of")}
    note = f"Pairs of {'; '.join(sorted(of))}. " if of else ""
    note += "AUC is 0.5 for a model that cannot tell people apart and 1 for one that always can."
    columns = ["Arm", "AUC", "EER", *[f"TAR at FAR {rate_text(rate)}" for rate in rates], "Pairs"]
    return Table("verification", "Do two photos show the same person?", columns, rows, note)


def rate_order(rate: str) -> float:
    """A false accept rate as a number; what is none sorts last."""
    try:
        return float(rate)
    except ValueError:
        return -1.0


def rate_text(rate: str) -> str:
    """0.001 → 0.1%."""
    value = rate_order(rate)
    return f"{value * 100:g}%" if value >= 0 else rate


def trial_tables(metrics: dict[str, Any], section: str, column: str, what: str) -> list[Table]:
    """Arm × trial of one section of the metrics, for protected and others, the study's own training first; none where nothing was measured.

    Args:
        section: `countermeasures`, `trainers` or `shares`. column: heading of the trials. what: end of the caption, such as "by trainer".
    """
    measured = metrics.get(section) or {}
    titles = metrics.get("trial_titles") or {}
    arms = list(dict.fromkeys([*metrics["arms"], *(arm for record in measured.values() for arm in record)]))
    arms = [arm for arm in arms if any(arm in record for record in measured.values())]
    own = {arm: {group: accuracy_of(at(record, group)) for group in GROUPS} for arm, record in metrics["arms"].items()}
    tables = []
    for group, who in zip(GROUPS, ("protected", "other"), strict=True):
        rows = []
        for name, record in [("", own), *measured.items()]:
            values = [accuracy_of(at(record, arm, group)) for arm in arms]
            title = str(titles.get(name, name)) if name else "the study’s own training"
            rows.append([head(title), *[cell(value, percent(value), heat=value if is_number(value) else None) for value in values]])
        if measured and any(is_number(one.sort) for row in rows[1:] for one in row[1:]):
            caption = f"Accuracy of {who} people {what}"
            tables.append(Table(f"{section}-{group}", caption, [column, *arms], rows))
    return tables


def lfw_table(metrics: dict[str, Any]) -> Table | None:
    """Verification by LFW's protocol, of each arm's model and of the reference that shows the protocol to be right."""
    found = {}
    for arm, record in metrics["arms"].items():
        for name, one in (record.get("lfw") or {}).items():
            if one:
                found[arm if name == "own" else f"reference: {name}"] = one
    if not found:
        return None
    rows = []
    for name, one in found.items():
        accuracy, error, auc, eer, pairs = (at(one, key) for key in ("accuracy", "standard_error", "auc", "eer", "pairs"))
        tars = [at(one, "tar_at_far", rate) for rate in ("0.01", "0.001")]
        rows.append([
            head(name), cell(accuracy, f"{percent(accuracy)} ± {percent(error)}"), cell(auc, number(auc, 4)), cell(eer, percent(eer)),
            *[cell(tar, percent(tar)) for tar in tars], cell(pairs, number(pairs)),
            cell(at(one, "pairs_left_out"), number(at(one, "pairs_left_out"))),
        ])  # fmt: skip
    note = "Ten folds: the threshold is chosen on nine and tested on the tenth; mean ± standard error. Pairs left out had a face not found."
    columns = ["Recogniser", "Accuracy", "AUC", "EER", "TAR at FAR 1%", "TAR at FAR 0.1%", "Pairs", "Left out"]
    return Table("lfw", "Labeled Faces in the Wild", columns, rows, note)


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
        "Detection: can a linear model on frequencies tell protected from clean photos of people it has not seen (AUC; 0.5: it cannot, 1: "
        "always)? What is detected can be left out of training or cleaned. Naming: how often a linear model on small pictures names the "
        "person; where noise raises it, the noise alone is the shortcut that a network takes."
    )
    columns = ["Arm", "Detection", "Naming, clean", "Naming, with noise", "Chance"]
    return Table("separability", "What a linear model sees of the noise", columns, rows, note)


def identification_table(metrics: dict[str, Any]) -> Table | None:
    """Open-set identification of the protected people by each arm's model, and by the pretrained one where there was one."""
    found = {
        (arm, kind): record["identification"][kind]
        for arm, record in metrics["arms"].items()
        for kind in ("own", "pretrained")
        if at(record, "identification", kind)
    }
    if not found:
        return None
    rates = sorted({rate for one in found.values() for rate in at(one, "tpir_at_fpir") or {}}, key=rate_order)
    rows = []
    for (arm, kind), one in found.items():
        model = "trained on this arm’s photos" if kind == "own" else "pretrained, trained on none of them"
        rank1, span = at(one, "rank1"), at(one, "rank1_ci95")
        tpirs = [at(one, "tpir_at_fpir", rate) for rate in rates]
        rows.append([
            head(arm), Cell(model, model), cell(rank1, percent(rank1), heat=rank1 if is_number(rank1) else None),
            cell(span[0] if interval(span) != NOT_MEASURED else None, interval(span)), *[cell(tpir, percent(tpir)) for tpir in tpirs],
            cell(at(one, "strangers"), number(at(one, "strangers"))),
        ])  # fmt: skip
    note = (
        "Enrolled is each protected person by the mean embedding of the photos this arm publishes (clean ones in clean and removed); "
        "searched for are their clean photos, among clean photos of strangers. “Removed” is the best that any protection against "
        "training could do."
    )
    columns = ["Arm", "Recogniser", "Rank 1", "95% interval", *[f"TPIR at FPIR {rate_text(rate)}" for rate in rates], "Strangers"]
    return Table("identification", "Searching the protected people in a gallery", columns, rows, note)


def identity_table(metrics: dict[str, Any]) -> Table | None:
    """Accuracy of each protected identity in every arm, at most `IDENTITY_ROWS` of them."""
    arms = {arm: at(record, "protected", "per_identity") for arm, record in metrics["arms"].items()}
    arms = {arm: each for arm, each in arms.items() if each}
    names = list(dict.fromkeys(name for each in arms.values() for name in each))
    if not names:
        return None
    rows = [[head(str(name)), *[cell(at(each, name), percent(at(each, name))) for each in arms.values()]] for name in names]
    note = f"The first {IDENTITY_ROWS} of {len(names):,}; metrics.csv has all." if len(names) > IDENTITY_ROWS else ""
    return Table("identities", "Accuracy of each protected person", ["Identity", *arms], rows[:IDENTITY_ROWS], note)


def noisy(metrics: dict[str, Any]) -> dict[str, Any]:
    """The arms that changed photos: all that carry noise or measures of it."""
    return {arm: record for arm, record in metrics["arms"].items() if record.keys() & {"noise", "imperceptibility", "photos"}}


def headline_arm(metrics: dict[str, Any]) -> str | None:
    """The arm the verdict speaks of: the first error-minimizing one, else the first with noise."""
    arms = [arm for arm in metrics["arms"] if arm.startswith("error-min")] or list(noisy(metrics))
    return arms[0] if arms else None


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
    if is_number(moved):
        held.append(f"{plural(moved, 'near-duplicate', 'near-duplicates')} moved out of the test photos")
    kind = str(training.get("kind") or "").strip()
    how = f"{training.get('model') or 'model ' + NOT_RECORDED}, {kind if kind.startswith('fine') else 'trained ' + (kind or NOT_RECORDED)}"
    people, classes = metrics.get("identities"), metrics.get("classes")
    return [
        ("Protected", [plural(people, "person", "people"), f"of {number(classes)} the recogniser learns"]),
        ("Setting", [settings.get(str(metrics.get("setting")), str(metrics.get("setting") or NOT_RECORDED))]),
        ("Against", [how, plural(training.get("epochs"), "epoch", "epochs")]),
        ("Change allowed", [", ".join(level(one) for one in sorted(epsilon)) + " a colour value" if epsilon else NOT_RECORDED]),
        ("Data set", [str(data.get("name") or NOT_RECORDED), plural(data.get("identities"), "person", "people")]),
        ("Photos", photos),
        ("Split", held),
        ("Noise search also sees", [f"Clean photos of {plural(split.get('auxiliary'), 'other person', 'other people')}"]),
        ("Chance level", [f"{percent(metrics.get('chance'))}: a guess among {number(classes)}"]),
        ("Seeds", [", ".join(str(seed) for seed in at(metrics, "provenance", "seeds") or []) or NOT_RECORDED]),
    ]


def key_numbers(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The few numbers on top: (what, value, small print, style class)."""
    arm = headline_arm(metrics)
    if arm is None:
        return []
    mine, clean = metrics["arms"][arm], metrics["arms"].get("clean")
    found = [
        ("Protected people, last epoch", *last(mine, "protected"), "protected"),
        ("Protected people, best epoch", *peak(mine), "protected"),
        ("Same people, without protection", *last(clean, "protected"), ""),
    ]
    if not ("others" in mine and mine["others"] is None):
        found.append(("Other people, last epoch", last(mine, "others")[0], f"{last(clean, 'others')[0]} without protection", "others"))
    psnr, linf = at(mine, "imperceptibility", "psnr_db"), at(mine, "imperceptibility", "linf")
    found.append(("Largest change of a pixel", level(linf), f"PSNR of the face {number(psnr, 1, ' dB')}", ""))
    return found


def last(record: Any, group: str) -> tuple[str, str]:
    """The final accuracy and its interval."""
    value, span = at(record, group, "final"), at(record, group, "ci95")
    return percent(value), f"95% interval {interval(span)}" if is_number(value) else ""


def peak(record: Any) -> tuple[str, str]:
    """The best accuracy of the protected and its epoch."""
    value, epoch = at(record, "protected", "peak"), at(record, "protected", "peak_epoch")
    return percent(value), f"epoch {epoch}" if is_number(epoch) else ""


def checks_of(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Validity checks: name, detail, and a state of good, bad (the verdict does not count) or warn."""
    found = []
    for one in metrics.get("checks") or []:
        state = "good" if one.get("ok") else "bad" if one.get("blocks", True) else "warn"
        found.append({"name": str(one.get("name")), "detail": str(one.get("detail") or ""), "state": state})
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
    run = [
        ("Run", str(metrics.get("run") or NOT_RECORDED)),
        ("Commit", commit + note),
        ("Created", str(source.get("created") or NOT_RECORDED)),
        ("Data set SHA-256", str(at(source, "dataset", "sha256") or NOT_RECORDED)),
        ("Schema", str(metrics.get("schema", NOT_RECORDED))),
    ]
    stages = {str(stage): value for stage, value in (source.get("seconds") or {}).items()}
    times = [(stage, duration(value)) for stage, value in stages.items()]
    trained = {arm: record.get("seconds", at(record, "training", "seconds")) for arm, record in metrics["arms"].items()}
    if not any(stage.startswith("train") for stage in stages):
        times += [(f"training, {arm}", duration(value)) for arm, value in trained.items() if is_number(value)]
    return {
        "This report": run,
        "Hardware": flat(source.get("hardware")),
        "Time": times or [("stages", NOT_RECORDED)],
        "Packages": [(str(name), str(found or "not installed")) for name, found in (source.get("packages") or {}).items()]
        or [("packages", NOT_RECORDED)],
    }


def flat(value: Any) -> list[tuple[str, str]]:
    """A dict's entries as text, or the value itself."""
    if isinstance(value, dict) and value:
        return [(str(name), str(one)) for name, one in value.items()]
    return [("machine", str(value) if value else NOT_RECORDED)]
