"""The evaluate stage: one arm's metrics from its trained model, on clean test photos only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import read_json, read_table, sha256_of_file, write_json
from pipeline.config import AlignConfig, EvaluateConfig, TrainConfig
from pipeline.errors import StageError
from pipeline.evaluation.accuracy import accuracies
from pipeline.evaluation.identification import identify
from pipeline.evaluation.lfw_protocol import Embed, embedder_of, verify_lfw
from pipeline.evaluation.lpips import lpips_of
from pipeline.evaluation.separability import linear_class_accuracy, linear_separability
from pipeline.evaluation.tested import digest_of
from pipeline.evaluation.utility import found_again, matched
from pipeline.evaluation.verification import MOST_PHOTOS, verify_people, whole_identities
from pipeline.models.arcface_onnx import ArcFaceOnnx
from pipeline.models.recognisers import load_trained, make_recogniser
from pipeline.noise.arms import arm_of
from pipeline.photos.lfw import PAIRS_FILE
from pipeline.runtime import Runtime
from pipeline.split import SPLIT_COLUMNS, without_duplicates
from pipeline.training.faces import FaceSet, embedded, face_set
from pipeline.training.loop import TestPhotos, predict
from pipeline.training.stage import read_history, test_photos, training_set

# Of `train.json`: arms are trained alike, but perhaps on different machines, whose rounding makes a training another draw.
TRAINING_FACTS = ("recipe", "model", "kind", "photos", "device", "precision", "processes", "seconds", "peak_memory_mib")
MOST_JUDGED = 2000  # photos that linear models are fitted on


def evaluate_arm(
    config: EvaluateConfig,
    train_config: TrainConfig,
    align_config: AlignConfig,
    arm: str,
    split: Path,
    aligned: Path,
    folder: Path,
    runtime: Runtime,
    *,
    lfw: Path | None = None,
) -> dict[str, Any]:
    """Write `metrics.json` of one arm into `folder` (`data/runs/<run>/<arm>`) and return it; fields as in `reports/README.md`.

    Args:
        lfw: folder of LFW's aligned crops, needed where `config.lfw` is given.
    """
    table = read_table(split, SPLIT_COLUMNS)
    test = test_photos(table, aligned)
    training = read_json(folder / "model" / "train.json")
    history = read_history(folder / "model" / "history.jsonl", train_config.epochs)
    weights = folder / "model" / "weights.safetensors"
    if not weights.exists() or sha256_of_file(weights) != training["weights_sha256"]:
        raise StageError(f"{weights}: missing, or not what this training wrote; delete {folder / 'model'} and run again")
    model = load_trained(
        weights,
        classes=training["classes"],
        input_size=train_config.input_size,
        normalise=train_config.normalise,
    ).to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    predicted, embedding = predict(model, test.faces, runtime)
    metrics = accuracies(history, predicted, test.faces.label, test.protected, table, config)
    # What was really scored, so that `tested_checks` can tell whether it was clean.
    metrics["tested"] = digest_of(test.faces.where(test.protected))
    existing = existing_recognisers(config, train_config, runtime)
    models = {"own": embedder_of(model, runtime)} | existing
    strangers = people_held_out(table, aligned, config.seed, read_json(split.with_suffix(".json"))["duplicate_bits"])
    metrics["identification"] = search_gallery(config, models, table, test, strangers, embedding, arm, aligned, folder.parent)
    metrics["verification"] = verify_people(
        embedding,
        test.faces.label,
        test.protected,
        np.empty((0, embedding.shape[1]), np.float32) if strangers is None else embedded(models["own"], strangers),
        np.empty(0, np.int64) if strangers is None else strangers.label,
        max_pairs=config.max_pairs,
        seed=config.seed,
    )
    if config.lfw is not None:
        assert lfw is not None
        pairs = Path(config.lfw) / PAIRS_FILE
        judged = models if arm == "clean" else {"own": models["own"]}  # those trained elsewhere are the same in every arm
        metrics["lfw"] = {name: verify_lfw(pairs, lfw, embed) for name, embed in judged.items()}
    metrics["training"] = {key: training[key] for key in TRAINING_FACTS}
    if arm_of(arm).method != "none":
        measures = read_json(folder / "protected" / "measures.json")
        metrics["separability"] = what_a_linear_model_sees(table, arm, aligned, folder.parent, config.seed)
        metrics["noise"] = read_json(folder / "noise.json")
        metrics["imperceptibility"] = measures["crops"] | {"lpips": lpips_of(aligned, folder / "protected", table, runtime)}
        metrics["utility"] = {
            "match": matched(existing, aligned, folder / "protected", table, config.seed),
            "detector": found_again(align_config, aligned, folder / "protected", runtime),
        }
        if "photos" in measures:
            metrics["photos"] = measures["photos"]
    write_json(folder / "metrics.json", metrics)
    return metrics


def what_a_linear_model_sees(table: Any, arm: str, aligned: Path, run: Path, seed: int) -> dict[str, Any]:
    """Whether a scraper can detect the noise, and how far it alone gives the name away, on at most `MOST_JUDGED` protected photos."""
    train = training_set(table, arm, aligned, run)
    clean = training_set(table, "clean", aligned, run)
    carrying = np.isin(train.label, table.loc[table["role"] == "protected", "label"].unique())
    # Whole identities, so that each has the photos that cross-validation needs.
    counts = np.cumsum(np.bincount(train.label[carrying]))
    index = np.flatnonzero(carrying)
    index = index[counts[train.label[index]] <= max(MOST_JUDGED, counts[train.label[index]].min())]
    before, after, label = clean.crops(index), train.crops(index), train.label[index]
    return {
        "detection": linear_separability(before, after, label, seed),
        "naming": linear_class_accuracy(before, after, label, seed),
    }


def existing_recognisers(config: EvaluateConfig, train_config: TrainConfig, runtime: Runtime) -> dict[str, Embed]:
    """The recognisers at hand that were trained elsewhere, which noise against training cannot reach: what it started from, REFERENCE."""
    found: dict[str, Embed] = {}
    if train_config.weights is not None:
        pretrained = make_recogniser(
            classes=2,
            input_size=train_config.input_size,
            dropout=0.0,
            normalise=train_config.normalise,
            seed=0,
            weights=Path(train_config.weights),
        ).to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        found["pretrained"] = embedder_of(pretrained, runtime)
    if config.reference is not None:
        path = Path(config.reference)
        name = path.name if path.stem in ("own", "pretrained") else path.stem  # a file may be called what our own networks are
        # As many threads as torch has: arms are evaluated side by side, and onnxruntime's threads wait by spinning.
        found[name] = ArcFaceOnnx(path, device=runtime.device, threads=torch.get_num_threads())
    return found


def people_held_out(table: Any, aligned: Path, seed: int, duplicate_bits: int) -> FaceSet | None:
    """Photos of people who were aligned but are not in the split: nothing was trained on them. None where there are none.

    About `MOST_PHOTOS` at the most, of whole identities drawn by seed, with two photos at least that are not near-duplicates; of
    near-duplicates one, since two of them are a pair that any recogniser knows.
    """
    rows = read_table(aligned / "manifest.parquet", ["photo", "identity", "shard", "row"])
    rows = rows[~rows["identity"].isin(table["identity"].unique())].sort_values(["identity", "photo"])
    rows = rows[rows["identity"].isin(whole_identities(rows["identity"], MOST_PHOTOS, seed=seed))]
    rows = without_duplicates(rows, aligned, duplicate_bits)
    rows = rows[rows.groupby("identity")["photo"].transform("size") >= 2]
    if rows.empty:
        return None
    return face_set(rows.assign(label=rows["identity"].rank(method="dense").astype(np.int64) - 1), aligned)


def search_gallery(
    config: EvaluateConfig,
    models: dict[str, Embed],
    table: Any,
    test: TestPhotos,
    held_out: FaceSet | None,
    own: np.ndarray,
    arm: str,
    aligned: Path,
    run: Path,
) -> dict[str, Any]:
    """Open-set identification by the arm's own model (whose embeddings of the test photos are `own`) and those trained elsewhere.

    Enrolled are the protected identities' training photos as this arm publishes them (clean ones in the clean and removed arms); probes
    are their clean test photos, strangers the clean test photos of everybody else and all photos of people whom nothing was trained on.
    """
    gallery = training_set(table, "clean" if arm == "removed" else arm, aligned, run)
    gallery = gallery.where(np.isin(gallery.label, np.unique(test.faces.label[test.protected])))
    found = {}
    for name, embed in models.items():
        probes = own if name == "own" else embedded(embed, test.faces)
        strangers = [probes[~test.protected]] + ([] if held_out is None else [embedded(embed, held_out)])
        found[name] = identify(
            embedded(embed, gallery),
            gallery.label,
            probes[test.protected],
            test.faces.label[test.protected],
            np.concatenate(strangers),
            resamples=config.bootstrap,
            seed=config.seed,
        )
    return found
