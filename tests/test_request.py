"""What users ask for: checked whole, before anything is written; exit 2 and one clear line."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.artifacts import sha256_of_file, sha256_of_files, write_bytes
from pipeline.config import (
    AlignConfig,
    DataConfig,
    NoiseConfig,
    RecropConfig,
    ReportConfig,
    SplitConfig,
    TrainConfig,
    dump,
    load,
    load_profile,
)
from pipeline.errors import RequestError
from pipeline.noise.arms import ARMS, SURROGATES
from pipeline.noise.searched import surrogate_seed
from pipeline.request import Request, no_claim, trial_snapshots, write_snapshots
from pipeline.training.trials import SETS, Means, trial_of, trials_asked_for
from tests.tiny_onnx import write_recogniser

PROFILES = Path(__file__).resolve().parents[1] / "configs"
PLAIN = Request(
    profile="smoke", dataset="synthetic", photos="", identities="3", setting="partial", arms="clean error-min random", epsilon="16",
    seeds="0", detector="mtcnn", detector_pack="", recogniser_weights="", surrogate_weights="", show_people="no",
)  # fmt: skip
SCRATCH = TrainConfig(input_size=75)
EVERYTHING = Means({"weights": "w.safetensors"}, {"reference": "r.onnx"}, photos=True)
NO_RECROPPINGS = ("magic", "jpeg", "jpeg-", "jpeg-0", "jpeg-075", "jpeg-101")


def ask(folder: Path, **changes: str) -> list[Path]:
    return write_snapshots(replace(PLAIN, **changes), PROFILES, folder / "data", folder / "run")


def pack_in(folder: Path) -> dict[str, str]:
    return {"detector_pack": str(folder), "detector_pack_sha256": sha256_of_files(sorted(folder.glob("*.onnx")))}


def test_models_given_by_path_are_named_by_content(tmp_path: Path) -> None:
    model = tmp_path / "pack" / "det.onnx"
    write_bytes(model, b"one")
    given = {"detector": "scrfd", "detector_pack": str(model.parent), "reference": str(model), "matrix": "recropped-scrfd"}
    ask(tmp_path, **given)
    assert ask(tmp_path, **given) == []
    write_bytes(model, b"two")
    assert {path.name for path in ask(tmp_path, **given)} == {"align.yaml", "evaluate.yaml", "recropped-scrfd.yaml"}


def test_snapshots_change_only_with_their_content(tmp_path: Path) -> None:
    first = ask(tmp_path)
    assert {path.name for path in first} == {
        "data.yaml", "align.yaml", "split.yaml", "train.yaml", "evaluate.yaml", "report.yaml", "noise-error-min.yaml", "noise-random.yaml",
    }  # fmt: skip
    assert ask(tmp_path) == []
    assert {path.name for path in ask(tmp_path, identities="2")} == {"split.yaml"}
    assert {path.name for path in ask(tmp_path, identities="2", epsilon="8")} == {"noise-error-min.yaml", "noise-random.yaml"}
    fewer = {path.name for path in ask(tmp_path, identities="2", epsilon="8", arms="clean error-min")}
    assert fewer == {"report.yaml"}, "the report is of other arms now"
    assert load(ReportConfig, tmp_path / "run" / "config" / "report.yaml").arms == ("clean", "error-min")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": "0"}, "EPSILON=0: allowed are whole numbers from 1 to 64"),
        ({"epsilon": "16/255"}, "EPSILON=16/255: allowed"),
        ({"identities": "7"}, "IDENTITIES=7: allowed are 1 to 5: PROFILE=smoke renders 6"),
        ({"identities": "6"}, "IDENTITIES=6: allowed are 1 to 5: PROFILE=smoke renders 6"),
        ({"setting": "full", "arms": "clean removed"}, "ARMS='clean removed': SETTING=full protects everyone"),
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
        ({"dataset": "folder", "photos": "~nobody-of-that-name/x"}, "PHOTOS=~nobody-of-that-name/x: nobody of that name has a home here"),
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


def test_one_folder_of_photos_is_one_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the same photos would be linked, aligned and searched for noise once more."""
    for name in ("anna", "bo"):
        write_bytes(tmp_path / "photos" / name / "1.jpg", b"")
    monkeypatch.chdir(tmp_path / "photos")
    ask(tmp_path, dataset="folder", photos=str(tmp_path / "photos"), identities="1")
    for written in ("../photos", ".", f"{tmp_path}/photos/anna/../", "../photos/"):
        assert ask(tmp_path, dataset="folder", photos=written, identities="1") == [], written
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    write_bytes(tmp_path / "elsewhere" / "photos" / "carla" / "1.jpg", b"")
    write_bytes(tmp_path / "elsewhere" / "photos" / "dora" / "1.jpg", b"")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    assert ask(tmp_path, dataset="folder", photos=f"{tmp_path}/link/../photos", identities="1"), "beside what the link leads to"


def test_identities_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "who.txt"
    names.write_text("id0003\n\n  id0001 \n", encoding="utf-8")
    ask(tmp_path, identities=str(names))
    assert load(SplitConfig, tmp_path / "run" / "config" / "split.yaml").identities == ("id0001", "id0003")
    names.write_text("id0001\nid0003\n", encoding="utf-8")
    assert ask(tmp_path, identities=str(names)) == [], "the order of the lines says nothing"
    names.write_text("a\na\n", encoding="utf-8")
    with pytest.raises(RequestError, match="'a' stands there more than once"):
        ask(tmp_path, identities=str(names))
    names.write_text(" \n", encoding="utf-8")
    with pytest.raises(RequestError, match="names nobody"):
        ask(tmp_path, identities=str(names))
    names.write_text("Zoe\u0308\nZo\u00eb\n", encoding="utf-8")
    with pytest.raises(RequestError, match="stands there more than once"):
        ask(tmp_path, identities=str(names))


def test_names_are_those_of_the_folders_however_they_are_spelt(tmp_path: Path) -> None:
    """Saved with a byte order mark, as by Windows' editor, and typed in one form of Unicode while the folder has the other."""
    mac, typed = unicodedata.normalize("NFD", "Zoë"), "Zoë"
    for name in (mac, "Bo", "Cy"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.jpg").write_bytes(b"not looked at yet")
    names = tmp_path / "who.txt"
    names.write_text(f"Bo\r\n{typed}\r\n", encoding="utf-8-sig")
    ask(tmp_path, dataset="folder", photos=str(tmp_path / "photos"), identities=str(names))
    assert load(SplitConfig, tmp_path / "run" / "config" / "split.yaml").identities == ("Bo", mac)


def test_names_are_found_with_the_blanks_around_them_or_without(tmp_path: Path) -> None:
    for name in ("bob ", " cy", "cy", "di"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.jpg").write_bytes(b"not looked at yet")
    names = tmp_path / "who.txt"
    names.write_text("bob \n cy\n", encoding="utf-8")
    ask(tmp_path, dataset="folder", photos=str(tmp_path / "photos"), identities=str(names))
    assert load(SplitConfig, tmp_path / "run" / "config" / "split.yaml").identities == ("bob ", "cy")


@pytest.mark.parametrize(
    ("files", "inside"),
    [(("1.heic", "2.HEIC", "note.txt"), "2 .heic, 1 .txt"), ((), "nothing"), (("more/1.jpg",), "1 folder"), ((".1.jpg",), "nothing")],
)
def test_who_has_no_photo_that_can_be_read_is_not_left_out_in_silence(tmp_path: Path, files: tuple[str, ...], inside: str) -> None:
    for name in ("anna/.x", "bo/1.jpg", "cy/1.jpg", *(f"anna/{file}" for file in files)):
        write_bytes(tmp_path / "photos" / name, b"not looked at yet")
    names = tmp_path / "who.txt"
    names.write_text("bo\nanna\n", encoding="utf-8")
    what = f"IDENTITIES: 'anna': that folder in PHOTOS=.* holds no photo of a format that is read: {inside}; allowed are .avif .bmp"
    with pytest.raises(RequestError, match=what):
        ask(tmp_path, dataset="folder", photos=str(tmp_path / "photos"), identities=str(names))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dataset", ["folder", "webface"])
def test_a_folder_must_hold_the_identities(tmp_path: Path, dataset: str) -> None:
    photos = tmp_path / "photos"
    for name in ("anna", "<script>"):
        (photos / name).mkdir(parents=True)
        (photos / name / "a.jpg").write_bytes(b"not looked at yet")
    for count in ("2", "3"):
        with pytest.raises(RequestError, match=f"IDENTITIES={count}: allowed are 1 to 1 of the 2 folders in PHOTOS=.*or SETTING=full"):
            ask(tmp_path, dataset=dataset, photos=str(photos), identities=count)
    names = tmp_path / "who.txt"
    names.write_text("<script>\n../x\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"'\.\./x' is no folder in PHOTOS="):
        ask(tmp_path, dataset=dataset, photos=str(photos), identities=str(names))
    names.write_text("<script>\nanna\n", encoding="utf-8")
    with pytest.raises(RequestError, match="IDENTITIES=2: allowed are 1 to 1 of the 2 folders"):
        ask(tmp_path, dataset=dataset, photos=str(photos), identities=str(names))
    assert not (tmp_path / "run").exists()
    ask(tmp_path, dataset="folder", photos=str(photos), identities=str(names), setting="full")
    ask(tmp_path, dataset="folder", photos=str(photos), identities="1")


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_pretrained_weights_are_asked_at_the_size_they_were_made_at(profile: str, tmp_path: Path) -> None:
    """At 96 px those of CASIA-WebFace hardly know faces, and any noise looks as if it held (`benchmarks/pretrained_size.py`)."""
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    known = {"recogniser_weights": str(weights), "surrogate_weights": str(weights), "cloak_against": str(weights)}
    ask(tmp_path, profile=profile, arms="clean error-min error-min-bound cloak cloak-error-min", matrix="svm", **known)
    config = tmp_path / "run" / "config"
    noise = [load(NoiseConfig, config / f"noise-{arm}.yaml") for arm in ("error-min", "error-min-bound", "cloak", "cloak-error-min")]
    train = [load(TrainConfig, config / name) for name in ("train.yaml", "trials/svm.yaml")]
    assert {one.input_size for one in [*noise, *train]} == {160}


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


def test_only_a_surrogate_of_the_weights_own_kind_starts_from_them(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    ask(tmp_path, profile="laptop", arms="clean tap-ensemble", surrogate_weights=str(weights))
    made = {name: load(TrainConfig, tmp_path / "run" / "config" / f"{name}.yaml") for name in ("train", *SURROGATES)}
    assert {name: (one.model, one.weights) for name, one in made.items()} == {
        "train": ("inception-resnet-v1", None),
        "surrogate": ("inception-resnet-v1", str(weights)),
        "surrogate-mobilefacenet": ("mobilefacenet", None),
    }
    other = made["surrogate-mobilefacenet"].model_dump(exclude={"model", "seed"})
    assert other == made["train"].model_dump(exclude={"model", "seed"}), "from scratch, it learns as the recogniser does"


def test_arms_are_searched_as_their_names_say(tmp_path: Path) -> None:
    ask(tmp_path, arms="clean error-min error-min-grey error-min-released error-min-robust error-min-bound random")
    noise = {path.stem.removeprefix("noise-"): load(NoiseConfig, path) for path in (tmp_path / "run" / "config").glob("noise-*.yaml")}
    assert {arm: (config.rule, config.grey, config.transforms, config.binding) for arm, config in noise.items()} == {
        "error-min": ("identity-mean", False, False, False),
        "error-min-grey": ("identity-mean", True, False, False),
        "error-min-released": ("released", False, False, False),
        "error-min-robust": ("identity-mean", False, True, False),
        "error-min-bound": ("identity-mean", False, True, True),
        "random": ("identity-mean", False, False, False),
    }


def test_a_seed_reaches_everything_that_is_drawn(tmp_path: Path) -> None:
    seeds = {}
    for seed in ("0", "1"):
        folder = tmp_path / seed
        ask(folder, seeds=seed, arms="clean error-min random tap", matrix="jpeg-50")
        paths = [*(folder / "run" / "config").glob("*.yaml"), *(folder / "run" / "config" / "trials").glob("*.yaml")]
        seeds[seed] = {path.stem: yaml.safe_load(path.read_text()).get("seed") for path in paths if path.stem != "report"}
        drawn = seeds[seed]["train"], seeds[seed]["surrogate"], surrogate_seed(seeds[seed]["noise-error-min"], 0)
        assert len(set(drawn)) == 3, "nobody knows the recogniser's initial weights, whichever way noise is made"
    assert set(seeds["0"]) == {"split", "train", "evaluate", "surrogate", "noise-error-min", "noise-random", "noise-tap", "jpeg-50"}
    assert {name: seed + 1 for name, seed in seeds["0"].items()} == seeds["1"]
    assert surrogate_seed(0, 0) != surrogate_seed(1, 0) != surrogate_seed(1, 1)


def test_real_faces_are_shown_with_consent_only(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("anna", "bo"):
        (photos / name).mkdir(parents=True)
        (photos / name / "a.jpg").write_bytes(b"not looked at yet")
    given = {"dataset": "folder", "photos": str(photos), "identities": "1"}
    for changes, real, consented in (({}, False, False), (given, True, False), (given | {"show_people": "consented"}, True, True)):
        ask(tmp_path, **changes)
        config = load(ReportConfig, tmp_path / "run" / "config" / "report.yaml")
        assert (config.real_faces, config.consented) == (real, consented)
    assert {path.name for path in ask(tmp_path, **given)} == {"report.yaml"}, "who may be shown concerns the page, and no evaluation"


def test_lfw_is_aligned_by_its_own_rule(tmp_path: Path) -> None:
    for name in ("Ada", "Bo"):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for number in (1, 2):
            (tmp_path / "lfw" / name / f"{name}_{number:04d}.jpg").write_bytes(b"a photo")
    (tmp_path / "lfw" / "pairs.txt").write_text("1\nAda 1 2\nAda 1 Bo 1\n")
    for dataset, face in (("lfw", "centre"), ("folder", "identity")):
        ask(tmp_path / dataset, dataset=dataset, photos=str(tmp_path / "lfw"), identities="1")
        assert load(AlignConfig, tmp_path / dataset / "data" / "align.yaml").face == face
    given = {"photos": str(tmp_path / "lfw"), "identities": "1", "lfw": str(tmp_path / "lfw")}
    for dataset in ("lfw", "folder"):
        with pytest.raises(RequestError, match=r"LFW=.*: the ten folds hold photos that PHOTOS=.* trains on; leave LFW= empty"):
            ask(tmp_path / f"itself-{dataset}", dataset=dataset, **given)


def load_after(folder: Path, **changes: str) -> TrainConfig:
    ask(folder, **changes)
    return load(TrainConfig, folder / "run" / "config" / "train.yaml")


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_every_profile_is_whole(tmp_path: Path, profile: str) -> None:
    known = write_recogniser(tmp_path / "known.onnx")
    written = ask(tmp_path, profile=profile, arms=" ".join(ARMS), cloak_against=str(known))
    assert len(written) == 6 + len(SURROGATES) + len(ARMS) - 2  # the stages, the surrogates, and every arm that has noise


def test_paper_profile_has_the_papers_numbers(tmp_path: Path) -> None:
    ask(tmp_path, profile="paper", identities="50")
    noise = load(NoiseConfig, tmp_path / "run" / "config" / "noise-error-min.yaml")
    train = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    assert (noise.epsilon, noise.step, noise.batches, noise.batch, noise.stop_error) == (16, 1.6, 30, 32, 0.1)
    assert (noise.dropout, noise.search) == (0.6, "all")
    assert (train.lr, train.momentum, train.weight_decay, train.clip, train.epochs) == (0.05, 0.9, 5e-4, 5, 50)
    assert (train.steps_at, train.batch, train.flip, train.normalise) == ((30, 40), 512, True, False)


def test_command_line_says_it_in_one_line_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["configure", "--data", str(tmp_path / "d"), "--run", str(tmp_path / "r"), "--profiles", str(PROFILES), "--epsilon", "300"]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == "configure: EPSILON=300: allowed are whole numbers from 1 to 64\n"
    assert captured.out == ""


@pytest.mark.parametrize("asked", [("DEVICE", "gpu"), ("WORKERS", "5000")])
def test_where_to_run_is_checked_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    words = ["configure", "--data", str(tmp_path / "d"), "--run", str(tmp_path / "r"), "--profiles", str(PROFILES)]
    assert main([*words, f"--{asked[0].lower()}={asked[1]}"]) == 2
    assert capsys.readouterr().err.startswith(f"configure: {'='.join(asked)}: allowed are auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("matrix", "--arms", "clean foo"), "matrix: ARMS=foo: allowed are clean"),
        (("matrix", "--matrix", "bogus"), "matrix: MATRIX: countermeasure 'bogus': allowed"),
        (("protect", "--arm", "foo"), "protect: ARMS=foo: allowed are random, random-samplewise"),
        (("protect", "--arm", "surrogate"), "protect: ARMS=surrogate: allowed are random,"),
        (("noise", "--arm", "clean"), "noise: ARMS=clean: allowed are random,"),
        (("show", "--arm", "removed"), "show: ARMS=removed: allowed are random,"),
        (("evaluate", "--arm", "foo"), "evaluate: ARMS=foo: allowed are clean"),
        (("report", "--arms", "", "--output", "o"), "report: ARMS=: allowed are clean"),
        (("trial", "--arm", "clean", "--trial", "bogus"), "trial: --trial: countermeasure 'bogus': allowed are none, grey"),
        (("train", "--arm", "clean", "--threads", "0"), "train: --threads=0: allowed are whole numbers from 1"),
    ],
)
def test_unknown_arms_and_trials_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    ask(tmp_path)
    assert main([*words, "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_study_that_cannot_end_in_a_claim_says_so_when_it_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["configure", "--data", str(tmp_path / "d"), "--run", str(tmp_path / "r"), "--profiles", str(PROFILES)]
    assert main([*words, "--identities", "19", "--arms", "random"]) == 0
    told = "numbers, but no claim: 19 identities are protected, 20 or more are needed; clean is not in ARMS; no error-min arm is in ARMS"
    assert told in capsys.readouterr().err
    assert main([*words, "--identities", "19", "--arms", "random"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--identities", "20", "--arms", "clean error-min-released"]) == 0
    assert "no claim" not in capsys.readouterr().err
    ask(tmp_path, setting="full", identities="3")
    assert no_claim(tmp_path / "run") == "", "the number says nothing where everyone is protected"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no sections"),
        ("# nothing\n", "has no sections"),
        ("- data\n", "has no sections"),
        ("train: 3\n", "section train is 3"),
        ("speed: {}\n", "unknown section speed"),
        ("noise: {error-mini: {step: 2.0}}\n", "noise: 'error-mini': allowed are backdoor, cloak, cloak-error-min,"),
        ("noise: {clean: {step: 2.0}}\n", "noise: 'clean': allowed are"),
        ("trials: {jpeg-500: {epochs: 2}}\n", "trials: countermeasure 'jpeg-500': allowed is"),
        ("trials: {grey: {countermeasure: jpeg-10}}\n", "trials: grey: countermeasure is not for a profile to say (that is what"),
        ("train: {head: arcface}\n", "train: head is not for a profile to say (every arm trains alike: name it in MATRIX)"),
        ("train_from_weights: {weights: /nowhere}\n", "train_from_weights: weights is not for a profile"),
        ("noise: {error-min: {given: noise.safetensors}}\n", "noise: error-min: given is not for a profile to say (a variable of `make`"),
        ("noise: {error-min: {epsilon: 8}}\n", "noise: error-min: epsilon is not for a profile to say (a variable of `make` says it"),
        ("noise: {random: {seed: 3}}\n", "noise: random: seed is not for a profile to say"),
        ("noise: {tap: {normalise: false}}\n", "noise: tap: normalise is not for a profile to say (the surrogate looks at"),
        ("noise: {cloak: {input_size: 112}}\n", "noise: cloak: input_size is not for a profile to say (networks that exist"),
        ("noise: {cloak-tap: {input_size: 112}}\n", "noise: cloak-tap: input_size is not for a profile to say (the surrogate looks"),
        ("noise_from_weights: {weights: /w}\n", "noise_from_weights: weights is not for a profile to say"),
        ("split: {identities: 20}\n", "split: identities is not for a profile to say"),
        ("align_synthetic: {detector: scrfd}\n", "align_synthetic: detector is not for a profile to say"),
        ("evaluate: {reference: r.onnx}\n", "evaluate: reference is not for a profile to say"),
        ("data: {dataset: lfw}\n", "data: dataset is not for a profile to say"),
        ("3: {}\nx: {}\n", "unknown section 3, x; allowed are about,"),
        ("noise: {error-min: 5}\n", "noise: error-min is 5; allowed are lines of key: value"),
        ("trials: {resnet18: 4}\n", "trials: resnet18 is 4; allowed are lines of key: value"),
        ("about: {cost: an hour}\n", "about: study: field required"),
        ("about: {study: mine, costs: an hour}\n", "about: costs: extra inputs are not permitted, not 'an hour'"),
        ("about: {study: mine, cost: 3}\n", "about: cost: input should be a valid string, not 3"),
        ("data: {\n", "not valid YAML"),
    ],
)
def test_a_profile_that_would_be_read_in_part_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=r"PROFILE=mine: ") as caught:
        load_profile(tmp_path / "mine.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {identities: six}\n", "PROFILE=mine: data: identities: input should be a valid integer, unable to parse"),
        ("data: {identities: }\n", "PROFILE=mine: data: identities: input should be a valid integer, not None"),
        ("align_synthetic: {min_face: 5}\n", "PROFILE=mine: align: min_face: input should be greater than or equal to 20, not 5"),
        ("split: {min_photoz: 5}\n", "PROFILE=mine: split: min_photoz: extra inputs are not permitted, not 5"),
        ("train: {epochs: 0}\n", "PROFILE=mine: train: epochs: input should be greater than or equal to 1, not 0"),
        ("evaluate: {bootstrap: few}\n", "PROFILE=mine: evaluate: bootstrap: input should be a valid integer"),
        ("noise: {error-min: {rounds: 0}}\n", "PROFILE=mine: noise for error-min: rounds: input should be greater than or equal to 1"),
        ("trials: {grey: {epochs: 0}}\n", "PROFILE=mine: trial grey: epochs: input should be greater than or equal to 1, not 0"),
    ],
)
def test_a_wrong_value_in_a_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    write_bytes(tmp_path / "profiles" / "mine.yaml", text.encode())
    with pytest.raises(RequestError) as caught:
        write_snapshots(replace(PLAIN, profile="mine", matrix="grey"), tmp_path / "profiles", tmp_path / "data", tmp_path / "run")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["profiles"]


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
        "grey", "jpeg-75", "jpeg-50", "jpeg-25", "blur-1.0", "orthogonal-projection", "pattern-subtraction", "mixup",
        "resnet18", "share-60",
    }  # fmt: skip
    own = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    jpeg, resnet, part = (load(TrainConfig, trials / f"{name}.yaml") for name in ("jpeg-50", "resnet18", "share-60"))
    assert jpeg == own.model_copy(update={"countermeasure": "jpeg-50"}), "a trial differs in what its name says and nothing else"
    assert (resnet.model, resnet.countermeasure) == ("resnet18", "none")
    assert part.share == 0.6


def test_trials_of_an_earlier_request_follow_the_run_or_go(tmp_path: Path) -> None:
    """Their results count where they belong to their snapshots, so those are of the run as it is."""
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    trials = tmp_path / "run" / "config" / "trials"
    ask(
        tmp_path, profile="laptop", matrix="jpeg-50 svm recropped recropped-scrfd", recogniser_weights=str(one), detector_pack=str(tmp_path)
    )
    (trials / "magic.yaml").write_text("{}", encoding="utf-8")  # of a name that there is no more
    changed = ask(tmp_path, profile="laptop", recogniser_weights=str(two))
    assert {path.stem for path in changed if path.parent == trials} == {"jpeg-50", "svm", "recropped", "recropped-scrfd"}
    assert not (trials / "magic.yaml").exists()
    own = load(TrainConfig, tmp_path / "run" / "config" / "train.yaml")
    assert load(TrainConfig, trials / "jpeg-50.yaml") == own.model_copy(update={"countermeasure": "jpeg-50"})
    assert load(TrainConfig, trials / "svm.yaml").weights == str(two)
    assert load(TrainConfig, trials / "recropped-scrfd.yaml").recropped == RecropConfig.model_validate(
        {"detector": "scrfd"} | pack_in(tmp_path)
    )
    assert ask(tmp_path, profile="laptop", recogniser_weights=str(two)) == []

    (trials / "recropped-scrfd.yaml").write_text("half", encoding="utf-8")
    ask(tmp_path, profile="laptop")
    assert {path.stem for path in trials.iterdir()} == {"jpeg-50", "recropped"}, "there are no weights, and nobody knows the pack"
    with pytest.raises(RequestError):
        ask(tmp_path, epsilon="0")
    assert {path.stem for path in trials.iterdir()} == {"jpeg-50", "recropped"}


def test_crops_have_no_trials_on_photos_left_from_before(tmp_path: Path) -> None:
    (tmp_path / "run" / "config" / "trials").mkdir(parents=True)
    for name in ("recropped", "grey"):
        (tmp_path / "run" / "config" / "trials" / f"{name}.yaml").write_text(dump(TrainConfig()), encoding="utf-8")
    found = trial_snapshots(PLAIN, {}, TrainConfig(), Means({}, {}, photos=False), tmp_path / "run", 0)
    assert {path.stem for path in found} == {"grey"}


def test_a_set_leaves_out_what_the_run_cannot_do_or_does_anyway(tmp_path: Path) -> None:
    def names(**changes: str) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return {path.stem for path in ask(folder, matrix="trainers", **changes) if path.parent.name == "trials"}

    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    assert names() == {"resnet18", "mobilefacenet", "arcface", "input-112"}
    assert names(profile="paper") == {"resnet18", "mobilefacenet", "arcface"}, "whose crops enter at 112 px anyway"
    tuned = names(profile="laptop", recogniser_weights=str(weights))
    assert tuned == {"scratch", "resnet18", "mobilefacenet", "arcface", "linear-probe", "svm", "nearest-neighbour", "input-112"}
    reference = tmp_path / "reference.onnx"
    reference.write_bytes(b"two")
    elsewhere = {"linear-probe-reference", "svm-reference", "nearest-neighbour-reference"}
    assert names(reference=str(reference)) == {"resnet18", "mobilefacenet", "arcface", "input-112"} | elsewhere


def test_embeddings_of_processed_photos_are_asked_for_by_name(tmp_path: Path) -> None:
    weights, reference = tmp_path / "weights.safetensors", tmp_path / "reference.onnx"
    weights.write_bytes(b"one")
    reference.write_bytes(b"two")
    given = {"profile": "laptop", "recogniser_weights": str(weights)}
    ask(tmp_path, matrix="svm-after-jpeg-50", **given)
    config = load(TrainConfig, tmp_path / "run" / "config" / "trials" / "svm-after-jpeg-50.yaml")
    assert (config.trainer, config.countermeasure, config.weights) == ("svm", "jpeg-50", str(weights))
    assert trial_of("svm-after-jpeg-50").title == "Frozen pretrained embeddings, linear SVM (JPEG, quality 50)"

    def names(folder: Path, **more: str) -> set[str]:
        return {path.stem for path in ask(folder, matrix="embeddings", **given, **more) if path.parent.name == "trials"}

    both = names(tmp_path / "both", reference=str(reference))
    assert both == set(SETS["embeddings"]) and names(tmp_path / "own") == {name for name in both if "reference" not in name}
    for matrix, why in (
        ("svm-reference-after-grey", "uses the embeddings of a recogniser that was trained elsewhere: give REFERENCE="),
        ("resnet18-after-grey", "'resnet18-after-grey': allowed are linear-probe, .*, then -after-, then grey, jpeg"),
        ("svm-after-mixup", "'svm-after-mixup': allowed are"),
        ("svm-after-jpeg-075", "allowed is jpeg-Q"),
        ("svm-after-", "countermeasure '': allowed are"),
    ):
        with pytest.raises(RequestError, match=f"MATRIX: .*{why}"):
            ask(tmp_path / "other", matrix=matrix, **given)


def test_a_reference_is_taken_whatever_the_run_starts_from(tmp_path: Path) -> None:
    weights, reference = tmp_path / "weights.safetensors", tmp_path / "reference.onnx"
    weights.write_bytes(b"one")
    reference.write_bytes(b"two")
    trials = tmp_path / "run" / "config" / "trials"
    ask(tmp_path, profile="laptop", matrix="svm svm-reference", recogniser_weights=str(weights), reference=str(reference))
    own, elsewhere = (load(TrainConfig, trials / f"{name}.yaml") for name in ("svm", "svm-reference"))
    assert (own.weights, own.reference) == (str(weights), None)
    assert (elsewhere.trainer, elsewhere.weights, elsewhere.weights_sha256) == ("svm", None, None)
    assert elsewhere.reference == str(reference) and elsewhere.reference_sha256 == sha256_of_file(reference)
    ask(tmp_path, profile="laptop", recogniser_weights=str(weights))
    assert {path.stem for path in trials.iterdir()} == {"svm"}, "without REFERENCE there is no such trial"


def test_full_is_all_sets() -> None:
    full = trials_asked_for("full", EVERYTHING, SCRATCH)
    assert full == trials_asked_for("countermeasures trainers shares", EVERYTHING, SCRATCH)
    assert set(trials_asked_for("core", Means({}, {}, photos=True), SCRATCH)) < set(full)
    wanted = {"jpeg-10", "last-layer-refit", "svm", "svm-reference", "share-20", "recropped", "recropped-jpeg-75"}
    assert len(full) == len(set(full)) and wanted <= set(full)


def test_crops_cannot_be_cropped_anew() -> None:
    crops = replace(EVERYTHING, photos=False)
    assert not [name for name in trials_asked_for("full", crops, SCRATCH) if name.startswith("recropped")]
    with pytest.raises(ValueError, match="'recropped' looks for faces in whole photos: this data set is of crops"):
        trials_asked_for("grey recropped", crops, SCRATCH)


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
        "recropped-scrfd": RecropConfig.model_validate({"detector": "scrfd"} | pack_in(tmp_path)),
    }


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        *[(f"recropped-{how}", f"MATRIX: 'recropped-{how}': allowed are recropped, recropped-jpeg-Q, rec") for how in NO_RECROPPINGS],
        ("jpeg-0", "MATRIX: countermeasure 'jpeg-0': allowed"),
        ("share-101", "MATRIX: 'share-101': allowed are share-0 to share-100"),
        *[(f"input-{size}", f"MATRIX: 'input-{size}': allowed are input-75 to input-224") for size in ("74", "225", "112px", "²24", "")],
        ("magic", "MATRIX: countermeasure 'magic': allowed are"),
        ("svm", "MATRIX: 'svm' starts from pretrained weights: give RECOGNISER_WEIGHTS="),
        ("grey svm-reference", "MATRIX: 'svm-reference' uses the embeddings of a recogniser that was trained elsewhere: give REFERENCE="),
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


def test_a_pattern_beneath_a_cloak_has_half_of_epsilon_and_starts_from_scratch(tmp_path: Path) -> None:
    known, arms = tmp_path / "w.safetensors", "clean error-min cloak-error-min"
    known.write_bytes(b"one")
    ask(tmp_path, profile="laptop", arms=arms, epsilon="15", cloak_against=str(known), surrogate_weights=str(known))
    config = tmp_path / "run" / "config"
    alone, both = (load(NoiseConfig, config / f"noise-{arm}.yaml") for arm in ("error-min", "cloak-error-min"))
    beneath = both.beneath
    assert beneath is not None and (both.epsilon, beneath.epsilon, beneath.arm) == (15, 7, "error-min")
    assert (alone.weights, beneath.weights, both.against) == (str(known), None, (str(known),))
    profile = yaml.safe_load((PROFILES / "laptop.yaml").read_text(encoding="utf-8"))
    steps = profile["noise_from_weights"]["step"] * 15 / 16, profile["noise"]["error-min"]["step"] * 7 / 16
    assert (alone.step, beneath.step) == pytest.approx(steps), "a step is as much of epsilon whatever that is"
    assert beneath.input_size < both.input_size == alone.input_size
    with pytest.raises(RequestError, match="EPSILON=1: allowed are 2 to 64 with cloak-error-min"):
        ask(tmp_path / "other", arms=arms, epsilon="1", cloak_against=str(known))


def test_what_a_cloak_is_made_against_may_lie_in_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several paths stand in quotes, where a shell leaves `~` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("one.onnx", "two.onnx"):
        write_bytes(tmp_path / name, name.encode())
    ask(tmp_path, arms="clean cloak", cloak_against="~/one.onnx ~/two.onnx")
    against = load(NoiseConfig, tmp_path / "run" / "config" / "noise-cloak.yaml").against
    assert against == (str(tmp_path / "one.onnx"), str(tmp_path / "two.onnx"))
    with pytest.raises(RequestError, match="CLOAK_AGAINST=~nobody-of-that-name/one: not to be read"):
        ask(tmp_path / "other", arms="clean cloak", cloak_against="~nobody-of-that-name/one")


def test_a_cloak_says_what_it_is_made_against(tmp_path: Path) -> None:
    one, two = tmp_path / "one of them.onnx", tmp_path / "two.safetensors"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    ask(tmp_path, arms="clean cloak", cloak_against=f"'{one}' {two}")
    config = load(NoiseConfig, tmp_path / "run" / "config" / "noise-cloak.yaml")
    assert config.against == (str(one), str(two)) and config.transforms
    assert config.against_sha256 == tuple(sha256_of_file(path) for path in (one, two))
    assert config.input_size == load(TrainConfig, tmp_path / "run" / "config" / "train.yaml").input_size
    ask(tmp_path, arms="clean error-min", cloak_against=f"{tmp_path}/absent.onnx")  # nobody asked for a cloak
    for against, why in (
        ("", "ARMS: cloak is made against recognisers that exist: give CLOAK_AGAINST=; allowed are paths"),
        ("   ", "ARMS: cloak is made against"),
        (f"{two} {tmp_path}/absent.onnx", r"CLOAK_AGAINST=.*absent\.onnx is not there; allowed are paths of recognisers"),
        (str(tmp_path / "run"), "CLOAK_AGAINST=.*run is no such file; allowed are paths of recognisers: .safetensors"),
        (f"{two} {two}", "CLOAK_AGAINST=.* are one recogniser; each counts once"),
        ("'half", "CLOAK_AGAINST='half: not to be read as words"),
    ):
        with pytest.raises(RequestError, match=why):
            ask(tmp_path / "other", arms="clean cloak", cloak_against=against)
    assert not (tmp_path / "other").exists()
