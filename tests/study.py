"""A study in small, for tests of what follows the alignment: the crops are blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from pipeline.artifacts import write_array, write_json, write_table
from pipeline.config import NoiseConfig, SplitConfig, TrainConfig
from pipeline.models.recognisers import make_recogniser
from pipeline.noise.arms import ARMS, SURROGATES
from pipeline.noise.protect import protect
from pipeline.noise.stage import make_noise
from pipeline.runtime import Runtime
from pipeline.split import SPLIT_COLUMNS, split_photos
from tests.conftest import toy_faces
from tests.tiny_onnx import write_recogniser

IDENTITIES, PHOTOS, PROTECTED = 5, 6, 2
TRAIN = TrainConfig(epochs=1, batch=8, input_size=75, lr=0.02)
CPU = Runtime(device="cpu", workers=1, precision="fp32")


class Study:
    """Aligned crops of blobs and their split; nothing is trained."""

    def __init__(self, root: Path) -> None:
        self.data, self.run = root / "data", root / "run"
        faces = toy_faces(identities=IDENTITIES, photos=PHOTOS)
        crops = faces.shards[0]
        photos = [f"id{label}/p{i}.png" for i, label in enumerate(faces.label)]
        write_array(self.data / "aligned" / "crops-00000.npy", crops)
        table = pd.DataFrame({"photo": photos, "identity": [photo.split("/")[0] for photo in photos], "row": np.arange(len(photos))})
        table = table.assign(shard="crops-00000.npy", sha256=photos, matrix=[np.eye(2, 3).ravel()] * len(photos))
        write_table(self.data / "aligned" / "manifest.parquet", table)
        split_photos(SplitConfig(identities=PROTECTED, auxiliary=3, duplicate_bits=0), self.data / "aligned", self.run / "split.parquet")
        self.split = self.run / "split.parquet"
        self.aligned = self.data / "aligned"

    def surrogates(self) -> None:
        """Their weights, as they are before they have learned anything."""
        seen = {"classes": IDENTITIES, "input_size": 75, "normalise": True}
        for name, model in SURROGATES.items():
            folder = self.run / name / "model"
            folder.mkdir(parents=True)
            save_file(make_recogniser(**seen, dropout=0.0, seed=0, model=model).tensors(), folder / "weights.safetensors")
            write_json(folder / "train.json", seen | {"model": model, "weights_sha256": "0" * 64})
            (folder / "history.jsonl").write_text('{"epoch": 1, "protected": 0.25}\n', encoding="utf-8")

    def noise(self, arm: str, **values: Any) -> None:
        base = {"arm": arm, "input_size": 75, "rounds": 1, "batches": 2, "batch": 8, "steps": 3, "dropout": 0.0}
        base |= ARMS[arm].values
        if ARMS[arm].method == "cloak":
            known = [write_recogniser(self.run / f"known-{seed}.onnx", seed=seed) for seed in (0, 1)]
            base |= {"against": [str(path) for path in known], "against_sha256": [str(seed) * 64 for seed in (0, 1)]}
        if arm == "cloak-error-min":
            base["beneath"] = base | {"arm": "error-min", "epsilon": 8, "transforms": False, "against": (), "against_sha256": ()}
        folder = self.run / arm
        make_noise(NoiseConfig.model_validate(base | values), self.split, self.aligned, self.run, folder, CPU)
        protect(self.split, self.data, folder, folder / "protected", CPU, photos=False, max_side=1000)

    def table(self) -> Any:
        return pd.read_parquet(self.split)[SPLIT_COLUMNS]
