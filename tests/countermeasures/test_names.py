"""Names: one spelling each, errors that say what is allowed, and no torch needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.names import CORE, FULL, NUMBERED, PLAIN, PROCESSING, check_name, parse_name, title_of

BAD = [
    "jpeg-0",
    "jpeg-101",
    "jpeg-x",
    "jpeg-",
    "jpeg",
    "jpeg-075",
    "jpeg-75.0",
    "jpeg-７５",
    "blur--1",
    "blur-1",
    "blur-0.0",
    "blur-1e3",
    "blur-nan",
    "blur-99.0",
    "resize-112",
    "resize-7",
    "bits-8",
    "bits-0",
    "shift-0",
    "shift-29",
    "adversarial-0",
    "adversarial--4",
    "grey-1",
    "Grey",
    "wavelet",
    "strong-2",
]


@pytest.mark.parametrize("name", [*BAD, "", "mixup ", "jpeg-75\n"])
def test_bad_names_are_refused_by_value(name: str) -> None:
    with pytest.raises(ValueError, match="allowed") as caught:
        countermeasure_of(name, classes=3)
    assert repr(name) in str(caught.value)


def test_messages_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"jpeg-Q, Q a whole number from 1 to 100"):
        check_name("jpeg-0")
    with pytest.raises(ValueError, match=r"grey, .*pattern-subtraction, jpeg-Q, blur-SIGMA"):
        check_name("wavelet")


def test_titles_and_numbers() -> None:
    assert title_of("jpeg-75") == "JPEG, quality 75"
    assert title_of("blur-1.0") == "Gaussian blur, σ 1.0 px"
    assert title_of("grey") == "greyscale"
    assert parse_name("adversarial-4") == ("adversarial", 4)
    assert parse_name("blur-0.25") == ("blur", 0.25)
    assert len({title_of(name) for name in FULL}) == len(FULL)


def test_every_listed_name_is_built_with_one_way() -> None:
    assert set(CORE) < set(FULL)
    kinds = {*PLAIN, *NUMBERED} - {"none"}
    assert {parse_name(name)[0] for name in FULL} == kinds, "what stands in no set is tried by no matrix, and by none of these tests"
    for name in FULL:
        made = countermeasure_of(name, classes=3)
        assert sum(way is not None for way in (made.process, made.augment, made.harden, made.fit)) == 1, name
    nothing = countermeasure_of("none", classes=3)
    assert (nothing.process, nothing.augment, nothing.harden, nothing.fit) == (None, None, None, None)


def test_names_need_neither_torch_nor_numpy() -> None:
    code = "import sys, pipeline.countermeasures.names; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_processing_is_what_needs_nothing_but_the_photo() -> None:
    numbers = {"jpeg": "75", "blur": "1.0", "resize": "56", "bits": "4", "shift": "6", "adversarial": "4"}
    names = [*PLAIN, *(f"{kind}-{numbers[kind]}" for kind in NUMBERED)]
    assert {parse_name(name)[0] for name in names if countermeasure_of(name, classes=2).process is not None} == set(PROCESSING)
