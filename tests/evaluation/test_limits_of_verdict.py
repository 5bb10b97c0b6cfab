"""The limits that a claim rests on: where exactly a result holds or fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.evaluation.test_metrics import arm_of, say


def judged(*, clean: tuple[float, float], mine: tuple[float, float], others: float) -> dict[str, Any]:
    """The verdict at the default limits.

    Args:
        clean: accuracy of the clean arm on the protected and on others. mine: error-min's last and best epoch on the protected.
        others: error-min's on others.
    """
    of_protected, of_others = clean
    return say({
        "clean": arm_of(of_protected, of_protected, of_others, noise=False),
        "error-min": arm_of(*mine, others, noise=True),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("final", "peak", "fails_by"),
    [
        (0.16, 0.2, None),
        (0.1601, 0.18, "naming"),
        (0.1, 0.2001, "peak"),
        (0.19, 0.19, "naming"),  # the best epoch lies within its own limit, the last does not
        (0.1601, 0.2001, "naming"),
    ],
)
def test_it_holds_up_to_sixteen_percent_at_the_last_epoch_and_twenty_at_the_best(final: float, peak: float, fails_by: str | None) -> None:
    found = judged(clean=(0.9, 0.9), mine=(final, peak), others=0.9)
    assert (found["fails_by"], found["verdict_state"]) == (fails_by, "holds" if fails_by is None else "fails")


@pytest.mark.parametrize(
    ("protected", "others", "learned"), [(0.5, 0.5, True), (0.9, 0.5, True), (0.9, 0.49, False), (0.49, 0.9, False), (0.4999, 0.5, False)]
)
def test_the_clean_arm_learned_both_groups_or_nothing_is_claimed(protected: float, others: float, learned: bool) -> None:
    found = judged(clean=(protected, others), mine=(0.05, 0.1), others=others)
    assert found["verdict_state"] == ("holds" if learned else "invalid")
    # The check alone: one more that failed would be counted behind it.
    assert found["verdict"].startswith("No claim: the check “clean arm learned” failed (") is not learned
    assert ", and 1 more" not in found["verdict"]
