"""`make study PROFILE=paper DATASET=webface` over a small `.rec` that is written here: every path it takes, at a cost that fits a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.photos.synthetic import encode_photo
from pipeline.request import about
from tests.conftest import toy_faces
from tests.photos.test_recordio import labelled, record, write
from tests.test_chain import Project

IDENTITIES, PHOTOS = 5, 6
# Only how long it takes is changed, never how anything is done.
SHORTER = {"rounds: 100": "rounds: 2", "batches: 30": "batches: 2", "epochs: 50": "epochs: 2", "steps_at: [30, 40]": "steps_at: [1, 2]"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    profile = project.folder / "configs" / "paper.yaml"
    text = profile.read_text(encoding="utf-8")
    for before, after in SHORTER.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    profile.write_text(text, encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def webface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aligned crops of 112×112 as InsightFace packs them: a header record, the photos, and a record an identity after them."""
    faces = toy_faces(identities=IDENTITIES, photos=PHOTOS)
    count = IDENTITIES * PHOTOS
    records = [record(labelled([float(count + 1), float(count + 1 + IDENTITIES)], b"", 0))]
    for key, (crop, label) in enumerate(zip(faces.shards[0], faces.label, strict=True), 1):
        turned = crop[:, ::-1] if key % 2 else crop  # or all of a person's photos would be near-duplicates, and nobody trains on those
        done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(turned[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert done
        records.append(record(labelled([float(label)], encoded.tobytes(), key)))
    for identity in range(IDENTITIES):
        first = 1.0 + identity * PHOTOS
        records.append(record(labelled([first, first + PHOTOS], b"", count + 1 + identity)))
    return write(tmp_path_factory.mktemp("faces_webface_112x112"), records)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two people who do not exist, laid out as LFW, and two folds of pairs of them."""
    folder = tmp_path_factory.mktemp("lfw")
    for identity, name in enumerate(("Ann", "Bob")):
        (folder / name).mkdir()
        for number in range(1, 5):
            content = encode_photo(seed=0, identity=identity, photo=number)
            (folder / name / f"{name}_{number:04d}.jpg").write_bytes(content)
    folds = ("Ann\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n", "Ann\t3\t4\nBob\t3\t4\nAnn\t3\tBob\t3\nAnn\t4\tBob\t4\n")
    (folder / "pairs.txt").write_text("2\t2\n" + "".join(folds), encoding="utf-8")
    return folder


def study(project: Project, webface: Path, *words: str) -> dict[str, Any]:
    """Run it, and what the page is made of."""
    done = project.make("study", "PROFILE=paper", "DATASET=webface", f"PHOTOS={webface}", *words)
    told, work = done.stderr.split("wrote ", 1)[0], done.stderr.split("wrote ", 1)[1]
    assert "PROFILE=paper" in told and "19.6 million training steps" in told and "0.5321" in told and "86%" in told
    assert "epoch 1 of" in work, "cost and figures are said before anything is done"
    report = project.folder / done.stdout.strip().splitlines()[-1].removeprefix("report: ")
    return json.loads(report.with_name("metrics.json").read_text(encoding="utf-8"))


def test_the_papers_partial_study_over_a_small_rec(project: Project, webface: Path) -> None:
    """The command that the README names, with the default arms."""
    metrics = study(project, webface, "IDENTITIES=2")
    assert (metrics["setting"], metrics["classes"], metrics["identities"]) == ("partial", IDENTITIES, 2)
    assert list(metrics["arms"]) == ["clean", "error-min", "random"]
    for name, arm in metrics["arms"].items():
        assert [len(arm[group]["per_identity"]) for group in ("protected", "others")] == [2, IDENTITIES - 2]
        assert ("photos" in arm) == (name == "error-min"), "what a person would publish: the crops, which are the photos there are"
    run = project.folder / "data" / "runs" / "webface-paper-partial-id2-eps16-s0"
    seen = json.loads((run / "split.json").read_text(encoding="utf-8"))["identities"]
    assert (seen["protected"], seen["auxiliary"]) == (2, IDENTITIES - 2), "the paper's 100 others, as many as there are"


def test_the_papers_full_study_over_a_small_rec(project: Project, webface: Path, lfw: Path) -> None:
    """With LFW, on which the paper's figure is."""
    metrics = study(project, webface, "ARMS=clean error-min", "SETTING=full", f"LFW={lfw}")
    assert (metrics["setting"], metrics["classes"], metrics["identities"]) == ("full", IDENTITIES, IDENTITIES)
    assert metrics["provenance"]["dataset"]["aligned"] == IDENTITIES * PHOTOS
    for arm in metrics["arms"].values():
        assert len(arm["protected"]["by_epoch"]) == 2
        assert arm["others"] is None
        assert arm["lfw"]["own"]["pairs"] + arm["lfw"]["own"]["pairs_left_out"] == 8 and arm["lfw"]["own"]["pairs"] >= 6
    noise = metrics["arms"]["error-min"]
    assert noise["noise"]["rounds"] == 2
    assert 0 < noise["imperceptibility"]["linf"] <= 16


def test_cost_and_figures_are_said_of_the_data_set_they_belong_to() -> None:
    profiles = Path(__file__).resolve().parents[1] / "configs"
    assert "cost and figures are those of DATASET=webface" in about(profiles, "paper", "folder")
    assert "those of" not in about(profiles, "paper", "webface")
    for path in profiles.glob("*.yaml"):
        told = about(profiles, path.stem, "synthetic")
        assert all(word in told for word in ("hardware", "cost", "expected")), path
