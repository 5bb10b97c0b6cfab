"""The evaluate stage: one arm's metrics from its trained model, on clean test photos only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import read_json, read_table, write_json
from pipeline.config import EvaluateConfig, TrainConfig
from pipeline.errors import StageError
from pipeline.evaluation.accuracy import group_accuracy
from pipeline.evaluation.identification import identify
from pipeline.evaluation.lfw_protocol import embedder_of, verify_lfw
from pipeline.evaluation.separability import linear_class_accuracy, linear_separability
from pipeline.evaluation.verification import verify
from pipeline.models.arcface_onnx import ArcFaceOnnx
from pipeline.models.recognisers import Recogniser, load_trained, make_recogniser
from pipeline.noise.arms import arm_of
from pipeline.runtime import Runtime
from pipeline.split import SPLIT_COLUMNS
from pipeline.training.loop import TestPhotos, predict
from pipeline.training.stage import read_history, test_photos, training_set

MOST_JUDGED = 2000  # photos that linear models are fitted on


def evaluate_arm(
    config: EvaluateConfig,
    train_config: TrainConfig,
    arm: str,
    split: Path,
    aligned: Path,
    folder: Path,
    runtime: Runtime,
    *,
    lfw: Path | None = None,
) -> dict[str, Any]:
    """Write `metrics.json` of one arm into `folder` (`data/runs/<run>/<arm>`) and return it; fields as in the contract.

    Args:
        lfw: folder of LFW's aligned crops, needed where `config.lfw` is given.
    """
    table = read_table(split, SPLIT_COLUMNS)
    test = test_photos(table, aligned)
    training = read_json(folder / "model" / "train.json")
    history = read_history(folder / "model" / "history.jsonl")
    model = load_trained(
        folder / "model" / "weights.safetensors",
        classes=training["classes"],
        input_size=train_config.input_size,
        normalise=train_config.normalise,
    ).to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    predicted, embedding = predict(model, test.faces, runtime)
    right = predicted == test.faces.label
    by_label = table.drop_duplicates("label").set_index("label")["identity"]
    names = [by_label[label] for label in range(training["classes"])]
    metrics: dict[str, Any] = {}
    for group, mask in (("protected", test.protected), ("others", ~test.protected)):
        metrics[group] = group_accuracy(
            history, group, right[mask], test.faces.label[mask], names, resamples=config.bootstrap, seed=config.seed
        )
        last = history[-1][group]
        if metrics[group] is not None and abs(metrics[group]["final"] - last) > 0.02:
            raise StageError(
                f"{folder / 'model'}: the weights score {metrics[group]['final']:.1%} on {group}, the training's last epoch "
                f"{last:.1%}; weights and history are not of one run: delete {folder / 'model'} and run again"
            )
    metrics["identification"] = search_gallery(config, train_config, model, table, test, embedding, arm, aligned, folder.parent, runtime)
    metrics["verification"] = verify(embedding, test.faces.label, max_pairs=config.max_pairs, seed=config.seed)
    if config.lfw is not None:
        assert lfw is not None
        pairs = Path(config.lfw) / "pairs.txt"
        metrics["lfw"] = {"own": verify_lfw(pairs, lfw, embedder_of(model, runtime))}
        if arm == "clean" and config.lfw_reference is not None:
            reference = ArcFaceOnnx(Path(config.lfw_reference), workers=runtime.workers)
            metrics["lfw"][Path(config.lfw_reference).stem] = verify_lfw(pairs, lfw, reference)
    metrics["training"] = {key: training[key] for key in ("recipe", "model", "kind", "photos", "seconds", "peak_memory_mib")}
    if arm_of(arm).method != "none":
        measures = read_json(folder / "protected" / "measures.json")
        metrics["separability"] = what_a_linear_model_sees(table, arm, aligned, folder.parent, config.seed)
        metrics["noise"] = read_json(folder / "noise.json")
        metrics["imperceptibility"] = measures["crops"]
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


def search_gallery(
    config: EvaluateConfig,
    train_config: TrainConfig,
    model: Recogniser,
    table: Any,
    test: TestPhotos,
    test_embedding: np.ndarray,
    arm: str,
    aligned: Path,
    run: Path,
    runtime: Runtime,
) -> dict[str, Any]:
    """Open-set identification by the arm's own model and, where weights were given, by the pretrained one, which no noise can reach.

    Enrolled are the protected identities' training photos as this arm publishes them (clean ones in the clean and removed arms); probes
    are their clean test photos, strangers the clean test photos of everybody else.
    """
    gallery = training_set(table, "clean" if arm == "removed" else arm, aligned, run)
    gallery = gallery.where(np.isin(gallery.label, np.unique(test.faces.label[test.protected])))
    models: dict[str, tuple[Recogniser, np.ndarray]] = {"own": (model, test_embedding)}
    if train_config.weights is not None:
        pretrained = make_recogniser(
            classes=2,
            input_size=train_config.input_size,
            dropout=0.0,
            normalise=train_config.normalise,
            seed=0,
            weights=Path(train_config.weights),
        ).to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        models["pretrained"] = (pretrained, predict(pretrained, test.faces, runtime)[1])
    found = {}
    for name, (network, embedding) in models.items():
        found[name] = identify(
            predict(network, gallery, runtime)[1],
            gallery.label,
            embedding[test.protected],
            test.faces.label[test.protected],
            embedding[~test.protected],
            resamples=config.bootstrap,
            seed=config.seed,
        )
    return found
