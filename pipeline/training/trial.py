"""One trial of one arm: trained as its config says, scored on clean test photos, no weights kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import read_json, read_table, write_json, write_text
from pipeline.config import AlignConfig, EvaluateConfig, TrainConfig
from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.evaluation.accuracy import accuracies
from pipeline.evaluation.probes import last_layer_refit, linear_probe, linear_svm, nearest_neighbour
from pipeline.models.arcface_onnx import ArcFaceOnnx
from pipeline.models.recognisers import Recogniser, load_trained, make_recogniser
from pipeline.runtime import Runtime, say, turn
from pipeline.split import SPLIT_COLUMNS
from pipeline.training.embeddings import frozen_embeddings
from pipeline.training.faces import FaceSet, embedded, face_set
from pipeline.training.keys import trial_key
from pipeline.training.loop import TestPhotos, accuracy_by_group, fit_countermeasure, predict, train_recogniser
from pipeline.training.recropped import recropped_probes, recropped_set
from pipeline.training.stage import test_photos, training_set
from pipeline.training.trials import trial_of


def run_trial(
    config: TrainConfig,
    scoring: EvaluateConfig,
    faces: AlignConfig,
    name: str,
    arm: str,
    run: Path,
    data: Path,
    runtime: Runtime,
) -> None:
    """Write `history.jsonl` and, last, `result.json` into `<run>/<arm>/trials/<name>`; does nothing when they are current.

    `result.json`: trial, kind, title, key, the groups' accuracies as in `metrics.json`, photos, device, precision, processes,
    seconds.

    Args:
        faces: how the run found its faces, for the trials that find them anew. data: `data/<dataset>`, with `photos/` and `aligned/`.
    """
    aligned = data / "aligned"
    split, output = run / "split.parquet", run / arm / "trials" / name
    key = trial_key(config, scoring, arm, run, split)
    if (output / "result.json").exists() and read_json(output / "result.json").get("key") == key:
        return
    started = time.perf_counter()
    table = read_table(split, SPLIT_COLUMNS)
    if config.recropped is not None:
        protected = None if arm == "clean" else run / arm / "protected"
        train = recropped_set(config.recropped, faces, table, data, protected, output, runtime)
    else:
        train = training_set(table, arm, aligned, run, share=config.share, seed=config.seed)
    test = test_photos(table, aligned)
    if config.recropped is not None:
        test = replace(test, faces=recropped_probes(config.recropped, faces, table, data, output / "probes", runtime))
    classes = int(table["label"].max()) + 1
    if config.trainer == "sgd":

        def report(record: dict[str, Any]) -> None:
            say(f"{arm}, {name}: epoch {record['epoch']} of {config.epochs}: loss {record['loss']:.3f} ({record['seconds']:.0f} s)")

        checkpoint = output / "checkpoint.pt"
        with turn(run, runtime):
            fitted = fit_countermeasure(config, train, classes=classes, runtime=runtime)
            model, history = train_recogniser(
                config, train, test, classes=classes, runtime=runtime, checkpoint=checkpoint, key=key, report=report, fitted=fitted
            )
        predicted = predict(model, test_faces(config, test, classes), runtime, fitted=fitted)[0]
    else:
        checkpoint = None
        predicted = fit_on_embeddings(config, table, train, test, classes, arm, aligned, run, runtime)
        scores = accuracy_by_group(predicted, test)
        history = [{"epoch": 1, **scores, "seconds": round(time.perf_counter() - started, 1)}]
    trial = trial_of(name)
    result: dict[str, Any] = {"trial": name, "kind": trial.kind, "title": trial.title, "key": key}
    result |= accuracies(history, predicted, test.faces.label, test.protected, table, scoring)
    # By epoch, so that what was done before a kill counts.
    result |= {"photos": len(train), **runtime.facts(), "seconds": round(sum(record["seconds"] for record in history), 1)}
    write_text(output / "history.jsonl", "".join(json.dumps(record) + "\n" for record in history))
    write_json(output / "result.json", result)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    shown = {group: "none" if result[group] is None else f"{result[group]['final']:.1%}" for group in ("protected", "others")}
    say(f"{arm}, {name}: protected {shown['protected']}, others {shown['others']} ({result['seconds']:.0f} s)")


def test_faces(config: TrainConfig, test: TestPhotos, classes: int) -> FaceSet:
    """The clean test photos as this trainer's own preprocessing leaves them."""
    return test.faces.processed(countermeasure_of(config.countermeasure, classes=classes).process)


test_faces.__test__ = False  # type: ignore[attr-defined]


def fit_on_embeddings(
    config: TrainConfig,
    table: Any,
    train: FaceSet,
    test: TestPhotos,
    classes: int,
    arm: str,
    aligned: Path,
    run: Path,
    runtime: Runtime,
) -> np.ndarray:
    """Predicted labels (N,) of the test photos by a classifier on frozen embeddings."""
    if config.trainer == "last-layer-refit":
        trained = run / arm / "model" / "weights.safetensors"
        model = load_trained(trained, classes=classes, input_size=config.input_size, normalise=config.normalise)
        embed = embedded_by(model, runtime)
        # The trainer has come by some clean photos of everyone: the originals of training photos, never test ones.
        clean = face_set(table[table["part"] == "train"], aligned)
        return last_layer_refit(embed(clean), clean.label, embed(test.faces), photos=config.clean_photos, seed=config.seed)
    if config.reference is not None:
        # As many threads as torch has: trials run side by side, and onnxruntime's threads wait by spinning.
        recogniser = ArcFaceOnnx(Path(config.reference), device=runtime.device, threads=torch.get_num_threads())
        embed = partial(embedded, recogniser)
    else:
        assert config.weights is not None
        pretrained = make_recogniser(
            classes=classes,
            input_size=config.input_size,
            dropout=0.0,
            normalise=config.normalise,
            seed=config.seed,
            weights=Path(config.weights),
        )
        embed = embedded_by(pretrained, runtime)
    fit = {"linear-probe": linear_probe, "svm": linear_svm, "nearest-neighbour": nearest_neighbour}[config.trainer]
    process = countermeasure_of(config.countermeasure, classes=classes).process
    clean = training_set(table, "clean", aligned, run).processed(process)
    wanted = test_faces(config, test, classes)
    split = run / "split.parquet"
    known, asked = frozen_embeddings(embed, config, arm, run, split, train=train.processed(process), clean=clean, test=wanted)
    return fit(known, train.label, asked)


def embedded_by(model: Recogniser, runtime: Runtime) -> Callable[[FaceSet], np.ndarray]:
    """What gives a set's embeddings by one of our networks: L2-normalised float32 (N, 512)."""
    model = model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda faces: predict(model, faces, runtime)[1]
