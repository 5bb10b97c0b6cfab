"""Validity checks on a mini run on disk: each of them, when what it looks for is really done to the run, leaves no claim."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import read_json, write_array, write_json, write_table, write_text
from pipeline.config import AlignConfig, EvaluateConfig, NoiseConfig, ReportConfig, SplitConfig, TrainConfig, dump
from pipeline.errors import StageError
from pipeline.evaluation.stage import evaluate_arm, people_held_out
from pipeline.evaluation.summary import summarise_run
from pipeline.noise.protect import protect
from pipeline.noise.stage import make_noise
from pipeline.report.render import build_page, content_of
from pipeline.report.stage import report_run
from pipeline.runtime import Runtime
from pipeline.split import split_photos
from pipeline.training.stage import train_arm
from tests.conftest import toy_faces
from tests.report.sample import sample_metrics

IDENTITIES, PHOTOS, PROTECTED, STRANGERS = 24, 5, 20, 20
CPU = Runtime(device="cpu", workers=1, precision="fp32")
TRAIN = TrainConfig(epochs=1, batch=16, input_size=75, lr=0.02)
SCORING = EvaluateConfig(bootstrap=100, clean_floor=0.0, protected_at_most=1.0, peak_at_most=1.0, others_within=1.0, others_auc_within=1.0)
ARMS = ["clean", "error-min", "random"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of blobs in which nothing is wrong: every limit of the verdict is as wide as it goes, and one epoch is trained."""
    root = tmp_path_factory.mktemp("checked")
    data, run = root / "data", root / "run"
    faces = toy_faces(identities=IDENTITIES + STRANGERS, photos=PHOTOS)
    photos = [f"id{label:02}/p{place % PHOTOS}.png" for place, label in enumerate(faces.label)]
    kept = [place for place in range(len(photos)) if place < IDENTITIES * PHOTOS or place % PHOTOS < 2]
    crops = faces.shards[0].copy()
    crops[IDENTITIES * PHOTOS :: PHOTOS] = crops[IDENTITIES * PHOTOS :: PHOTOS, ::-1]  # a stranger's two photos are not one shot
    write_array(data / "aligned" / "crops-00000.npy", crops)
    table = pd.DataFrame({"photo": photos, "identity": [photo.split("/")[0] for photo in photos], "row": np.arange(len(photos))}).loc[kept]
    table = table.assign(
        shard="crops-00000.npy", sha256=[f"sha of {photos[place]}" for place in kept], matrix=[np.eye(2, 3).ravel()] * len(kept)
    )
    write_table(data / "aligned" / "manifest.parquet", table.reset_index(drop=True))
    write_table(data / "aligned" / "rejects.parquet", pd.DataFrame({"photo": ["x"], "identity": ["id00"], "reason": ["no face"]}))
    split = SplitConfig(identities=PROTECTED, auxiliary=3, min_photos=PHOTOS, duplicate_bits=0)
    split_photos(split, data / "aligned", run / "split.parquet")
    noise = NoiseConfig(arm="random", epsilon=16)
    shown = ReportConfig(arms=tuple(ARMS), real_faces=False, consented=False)
    configs = {"evaluate": SCORING, "split": split, "train": TRAIN, "report": shown, "noise-error-min": noise, "noise-random": noise}
    for name, config in configs.items():
        write_text(run / "config" / f"{name}.yaml", dump(config))
    for name in ("data", "align"):
        write_text(data / f"{name}.yaml", "{}\n")
    for arm in ("clean", "error-min"):
        if arm == "clean":
            train_arm(TRAIN, arm, run, data / "aligned", CPU)
        else:  # what the noise is and who learned from it play no part here: what the files say of them does
            make_noise(noise, run / "split.parquet", data / "aligned", run, run / arm, CPU)
            facts = read_json(run / arm / "noise.json")
            write_json(run / arm / "noise.json", facts | {"method": arm, "converged": True, "rounds": 1, "error": 0.01})
            protect(run / "split.parquet", data, run / arm, run / arm / "protected", CPU, photos=False, max_side=1000)
            shutil.copytree(run / "clean" / "model", run / arm / "model")
        evaluate_arm(SCORING, TRAIN, AlignConfig(), arm, run / "split.parquet", data / "aligned", run / arm, CPU)
    shutil.copytree(run / "error-min", run / "random")
    return root


def summary(root: Path) -> dict[str, Any]:
    return summarise_run(ARMS, root / "data", root / "run", CPU)


def test_a_sound_run_is_valid_and_its_verdict_has_numbers(root: Path) -> None:
    found = summary(root)
    assert [one for one in found["checks"] if not one["ok"]] == []
    assert found["verdict_state"] == "holds" and "%" in found["verdict"]
    assert {arm: record["invalid"] for arm, record in found["arms"].items()} == {arm: [] for arm in ARMS}
    assert found["countermeasures"]["early-stopping"]["error-min"]["protected"] == found["arms"]["error-min"]["protected"]["peak"]


def test_the_made_up_run_that_pages_are_tested_with_has_every_measure_of_a_real_one(root: Path) -> None:
    real, made_up = summary(root), sample_metrics()
    missing = {key: set[str]() for key in real.keys() - made_up.keys()}
    for section, record in real["arms"]["error-min"].items():
        if section == "tested":
            continue  # a digest, which a check reads and no page shows
        there = made_up["arms"]["error-min"][section]
        if section == "identification":
            record, there = record["own"], there["own"]
        if isinstance(record, dict) and record.keys() - there.keys():
            missing[section] = record.keys() - there.keys()
    assert missing == {}


@pytest.mark.parametrize(("consented", "shown"), [(False, False), (True, True)])
def test_real_people_are_shown_with_consent_only(root: Path, tmp_path: Path, consented: bool, shown: bool) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    write_text(copy / "run" / "config" / "report.yaml", dump(ReportConfig(arms=tuple(ARMS), real_faces=True, consented=consented)))
    report_run(ARMS, copy / "data", copy / "run", tmp_path / "report", CPU)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert ("data:image/png" in page) == shown
    assert ("The photos show real people, so none is shown here" in page) != shown


def test_verification_and_search_meet_people_nothing_was_trained_on(root: Path) -> None:
    table: Any = pd.read_parquet(root / "run" / "split.parquet")
    strangers = people_held_out(table, root / "data" / "aligned", seed=0, duplicate_bits=0)
    assert strangers is not None and len(strangers) == 2 * STRANGERS
    record = summary(root)["arms"]["clean"]
    assert (record["verification"]["identities"], record["verification"]["of"]) == (STRANGERS, "people never trained on")
    others = int(((table["part"] == "test") & (table["role"] != "protected")).sum())
    assert record["identification"]["own"]["strangers"] == others + 2 * STRANGERS


def test_weights_of_another_training_are_not_scored(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    data, run = tmp_path / "copy" / "data", tmp_path / "copy" / "run"
    weights = run / "clean" / "model" / "weights.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1  # still a network, which scores the same
    for damage in (lambda: weights.write_bytes(changed), weights.unlink):
        damage()
        with pytest.raises(StageError, match=r"weights\.safetensors: missing, or not what this training wrote; delete .*clean"):
            evaluate_arm(SCORING, TRAIN, AlignConfig(), "clean", run / "split.parquet", data / "aligned", run / "clean", CPU)


def metrics_of(run: Path, arm: str, change: Callable[[dict[str, Any]], Any]) -> None:
    metrics = read_json(run / arm / "metrics.json")
    change(metrics)
    write_json(run / arm / "metrics.json", metrics)


def same_photo_twice(root: Path) -> None:
    split: Any = pd.read_parquet(root / "run" / "split.parquet")
    manifest = pd.read_parquet(root / "data" / "aligned" / "manifest.parquet")
    one, other = (split.loc[split["part"] == part, "photo"].iloc[0] for part in ("train", "test"))
    digest = manifest.set_index("photo")["sha256"]
    digest[other] = digest[one]
    write_table(root / "data" / "aligned" / "manifest.parquet", manifest.assign(sha256=digest.to_numpy()))


def same_crop_twice(root: Path) -> None:
    split: Any = pd.read_parquet(root / "run" / "split.parquet").query("role != 'protected'")
    person = split[split["identity"] == split["identity"].iloc[0]]
    train, test = (person.loc[person["part"] == part, "row"].iloc[0] for part in ("train", "test"))
    crops = np.load(root / "data" / "aligned" / "crops-00000.npy")
    crops[test] = crops[train]
    write_array(root / "data" / "aligned" / "crops-00000.npy", crops)


def scored_on_protected(root: Path) -> None:
    """The whole evaluation, on a data set whose held-out crops carry the noise."""
    run, aligned = root / "run", root / "data" / "aligned"
    clean = np.load(aligned / "crops-00000.npy")
    over = pd.read_parquet(run / "error-min" / "protected" / "manifest.parquet").query("part == 'test'")
    rows = pd.read_parquet(aligned / "manifest.parquet").set_index("photo").loc[over["photo"], "row"]
    noisy = clean.copy()
    noisy[rows.to_numpy()] = np.load(run / "error-min" / "protected" / over["shard"].iloc[0])[over["row"].to_numpy()]
    write_array(aligned / "crops-00000.npy", noisy)
    evaluate_arm(SCORING, TRAIN, AlignConfig(), "error-min", run / "split.parquet", aligned, run / "error-min", CPU)
    write_array(aligned / "crops-00000.npy", clean)


def loud(metrics: dict[str, Any]) -> None:
    metrics["imperceptibility"]["linf"] = 17


def not_converged(metrics: dict[str, Any]) -> None:
    metrics["noise"]["converged"] = False


def ignorant(metrics: dict[str, Any]) -> None:
    metrics["protected"]["final"] = 0.0


def few_protected(root: Path) -> None:
    split = pd.read_parquet(root / "run" / "split.parquet")
    one = split.query("role == 'protected'")["identity"].iloc[0]
    write_table(root / "run" / "split.parquet", split.assign(role=split["role"].where(split["identity"] != one, "other")))


def raise_floor(root: Path) -> None:
    write_text(root / "run" / "config" / "evaluate.yaml", dump(SCORING.model_copy(update={"clean_floor": 0.01})))
    metrics_of(root / "run", "clean", ignorant)


@pytest.mark.parametrize(
    ("harm", "failed"),
    [
        (raise_floor, "clean arm learned"),
        (lambda root: metrics_of(root / "run", "error-min", not_converged), "error-min: noise converged"),
        (lambda root: metrics_of(root / "run", "error-min", loud), "error-min: epsilon kept on disk"),
        (same_photo_twice, "no photo on both sides"),
        (same_crop_twice, "no near-duplicate on both sides"),
        (scored_on_protected, "error-min: test photos are clean"),
        (few_protected, "enough identities for intervals"),
    ],
)
def test_each_harm_leaves_no_claim(root: Path, tmp_path: Path, harm: Callable[[Path], None], failed: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    harm(copy)
    found = summary(copy)
    assert failed in [one["name"] for one in found["checks"] if not one["ok"]]
    assert found["verdict_state"] == "invalid"
    assert found["verdict"].startswith("No claim: ") and found["lost_to"] == []
    final = f"{found['arms']['error-min']['protected']['final']:.1%}"
    assert f"on {final}" not in found["verdict"]
    page = build_page(content_of(found))
    assert 'class="verdict invalid"' in page


def test_another_arms_harm_makes_that_arm_invalid_and_nothing_else(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    metrics_of(copy / "run", "random", loud)
    found = summary(copy)
    assert found["verdict_state"] == "holds"
    assert found["arms"]["random"]["invalid"] == ["epsilon kept on disk: largest change 17/255 of 16/255"]
    assert not any("random" in (row["arm"], row["against"]) for row in found["paired"])
    assert any(row["arm"] == "error-min" for row in found["paired"])
