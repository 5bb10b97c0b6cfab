"""Embeddings by a local insightface recogniser (ArcFace, Deng et al. 2019) on onnxruntime. Nothing is ever downloaded.

It is another network than the surrogate and knows faces already, so it stands for the recognisers that no noise against training reaches.
Its crops are aligned to the template of `pipeline/faces/geometry.py`, so the project's own crops are its input as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import StageError
from pipeline.onnx_session import open_session

CROP_SIZE = 112


class ArcFaceOnnx:
    """A recogniser from an `.onnx` file; calling it embeds crops.

    Args:
        path: the model, such as an insightface pack's `w600k_mbf.onnx`.
        device: cpu, cuda or cuda:N.
        threads: of one forward pass on the CPU; embeddings do not depend on it beyond rounding.

    Raises:
        StageError: the file is missing, damaged, or no recogniser of 112×112 crops, or onnxruntime cannot use the device.
        ValueError: `threads` is below 1.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int = 1) -> None:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

        if not path.is_file():
            raise StageError(f"{path}: no such file; give the path of a local insightface recogniser such as w600k_mbf.onnx")
        session = open_session(path, device, threads=threads)
        takes, gives = session.get_inputs(), session.get_outputs()
        if len(takes) != 1 or len(gives) != 1 or list(takes[0].shape[1:]) != [3, CROP_SIZE, CROP_SIZE] or len(gives[0].shape) != 2:
            raise StageError(f"{path}: not a recogniser of 112×112 crops (it takes {takes[0].shape} and has {len(gives)} outputs)")
        # insightface's own reader, because it knows from the graph whether the normalisation is inside.
        self.network = ArcFaceONNX(str(path), session=session)
        fixed = takes[0].shape[0]
        self.most = fixed if isinstance(fixed, int) else None

    def __call__(self, crops: np.ndarray, *, batch: int = 32) -> np.ndarray:
        """Embed aligned crops.

        Args:
            crops: uint8 (N, 112, 112, 3), RGB; may be memory-mapped, it is read a batch at a time.
            batch: crops a forward pass (a model exported for a fixed batch takes its own).

        Returns:
            float32 (N, D), L2-normalised; D is 512 for insightface's packs.

        Raises:
            ValueError: the crops are of another dtype or shape.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_SIZE, CROP_SIZE, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}, uint8 N×112×112×3 is needed")
        size = self.most or batch
        parts = [np.empty((0, self.network.output_shape[1]), np.float32)]
        for start in range(0, len(crops), size):
            x_BCHW = crops[start : start + size].transpose(0, 3, 1, 2).astype(np.float32)
            count = len(x_BCHW)
            if self.most is not None and count < size:
                x_BCHW = np.concatenate([x_BCHW, np.zeros((size - count, *x_BCHW.shape[1:]), np.float32)])
            parts.append(np.asarray(self.network.forward(x_BCHW), np.float32)[:count])
        found = np.concatenate(parts)
        return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)
