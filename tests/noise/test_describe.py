"""What `make protect` says at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.noise.describe import describe

REJECTS = Path("data/aligned/rejects.csv")
CROPS = {"linf": 16.0, "psnr_db": 27.14, "ssim": 0.876}


def test_a_person_learns_where_how_visible_and_what_next() -> None:
    photos = {"count": 12, "linf": 15.0, "psnr_db": 31.25, "ssim": 0.951, "recrop_correlation": {"mean": 0.991, "min": 0.884}}
    said = describe(Path("run/error-min/protected"), "error-min", {"crops": CROPS, "photos": photos}, Counter(), REJECTS)
    where, visible, again, following = said.splitlines()
    assert where == "12 protected photos: run/error-min/protected/photos"
    assert visible.startswith("largest change of a pixel 15/255; photos PSNR 31.2 dB, SSIM 0.951; crops PSNR 27.1 dB")
    assert "look at some before you publish" in visible
    assert "correlation 0.99 (least 0.88)" in again
    assert 'make study ARMS="clean error-min random"' in following


def test_photos_of_the_person_that_are_not_protected_are_counted() -> None:
    photos = {"count": 12, "linf": 15.0, "psnr_db": 31.25, "ssim": 0.951, "recrop_correlation": {"mean": 0.991, "min": 0.884}}
    left = Counter({"truncated": 1, "no face": 2})
    lines = describe(Path("p"), "error-min", {"crops": CROPS, "photos": photos}, left, REJECTS).splitlines()
    assert lines[1] == "not protected, of the same people: 3 (no face 2, truncated 1), by name in data/aligned/rejects.csv"


def test_an_arm_without_photos_is_for_comparison() -> None:
    said = describe(Path("run/lsp/protected"), "lsp", {"crops": CROPS}, Counter(), REJECTS)
    assert said.startswith("protected crops only, for comparison: run/lsp/protected\nlargest change of a pixel 16/255")
    assert 'ARMS="clean lsp random"' in said
