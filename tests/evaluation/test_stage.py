"""An arm is judged by the photos that each question is about: as they were published, or as they were before, by the recogniser named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts import write_array, write_table
from pipeline.config import AlignConfig, EvaluateConfig, TrainConfig
from pipeline.evaluation.lfw_protocol import embedder_of, verify_lfw
from pipeline.evaluation.stage import evaluate_arm, existing_recognisers
from pipeline.models.recognisers import Recogniser, make_recogniser
from pipeline.runtime import Runtime
from pipeline.training.faces import FaceSet, face_set
from pipeline.training.loop import TestPhotos, accuracy_by_group, predict
from pipeline.training.stage import test_photos, train_arm
from tests.conftest import toy_faces
from tests.study import CPU, IDENTITIES, TRAIN, Study

pytestmark = pytest.mark.slow
ARMS = ("clean", "random")
REFERENCE = Path("/there/knows-by-heart.onnx")


class ByHeart:
    """Stands in for REFERENCE: it knows every crop, a clean one as its person, a protected one as the other of the two protected."""

    known: dict[bytes, int]  # set by the fixture, since the stage makes its own
    opened: list[tuple[Path, str]]

    def __init__(self, path: Path, *, device: str, **_: Any) -> None:
        self.opened.append((path, device))

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return np.eye(2 * IDENTITIES, dtype=np.float32)[[self.known[crop.tobytes()] for crop in crops]]


@dataclass
class Evaluated:
    """The metrics of a clean and a noisy arm, and what the parts of the evaluation were given, by arm."""

    study: Study
    own: Recogniser
    pretrained: Recogniser
    lfw: Path
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)

    def crops(self, arm: str, part: str) -> np.ndarray:
        """Crops of the protected people, in the split's order: `train` or `test` photos, as `arm` publishes them."""
        rows = self.study.table().query("role == 'protected' and part == @part")
        if arm == "clean":
            return everything(face_set(rows, self.study.aligned))
        folder = self.study.run / arm / "protected"
        place = pd.read_parquet(folder / "manifest.parquet").set_index("photo")[["shard", "row"]]
        return everything(face_set(rows[["photo", "label"]].join(place, on="photo"), folder))


def everything(faces: FaceSet) -> np.ndarray:
    return faces.crops(np.arange(len(faces)))


def lay_out_lfw(folder: Path) -> np.ndarray:
    """Two folds of pairs of two people, as LFW has them, and their aligned crops, which are returned."""
    faces = toy_faces(identities=2, photos=4, seed=3)
    photos = [f"{name}/{name}_{number:04d}.jpg" for name in ("Ann", "Bob") for number in range(1, 5)]
    write_array(folder / "aligned" / "crops-00000.npy", faces.shards[0])
    table = pd.DataFrame({"photo": photos, "shard": "crops-00000.npy", "row": np.arange(8)})
    write_table(folder / "aligned" / "manifest.parquet", table)
    folds = ("Ann\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n", "Ann\t3\t4\nBob\t3\t4\nAnn\t3\tBob\t3\nAnn\t4\tBob\t4\n")
    (folder / "pairs.txt").write_text("2\t2\n" + "".join(folds), encoding="utf-8")
    return faces.shards[0]


def untrained(config: TrainConfig, train: FaceSet, test: TestPhotos, *, classes: int, runtime: Runtime, **_: Any) -> Any:
    """Stands in for the training: what an arm's network knows plays no part here."""
    model = network(classes, seed=5)
    return model, [{"epoch": 1, "loss": 1.0, **accuracy_by_group(predict(model, test.faces, runtime)[0], test), "seconds": 0.0}]


def network(classes: int, *, seed: int) -> Recogniser:
    made = make_recogniser(classes=classes, input_size=TRAIN.input_size, dropout=0.0, normalise=True, seed=seed)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """Both arms evaluated, with all that a user can give: pretrained weights, REFERENCE, LFW."""
    root = tmp_path_factory.mktemp("evaluated")
    study = Study(root)
    study.noise("random")
    lfw_crops = lay_out_lfw(root / "lfw")
    found = Evaluated(study, network(IDENTITIES, seed=5).eval(), network(2, seed=6).eval(), root / "lfw")
    save_file(found.pretrained.tensors(), root / "w.safetensors")

    table = study.table()
    label = {part: table.query("role == 'protected' and part == @part")["label"].to_numpy() for part in ("train", "test")}
    mine = np.unique(label["train"])
    ByHeart.opened, ByHeart.known = [], {crop.tobytes(): IDENTITIES + number // 4 for number, crop in enumerate(lfw_crops)}
    ByHeart.known |= {crop.tobytes(): one for crop, one in zip(everything(face_set(table, study.aligned)), table["label"], strict=True)}
    for part, of in label.items():
        swapped = np.where(of == mine[0], mine[1], mine[0])
        ByHeart.known |= {crop.tobytes(): int(one) for crop, one in zip(found.crops("random", part), swapped, strict=True)}

    scoring = EvaluateConfig(bootstrap=100, reference=str(REFERENCE), lfw=str(root / "lfw"))
    training = TRAIN.model_copy(update={"weights": str(root / "w.safetensors")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.stage.train_recogniser", untrained)
        patch.setattr("pipeline.evaluation.stage.ArcFaceOnnx", ByHeart)
        patch.setattr("pipeline.evaluation.utility.FALSE_ACCEPTS", 0.05)  # few photos: with the usual rate there would be no figure
        patch.setattr("pipeline.evaluation.lpips.weights_file", lambda: study.split)  # any file that is there
        for arm in ARMS:
            given: dict[str, Any] = {"identify": []}
            found.given[arm] = given

            def identify(*embeddings: np.ndarray, given: Any = given, **_: Any) -> dict[str, Any]:
                given["identify"].append(embeddings)
                return {"asked": len(given["identify"]) - 1}

            def kept(name: str, *, given: Any = given) -> Any:
                return lambda *values, **_: given.setdefault(name, values) and name

            patch.setattr("pipeline.evaluation.stage.identify", identify)
            for name in ("linear_separability", "linear_class_accuracy", "found_again"):
                patch.setattr(f"pipeline.evaluation.stage.{name}", kept(name))
            patch.setattr("pipeline.evaluation.lpips.lpips_distance", kept("lpips_distance"))
            train_arm(TRAIN, arm, study.run, study.aligned, CPU)
            folder, lfw = study.run / arm, root / "lfw" / "aligned"
            found.metrics[arm] = evaluate_arm(scoring, training, AlignConfig(), arm, study.split, study.aligned, folder, CPU, lfw=lfw)
        yield found


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", ["own", "pretrained", REFERENCE.stem])
def test_clean_photos_are_searched_for_among_those_published(found: Evaluated, arm: str, name: str) -> None:
    """By the arm's own model and by those that were trained elsewhere, each with its own embeddings on both sides."""
    own, pretrained = (embedder_of(one, CPU) for one in (found.own, found.pretrained))
    embed: Any = {"own": own, "pretrained": pretrained}.get(name) or ByHeart(REFERENCE, device="cpu")
    assert set(found.metrics[arm]["identification"]) == {"own", "pretrained", REFERENCE.stem}
    gallery, gallery_label, probe, probe_label, stranger = found.given[arm]["identify"][found.metrics[arm]["identification"][name]["asked"]]
    table = found.study.table()
    assert gallery == pytest.approx(embed(found.crops(arm, "train")), abs=1e-5)
    assert probe == pytest.approx(embed(found.crops("clean", "test")), abs=1e-5)
    assert stranger == pytest.approx(embed(everything(others(found))), abs=1e-5)
    protected = table[table["role"] == "protected"]
    assert gallery_label.tolist() == protected.query("part == 'train'")["label"].tolist()
    assert probe_label.tolist() == protected.query("part == 'test'")["label"].tolist()


def others(found: Evaluated) -> FaceSet:
    """Clean test photos of the people who are not protected."""
    test = test_photos(found.study.table(), found.study.aligned)
    return test.faces.where(~test.protected)


def test_the_owner_s_protected_photo_is_matched_to_clean_ones(found: Evaluated) -> None:
    match = found.metrics["random"]["utility"]["match"]
    assert set(match) == {"pretrained", REFERENCE.stem}, "recognisers that no noise against training reaches"
    assert (match[REFERENCE.stem]["clean"], match[REFERENCE.stem]["protected"]) == (1, 0), "it takes a protected face for the other's"


def test_noise_is_looked_for_between_clean_and_published_photos(found: Evaluated) -> None:
    for question, part in (("linear_separability", "detection"), ("linear_class_accuracy", "naming")):
        before, after, label, _ = found.given["random"][question]
        assert np.array_equal(before, found.crops("clean", "train"))
        assert np.array_equal(after, found.crops("random", "train"))
        assert label.tolist() == found.study.table().query("role == 'protected' and part == 'train'")["label"].tolist()
        assert found.metrics["random"]["separability"][part] == question


def test_what_is_seen_of_noise_is_measured_on_published_photos(found: Evaluated) -> None:
    original, changed = found.given["random"]["lpips_distance"]
    place = {
        crop.tobytes(): number for number, crop in enumerate(np.concatenate([found.crops("clean", part) for part in ("train", "test")]))
    }
    order = [place[crop.tobytes()] for crop in original]
    assert sorted(order) == sorted(place.values()), "each of the arm's photos once"
    published = np.concatenate([found.crops("random", part) for part in ("train", "test")])
    assert np.array_equal(changed, published[order])
    assert found.metrics["random"]["imperceptibility"]["lpips"] == "lpips_distance"


def test_the_detector_looks_for_faces_in_the_arm_s_photos(found: Evaluated) -> None:
    config, aligned, protected, _ = found.given["random"]["found_again"]
    assert (config, aligned, protected) == (AlignConfig(), found.study.aligned, found.study.run / "random" / "protected")
    assert found.metrics["random"]["utility"]["detector"] == "found_again"
    assert "utility" not in found.metrics["clean"] and found.given["clean"].keys() == {"identify"}, (
        "without noise there is no such question"
    )


def test_lfw_is_measured_of_each_model_once(found: Evaluated) -> None:
    """Those trained elsewhere are the same in every arm, so they stand with the clean one."""
    assert set(found.metrics["clean"]["lfw"]) == {"own", "pretrained", REFERENCE.stem}
    assert set(found.metrics["random"]["lfw"]) == {"own"}
    figures = found.metrics["clean"]["lfw"]
    assert (figures[REFERENCE.stem]["accuracy"], figures[REFERENCE.stem]["pairs"]) == (1, 8)
    for name, one in (("own", found.own), ("pretrained", found.pretrained)):
        assert figures[name] == verify_lfw(found.lfw / "pairs.txt", found.lfw / "aligned", embedder_of(one, CPU))
    assert (REFERENCE, "cpu") in ByHeart.opened


@pytest.mark.parametrize("stem", ["own", "pretrained"])
def test_a_reference_takes_no_other_model_s_place(found: Evaluated, stem: str) -> None:
    """Whatever its file is called."""
    training = TRAIN.model_copy(update={"weights": str(found.study.run.parent / "w.safetensors")})
    existing = existing_recognisers(EvaluateConfig(reference=f"/there/{stem}.onnx"), training, CPU)
    assert set(existing) == {"pretrained", f"{stem}.onnx"}
    assert isinstance(existing[f"{stem}.onnx"], ByHeart) and not isinstance(existing["pretrained"], ByHeart)
