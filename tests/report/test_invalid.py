"""What a failed check makes invalid stands nowhere in a page: not in a table, a figure's words, the comparison or the notebook."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EvaluateConfig
from pipeline.evaluation.check_names import CLAIM_ALONE, CLEAN_LEARNED, TRAINING_ALONE
from pipeline.evaluation.checks import arm_checks
from pipeline.report.compare import build_comparison
from pipeline.report.render import build_page, content_of
from pipeline.report.table import metrics_frame
from pipeline.report.validity import counts, explained, left_out, of_claim_alone, valid_arms, why_run
from pipeline.report.words import number, percent, points
from tests.report.sample import sample_metrics
from tests.report.test_render import words_of

ROOT = Path(__file__).resolve().parents[2]
LEARNED = "without protection the people to protect are named on 12.3% of their photos, at least 50% is needed for a claim"
STUCK = "did not converge in 9 rounds, surrogate error 43.2%"


def page_of(metrics: dict[str, Any]) -> str:
    return build_page(content_of(metrics))


def fresh_numbers() -> Iterator[float]:
    """Fractions that the sample's page says nowhere, each of which reads differently from the others."""
    said = page_of(sample_metrics()) + LEARNED + STUCK  # what a check itself found stays
    for tenth in range(100, 999):
        value = tenth / 1000 + 0.0003
        if percent(value)[:-1] not in said and number(value, 4) not in said:
            yield value


def replaced(value: Any, fresh: Iterator[float], found: list[float]) -> Any:
    """`value` with fresh numbers for its fractions, which are added to `found`; curves and the people nobody lists stay as they are."""
    if isinstance(value, dict):
        return {key: one if key in ("roc", "by_epoch") else replaced(one, fresh, found) for key, one in value.items()}
    if isinstance(value, list):
        return [replaced(one, fresh, found) for one in value]
    if isinstance(value, float):
        found.append(next(fresh))
        return found[-1]
    return value


def with_fresh_numbers(arms: list[str]) -> tuple[dict[str, Any], list[float], list[float]]:
    """The sample with fresh accuracies of `arms`; those, and the differences to other arms."""
    metrics, fresh = sample_metrics(), fresh_numbers()
    accuracies: list[float] = []
    differences: list[float] = []
    metrics["arms"]["clean"]["lfw"].pop("w600k_mbf")  # trained elsewhere: it says the same whatever was trained here
    for arm in arms:
        record = metrics["arms"][arm]
        record["others"]["per_identity"] = {}
        for section in ("protected", "others", "verification", "identification", "lfw"):
            if section in record:
                record[section] = replaced(record[section], fresh, accuracies)
    for section in ("trainers", "countermeasures", "shares"):
        for record in metrics[section].values():
            record |= {arm: replaced(record[arm], fresh, accuracies) for arm in arms if arm in record}
    for one in metrics["paired"]:
        if {one["arm"], one["against"]} & set(arms):
            one["difference"] = next(fresh)
            differences.append(one["difference"])
    return metrics, accuracies, differences


def shown(page: str, accuracies: list[float], differences: list[float]) -> set[float]:
    """Which of the numbers can be read in the page, or stand in it for sorting."""
    words = words_of(page)
    sorts = set(re.findall(r'data-sort="([^"]*)"', page))
    found = {one for one in accuracies if percent(one)[:-1] in words or number(one, 4) in words or str(one) in sorts}
    return found | {one for one in differences if points(one) in words or str(one) in sorts}


def clean_learned_nothing(metrics: dict[str, Any]) -> None:
    metrics["checks"][0] |= {"ok": False, "detail": LEARNED}
    metrics |= {"verdict_state": "invalid", "verdict": f"No claim: the check “clean arm learned” failed ({LEARNED}).", "lost_to": []}


def noise_did_not_converge(metrics: dict[str, Any]) -> None:
    metrics["checks"][1] |= {"ok": False, "detail": STUCK}
    metrics["arms"]["error-min"]["invalid"] = [f"noise converged: {STUCK}"]
    metrics |= {"verdict_state": "invalid", "verdict": f"No claim: the check “error-min: noise converged” failed ({STUCK}).", "lost_to": []}


def clean_was_tested_on_protected(metrics: dict[str, Any]) -> None:
    metrics["arms"]["clean"]["invalid"] = ["test photos are clean: scored on protected versions of the held-out photos"]
    metrics |= {"verdict_state": "invalid", "verdict": "No claim.", "lost_to": []}


def random_is_too_loud(metrics: dict[str, Any]) -> None:
    metrics["arms"]["random"]["invalid"] = ["epsilon kept on disk: largest change 17/255 of 16/255"]


EVERY = ["clean", "error-min", "random"]
HARMS = [
    (clean_learned_nothing, EVERY),
    (clean_was_tested_on_protected, EVERY),
    (noise_did_not_converge, ["error-min"]),
    (random_is_too_loud, ["random"]),
]


@pytest.mark.parametrize(("harm", "arms"), HARMS)
def test_no_number_of_an_invalid_arm_stands_anywhere(harm: Callable[[dict[str, Any]], None], arms: list[str]) -> None:
    metrics, accuracies, differences = with_fresh_numbers(arms)
    assert len(accuracies) > 60 * len(arms) and differences
    valid = shown(page_of(metrics), accuracies, differences)
    assert len(valid) > 0.9 * (len(accuracies) + len(differences)), "the numbers are looked for in the right places"
    harm(metrics)
    page = page_of(metrics)
    assert shown(page, accuracies, differences) == set()
    assert shown(build_comparison([metrics, sample_metrics() | {"run": "other"}]), accuracies, differences) == set()
    for arm in arms:
        assert f"{arm}: AUC" not in page and f'curve{EVERY.index(arm)}-title">{arm}:' not in page, "nor in a figure"
        assert not re.search(rf"{arm}: (protected \d|of \d|\d+ of)", words_of(page)), "nor in its words"
    for arm in set(EVERY) - set(arms):
        assert f"{arm}: AUC 0.9712" in page and percent(metrics["arms"][arm]["protected"]["final"]) in page


def test_the_reader_sees_why_and_what_the_checks_found() -> None:
    metrics, accuracies, _ = with_fresh_numbers(EVERY)
    clean_learned_nothing(metrics)
    page = page_of(metrics)
    top, rest = page.split("<nav")
    assert "Invalid: no claim" in words_of(top)
    assert "The whole run is invalid: the check “clean arm learned” failed." in words_of(top)
    assert words_of(top).count(LEARNED) == 1, "the reason once"
    checks = words_of(rest.split('<section id="checks">')[1].split("</section>")[0])
    assert f"clean arm learned not ok: every result is invalid {LEARNED}" in checks
    text = words_of(rest)
    assert "Accuracy by epoch: every arm is left out, because the run is invalid (not ok: clean arm learned)." in text
    assert "ROC: every arm is left out" in text
    for kept in ("29.8 dB", "16/255", "8.3%", "99.3%", "w600k_mbf matches two photos", "81.2%", "0.987"):
        assert kept in text, f"{kept} is no accuracy of this training"
    assert accuracies


def test_one_arm_is_left_out_and_the_others_stay() -> None:
    metrics = sample_metrics()
    random_is_too_loud(metrics)
    page = page_of(metrics)
    top, rest = page.split("<nav")
    assert "random is invalid: the check “epsilon kept on disk” failed (largest change 17/255 of 16/255)." in words_of(top)
    assert "Protected, but not against every trainer" in top and "3.8%" in top
    assert words_of(rest).count("Left out, because invalid: random (not ok: epsilon kept on disk).") == 4, "at each figure of accuracies"
    tables = {found[0]: found[1] for found in re.findall(r'<table id="([^"]*)".*?<tbody>(.*?)</tbody>', page, re.DOTALL)}
    for key, cells in {"accuracy": 6, "paired": 3, "orderings": 2, "identities": 50, "verification": 3 * 5, "identification": 4}.items():
        assert words_of(tables[key]).split().count("invalid") == cells, key
    assert "invalid" not in tables["visibility"] + tables["noise"] + tables["utility"]


def test_an_invalid_headline_leaves_the_clean_arm_its_numbers() -> None:
    metrics = sample_metrics()
    noise_did_not_converge(metrics)
    assert list(valid_arms(metrics)) == ["clean", "random"] and why_run(metrics) == []
    page = page_of(metrics)
    top = words_of(page.split("<nav")[0])
    assert "error-min is invalid: the check “error-min" not in top and "error-min is invalid: the check “noise converged” failed." in top
    assert "91.4%" in top and "3.8%" not in top and "Not tried here" not in top
    assert "Measured in this run: jpeg-50" not in words_of(page), "an invalid result measured nothing"


def test_too_few_people_leave_no_claim_but_the_numbers() -> None:
    metrics = sample_metrics()
    few = {"name": "enough identities for intervals", "ok": False, "detail": "3 protected, 20 are needed", "arm": None}
    metrics["checks"].append(few)
    metrics |= {"verdict_state": "invalid", "verdict": "No claim: too few people.", "lost_to": [], "held_against": []}
    assert explained(metrics) == [] and left_out(metrics, EVERY) == "" and list(valid_arms(metrics)) == EVERY
    page = page_of(metrics)
    words = words_of(page)
    assert "No claim" in words and "Invalid" not in words and ">invalid<" not in page
    assert "what was measured stands below, but nothing is claimed from it" in words and "Nothing is claimed." in words
    assert words.count("3.8%") >= 3 and "error-min: AUC" in page
    assert "enough identities for intervals not ok: nothing can be claimed" in words
    side_by_side = words_of(build_comparison([metrics, sample_metrics() | {"run": "other"}]))
    assert "no claim" in side_by_side and "invalid" not in side_by_side


def test_the_checks_that_are_told_apart_by_name_are_the_projects_own() -> None:
    names = {one["name"] for one in arm_checks({}, EvaluateConfig(), 16, set())} | {CLEAN_LEARNED}
    assert {name for name in names if of_claim_alone({"name": name})} == set(CLAIM_ALONE) < names
    assert names == {*CLAIM_ALONE, *TRAINING_ALONE}
    assert of_claim_alone({"name": f"seed 3: {CLAIM_ALONE[0]}"}) and not of_claim_alone({"name": "seed 3: clean arm learned"})


def test_without_an_arm_to_claim_anything_of_numbers_stand() -> None:
    metrics: dict[str, Any] = sample_metrics() | {
        "verdict_state": "invalid",
        "verdict": "No claim: no arm that is meant to protect was run.",
        "lost_to": [],
    }
    assert not counts(metrics, "clean"), "a verdict that says invalid and names nothing is believed"
    del metrics["arms"]["error-min"]
    assert counts(metrics, "clean") and "28.7%" in page_of(metrics)


def test_a_recogniser_trained_elsewhere_needs_no_training_here() -> None:
    metrics = sample_metrics()
    for record in metrics["arms"].values():
        record["identification"]["w600k_mbf"] = record["identification"]["own"] | {"rank1": 0.9521}
    clean_learned_nothing(metrics)
    words = words_of(page_of(metrics))
    assert "95.2%" in words and "73.1%" not in words
    assert "w600k_mbf, trained elsewhere, puts them first in 95.2% of searches (95.2% without protection)." in words
    metrics["checks"].append({"name": "seed 1: no photo on both sides", "ok": False, "detail": "9 photos are", "arm": None})
    assert "95.2%" not in words_of(page_of(metrics)), "it knows them by a photo it was given"
    one = sample_metrics()
    one["arms"]["error-min"]["identification"]["w600k_mbf"] = one["arms"]["error-min"]["identification"]["own"] | {"rank1": 0.9521}
    noise_did_not_converge(one)
    assert "95.2%" not in words_of(page_of(one)), "such noise was not meant"


def test_a_failed_check_of_one_seed_is_named_with_its_seed() -> None:
    metrics: dict[str, Any] = sample_metrics() | {"verdict": "No claim."}
    metrics["arms"]["random"]["invalid"] = ["seed 1: noise converged: it did not"]
    assert explained(metrics) == ["random is invalid: the check “seed 1: noise converged” failed (it did not)."]
    assert left_out(metrics, EVERY) == "Left out, because invalid: random (not ok: seed 1: noise converged)."
    metrics["checks"][0] |= {"name": "seed 1: clean arm learned", "ok": False}
    assert len(explained(metrics)) == 1 and "the check “seed 1: clean arm learned” failed" in explained(metrics)[0]


def test_the_table_keeps_numbers_and_says_which_count() -> None:
    def valid(metrics: dict[str, Any]) -> dict[str, float]:
        frame = metrics_frame(metrics)
        assert frame.query("arm == 'random' and group == 'protected' and metric == 'accuracy'")["value"].tolist() == [0.2875]
        rows = frame[frame["metric"] == "valid"]
        return dict(zip(rows["arm"] + "/" + rows["group"], rows["value"], strict=True))

    metrics = sample_metrics()
    assert valid(metrics) == {"/run": 1, "clean/arm": 1, "error-min/arm": 1, "random/arm": 1}
    random_is_too_loud(metrics)
    assert valid(metrics) == {"/run": 1, "clean/arm": 1, "error-min/arm": 1, "random/arm": 0}
    clean_learned_nothing(metrics)
    assert set(valid(metrics).values()) == {0}


def printed_of(metrics: dict[str, Any], folder: Path) -> str:
    """What the notebook of a finished run prints."""
    notebook = json.loads((ROOT / "notebooks" / "finished_run.ipynb").read_text(encoding="utf-8"))
    code = "\n\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    told = os.environ | {"RUN_FOLDER": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return html.unescape(done.stdout)


def test_the_notebook_says_whom_and_what_its_numbers_are_of(tmp_path: Path) -> None:
    metrics = sample_metrics()
    metrics["silent"] = [{"trial": "adversarial-4", "title": "adversarial training, radius 4/255", "clean": 0.2}]
    printed = printed_of(metrics, tmp_path)
    assert "named with error-min noise" in printed and re.search(r"says nothing +adversarial training", printed)


def test_the_notebook_says_invalid_too(tmp_path: Path) -> None:
    printed = []
    for harm in (random_is_too_loud, clean_learned_nothing):
        metrics = sample_metrics()
        harm(metrics)
        printed.append(printed_of(metrics, tmp_path))
    arm, run = printed
    assert re.search(r"^random( +invalid)+$", arm, re.MULTILINE) and "0.038" in arm and "0.287" not in arm
    assert "random is invalid: the check “epsilon kept on disk” failed" in arm
    assert len(re.findall(r"^(clean|error-min|random)( +invalid)+$", run, re.MULTILINE)) == 3
    assert "0.038" not in run and "0.914" not in run and "never recognised" not in run and LEARNED in run
