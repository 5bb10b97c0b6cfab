"""The page: complete, escaped, closed to the network, readable without its script."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.baseline import Verdict
from benchmarks.page import build_page, write_again
from benchmarks.results import summarise
from benchmarks.row import Pair
from tests.benchmarks.fakes import empty_results, fake_row
from tests.report.sample import NASTY
from tests.report.test_browser import CHROMIUM, WIDTHS, chromium
from tests.report.test_render import Outline, words_of

PROBE = """
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const root = frame.contentDocument.documentElement;
    found[frame.width] = [root.scrollWidth, root.clientWidth, root.querySelector("svg.plot").getBoundingClientRect().width];
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""
VERDICTS = [Verdict("noise-search", "slower", "6.10 → 3.00, noise ±0.10"), Verdict("train-step", "same", "3.10 → 3.00, noise ±0.20")]


def sample() -> dict[str, Any]:
    results = empty_results()
    results["rows"] = [
        summarise(fake_row("noise-search", [], target=6.0), [Pair(61.23, 10.0), Pair(60, 10.0), Pair(64, 10.0)]),
        summarise(fake_row("train-step", [], target=3.0), [Pair(20, 10.0), Pair(21, 10.0), Pair(22, 10.0)]),
        summarise(fake_row("render", [], against="", unit="photos/s"), [Pair(52.2)]),
        summarise(fake_row("matmul-fp32", [], against="", unit="TFLOP/s", ceiling=True), [Pair(0.0872)]),
    ]
    results["skipped"], results["failed"] = {"train-gpu": "needs a CUDA device"}, {"detect": "RuntimeError: no photos"}
    return results


def grown() -> dict[str, Any]:
    """As `benchmarks.webface` writes it."""
    sizes = []
    for crops in (100, 1000, 10000):
        facts = {"on_cpu": True, "seconds": 9.0, "above_mib": crops / 20}
        stages = {"split-full": facts | {"cpu_seconds": 3e-4 * crops}, NASTY: facts | {"cpu_seconds": 0.25}}
        sizes.append({"crops": crops, "stages": stages})
    growth = {"split-full": 1.0, NASTY: 0.0}
    return {"schema": 1, "commit": "c0ffee5", "dirty": False, "device": "cpu", "whole": 490_623, "sizes": sizes, "growth": growth}


@pytest.fixture(scope="module")
def page() -> str:
    return build_page(sample(), VERDICTS, "a kind of machine")


def test_every_number_is_there(page: str) -> None:
    words = words_of(page)
    for text in (
        "1 of 2 targets met; missed: train-step.", "6.12×", "6.00 to 6.40", "61.2 images/s", "60 to 64", "2.10×", "52.2 photos/s",
        "0.0872 TFLOP/s", "needs a CUDA device", "RuntimeError: no photos", "6.10 → 3.00", "slower", "a kind of machine", "c0ffee",
        "what render runs", "make bench", "torch 2.15.0", "8.0 GiB",
    ):  # fmt: skip
        assert text in words, text


def test_structure_and_no_request(page: str) -> None:
    outline = Outline(page)
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("table") == tags.count("caption") == 4 and tags.count("svg") == 1 and tags.count("script") == 1
    assert all(attrs.get("scope") for tag, attrs in outline.tags if tag == "th")
    links = [value for _, attrs in outline.tags for name, value in attrs.items() if name in ("src", "href", "data", "action", "srcset")]
    assert all(link and link.startswith("#") for link in links)
    assert not re.search(r"@import|url\((?!#)|https?:", page)
    assert "default-src 'none'" in page
    ids = [attrs["id"] for _, attrs in outline.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_names_are_escaped(page: str) -> None:
    assert "Fast &lt;b&gt;CPU&lt;/b&gt;" in page
    hostile = sample()
    hostile["rows"][0] |= {"name": NASTY, "text": NASTY, "against": NASTY, "unit": NASTY}
    hostile |= {"skipped": {NASTY: NASTY}, "failed": {NASTY: NASTY}, "commit": NASTY}
    text = build_page(hostile, [Verdict(NASTY, "slower", NASTY)], NASTY)
    assert NASTY not in text and text.count("<script") == 1


def test_cost_against_size_is_a_table_and_a_plot(page: str) -> None:
    assert "Not measured: python -m benchmarks.webface does" in words_of(page)
    text = build_page(sample(), VERDICTS, "a kind of machine", grown())
    words = words_of(text)
    for told in ("10,000 crops", "0.30 s", "3.00 s", "size^1.00", "5 to 500 MiB", "c0ffee5", "490,623"):
        assert told in words, told
    assert "From 100 to 10,000 crops: split-full 0.03 to 3.00 s" in text and text.count("<svg") == 2
    assert NASTY not in text and text.count("<script") == 1
    once = grown() | {"sizes": grown()["sizes"][-1:], "growth": {"split-full": None}}
    assert "one size" in build_page(sample(), VERDICTS, "a kind of machine", once)


def test_the_page_is_written_again_with_what_was_measured_since(tmp_path: Path) -> None:
    (tmp_path / "webface.json").write_text(json.dumps(grown()), encoding="utf-8")
    alone = write_again(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "bench.json").write_text(json.dumps(sample()), encoding="utf-8")
    both = write_again(tmp_path).read_text(encoding="utf-8")
    assert all("size^1.00" in text for text in (alone, both)) and "61.2 images/s" in both and "61.2 images/s" not in alone


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_page_fits_narrow_and_wide_windows(page: str, tmp_path: Path) -> None:
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS)
    (tmp_path / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frames}<script>{PROBE}</script>', encoding="utf-8")
    dumped = chromium(tmp_path, "--dump-dom", (tmp_path / "probe.html").as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found is not None and found.group(1)
    sizes = json.loads(html.unescape(found.group(1)))
    assert set(sizes) == {str(width) for width in WIDTHS}
    for width, (scroll, client, plot) in sizes.items():
        assert scroll <= client <= int(width), f"scrolls sideways at {width} px"
        assert plot >= 280


def test_page_of_nothing() -> None:
    words = words_of(build_page(empty_results(), [], "a kind of machine"))
    assert "No row with a target was measured." in words


def test_same_input_same_bytes(page: str) -> None:
    assert build_page(sample(), VERDICTS, "a kind of machine") == page
