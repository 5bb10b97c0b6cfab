"""What `make protect` says at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.artifacts import write_json, write_table, write_text
from pipeline.config import DataConfig, dump
from pipeline.noise.describe import describe, show

REJECTS = Path("data/aligned/rejects.csv")
CROPS = {"linf": 16.0, "psnr_db": 27.14, "ssim": 0.876}
PHOTOS = {"count": 12, "linf": 15.0, "psnr_db": 31.25, "ssim": 0.951, "recrop_correlation": {"mean": 0.991, "min": 0.884}}
NONE: Counter[str] = Counter()
SEARCHED = {"converged": True, "rounds": 9, "error": 0.01}
MANY: dict[str, Any] = {"noise": SEARCHED, "people": 50}


def test_a_person_learns_where_how_visible_and_what_next() -> None:
    said = describe(Path("run/error-min/protected"), "error-min", {"crops": CROPS, "photos": PHOTOS}, NONE, REJECTS, NONE, NONE, **MANY)
    where, visible, whose, later, again, following = said.splitlines()
    assert where == "12 protected photos: run/error-min/protected/photos (PNG, without the photos' metadata, such as place and date)"
    assert visible.startswith("largest change of a pixel 15/255; photos PSNR 31.2 dB, SSIM 0.951; crops PSNR 27.1 dB")
    assert "look at some before you publish" in visible
    assert whose.startswith("in a photo of several people only the folder owner's face is changed; where only somebody else's was found")
    assert later.startswith("later photos of these people: NOISE=run/error-min/noise.safetensors puts the same patterns on them; keep it")
    assert again.startswith("noise found again when these files are cropped anew at the same place: correlation 0.99 (least 0.88); a site")
    assert 'make study ARMS="clean error-min random"' in following


def test_photos_of_the_person_that_are_not_protected_are_counted() -> None:
    left = Counter({"truncated": 1, "no face": 2})
    lines = describe(Path("p"), "error-min", {"crops": CROPS, "photos": PHOTOS}, left, REJECTS, NONE, NONE, **MANY).splitlines()
    assert lines[1] == "not protected, of the same people: 3 (no face 2, truncated 1), by name in data/aligned/rejects.csv"


def test_an_arm_without_photos_is_for_comparison() -> None:
    said = describe(Path("run/lsp/protected"), "lsp", {"crops": CROPS}, NONE, REJECTS, NONE, NONE, **MANY)
    assert said.startswith("protected crops only, for comparison: run/lsp/protected\nlargest change of a pixel 16/255")
    assert 'ARMS="clean lsp random"' in said


def test_files_that_are_not_read_are_counted_with_the_photos_that_are_not_protected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they are by then, for `make` does not watch them; whose folder is not protected does not matter."""
    source, data, run = tmp_path / "source", tmp_path / "data", tmp_path / "run"
    for name in ("anna/1.jpg", "anna/2.heic", "bo/1.heic", "loose.jpg", "who.txt"):
        write_text(source / name, "")
    write_text(data / "data.yaml", dump(DataConfig(dataset="folder", photos=str(source))))
    write_table(data / "aligned" / "rejects.parquet", pd.DataFrame({"photo": [], "identity": [], "reason": []}))
    write_table(run / "error-min" / "protected" / "manifest.parquet", pd.DataFrame({"photo": ["anna/1.jpg"], "identity": ["anna"]}))
    write_json(run / "error-min" / "protected" / "measures.json", {"crops": CROPS, "photos": PHOTOS})
    write_json(run / "error-min" / "noise.json", SEARCHED)
    (source / "anna" / "3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    show("error-min", data, run)
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "not read, so not protected, in their folders: 1 .heic, 1 .jpg that cannot be reached (a broken link, a closed folder)",
        "not read, so not protected, beside the folders in PHOTOS: 1 .jpg",
    ]


def test_noise_that_did_not_converge_is_said_at_the_end_each_time() -> None:
    """The search says so, too, but among many lines, and a second call does not search."""
    measures, few = {"crops": CROPS, "photos": PHOTOS}, {"converged": False, "rounds": 20, "error": 0.891}
    said = describe(Path("p"), "error-min", measures, NONE, REJECTS, NONE, NONE, noise=few, people=50)
    assert "the search for noise did not converge in 20 rounds (error 89.1%), so it may protect little" in said.splitlines()[-2]
    for noise in (SEARCHED, few | {"converged": None}):  # a cloak has no such test
        assert "converge" not in describe(Path("p"), "cloak", measures, NONE, REJECTS, NONE, NONE, noise=noise, people=50)


def test_noise_against_a_network_that_knows_nobody_is_said_to_protect_little() -> None:
    measures = {"crops": CROPS, "photos": PHOTOS}
    for share, told in {0.32: True, 0.61: False}.items():
        learned = [{"model": "InceptionResnetV1", "names": 0.9}, {"model": "MobileFaceNet", "names": share}]
        noise = {"converged": None, "surrogates": learned}
        said = describe(Path("p"), "tap-robust", measures, NONE, REJECTS, NONE, NONE, noise=noise, people=50)
        warned = "the MobileFaceNet that the noise was made against names 32.0% of these people's clean test photos, fewer than half, so it"
        assert (f"{warned} may protect little" in said) == told


def test_who_cloaks_photos_is_told_whom_they_show_then() -> None:
    for arm, told in {"cloak": True, "cloak-error-min": True, "error-min": False}.items():
        said = describe(Path("p"), arm, {"crops": CROPS, "photos": PHOTOS}, NONE, REJECTS, NONE, NONE, **MANY)
        assert ("later photos of these people" in said) == (not told), "a cloak is each photo's own"
        assert ("a cloaked photo shows another of the people in PHOTOS: a search for that one finds it\n" in said) == told


def test_who_misleads_networks_is_told_that_photos_may_follow() -> None:
    for arm, cloaked in {"tap-robust": False, "cloak-tap": True}.items():
        said = describe(Path("p"), arm, {"crops": CROPS, "photos": PHOTOS}, NONE, REJECTS, NONE, NONE, **MANY)
        assert "later photos of these people: the same command again; what is out already may stay" in said and "NOISE" not in said
        assert ("a cloaked photo shows another of the people in PHOTOS" in said) == cloaked


def test_a_study_of_few_people_is_not_said_to_show_how_far_it_holds() -> None:
    last = describe(Path("p"), "error-min", {"crops": CROPS}, NONE, REJECTS, NONE, NONE, noise=SEARCHED, people=3).splitlines()[-1]
    assert last.endswith('random" gives numbers, but no claim: 20 people or more must be protected for one, here 3')


def test_the_next_command_names_each_arm_once() -> None:
    for arm, arms in {"random": "clean random", "cloak": "clean cloak random"}.items():
        said = describe(Path("p"), arm, {"crops": CROPS}, NONE, REJECTS, NONE, NONE, **MANY)
        assert said.splitlines()[-1] == f'next, with the same variables: make study ARMS="{arms}" says how far that holds'
