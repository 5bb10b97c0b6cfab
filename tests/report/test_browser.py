"""The report in a real browser: headless Chromium renders it at several widths, light, dark, printed and without scripts, and sorts."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.report.compare import build_comparison
from pipeline.report.render import render_report
from tests.report.sample import big_metrics, sample_metrics, sample_panels

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

WIDTHS = (400, 768, 1280, 1600)
# The page is framed rather than given a narrow window, which headless Chromium does not go below 500 px for. The probe is outside the
# page, so the page's own security policy stays in force.
PROBE = """
const found = {};
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    const column = (n) => [...page.querySelectorAll("#accuracy tbody tr")].map((row) => row.cells[n].textContent.trim());
    const before = column(0), button = page.querySelectorAll("#accuracy thead tr:last-child button")[1];
    button.click();
    const rising = column(1);
    button.click();
    found[frame.width] = {
      scroll: root.scrollWidth, client: root.clientWidth, before, rising, falling: column(1),
      sorted: button.parentNode.getAttribute("aria-sort"),
      drawn: [...page.querySelectorAll("svg.plot")].map((svg) => svg.getBoundingClientRect().width),
      hidden: [...page.querySelectorAll(".table-box")].filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.innerText),
      pictures: [...page.images].every((image) => image.complete && image.naturalWidth > 0),
      ink: getComputedStyle(page.body).color, paper: getComputedStyle(page.body).backgroundColor,
      curve: getComputedStyle(page.querySelector("svg.plot text[style*='--protected']")).fill,
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


@pytest.fixture(scope="module", autouse=True)
def needs_chromium() -> None:
    """Without Chromium there is nothing to test here; where CI is set that is an error, since nobody reads what CI skips."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium on this machine")


def chromium(folder: Path, *words: str) -> str:
    """Run headless Chromium with a profile of its own; returns what it printed."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    render_report(sample_metrics(), sample_panels(), folder)
    page = html.escape((folder / "index.html").read_text(encoding="utf-8"))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in WIDTHS)
    (folder / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frames}<script>{PROBE}</script>', encoding="utf-8")
    return folder


def probe(folder: Path, *words: str) -> dict[str, Any]:
    dumped = chromium(folder, "--dump-dom", *words, (folder / "probe.html").as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found is not None and found.group(1), "the probe found nothing"
    return json.loads(html.unescape(found.group(1)))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What the probe sees in the light page at each width."""
    return probe(folder)


def test_page_fits_and_sorts(found: dict[str, Any]):
    assert set(found) == {str(width) for width in WIDTHS}
    for width, page in found.items():
        assert page["scroll"] <= page["client"] <= int(width), f"scrolls sideways at {width} px"
        assert page["pictures"] and len(page["drawn"]) == 6 and min(page["drawn"]) >= 280
        assert page["before"] == ["clean", "error-min", "random"]
        assert page["rising"] == ["3.8%", "28.7%", "91.4%"] and page["falling"] == page["rising"][::-1]
        assert page["sorted"] == "descending"
        assert int(width) < 1280 or page["hidden"] == [], "tables of which a part is out of sight on a screen that has room"


def test_dark_page_is_dark_and_legible(found: dict[str, Any], folder: Path):
    light, dark = found["1280"], probe(folder, "--blink-settings=preferredColorScheme=0")["1280"]
    for page, is_dark in ((light, False), (dark, True)):
        paper = brightness(page["paper"])
        assert (paper < 60) == is_dark
        for colour in ("ink", "curve"):
            assert abs(brightness(page[colour]) - paper) > 90, f"{colour} {page[colour]} on {page['paper']}"
    assert light["curve"] != dark["curve"]


def brightness(colour: str) -> float:
    """Luma, 0 to 255, of a CSS rgb(…) colour."""
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue


def screenshot(folder: Path, page: Path) -> list[np.ndarray]:
    """Blue, green and red, int (900, 1280), of the top of a page."""
    picture = folder / "page.png"
    chromium(folder, f"--screenshot={picture}", "--window-size=1280,900", page.as_uri())
    image = cv2.imread(str(picture))
    assert image is not None and image.shape == (900, 1280, 3)
    return [image[..., channel].astype(int) for channel in range(3)]


def test_screenshot_shows_the_verdict_green_only_where_nothing_was_lost(folder: Path):
    def is_green(blue: np.ndarray, green: np.ndarray, red: np.ndarray) -> bool:
        return bool(np.mean((green - red > 10) & (green - blue > 3) & (green > 200)) > 0.05)

    def is_amber(blue: np.ndarray, green: np.ndarray, red: np.ndarray) -> bool:
        return bool(np.mean((red - blue > 20) & (green - blue > 10) & (red > 240)) > 0.05)

    unbeaten = folder / "unbeaten"
    render_report(sample_metrics() | {"lost_to": []}, [], unbeaten)
    assert is_green(*screenshot(folder, unbeaten / "index.html")), "no verdict in green"
    lost = screenshot(folder, folder / "index.html")
    assert is_amber(*lost) and not is_green(*lost)


def test_names_of_digits_sort_as_numbers(folder: Path):
    """As people of CelebA and CASIA-WebFace are named."""
    metrics, numbered = sample_metrics(), folder / "numbered"
    for arm in metrics["arms"].values():
        arm["protected"] |= {key: {"1001": 1, "998": 1, "12": 1} for key in ("per_identity", "test_photos")}
    render_report(metrics, [], numbered)
    page = html.escape((numbered / "index.html").read_text(encoding="utf-8"))
    script = """
      addEventListener("load", () => {
        const page = document.querySelector("iframe").contentDocument;
        page.querySelector("#identities thead tr:last-child button").click();
        const names = [...page.querySelectorAll("#identities tbody tr")].map((row) => row.cells[0].textContent.trim());
        document.getElementById("found").textContent = JSON.stringify({names});
      });"""
    frame = f'<iframe width="1280" height="900" srcdoc="{page}"></iframe>'
    (folder / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frame}<script>{script}</script>', encoding="utf-8")
    assert probe(folder)["names"] == ["12", "998", "1001"]


def test_tables_read_without_scripts(folder: Path):
    page = html.escape((folder / "index.html").read_text(encoding="utf-8"))
    script = """
      addEventListener("load", () => {
        const page = document.querySelector("iframe").contentDocument;
        const row = [...page.querySelectorAll("#accuracy tbody tr")][1];
        const shown = [...row.cells].map((cell) => cell.getBoundingClientRect().height > 0 ? cell.textContent : "hidden");
        document.getElementById("found").textContent = JSON.stringify({row: shown, buttons: page.querySelectorAll("button").length});
      });"""
    frame = f'<iframe sandbox="allow-same-origin" width="1280" height="900" srcdoc="{page}"></iframe>'  # scripts are not allowed in it
    (folder / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frame}<script>{script}</script>', encoding="utf-8")
    seen = probe(folder)
    assert seen["buttons"] == 0, "scripts ran"
    assert seen["row"][:4] == ["error-min", "3.8%", "0.0–7.6%", "14.2% (epoch 3)"]


def test_the_page_prints_on_paper(folder: Path):
    paper = folder / "page.pdf"
    chromium(folder, f"--print-to-pdf={paper}", "--no-pdf-header-footer", (folder / "index.html").as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", content)) >= 3


def test_a_comparison_sorts_and_fits(folder: Path):
    other: dict[str, Any] = sample_metrics() | {"run": "another", "verdict_state": "fails"}
    other["arms"]["error-min"]["protected"]["final"] = 0.4321
    page = html.escape(build_comparison([other, sample_metrics()]))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in WIDTHS)
    script = PROBE.replace("#accuracy", "#runs").replace('")[1]', '")[4]').replace("column(1)", "column(4)")
    (folder / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frames}<script>{script}</script>', encoding="utf-8")
    for width, seen in probe(folder).items():
        assert seen["scroll"] <= seen["client"] <= int(width), f"scrolls sideways at {width} px"
        assert seen["rising"] == ["3.8%", "43.2%"] and seen["falling"] == ["43.2%", "3.8%"]


def test_the_largest_page_fits_into_a_mail_and_any_window(folder: Path):
    """Every arm, every trial, a thousand people, pictures of each kind of noise."""
    metrics, big = big_metrics(), folder / "big"
    render_report(metrics, sample_panels(tuple(arm for arm in metrics["arms"] if arm not in ("clean", "removed"))), big)
    page = (big / "index.html").read_text(encoding="utf-8")
    assert (big / "index.html").stat().st_size <= 5_000_000
    script = """
      addEventListener("load", () => {
        const found = {};
        for (const frame of document.querySelectorAll("iframe")) {
          const page = frame.contentDocument, root = page.documentElement;
          page.querySelectorAll("details").forEach((one) => { one.open = true; });
          const boxes = [...page.querySelectorAll(".table-box")];
          found[frame.width] = {
            scroll: root.scrollWidth, client: root.clientWidth, figures: page.querySelectorAll("svg.plot").length,
            tables: boxes.length, wider: boxes.filter((box) => box.getBoundingClientRect().right > root.clientWidth).length,
          };
        }
        document.getElementById("found").textContent = JSON.stringify(found);
      });"""
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in (400, 1600))
    (folder / "probe.html").write_text(f'<!DOCTYPE html><pre id="found"></pre>{frames}<script>{script}</script>', encoding="utf-8")
    seen = probe(folder)
    assert set(seen) == {"400", "1600"}
    for width, one in seen.items():
        assert one["scroll"] <= one["client"] <= int(width), f"scrolls sideways at {width} px"
        assert one["figures"] == len(metrics["arms"]) + 3 and one["tables"] >= 15 and one["wider"] == 0
