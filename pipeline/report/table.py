"""`metrics.csv`: every number of `metrics.json` that the report shows, one a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.artifacts import spreadsheet_safe
from pipeline.report.validity import why_invalid, why_run
from pipeline.report.words import at, is_number

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["arm", "group", "metric", "value", "lo", "hi", "epoch", "identity"]
GROUPS = ("protected", "others")
# What `arm_rows` reads of an arm's record in ways of their own, and what holds no numbers; all else is read as it stands.
READ = frozenset((
    *GROUPS, "verification", "identification", "lfw", "separability", "utility", "noise", "imperceptibility", "photos", "training",
    "tested", "invalid",
))  # fmt: skip


def metrics_frame(metrics: dict[str, Any]) -> pd.DataFrame:
    """Long-format table of a run's metrics.

    Numbers that do not count are there, too: `valid` of an arm (group `arm`) is 0 where its own checks failed or the run's did, `valid`
    of the run (no arm, group `run`) where the run's did.

    Returns:
        Columns `arm` (empty for the run itself), `group` (protected, others, or what was measured: verification, verification:<people>,
        noise, crops, photos, training, identification:<model>, lfw:<model>, separability:<kind>, utility:<what>, trainer:<name>,
        countermeasure:<name>, share:<name>, ordering, check; the arm itself, or its record's key for a measure that is none of these),
        `metric`, `value` (float; yes and no are 1 and 0; empty where not measured), `lo` and `hi` (95 % interval, by identity), `epoch`
        (rows of one epoch or round, and the peak's), `identity` (rows of one identity).
    """
    import pandas as pd  # heavy: only where a report is really made

    seeds, judged = at(metrics, "provenance", "seeds") or [], bool(metrics.get("checks") or metrics.get("verdict_state"))
    rows = run_rows(metrics, judged=judged)
    for arm, record in metrics.get("arms", {}).items():
        rows += arm_rows(arm, record, seeds)
        if judged:
            rows.append(row(arm, "arm", "valid", not why_invalid(metrics, arm)))
    rows += trial_rows(metrics)
    for one in metrics.get("paired") or []:
        what = f"paired difference to {one['against']}"
        rows.append(row(one["arm"], one["group"], what, one["difference"], span=one["ci95"]))
        rows += [row(one["arm"], one["group"], f"{what}: {key}", one.get(key)) for key in ("p", "identities")]
    rows += [row("", "ordering", str(one["claim"]).replace("’", "'"), one["holds"]) for one in metrics.get("orderings") or []]
    rows += [row("", "check", str(one["name"]).replace("’", "'"), one["ok"]) for one in metrics.get("checks", [])]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["identity"] = frame["identity"].map(spreadsheet_safe)
    for column in ("value", "lo", "hi"):
        frame[column] = frame[column].astype("float64")
    frame["epoch"] = frame["epoch"].astype("Int64")
    return frame


def row(arm: str, group: str, metric: str, value: Any, *, span: Any = None, epoch: int | None = None, identity: str = "") -> dict[str, Any]:
    """One row of the table; what is no number becomes an empty value."""
    if isinstance(value, bool):
        value = float(value)
    lo, hi = span if isinstance(span, (list, tuple)) and len(span) == 2 else (None, None)
    number = value if is_number(value) else None
    return dict(zip(COLUMNS, (arm, group, metric, number, lo, hi, epoch, identity), strict=True))


def run_rows(metrics: dict[str, Any], *, judged: bool) -> list[dict[str, Any]]:
    """Counts of the run itself, and, where it was judged, whether its accuracies count."""
    found = [row("", "run", name, metrics.get(name)) for name in ("identities", "classes", "chance")]
    if judged:
        found.append(row("", "run", "valid", not why_run(metrics)))
    found += [row("", "split", name, value) for name, value in (metrics.get("split") or {}).items() if is_number(value)]
    data = at(metrics, "provenance", "dataset") or {}
    found += [row("", "dataset", name, value) for name, value in data.items() if is_number(value)]
    rejected = data.get("rejected")
    if isinstance(rejected, dict):
        found += [row("", "rejected", reason, count) for reason, count in rejected.items()]
    stages = at(metrics, "provenance", "seconds") or {}
    return found + [row("", "seconds", stage, value) for stage, value in stages.items()]


def arm_rows(arm: str, record: dict[str, Any], seeds: list[int]) -> list[dict[str, Any]]:
    """Accuracy of both groups, verification, noise, visibility and training time of one arm."""
    found: list[dict[str, Any]] = []
    for group in GROUPS:
        accuracy = record.get(group)
        if not isinstance(accuracy, dict):
            continue
        found.append(row(arm, group, "accuracy", accuracy.get("final"), span=accuracy.get("ci95")))
        found.append(row(arm, group, "peak accuracy", accuracy.get("peak"), epoch=accuracy.get("peak_epoch")))
        if "sd" in accuracy:
            found.append(row(arm, group, "accuracy sd", accuracy["sd"]))
            by_seed = zip(seeds, accuracy.get("by_seed") or [], strict=True)
            found += [row(arm, group, f"accuracy of seed {seed}", one) for seed, one in by_seed]
        by_epoch = accuracy.get("by_epoch") or []
        found += [row(arm, group, "accuracy by epoch", value, epoch=epoch) for epoch, value in enumerate(by_epoch, 1)]
        each = accuracy.get("per_identity") or {}
        found += [row(arm, group, "accuracy of identity", value, identity=str(name)) for name, value in each.items()]
        photos = accuracy.get("test_photos") or {}
        found += [row(arm, group, "test photos of identity", count, identity=str(name)) for name, count in photos.items()]
    verification = record.get("verification") or {}
    found += number_rows(arm, "verification", {key: value for key, value in verification.items() if key not in ("roc", "groups")})
    roc = verification.get("roc") or {}
    points = zip(roc.get("far") or [], roc.get("tar") or [], strict=False)
    found += [row(arm, "verification", f"roc: tar at far {far:g}", tar) for far, tar in points]
    for who, one in (verification.get("groups") or {}).items():
        found += number_rows(arm, f"verification:{who}", one or {})
    for kind in ("identification", "lfw", "separability"):
        for name, one in (record.get(kind) or {}).items():
            found += number_rows(arm, f"{kind}:{name}", one or {})
    utility = record.get("utility") or {}
    for name, one in {"detector": utility.get("detector"), **(utility.get("match") or {})}.items():
        found += number_rows(arm, f"utility:{name}", one or {})
    for group, source in (("noise", "noise"), ("crops", "imperceptibility"), ("photos", "photos"), ("training", "training")):
        found += number_rows(arm, group, record.get(source) or {})
    for name in [name for name in record if name not in READ]:
        value = record[name]
        found += number_rows(arm, name, value) if isinstance(value, dict) else number_rows(arm, "arm", {name: value})
    return found


def number_rows(arm: str, group: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each number of a record, those in dicts and lists of dicts below it included; `<name>_ci95` becomes `lo` and `hi`.

    `{"auc": 0.9, "auc_ci95": [0.8, 1.0], "tar_at_far": {"0.01": 0.5}, "history": [{"round": 1, "error": 0.3}]}` gives the metrics `auc`,
    `tar_at_far 0.01` and, with `epoch` 1, `history error`.
    """
    found = []
    for name, value in record.items():
        if isinstance(value, bool) or is_number(value) or value is None:
            if not name.endswith("_ci95"):
                found.append(row(arm, group, name, value, span=record.get(f"{name}_ci95")))
        elif isinstance(value, dict):
            found += [one | {"metric": f"{name} {one['metric']}"} for one in number_rows(arm, group, value)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for place, inner in enumerate(value, 1):
                found += [one | {"metric": f"{name} {one['metric']}", "epoch": place} for one in number_rows(arm, group, inner)]
    return found


def trial_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracies under each trainer, countermeasure and share that was measured."""
    found = []
    for section, word in (("trainers", "trainer"), ("countermeasures", "countermeasure"), ("shares", "share")):
        for name, arms in (metrics.get(section) or {}).items():
            for arm, record in arms.items():
                for group in GROUPS:
                    value, span = accuracy_of(record.get(group)), record.get(f"{group}_ci95")
                    found.append(row(arm, f"{word}:{name}", f"{group} accuracy", value, span=span))
                    for key, words in (("peak", "peak accuracy"), ("sd", "accuracy sd")):
                        if f"{group}_{key}" in record:
                            found.append(row(arm, f"{word}:{name}", f"{group} {words}", record[f"{group}_{key}"]))
                if "seconds" in record:
                    found.append(row(arm, f"{word}:{name}", "seconds", record["seconds"]))
    return found


def accuracy_of(value: Any) -> Any:
    """A fraction, given as such or as a record with `final`."""
    return value.get("final") if isinstance(value, dict) else value
