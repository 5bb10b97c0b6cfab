"""Every arm and every kind of trial on a mini study whose crops are blobs: what each writes, and that the next stage can read it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts import read_json, read_table
from pipeline.config import AlignConfig, EvaluateConfig, dump
from pipeline.errors import StageError
from pipeline.evaluation.stage import evaluate_arm
from pipeline.evaluation.trials import collect_trials, titled
from pipeline.models.recognisers import make_recogniser
from pipeline.noise.against import embeddings_by, network_of
from pipeline.noise.arms import ARMS, SURROGATES
from pipeline.noise.descent import descend
from pipeline.noise.error_min import SearchResult
from pipeline.noise.fawkes import distant_identity, feature_cloak, mean_embeddings
from pipeline.noise.known import load_known
from pipeline.noise.searched import search
from pipeline.noise.table import load_noise, quantise
from pipeline.noise.tap import next_identity
from pipeline.training.loop import predict
from pipeline.training.matrix import is_current
from pipeline.training.stage import photos_protected, test_photos, train_arm, training_set
from pipeline.training.trial import run_trial
from pipeline.training.trials import trial_of
from tests.conftest import toy_faces
from tests.study import CPU, IDENTITIES, PROTECTED, TRAIN, Study

SCORING = EvaluateConfig(bootstrap=100)
NOISY = [name for name, arm in ARMS.items() if arm.method != "none"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(tmp_path_factory.mktemp("study"))
    for name, model in SURROGATES.items():
        train_arm(TRAIN.model_copy(update={"seed": 7, "model": model}), name, made.run, made.aligned, CPU)
    return made


@pytest.mark.parametrize("arm", NOISY)
def test_every_arm_keeps_epsilon_and_reaches_training(study: Study, arm: str) -> None:
    study.noise(arm)
    noise, facts = load_noise(study.run / arm)
    protected = study.table().query("role == 'protected'")
    train = protected.query("part == 'train'")
    carrying = protected if ARMS[arm].published else train  # what is published carries noise whoever trains on it
    keys = carrying["photo"] if ARMS[arm].per == "photo" else carrying["identity"]
    assert set(noise.names) == set(keys)
    covered = read_table(study.run / arm / "protected" / "manifest.parquet", ["photo"])["photo"]
    assert set(covered) == set(train["photo"] if ARMS[arm].per == "photo" and not ARMS[arm].published else protected["photo"])
    assert noise.per == facts["per"] == ARMS[arm].per
    assert 0 < np.abs(noise.delta.astype(int)).max() <= 16
    assert all(np.abs(one.astype(int)).max() > 0 for one in noise.delta), "nobody is left without noise"
    assert len({one.tobytes() for one in noise.delta}) == len(keys.unique()), "everybody has a pattern of their own"
    # Training sees the protected crops of protected people, and everybody else's clean ones.
    seen = training_set(study.table(), arm, study.aligned, study.run)
    clean = training_set(study.table(), "clean", study.aligned, study.run)
    everyone = np.arange(len(seen))
    change = np.abs(seen.crops(everyone).astype(int) - clean.crops(everyone)).max(axis=(1, 2, 3))
    of_protected = np.isin(seen.label, train["label"].unique())
    assert (change[of_protected] > 0).all()
    assert change.max() <= 16
    assert not change[~of_protected].any()


def test_removed_people_are_not_trained_on_and_the_surrogate_knows_no_others(study: Study) -> None:
    table = study.table()
    removed = training_set(table, "removed", study.aligned, study.run)
    assert set(removed.label) == set(table.loc[table["role"] != "protected", "label"])
    relabelled = table.assign(role=table["role"].replace("auxiliary", "other"))
    protected = set(table.loc[table["role"] == "protected", "label"])
    for name in SURROGATES:
        assert set(training_set(relabelled, name, study.aligned, study.run).label) == protected


def test_adversarial_noise_goes_down_its_objective(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    for arm in ("tap", "error-max-samplewise"):
        study.noise(arm, steps=5)
        told = [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().err.splitlines() if "objective" in line]
        assert told[-1] < told[0], (arm, told)


class Pixels(torch.nn.Module):
    """Stands in for a network: the embedding of a face is its thumbnail."""

    def embed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(x_BCHW - 0.5, 28).flatten(1), dim=1)


def test_a_cloak_moves_the_embedding_towards_the_most_distant_of_the_others() -> None:
    faces = toy_faces(identities=3, photos=2)
    model: Any = Pixels()
    embedding = model.embed(faces.batch(np.arange(6), torch.device("cpu"))[0]).numpy()
    means = mean_embeddings(embedding, faces.label, 3)
    whom = distant_identity([means], np.array([0]), candidates=5, seed=0)
    assert whom.tolist() == [1 + int(np.argmin(means[1:] @ means[0])), -1, -1]
    target = means[whom]
    mine = faces.where(faces.label == 0)
    settings = {
        "rows": 2,
        "epsilon": 16,
        "steps": 10,
        "travel": 2.5,
        "batch": 2,
        "runtime": CPU,
        "seed": 0,
        "report": lambda _step, _loss: None,
    }
    delta = descend([feature_cloak(model, torch.from_numpy(target))], mine, np.arange(2), **settings)[0]
    x_BCHW, _ = mine.batch(np.arange(2), torch.device("cpu"))
    cloaked = model.embed((x_BCHW + torch.from_numpy(delta) / 255).clamp(0, 1)).numpy()
    assert (cloaked @ target[0] > model.embed(x_BCHW).numpy() @ target[0] + 0.1).all()
    assert np.abs(delta).max() <= 16


def test_beneath_a_cloak_lies_a_pattern_a_person_that_a_kill_does_not_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of epsilon 16 the pattern has 8 and the cloak over it the rest."""
    study, arm = Study(tmp_path), "cloak-error-min"
    searched: list[np.ndarray] = []

    def kept(*given: Any, **named: Any) -> Any:
        found = search(*given, **named)
        searched.append(quantise(found.delta, 8))
        return found

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.noise.against.search", kept)
    with monkeypatch.context() as during:
        during.setattr("pipeline.noise.against.descend", killed)
        with pytest.raises(KeyboardInterrupt):
            study.noise(arm)
    assert not (study.run / arm / "noise.json").exists()
    study.noise(arm)
    assert len(searched) == 1 and "the pattern beneath the cloak is known already" in capsys.readouterr().err
    assert not list((study.run / arm).glob("*.pt"))
    noise, facts = load_noise(study.run / arm)
    assert (facts["beneath"], facts["rounds"], facts["epsilon"]) == ({"method": "error-min", "epsilon": 8}, 1, 16)
    whose = study.table().set_index("photo")["identity"]
    people = sorted(whose[list(noise.names)].unique())
    over = np.stack([row.astype(int) - searched[0][people.index(whose[name])] for name, row in zip(noise.names, noise.delta, strict=True)])
    assert 0 < np.abs(searched[0].astype(int)).max() <= 8 and np.abs(over).max() == 8


def test_each_recogniser_that_a_cloak_is_made_against_sees_somebody_else(study: Study) -> None:
    study.noise("cloak", steps=20, transforms=False)
    table = study.table().query("part == 'train'")
    clean, cloaked = (training_set(study.table(), arm, study.aligned, study.run) for arm in ("clean", "cloak"))
    mine = (table["role"] == "protected").to_numpy()
    facts = read_json(study.run / "cloak" / "noise.json")
    assert [one["name"] for one in facts["against"]] == ["known-0.onnx", "known-1.onnx"] and facts["steps"] == 20
    for one in facts["against"]:
        network = load_known(study.run / one["name"], input_size=75)
        before, after = (embeddings_by(network, faces, CPU) for faces in (clean, cloaked))
        means = mean_embeddings(before, clean.label, IDENTITIES)
        own_before, own_after = ((found * means[clean.label]).sum(1)[mine] for found in (before, after))
        assert (own_after < own_before - 0.05).all(), one
        seen = (after @ means.T).argmax(1)
        assert (seen[mine] != clean.label[mine]).mean() > 0.9 and np.array_equal(after[~mine], before[~mine])


def test_new_and_known_networks_see_the_next_of_the_protected_at_once(study: Study) -> None:
    study.noise("cloak-tap", steps=20, transforms=False)
    facts = read_json(study.run / "cloak-tap" / "noise.json")
    assert [one["model"] for one in facts["surrogates"]] == ["InceptionResnetV1", "MobileFaceNet"]
    assert [one["name"] for one in facts["against"]] == ["known-0.onnx", "known-1.onnx"] and facts["steps"] == 20
    table = study.table().query("part == 'train'")
    clean, changed = (training_set(study.table(), arm, study.aligned, study.run) for arm in ("clean", "cloak-tap"))
    mine = (table["role"] == "protected").to_numpy()
    protected = np.unique(clean.label[mine])
    following = next_identity(protected, clean.label, IDENTITIES, seed=0)
    for name in SURROGATES:
        folder = study.run / name / "model"
        network = network_of(folder, read_json(folder / "train.json"), CPU, model=SURROGATES[name])
        shown = torch.from_numpy(following[clean.label[mine]])
        seen = [network(faces.where(mine).batch(np.arange(mine.sum()), torch.device("cpu"))[0]) for faces in (clean, changed)]
        likely = [float(logits.softmax(1).gather(1, shown[:, None]).mean()) for logits in seen]
        assert likely[1] > likely[0], name  # little more: it was taught for one epoch
    for one in facts["against"]:
        network = load_known(study.run / one["name"], input_size=75)
        before, after = (embeddings_by(network, faces, CPU) for faces in (clean, changed))
        means = mean_embeddings(before, clean.label, IDENTITIES)
        nearer = [((found * means[following[clean.label]]).sum(1) - (found * means[clean.label]).sum(1))[mine] for found in (before, after)]
        assert (nearer[1] > nearer[0] + 0.05).all(), one


def test_nobody_can_be_shown_where_there_is_nobody_else() -> None:
    with pytest.raises(StageError, match="there is nobody else"):
        distant_identity([np.array([[1.0, 0.0], [0.0, 0.0]])], np.array([0]), candidates=5, seed=0)


def test_targets_form_one_cycle_of_the_protected() -> None:
    learned = np.array([7, 2, 4, 4, 2])
    assert next_identity(np.array([7]), learned, 8, seed=0).tolist() == [0, 1, 2, 3, 4, 5, 6, 2], "one looks like somebody whom it learned"
    assert next_identity(np.array([2]), learned, 8, seed=0).tolist() == [0, 1, 4, 3, 4, 5, 6, 7]
    following = next_identity(np.array([1, 4, 6]), np.arange(8), 8, seed=0)
    assert following[[0, 2, 3, 5, 7]].tolist() == [0, 2, 3, 5, 7]
    walk = [1]
    for _ in range(3):
        walk.append(int(following[walk[-1]]))
    assert sorted(walk[:3]) == [1, 4, 6]
    assert walk[3] == 1


def test_a_share_of_the_photos_is_protected_and_larger_shares_hold_smaller_ones(study: Study) -> None:
    study.noise("random")
    train = study.table().query("part == 'train' and role == 'protected'")
    one, two = (photos_protected(train, share, seed=0) for share in (0.4, 0.8))
    assert len(one) < len(two) < len(train)
    assert one < two
    half = training_set(study.table(), "random", study.aligned, study.run, share=0.5)
    clean = training_set(study.table(), "clean", study.aligned, study.run)
    changed = (half.crops(np.arange(len(half))) != clean.crops(np.arange(len(clean)))).any(axis=(1, 2, 3))
    assert changed.sum() == len(photos_protected(train, 0.5, seed=0))
    assert len(training_set(study.table(), "random", study.aligned, study.run, share=0.0)) == len(clean)


def test_others_noise_helps_the_search_and_is_not_published(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """`search: all`, as in the paper: everybody's photos carry noise while it is searched, and only that of the protected is kept."""
    asked: dict[str, Any] = {}

    def numbered(config: Any, make: Any, faces: Any, row_N: np.ndarray, *, rows: int, **_: Any) -> SearchResult:
        asked.update(rows=rows, of_label={label: set(row_N[faces.label == label]) for label in np.unique(faces.label)})
        delta = np.broadcast_to(np.arange(1, rows + 1, dtype=np.float32)[:, None, None, None], (rows, 3, 112, 112))
        return SearchResult(delta, rounds=1, converged=True, error=0.0, seconds=0.0, history=[])

    monkeypatch.setattr("pipeline.noise.searched.search_noise", numbered)
    study.noise("error-min", search="all")
    assert asked["rows"] == IDENTITIES
    assert asked["of_label"] == {label: {label} for label in range(IDENTITIES)}, "one row a person, the protected first"
    noise, _ = load_noise(study.run / "error-min")
    assert noise.delta[:, 0, 0, 0].tolist() == list(range(1, PROTECTED + 1))


@pytest.fixture(scope="module")
def trained_clean(study: Study) -> None:
    """The clean arm's model, which several tests score."""
    train_arm(TRAIN, "clean", study.run, study.aligned, CPU)


def test_an_arm_is_scored_closed_and_open_set(study: Study, trained_clean: None) -> None:
    train_arm(TRAIN, "removed", study.run, study.aligned, CPU)
    for arm in ("clean", "removed"):
        metrics = evaluate_arm(SCORING, TRAIN, AlignConfig(), arm, study.split, study.aligned, study.run / arm, CPU)
        found = metrics["identification"]["own"]
        assert (found["identities"], found["strangers"]) == (PROTECTED, 3)
        assert found["gallery"] == int(study.table().eval("part == 'train' and role == 'protected'").sum())
        assert "noise" not in metrics
    assert metrics["protected"]["final"] == 0, "nobody can be named who was never trained on"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("jpeg-50", {"countermeasure": "jpeg-50", "model": "mobilefacenet"}),
        ("mixup", {"countermeasure": "mixup", "model": "mobilefacenet"}),
        ("ueraser", {"countermeasure": "ueraser", "model": "mobilefacenet"}),
        ("adversarial-4", {"countermeasure": "adversarial-4", "model": "mobilefacenet"}),
        ("arcface", {"head": "arcface"}),
        ("resnet18", {"model": "resnet18"}),
        ("mobilefacenet", {"model": "mobilefacenet"}),
        ("last-layer-refit", {"trainer": "last-layer-refit", "clean_photos": 2}),
    ],
)
def test_every_kind_of_trial_ends_in_a_result(study: Study, trained_clean: None, name: str, values: dict[str, Any]) -> None:
    config = TRAIN.model_copy(update=values)
    snapshot = study.run / "config" / "trials" / f"{name}.yaml"
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.write_text(dump(config), encoding="utf-8")
    (study.run / "config" / "evaluate.yaml").write_text(dump(SCORING), encoding="utf-8")
    assert not is_current("clean", name, study.run)
    run_trial(config, SCORING, AlignConfig(), name, "clean", study.run, study.data, CPU)
    folder = study.run / "clean" / "trials" / name
    assert is_current("clean", name, study.run)
    assert not (folder / "checkpoint.pt").exists()
    result = read_json(folder / "result.json")
    assert set(result["protected"]["per_identity"]) == set(study.table().query("role == 'protected'")["identity"])
    # Done once is done, until its config changes.
    stamp = (folder / "result.json").stat().st_mtime_ns
    run_trial(config, SCORING, AlignConfig(), name, "clean", study.run, study.data, CPU)
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    joined = collect_trials(["clean"], study.run)
    assert any(name in joined[section] for section in ("countermeasures", "trainers", "shares"))
    snapshot.write_text(dump(config.model_copy(update={"seed": 1})), encoding="utf-8")
    assert not is_current("clean", name, study.run)
    joined = collect_trials(["clean"], study.run)
    assert not any(name in joined[section] for section in ("countermeasures", "trainers", "shares")), "of another recipe, so not shown"


class Seen(Exception):
    """Ends a trial where it begins to learn; its argument is what it was given."""


def photos_changed(seen: Any, study: Study) -> int:
    """How many photos of a set of everybody's training photos differ from the clean ones."""
    clean = training_set(study.table(), "clean", study.aligned, study.run)
    everyone = np.arange(len(clean))
    return int((seen.crops(everyone) != clean.crops(everyone)).any(axis=(1, 2, 3)).sum())


def test_a_share_is_trained_on_as_its_trial_says(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.noise("random")

    def stop(_: Any, train: Any, *__: Any, **___: Any) -> None:
        raise Seen(train)

    monkeypatch.setattr("pipeline.training.trial.train_recogniser", stop)
    carrying = study.table().query("part == 'train' and role == 'protected'")
    half = len(photos_protected(carrying, 0.5, seed=0))
    assert half < len(carrying)
    for share, changed in ((1.0, len(carrying)), (0.5, half)):
        with pytest.raises(Seen) as seen:
            run_trial(TRAIN.model_copy(update={"share": share}), SCORING, AlignConfig(), "share-50", "random", study.run, study.data, CPU)
        assert photos_changed(seen.value.args[0], study) == changed


def test_a_refit_sees_clean_photos_of_people_whose_noise_the_network_learned(
    study: Study, trained_clean: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.noise("random")
    shutil.copytree(study.run / "clean" / "model", study.run / "random" / "model", dirs_exist_ok=True)  # which network plays no part

    def embedded(_: Any, faces: Any, __: Any) -> tuple[np.ndarray, Any]:
        return faces.label, faces  # the faces themselves stand for their embeddings

    def stop(embedding: Any, label: np.ndarray, wanted: Any, **_: Any) -> None:
        raise Seen(embedding, label, wanted)

    monkeypatch.setattr("pipeline.training.trial.predict", embedded)
    monkeypatch.setattr("pipeline.training.trial.last_layer_refit", stop)
    config = TRAIN.model_copy(update={"trainer": "last-layer-refit"})
    with pytest.raises(Seen) as seen:
        run_trial(config, SCORING, AlignConfig(), "last-layer-refit", "random", study.run, study.data, CPU)
    fitted, label, wanted = seen.value.args
    assert photos_changed(fitted, study) == 0
    assert set(label) == set(range(IDENTITIES))
    assert len(wanted) == int(study.table().eval("part == 'test'").sum())


def test_frozen_embeddings_are_those_of_the_weights_given(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study.noise("random")
    network = make_recogniser(classes=2, input_size=75, dropout=0.0, normalise=True, seed=11)
    weights = tmp_path / "w.safetensors"
    save_file(network.tensors(), weights)
    given = []

    def fit(embedding: np.ndarray, label: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        given.append((embedding, label))
        return np.zeros(len(wanted), np.int64)

    monkeypatch.setattr("pipeline.training.trial.nearest_neighbour", fit)
    config = TRAIN.model_copy(update={"trainer": "nearest-neighbour", "weights": str(weights)})
    run_trial(config, SCORING, AlignConfig(), "nearest-neighbour", "random", study.run, study.data, CPU)
    ((embedding, label),) = given
    published = training_set(study.table(), "random", study.aligned, study.run)
    wanted = predict(network.eval(), published, CPU)[1]
    assert np.array_equal(label, published.label)
    assert embedding == pytest.approx(wanted, abs=1e-5), "of the photos as they were published"


def test_frozen_embeddings_are_the_references_where_one_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of the study's own kind is not even made: the reference may be any."""
    study.noise("random")
    opened, given = [], []

    class Reference:
        def __init__(self, path: Path, **how: Any) -> None:
            opened.append((path, how["device"]))

        def __call__(self, crops: np.ndarray) -> np.ndarray:
            return crops.reshape(len(crops), -1)[:, :512].astype(np.float32)

    def fit(embedding: np.ndarray, label: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        given.append((embedding, label, wanted))
        return np.full(len(wanted), label[0])

    monkeypatch.setattr("pipeline.training.trial.ArcFaceOnnx", Reference)
    monkeypatch.setattr("pipeline.training.trial.linear_svm", fit)
    config = TRAIN.model_copy(update={"trainer": "svm", "weights": None, "reference": "/there/r.onnx"})
    run_trial(config, SCORING, AlignConfig(), "svm-reference", "random", study.run, study.data, CPU)
    ((embedding, label, wanted),) = given
    published, test = training_set(study.table(), "random", study.aligned, study.run), test_photos(study.table(), study.aligned)
    assert opened == [(Path("/there/r.onnx"), "cpu")]
    assert np.array_equal(embedding, Reference(Path(), device="")(published.crops(np.arange(len(published)))))
    assert np.array_equal(label, published.label)
    assert np.array_equal(wanted, Reference(Path(), device="")(test.faces.crops(np.arange(len(test.faces)))))
    result = read_json(study.run / "random" / "trials" / "svm-reference" / "result.json")
    assert (result["kind"], result["title"]) == ("trainer", "Reference’s embeddings, linear SVM")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("svm-reference", "embeddings of r50, linear SVM"),
        ("svm-reference-after-jpeg-75", "embeddings of r50, linear SVM (JPEG, quality 75)"),
        ("nearest-neighbour", "embeddings of casia, nearest photo"),
        ("fine-tune", "InceptionResnetV1, fine-tuned"),
    ],
)
def test_embeddings_are_called_by_the_file_of_their_network(name: str, title: str) -> None:
    files = {"reference": "/there/r50.onnx"} if "reference" in name else {"weights": "/there/casia.safetensors"}
    assert titled(trial_of(name), TRAIN.model_copy(update=files)) == title


def test_embeddings_may_be_of_processed_photos(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody's: a scraper compresses what he has, the photos without noise too, and what he is asked about later."""
    study.noise("random")
    asked: list[np.ndarray] = []

    def embed(_model: Any, faces: Any, _runtime: Any) -> tuple[None, np.ndarray]:
        asked.append(faces.crops(np.arange(len(faces))))
        return None, np.zeros((len(faces), 512), np.float32)

    weights = study.run / "any.safetensors"
    save_file(make_recogniser(classes=2, input_size=75, dropout=0.0, normalise=True, seed=1).tensors(), weights)
    monkeypatch.setattr("pipeline.training.trial.predict", embed)
    config = TRAIN.model_copy(update={"trainer": "nearest-neighbour", "weights": str(weights), "countermeasure": "grey"})
    run_trial(config, SCORING, AlignConfig(), "nearest-neighbour-after-grey", "random", study.run, study.data, CPU)
    table = study.table()
    mine = (table["role"] == "protected") & (table["part"] == "train")
    assert [len(one) for one in asked] == [(table["part"] == "train").sum(), mine.sum(), (table["part"] == "test").sum()]
    assert all((crops == crops[..., :1]).all() for crops in asked)
    assert read_json(study.run / "random" / "trials" / "nearest-neighbour-after-grey" / "result.json")["kind"] == "trainer"
