"""Embeddings of a frozen network are asked for once, and anew where anything about them has changed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import TrainConfig
from pipeline.split import SplitConfig, split_photos
from pipeline.training.embeddings import frozen_embeddings
from pipeline.training.faces import FaceSet
from pipeline.training.stage import test_photos, training_set
from tests.study import PROTECTED, Study

CONFIG = TrainConfig(trainer="svm", weights="/there/w.safetensors", weights_sha256="0" * 64)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study(tmp_path)
    for arm in ("random", "lsp"):
        made.noise(arm)
    return made


class Network:
    """Embeds by a crop's first pixels, and counts the crops it was asked about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, faces: FaceSet) -> np.ndarray:
        self.asked += len(faces)
        return faces.crops(np.arange(len(faces))).reshape(len(faces), -1)[:, 6000:6512].astype(np.float32)

    def of(self, study: Study, arm: str, config: TrainConfig = CONFIG) -> int:
        """How many crops it was asked about for `arm`, whose embeddings must be what they are without anything kept."""
        before, table = self.asked, study.table()
        train, clean = (training_set(table, name, study.aligned, study.run) for name in (arm, "clean"))
        test = test_photos(table, study.aligned).faces
        given = frozen_embeddings(self, config, arm, study.run, study.split, train=train, clean=clean, test=test)
        asked = self.asked - before
        for found, faces in zip(given, (train, test), strict=True):
            assert np.array_equal(found, Network()(faces))
        return asked


def test_a_network_is_asked_about_each_photo_once(study: Study) -> None:
    table, network = study.table(), Network()
    protected = int(((table["role"] == "protected") & (table["part"] == "train")).sum())
    assert 0 < protected < len(table) and PROTECTED > 0
    assert network.of(study, "clean") == len(table)
    assert network.of(study, "random") == protected, "clean photos are known already"
    assert network.of(study, "lsp") == protected
    assert [network.of(study, arm) for arm in ("clean", "random", "lsp")] == [0, 0, 0]
    other = CONFIG.model_copy(update={"weights_sha256": "1" * 64})
    assert network.of(study, "random", other) == len(table) + protected, "other weights in the same file"


def test_it_is_asked_anew_where_something_changed(study: Study) -> None:
    network = Network()
    first = network.of(study, "random")
    crops = study.run / "random" / "protected" / "crops-00000.npy"
    whole = bytearray(crops.read_bytes())
    whole[-30_000] ^= 1
    crops.write_bytes(whole)
    protected = network.of(study, "random")
    assert 0 < protected < first, "noise was made anew"
    for kept in (study.run / "clean" / "embeddings").glob("train-*.pt"):
        kept.write_bytes(kept.read_bytes()[:-100])
    assert 0 < network.of(study, "random") < first, "a damaged file"

    manifest = study.aligned / "manifest.parquet"
    table = pd.read_parquet(manifest)
    table.assign(sha256=["another photo", *table["sha256"][1:]]).to_parquet(manifest, index=False)
    before = study.split.read_bytes()
    split_photos(SplitConfig(identities=PROTECTED, auxiliary=3, duplicate_bits=0), study.aligned, study.split)
    assert study.split.read_bytes() == before, "another photo under the same name is split alike"
    assert network.of(study, "random") == first


def test_trials_side_by_side_ask_once(study: Study) -> None:
    class Slow(Network):
        def __call__(self, faces: FaceSet) -> np.ndarray:
            time.sleep(0.2)
            return super().__call__(faces)

    network = Slow()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: network.of(study, "random"), range(4)))
    table = study.table()
    assert network.asked == len(table) + int(((table["role"] == "protected") & (table["part"] == "train")).sum())
