"""The paper's findings, asked of a run."""

from __future__ import annotations

from typing import Any

from pipeline.evaluation.orderings import orderings


def arm(final: float, peak: float) -> dict[str, object]:
    return {"protected": {"final": final, "peak": peak}}


def test_only_what_was_run_is_asked() -> None:
    assert orderings({"clean": arm(0.9, 0.9)}) == []
    assert orderings({"clean": arm(0.9, 0.9), "error-min": {"protected": None}}) == []
    found = orderings({"clean": arm(0.9, 0.9), "error-min": arm(0.1, 0.12)})
    assert [one["claim"] for one in found] == ["error-min leaves at most half of the clean accuracy"]
    assert found[0]["here"] == "10.0%, clean 90.0%"


def test_each_finding_can_hold_and_fail() -> None:
    paper = {
        "clean": arm(0.948, 0.95), "error-min": arm(0.164, 0.17), "error-min-samplewise": arm(0.199, 0.25), "random": arm(0.2, 0.8),
        "random-samplewise": arm(0.9, 0.91), "error-max": arm(0.2, 0.5), "error-max-samplewise": arm(0.88, 0.9),
        "backdoor": arm(0.9, 0.9),
    }  # fmt: skip
    assert [one["holds"] for one in orderings(paper)] == [True] * 7
    reverse = {
        "clean": arm(0.9, 0.9), "error-min": arm(0.6, 0.8), "error-min-samplewise": arm(0.8, 0.9), "random": arm(0.7, 0.9),
        "random-samplewise": arm(0.3, 0.4), "error-max": arm(0.8, 0.9), "error-max-samplewise": arm(0.5, 0.9),
        "backdoor": arm(0.3, 0.9),
    }  # fmt: skip
    assert [one["holds"] for one in orderings(reverse)] == [False] * 7


def test_findings_at_their_limits_hold() -> None:
    """0.72 is four fifths of 0.9, and 0.3 is 0.2 above 0.1, though not in binary fractions."""
    found = orderings({"clean": arm(0.9, 0.9), "error-min": arm(0.45, 0.1), "random": arm(0.2, 0.3), "backdoor": arm(0.72, 0.9)})
    assert [one["holds"] for one in found] == [True] * 3


def test_verification_falls_with_everybody_protected_and_not_for_the_others() -> None:
    def verified(others: float | None, everyone: float) -> dict[str, Any]:
        group = None if others is None else {"auc": others}
        return {**arm(0.1, 0.1), "others": group and {"final": 0.9}, "verification": {"auc": everyone, "groups": {"others": group}}}

    def found(clean: dict[str, Any], noisy: dict[str, Any]) -> list[tuple[str, bool]]:
        return [(one["claim"], one["holds"]) for one in orderings({"clean": clean, "error-min": noisy}) if "AUC" in one["here"]]

    assert found(verified(0.97, 0.95), verified(0.96, 0.9)) == [("the others’ AUC falls by 0.02 at most", True)]
    assert found(verified(0.97, 0.95), verified(0.94, 0.9)) == [("the others’ AUC falls by 0.02 at most", False)]
    never = [verified(0.97, auc) for auc in (0.97, 0.94)]
    for one in never:
        one["verification"]["of"] = "people never trained on"
    assert found(*never)[1] == ("AUC of people never trained on falls by 0.02 at most", False)
    assert found(verified(None, 0.95), verified(None, 0.6)) == [("verification falls towards a guess", True)]
    assert found(verified(None, 0.95), verified(None, 0.8)) == [("verification falls towards a guess", False)]
    lfw = {"lfw": {"own": {"auc": 0.55}}}
    assert orderings({"clean": verified(None, 0.95), "error-min": verified(None, 0.9) | lfw})[-1]["here"] == "AUC 0.5500, clean 0.9500"
