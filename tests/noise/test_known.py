"""Recognisers that exist, in torch: the same embeddings as their own runtime gives, and a gradient down to the crop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import StageError
from pipeline.models.arcface_onnx import ArcFaceOnnx
from pipeline.models.recognisers import make_recogniser
from pipeline.noise.known import load_known
from tests.conftest import toy_faces
from tests.tiny_onnx import write_recogniser

CROPS = toy_faces(identities=2, photos=2).shards[0]
X_BCHW = torch.from_numpy(CROPS).permute(0, 3, 1, 2).float() / 255


def held_to_onnxruntime(path: Path) -> None:
    network, x_BCHW = load_known(path, input_size=75), X_BCHW.clone().requires_grad_(True)
    found = network.embed(x_BCHW)
    assert found.detach().numpy() == pytest.approx(ArcFaceOnnx(path)(CROPS), abs=1e-4)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), x_BCHW)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    assert not [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_an_onnx_recogniser_is_what_onnxruntime_makes_of_it(tmp_path: Path) -> None:
    held_to_onnxruntime(write_recogniser(tmp_path / "tiny.onnx"))


def test_an_onnx_recogniser_is_asked_in_bf16_too(tmp_path: Path) -> None:
    network, x_BCHW = load_known(write_recogniser(tmp_path / "tiny.onnx"), input_size=75), X_BCHW.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        found = network.embed(x_BCHW)
    assert found.dtype is torch.float32
    assert found.detach().numpy() == pytest.approx(network.embed(X_BCHW).numpy(), abs=0.02)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), x_BCHW)
    assert torch.isfinite(gradient).all() and (gradient.flatten(1).abs().sum(1) > 0).all()


def test_insightfaces_own_recogniser_is_read(shared: Path) -> None:
    path = shared / "models" / "insightface" / "w600k_mbf.onnx"
    if not path.is_file():
        pytest.skip(f"no recogniser at {path}")
    held_to_onnxruntime(path)


def test_facenets_weights_give_its_own_embeddings(tmp_path: Path) -> None:
    made = make_recogniser(classes=2, input_size=75, dropout=0.0, normalise=True, seed=3).eval()
    save_file(made.tensors(), tmp_path / "w.safetensors")
    found = load_known(tmp_path / "w.safetensors", input_size=75).embed(X_BCHW)
    assert torch.allclose(found, made.embed(X_BCHW), atol=1e-4)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match=r"absent\.onnx: no such file"):
        load_known(tmp_path / "absent.onnx", input_size=75)
    with pytest.raises(StageError, match=r"absent\.safetensors: not readable"):
        load_known(tmp_path / "absent.safetensors", input_size=75)
    with pytest.raises(StageError, match=r"odd\.onnx: torch cannot compute it"):
        load_known(write_recogniser(tmp_path / "odd.onnx", last="Hardmax"), input_size=75)
    right, other = (write_recogniser(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    from onnx2torch import convert

    monkeypatch.setattr("onnx2torch.convert", lambda _model: convert(str(other)))
    with pytest.raises(StageError, match=r"0\.onnx: torch computes other embeddings from it than onnxruntime does"):
        load_known(right, input_size=75)
