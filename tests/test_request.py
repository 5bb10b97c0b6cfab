"""What users ask for: checked whole, before anything is written; exit 2 and one clear line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config import AlignConfig, DataConfig, NoiseConfig, RecropConfig, SplitConfig, TrainConfig, load, load_profile
from pipeline.errors import RequestError
from pipeline.noise.arms import ARMS
from pipeline.request import Request, write_snapshots
from pipeline.training.trials import trials_asked_for

PROFILES = Path(__file__).resolve().parents[1] / "configs"
PLAIN = Request(
    profile="smoke", dataset="synthetic", photos="", identities="3", setting="partial", arms="clean error-min random", epsilon="16",
    seeds="0", detector="mtcnn", detector_pack="", recogniser_weights="", surrogate_weights="", show_people="no",
)  # fmt: skip
NO_RECROPPINGS = ("magic", "jpeg", "jpeg-", "jpeg-0", "jpeg-075", "jpeg-101")


def ask(folder: Path, **changes: str) -> list[Path]:
    return write_snapshots(replace(PLAIN, **changes), PROFILES, folder / "data", folder / "run")


def test_snapshots_change_only_with_their_content(tmp_path: Path) -> None:
    first = ask(tmp_path)
    assert {path.name for path in first} == {
        "data.yaml", "align.yaml", "split.yaml", "train.yaml", "evaluate.yaml", "noise-error-min.yaml", "noise-random.yaml",
    }  # fmt: skip
    assert ask(tmp_path) == []
    assert {path.name for path in ask(tmp_path, identities="2")} == {"split.yaml"}
    assert {path.name for path in ask(tmp_path, identities="2", epsilon="8")} == {"noise-error-min.yaml", "noise-random.yaml"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": "0"}, "EPSILON=0: allowed are whole numbers from 1 to 64"),
        ({"epsilon": "16/255"}, "EPSILON=16/255: allowed"),
        ({"identities": "7"}, "IDENTITIES=7: allowed are 1 to 6"),
        ({"identities": "../x"}, "IDENTITIES=../x: allowed"),
        ({"identities": "-1"}, "IDENTITIES=-1: allowed"),
        ({"identities": "٣"}, "IDENTITIES=٣: allowed"),
        ({"profile": "huge"}, "PROFILE=huge: no such profile; there are laptop, paper, smoke"),
        ({"dataset": "imagenet"}, "DATASET=imagenet: allowed are synthetic"),
        ({"setting": "some"}, "SETTING=some: allowed are partial, full"),
        ({"arms": "clean magic"}, "ARMS=magic: allowed are clean"),
        ({"arms": "clean clean"}, "ARMS='clean clean': allowed"),
        ({"arms": ""}, "ARMS='': allowed"),
        ({"seeds": "x"}, "SEEDS=x: allowed"),
        ({"photos": "/tmp"}, "PHOTOS=/tmp: synthetic photos are rendered"),
        ({"dataset": "folder"}, "PHOTOS is empty: DATASET=folder needs"),
        ({"dataset": "folder", "photos": "/no/such/folder"}, "/no/such/folder"),
        ({"detector": "haar"}, "DETECTOR=haar: allowed are mtcnn, scrfd"),
        ({"detector": "scrfd"}, "DETECTOR_PACK=: DETECTOR=scrfd needs"),
        ({"recogniser_weights": "/no/w.safetensors"}, "RECOGNISER_WEIGHTS=/no/w.safetensors: not there"),
        ({"show_people": "yes"}, "SHOW_PEOPLE=yes: allowed are no, consented"),
    ],
)
def test_wrong_requests_name_the_variable_and_write_nothing(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(tmp_path, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_identities_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "who.txt"
    names.write_text("id0003\n\n  id0001 \n", encoding="utf-8")
    ask(tmp_path, identities=str(names))
    assert load(SplitConfig, tmp_path / "run" / "config" / "split.yaml").identities == ("id0003", "id0001")
    names.write_text("a\na\n", encoding="utf-8")
    with pytest.raises(RequestError, match="'a' stands there more than once"):
        ask(tmp_path, identities=str(names))
    names.write_text(" \n", encoding="utf-8")
    with pytest.raises(RequestError, match="names nobody"):
        ask(tmp_path, identities=str(names))


def test_a_folder_must_hold_the_identities(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("anna", "<script>"):
        (photos / name).mkdir(parents=True)
        (photos / name / "a.jpg").write_bytes(b"not looked at yet")
    with pytest.raises(RequestError, match="IDENTITIES=3: allowed are 1 to 2, the folders in PHOTOS="):
        ask(tmp_path, dataset="folder", photos=str(photos), identities="3")
    names = tmp_path / "who.txt"
    names.write_text("<script>\n../x\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"'\.\./x' is no folder in PHOTOS="):
        ask(tmp_path, dataset="folder", photos=str(photos), identities=str(names))
    assert not (tmp_path / "run").exists()
    ask(tmp_path, dataset="folder", photos=str(photos), identities="2")


def test_weights_change_the_recipe_and_are_named_by_content(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    ask(tmp_path, profile="laptop", recogniser_weights=str(weights), surrogate_weights=str(weights))
    scratch = load_after(tmp_path / "scratch", profile="laptop")
    tuned = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    assert tuned.weights == str(weights)
    assert tuned.lr < scratch.lr
    assert load(NoiseConfig, tmp_path / "run" / "config" / "noise-error-min.yaml").weights == str(weights)
    weights.write_bytes(b"two")
    changed = ask(tmp_path, profile="laptop", recogniser_weights=str(weights), surrogate_weights=str(weights))
    assert {path.name for path in changed} == {"train.yaml", "noise-error-min.yaml"}


def test_lfw_is_aligned_by_its_own_rule(tmp_path: Path) -> None:
    for name in ("Ada", "Bo"):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for number in (1, 2):
            (tmp_path / "lfw" / name / f"{name}_{number:04d}.jpg").write_bytes(b"a photo")
    (tmp_path / "lfw" / "pairs.txt").write_text("1\nAda 1 2\nAda 1 Bo 1\n")
    for dataset, face in (("lfw", "centre"), ("folder", "identity")):
        ask(tmp_path / dataset, dataset=dataset, photos=str(tmp_path / "lfw"), identities="1")
        assert load(AlignConfig, tmp_path / dataset / "data" / "align.yaml").face == face


def load_after(folder: Path, **changes: str) -> TrainConfig:
    ask(folder, **changes)
    return load(TrainConfig, folder / "run" / "config" / "train.yaml")


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_every_profile_is_whole(tmp_path: Path, profile: str) -> None:
    assert (
        len(ask(tmp_path, profile=profile, arms=" ".join(ARMS))) == 5 + 1 + len(ARMS) - 2
    )  # the stages, the surrogate, and every arm that has noise


def test_paper_profile_has_the_papers_numbers(tmp_path: Path) -> None:
    ask(tmp_path, profile="paper", identities="50")
    noise = load(NoiseConfig, tmp_path / "run" / "config" / "noise-error-min.yaml")
    train = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    assert (noise.epsilon, noise.step, noise.visits, noise.batches, noise.batch, noise.stop_error) == (16, 1.6, 1, 30, 32, 0.1)
    assert (noise.dropout, noise.search) == (0.6, "all")
    assert (train.lr, train.momentum, train.weight_decay, train.clip, train.epochs) == (0.05, 0.9, 5e-4, 5, 50)
    assert (train.steps_at, train.batch, train.flip, train.normalise) == ((30, 40), 512, True, False)


def test_command_line_says_it_in_one_line_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["configure", "--data", str(tmp_path / "d"), "--run", str(tmp_path / "r"), "--profiles", str(PROFILES), "--epsilon", "300"]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == "configure: EPSILON=300: allowed are whole numbers from 1 to 64\n"
    assert captured.out == ""


def test_missing_and_damaged_snapshots_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["split", "--data", str(tmp_path / "d"), "--run", str(tmp_path / "r")]
    assert main(words) == 1
    assert "split.yaml: missing" in capsys.readouterr().err
    ask(tmp_path)
    os.rename(tmp_path / "run", tmp_path / "r")
    path = tmp_path / "r" / "config" / "split.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"speed": 3}))
    assert main(words) == 1
    assert "speed" in capsys.readouterr().err
    path.write_text("a: [", encoding="utf-8")
    assert main(words) == 1
    assert "not valid YAML" in capsys.readouterr().err


def test_matrix_writes_a_config_a_trial(tmp_path: Path) -> None:
    changed = ask(tmp_path, matrix="core resnet18 share-60")
    trials = tmp_path / "run" / "config" / "trials"
    assert {path.stem for path in changed if path.parent == trials} == {
        "grey", "jpeg-75", "jpeg-50", "jpeg-25", "blur-1.0", "orthogonal-projection", "mixup", "resnet18", "share-60",
    }  # fmt: skip
    own = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    jpeg, resnet, part = (load(TrainConfig, trials / f"{name}.yaml") for name in ("jpeg-50", "resnet18", "share-60"))
    assert jpeg == own.model_copy(update={"countermeasure": "jpeg-50"}), "a trial differs in what its name says and nothing else"
    assert (resnet.model, resnet.countermeasure) == ("resnet18", "none")
    assert part.share == 0.6


def test_a_set_leaves_out_what_the_run_cannot_do_or_does_anyway(tmp_path: Path) -> None:
    def names(**changes: str) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return {path.stem for path in ask(folder, matrix="trainers", **changes) if path.parent.name == "trials"}

    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    assert names() == {"resnet18", "mobilefacenet", "arcface"}
    tuned = names(profile="laptop", recogniser_weights=str(weights))
    assert tuned == {"scratch", "resnet18", "mobilefacenet", "arcface", "linear-probe", "svm", "nearest-neighbour"}


def test_full_is_all_sets() -> None:
    full = trials_asked_for("full", tuned=False, weights=True, photos=True)
    assert full == trials_asked_for("countermeasures trainers shares", tuned=False, weights=True, photos=True)
    assert set(trials_asked_for("core", tuned=False, weights=False, photos=True)) < set(full)
    assert len(full) == len(set(full)) and {"jpeg-10", "last-layer-refit", "svm", "share-20", "recropped", "recropped-jpeg-75"} <= set(full)


def test_crops_cannot_be_cropped_anew() -> None:
    assert not [name for name in trials_asked_for("full", tuned=False, weights=True, photos=False) if name.startswith("recropped")]
    with pytest.raises(ValueError, match="'recropped' looks for faces in whole photos: this data set is of crops"):
        trials_asked_for("grey recropped", tuned=False, weights=True, photos=False)


def test_a_scrapers_detector_is_told_apart_from_the_runs(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="DETECTOR_PACK=: MATRIX=recropped-scrfd needs the folder of a local insightface pack"):
        ask(tmp_path, matrix="recropped-scrfd")
    assert not (tmp_path / "run").exists()
    ask(tmp_path, matrix="recropped recropped-jpeg-75 recropped-scrfd", detector_pack=str(tmp_path))
    assert load(AlignConfig, tmp_path / "data" / "align.yaml").detector_pack is None, "another pack aligns nothing anew"
    trials = tmp_path / "run" / "config" / "trials"
    asked = {path.stem: load(TrainConfig, path).recropped for path in trials.iterdir()}
    assert asked == {
        "recropped": RecropConfig(),
        "recropped-jpeg-75": RecropConfig(jpeg=75),
        "recropped-scrfd": RecropConfig(detector="scrfd", detector_pack=str(tmp_path)),
    }


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        *[(f"recropped-{how}", f"MATRIX: 'recropped-{how}': allowed are recropped, recropped-jpeg-Q, rec") for how in NO_RECROPPINGS],
        ("jpeg-0", "MATRIX: countermeasure 'jpeg-0': allowed"),
        ("share-101", "MATRIX: 'share-101': allowed are share-0 to share-100"),
        ("magic", "MATRIX: countermeasure 'magic': allowed are"),
        ("svm", "MATRIX: 'svm' starts from pretrained weights: give RECOGNISER_WEIGHTS="),
    ],
)
def test_unknown_trials_are_refused_before_anything_is_written(tmp_path: Path, matrix: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(tmp_path, matrix=matrix)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_nothing_is_trained_on_strangers() -> None:
    """They are told from the others by having fewer photos than the split wants."""
    for path in sorted(PROFILES.glob("*.yaml")):
        profile = load_profile(path)
        data, split = DataConfig.model_validate({"dataset": "synthetic"} | profile["data"]), SplitConfig.model_validate(profile["split"])
        assert not data.strangers or data.photos_per_stranger < split.min_photos <= data.photos_per_identity, path.stem
