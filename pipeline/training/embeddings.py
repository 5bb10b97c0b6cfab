"""Frozen embeddings for trainers who train no network: asked of a network once, whichever classifiers are then put on them.

Most of such a trial is asking the network. Of an arm's training photos only the protected ones are its own, so a network is asked about
clean photos once a run, and about an arm's protected ones once an arm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.artifacts import at_work, sha256_of, sha256_of_files
from pipeline.config import TrainConfig
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import FaceSet
from pipeline.training.keys import code_that_embeds, training_inputs


def frozen_embeddings(
    embed: Callable[[FaceSet], np.ndarray],
    config: TrainConfig,
    arm: str,
    run: Path,
    split: Path,
    *,
    train: FaceSet,
    clean: FaceSet,
    test: FaceSet,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the training and of the test photos, each float32 (N, D): what `embed` gives, kept in `<run>/<arm>/embeddings`.

    Args:
        embed: the network that `config` names. train: the arm's training photos, after the config's countermeasure; clean: the same without
            noise, in the same order. test: clean photos after that countermeasure, the same for every arm.
    """
    assert len(train) == len(clean), "an arm's training photos are the clean ones, some of them with noise"
    file = (config.reference, config.reference_sha256) if config.reference is not None else (config.weights, config.weights_sha256)
    network = " ".join(map(str, (*file, config.input_size, config.normalise, config.countermeasure)))

    def kept(whose: str, what: str, faces: FaceSet) -> np.ndarray:
        path = run / whose / "embeddings" / f"{what}-{sha256_of(network.encode())[:8]}.pt"
        chosen = sha256_of(faces.shard.tobytes() + faces.row.tobytes())
        key = network + chosen + sha256_of_files([*training_inputs(whose, run, split), *code_that_embeds(config)])
        with at_work(
            run / "locks" / f"embeddings-{whose}-{path.stem}.lock", wait=True
        ):  # trials run side by side, and the first that asks asks for all
            state = load_checkpoint(path, key, torch.device("cpu"), found="embeddings that are known already")
            if state is None:
                state = {"embedding": torch.from_numpy(embed(faces))}
                save_checkpoint(path, key, state)
        return state["embedding"].numpy()

    embedding, noisy = kept("clean", "train", clean), (train.shard != clean.shard) | (train.row != clean.row)
    if noisy.any():
        embedding[noisy] = kept(arm, "protected", train.where(noisy))
    return embedding, kept("clean", "test", test)
