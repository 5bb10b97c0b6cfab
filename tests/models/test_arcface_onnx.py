"""Embeddings by a local insightface recogniser, against insightface's own; skipped where no pack is at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import StageError
from pipeline.faces.geometry import TEMPLATE
from pipeline.models.arcface_onnx import ArcFaceOnnx


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    path = shared / "models" / "insightface" / "w600k_mbf.onnx"
    if not path.is_file():
        pytest.skip(f"no recogniser at {path}")
    return path


@pytest.fixture(scope="module")
def embed(weights: Path) -> ArcFaceOnnx:
    return ArcFaceOnnx(weights)


def crops_of(count: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.stack([cv2.resize(one, (112, 112), interpolation=cv2.INTER_CUBIC) for one in coarse])


def test_same_numbers_as_insightface(embed: ArcFaceOnnx) -> None:
    crops = crops_of(3)
    own = np.asarray(embed.network.get_feat([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops]))  # BGR, as insightface reads photos
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    found = embed(crops)
    assert found.shape == (3, 512) and found.dtype == np.float32
    assert np.abs(found - own).max() < 1e-5
    # Colour order matters, so the test above would notice a swap.
    assert np.abs(embed(np.ascontiguousarray(crops[..., ::-1])) - own).max() > 0.01
    assert (embed.network.input_mean, embed.network.input_std) == (127.5, 127.5)


def test_batches_and_threads_do_not_matter(embed: ArcFaceOnnx, weights: Path) -> None:
    crops = crops_of(5)
    once = embed(crops)
    assert np.linalg.norm(once, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.abs(embed(crops, batch=2) - once).max() < 1e-4
    assert np.abs(ArcFaceOnnx(weights, threads=2)(crops[:2]) - once[:2]).max() < 1e-4
    assert embed(crops[:0]).shape == (0, 512)


def test_our_template_is_insightfaces() -> None:
    from insightface.utils.face_align import arcface_dst

    assert pytest.approx(arcface_dst, abs=1e-3) == TEMPLATE


def test_wrong_files_and_arguments_are_named(embed: ArcFaceOnnx, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"absent\.onnx: no such file"):
        ArcFaceOnnx(tmp_path / "absent.onnx")
    (tmp_path / "cut.onnx").write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(StageError, match=r"cut\.onnx: onnxruntime cannot load it"):
        ArcFaceOnnx(tmp_path / "cut.onnx")
    with pytest.raises(StageError, match="not a recogniser"):
        ArcFaceOnnx(weights.with_name("det_500m.onnx"))
    with pytest.raises(ValueError, match="threads"):
        ArcFaceOnnx(weights, threads=0)
    with pytest.raises(ValueError, match="uint8"):
        embed(crops_of(1).astype(np.float32))
    with pytest.raises(ValueError, match="112"):
        embed(crops_of(1)[:, :100])
