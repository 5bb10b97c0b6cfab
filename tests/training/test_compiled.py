"""Which batches go through torch.compile, and what it needs."""

from __future__ import annotations

import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from pipeline.distributed import Ranks
from pipeline.errors import RequestError, StageError
from pipeline.faces.detect_mtcnn import exactly
from pipeline.runtime import COMPILE, WORTH_COMPILING, Runtime, allow_tf32, decide, say_once
from pipeline.training.compiled import for_full_batches
from tests.noise.test_error_min import TinyNet

CUDA = Runtime(device="cuda", workers=1, precision="bf16")


@pytest.fixture(autouse=True)
def compiler_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A C compiler and Python's headers, or what passes for them."""
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})


def test_only_long_runs_on_one_gpu_are_compiled_unasked(cpu: Runtime) -> None:
    assert cpu.compile_mode(10**6) is None
    assert CUDA.compile_mode(WORTH_COMPILING) == "default"
    assert CUDA.compile_mode(WORTH_COMPILING - 1) is None
    assert replace(CUDA, ranks=Ranks(0, 2)).compile_mode(10**6) is None
    assert replace(CUDA, compile="off").compile_mode(10**6) is None
    assert replace(cpu, compile="reduce-overhead").compile_mode(1) == "reduce-overhead"
    with pytest.raises(RequestError, match="COMPILE=fast"):
        decide("cpu", compile="fast")
    assert all(decide("cpu", compile=mode).compile == mode for mode in COMPILE)
    with pytest.raises(RequestError, match="COMPILE=default: networks of several processes are not compiled; allowed are auto and off"):
        decide("cpu", compile="default", ranks=Ranks(0, 2))


@pytest.mark.parametrize("missing", ["gcc or clang", "Python.h"])
def test_without_a_compiler_a_gpu_runs_as_it_is_unless_told_otherwise(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cpu: Runtime
) -> None:
    if missing == "Python.h":
        (tmp_path / "Python.h").unlink()
    else:
        monkeypatch.delenv("CC")
        monkeypatch.setattr(shutil, "which", lambda name: None)
    say_once.cache_clear()
    assert [CUDA.compile_mode(WORTH_COMPILING) for _ in range(2)] == [None, None]
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(StageError, match=f"COMPILE=default: .*{missing}"):
        replace(CUDA, compile="default").compile_mode(1)
    assert replace(CUDA, compile="off").compile_mode(10**6) is None and CUDA.compile_mode(1) is None and cpu.compile_mode(10**6) is None
    assert capsys.readouterr().err == ""
    if missing == "gcc or clang":
        monkeypatch.setattr(shutil, "which", {"clang": "/usr/bin/clang"}.get)
        assert CUDA.compile_mode(WORTH_COMPILING) == "default"


def test_what_torch_rounds_on_a_gpu_can_be_read_by_both_its_names() -> None:
    """Its compiler reads the older ones, which raise once the newer have been set otherwise."""
    before = allow_tf32(matmul=True, conv=True)
    try:
        for allowed in (True, False):
            allow_tf32(matmul=allowed, conv=allowed)
            conv = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
            assert (torch.backends.cuda.matmul.fp32_precision == "tf32", conv == "tf32") == (allowed, allowed)
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
            with exactly():
                assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
            with torch.backends.cudnn.flags():
                pass
        assert allow_tf32(matmul=True, conv=False) == (False, False)
    finally:
        allow_tf32(matmul=before[0], conv=before[1])


def test_a_model_that_is_not_compiled_is_itself(cpu: Runtime) -> None:
    model = TinyNet(2)
    assert for_full_batches(model, cpu, batch=4, steps=10) is model


def test_ragged_batches_and_modes_compile_nothing_anew(cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's own eager backend: what is compiled is what matters here, not the code that a compiler makes of it."""
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(next(len(one) for one in inputs if isinstance(one, torch.Tensor) and one.ndim == 4 and one.shape[1:3] == (3, 112)))
        return graph

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, *, mode, dynamic: compiler(model, backend=counting, dynamic=dynamic))
    monkeypatch.setattr(torch._inductor.config, "fallback_random", False)
    model = TinyNet(2)
    forward = for_full_batches(model, replace(cpu, compile="default"), batch=4, steps=10)
    assert torch._inductor.config.fallback_random, "dropout draws as it does uncompiled"
    x_BCHW = torch.rand(4, 3, 112, 112)
    for _ in range(3):  # epochs: full and ragged batches in training mode, then in eval mode without the weights' gradients
        for training in (True, False):
            model.train(training).requires_grad_(training)
            for count in (4, 4, 3, 1):
                inputs = x_BCHW[:count].clone().requires_grad_(not training)
                torch.testing.assert_close(forward(inputs), model(inputs))
    assert compiled == [4, 4]
