"""The noise table: one signed delta an identity (or a photo), in units of 1/255, and how it is put on a crop.

Noise stays signed (int8) and is added in a wider type, then clipped to [0, 255]: the paper's released code clamps the scaled noise to
[0, 255] before adding it, and so loses all of its negative half.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.artifacts import clear_left_over, read_json, whole_file, write_json
from pipeline.errors import StageError

FILE = "noise.safetensors"
ROWS = 256


@dataclass(frozen=True)
class NoiseTable:
    """`delta[k]` belongs to `names[k]`: int8 (K, 3, 112, 112), RGB, in 1/255, |delta| ≤ epsilon.

    Names are identities, or for sample-wise noise (`per` is "photo") the photos' paths as in the manifest.
    """

    delta: np.ndarray
    names: tuple[str, ...]
    epsilon: int
    per: str = "identity"

    def __post_init__(self) -> None:
        assert self.delta.dtype == np.int8 and self.delta.ndim == 4 and len(self.delta) == len(self.names)
        assert self.per in ("identity", "photo"), self.per
        largest = max(int(self.delta.max(initial=0)), -int(self.delta.min(initial=0)))
        assert largest <= self.epsilon, "noise exceeds epsilon"


def row_names(photos: Any, per: str) -> Any:
    """Each photo's row in a noise table, by name: of a table with the columns `photo` and `identity` the one that `per` says, a series."""
    return photos[per]


def quantise(delta: np.ndarray, epsilon: int) -> np.ndarray:
    """Round noise (float, units of 1/255) to int8 within ±epsilon, few rows at a time: a table of all of WebFace is 1.6 GB of floats."""
    rounded = np.empty(delta.shape, np.int8)
    for start in range(0, len(delta), ROWS):
        rounded[start : start + ROWS] = np.clip(np.rint(delta[start : start + ROWS]), -epsilon, epsilon)
    return rounded


def add_noise(crops_NHWC: np.ndarray, delta_NCHW: np.ndarray) -> np.ndarray:
    """uint8 crops (N, H, W, 3) plus int8 noise (N, 3, H, W) or (3, H, W), added in int16 and clipped to [0, 255]."""
    assert crops_NHWC.dtype == np.uint8 and delta_NCHW.dtype == np.int8
    noise_NHWC = np.moveaxis(delta_NCHW, -3, -1).astype(np.int16)
    return np.clip(crops_NHWC.astype(np.int16) + noise_NHWC, 0, 255).astype(np.uint8)


def save_noise(folder: Path, table: NoiseTable, facts: dict[str, Any]) -> None:
    """Write `noise.json` (method, rounds, converged, seconds, …) and, last, `noise.safetensors` in `folder`."""
    write_json(folder / "noise.json", facts)
    clear_left_over(folder / FILE)
    with whole_file(folder / FILE) as temporary:
        metadata = {"names": json.dumps(table.names), "epsilon": str(table.epsilon), "unit": "1/255", "per": table.per}
        save_file({"delta": table.delta}, temporary, metadata=metadata)


def load_noise(folder: Path) -> tuple[NoiseTable, dict[str, Any]]:
    """Read what `save_noise` wrote; `StageError` names a damaged file."""
    path = folder / FILE
    try:
        with safe_open(path, "numpy") as stored:
            metadata = stored.metadata() or {}
            delta = stored.get_tensor("delta")
        table = NoiseTable(delta, tuple(json.loads(metadata["names"])), int(metadata["epsilon"]), metadata["per"])
    except FileNotFoundError:
        raise StageError(f"{path}: missing; run the noise stage") from None
    except (SafetensorError, OSError, KeyError, ValueError, AssertionError) as error:
        raise StageError(f"{path}: damaged ({error}); delete it and run the same command again") from None
    return table, read_json(folder / "noise.json")


def load_rows(folder: Path, rows: np.ndarray) -> np.ndarray:
    """Noise of `rows` (B,) int of a table on disk that `load_noise` found whole: int8 (B, 3, H, W). The rest of the table is not read."""
    wanted, place = np.unique(rows, return_inverse=True)
    with safe_open(folder / FILE, "numpy") as stored:
        delta = stored.get_slice("delta")
        return np.concatenate([delta[row : row + 1] for row in wanted.tolist()])[place]
