"""Runs side by side: every run's numbers are there, names are escaped, and what cannot be compared is refused."""

from __future__ import annotations

import copy
import html
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import RequestError, StageError
from pipeline.report.compare import build_comparison, compare_runs, trials_of_runs
from pipeline.report.words import percent
from tests.report.sample import NASTY, sample_metrics


def test_every_run_stands_in_the_page_with_its_numbers() -> None:
    one, two = sample_metrics(), sample_metrics()
    two |= {"run": f"folder-{NASTY}", "verdict": f"Not protected {NASTY}", "verdict_state": "fails"}
    two["arms"]["error-min"]["protected"] |= {"final": 0.4321, "peak": 0.5432}
    two["arms"]["error-min"]["noise"]["epsilon"] = 8
    del two["trainers"]
    page = build_comparison([one, two])
    assert NASTY not in page
    assert page.count("<svg") == 2
    assert "<script>" in page and "script-src 'sha256-" in page, "its tables sort, too"
    for text in (
        one["run"],
        html.escape(one["verdict"]),
        percent(0.4321),
        percent(0.5432),
        "8/255",
        "16/255",
        "ResNet-18, from scratch",
        "61.2%",
    ):
        assert text in page, text
    assert "http" not in page.replace("http-equiv", "")


def test_networks_of_one_name_are_not_taken_for_one_another() -> None:
    """`svm-reference` is whatever REFERENCE each run had."""
    runs: list[dict[str, Any]] = [sample_metrics() | {"run": name} for name in ("a", "b", "c")]
    for run, network, accuracy in zip(runs, ("w600k", "glint", "glint"), (0.1234, 0.2345, 0.3456), strict=True):
        run["trial_titles"] = run["trial_titles"] | {
            "svm-reference": f"embeddings of {network}, linear SVM",
            "resnet18": f"ResNet-18 {network}",
        }
        run["trainers"]["svm-reference"] = {"error-min": {"protected": accuracy, "others": 0.9}}
    (table,) = [one for one in trials_of_runs(runs) if one.key == "all-trainers"]
    numbers = {row[0].text: [one.text for one in row[1:] if one.text not in ("–",)] for row in table.rows}
    assert numbers["embeddings of w600k, linear SVM"] == ["12.3%"]
    assert numbers["embeddings of glint, linear SVM"] == ["23.4%", "34.6%"]
    assert "ResNet-18 w600k" in numbers and "ResNet-18 glint" not in numbers, "the same network in each"


def test_numbers_that_do_not_count_are_not_compared() -> None:
    one, two = sample_metrics(), sample_metrics()
    two["run"] = "other"
    two["arms"]["error-min"]["invalid"] = ["noise converged: did not converge in 9 rounds"]
    two["arms"]["error-min"]["protected"] |= {"final": 0.4321}
    two["trainers"]["resnet18"]["error-min"]["protected"] = 0.4567
    page = build_comparison([one, two])
    assert percent(0.4321) not in page and percent(0.4567) not in page and page.count("<svg") == 1
    assert "other: left out, because invalid: error-min (not ok: noise converged)." in page
    assert "error-min is invalid: the check “noise converged” failed (did not converge in 9 rounds)." in page
    assert "only 60% of each person" in page, "shares are compared, too"
    two["checks"][0]["ok"] = False
    two |= {"verdict_state": "invalid", "verdict": "No claim."}
    two["arms"]["clean"]["protected"] |= {"final": 0.8765}
    assert percent(0.8765) not in build_comparison([one, two])
    two["arms"]["clean"]["others"] = two["arms"]["error-min"]["others"] = None
    assert "nobody" in build_comparison([one, two])


def test_every_error_minimizing_arm_is_compared() -> None:
    one, two = sample_metrics(), sample_metrics()
    two["run"] = "other"
    two["arms"]["error-min-robust"] = copy.deepcopy(two["arms"]["error-min"])
    two["arms"]["error-min-robust"]["protected"] |= {"final": 0.2345}
    two["countermeasures"]["jpeg-50"]["error-min-robust"] = {"protected": 0.3456, "others": 0.9}
    page = build_comparison([one, two])
    assert page.count("<svg") == 3 and "other: error-min-robust" in page
    assert percent(0.2345) in page and percent(0.3456) in page
    assert page.count(">see its first arm<") == 1, "the verdict is not about it"
    assert len(re.findall(r'id="([^"]*)"', page)) == len(set(re.findall(r'id="([^"]*)"', page)))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(sample_metrics() | {"run": name}), encoding="utf-8")
    compare_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "comparison")
    assert "2 runs compared" in (tmp_path / "comparison" / "index.html").read_text(encoding="utf-8")
    frame = pd.read_csv(tmp_path / "comparison" / "metrics.csv")
    assert list(frame["run"].unique()) == ["a", "b"]
    finals = frame.query("arm == 'error-min' and group == 'protected' and metric == 'accuracy'")["value"]
    assert list(finals) == [0.0375, 0.0375]
    for folders in ([], [tmp_path / "a"], [tmp_path / "a", tmp_path / "a"]):
        with pytest.raises(RequestError, match="two or more different runs"):
            compare_runs(folders, tmp_path / "other")
    with pytest.raises(RequestError, match=r"missing has no metrics\.json"):
        compare_runs([tmp_path / "a", tmp_path / "missing"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_damaged_report_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(sample_metrics() | {"run": name}), encoding="utf-8")
        (tmp_path / name / "index.html").write_text("")
    (tmp_path / "two" / "metrics.json").write_text('{"half', encoding="utf-8")
    with pytest.raises(StageError, match=r"two/metrics\.json: not valid JSON .*; delete \S+two/index\.html, run `make study` for that run"):
        compare_runs([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
