"""What is decided once about the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from pipeline import runtime
from pipeline.distributed import Ranks
from pipeline.errors import RequestError
from pipeline.faces.detect_mtcnn import exactly
from pipeline.runtime import allow_tf32, decide, multiplies_bf16


@pytest.mark.parametrize("device", ["cuda-0", "cudaX1", "cuda1", "cuda:", "cuda:x", "cuda:²", "cuda:1\n", "cuda:2", "gpu", ""])
def test_a_device_that_there_is_not_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(runtime, "cuda_has_fast_bf16", lambda _device: True)
    monkeypatch.setattr(runtime, "without_kernels", lambda _device: None)
    assert decide("cuda:1").device == "cuda:1"
    with pytest.raises(RequestError, match=rf"^DEVICE={device}: allowed are .*cuda"):
        decide(device)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(runtime, "cuda_has_fast_bf16", lambda _device: True)
    monkeypatch.setattr(runtime, "without_kernels", lambda _device: None)
    assert [decide("cuda", ranks=Ranks(rank, 2, rank)).device for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    with pytest.raises(RequestError, match=r"^NPROC=3: each process needs a GPU of its own; allowed are 1 to 2 here, or DEVICE=cpu$"):
        decide("cuda", ranks=Ranks(2, 3, 2))
    with pytest.raises(RequestError, match=r"^DEVICE=cuda:1: each process has a GPU of its own; allowed are auto, cpu and cuda$"):
        decide("cuda:1", ranks=Ranks(0, 2, 0))


@pytest.mark.parametrize(
    ("capability", "built", "fits"),
    [
        ((7, 0), "sm_75 sm_80 sm_90", False),
        ((6, 1), "sm_75 sm_80 sm_90", False),
        ((7, 5), "sm_75 sm_80 sm_90", True),
        ((8, 9), "sm_75 sm_80 sm_90", True),
        ((8, 0), "sm_75 sm_86 sm_90a", False),
        ((12, 0), "sm_75 compute_90", True),
        ((9, 0), "gfx90a gfx942", True),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_is_not_taken(
    capability: tuple[int, int], built: str, fits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`torch.cuda.is_available` says yes to it, and the first kernel fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
    monkeypatch.setattr(runtime, "glob", lambda path: [path])
    monkeypatch.setattr(runtime, "cuda_has_fast_bf16", lambda _device: False)
    assert decide().device == ("cuda" if fits else "cpu")
    said = f"Tesla V100 has compute capability {capability[0]}.{capability[1]}, this torch is built for 7.5, "
    assert (said in capsys.readouterr().err) == (not fits)
    if fits:
        assert decide("cuda").device == "cuda"
        return
    with pytest.raises(RequestError, match=f"^DEVICE=cuda: {said}.*; allowed are cpu"):
        decide("cuda")


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("AuthenticAMD", "avx2 avx512f avx512_bf16 vaes", True),
        ("GenuineIntel", "avx2 avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "avx2 avx512f avx512_bf16 avx512_fp16", False),
        ("AuthenticAMD", "avx2 avx512f", False),
        ("GenuineIntel", "avx2 not_amx_bf16", False),
    ],
)
def test_bf16_is_taken_where_it_is_the_faster_one(vendor: str, flags: str, fast: bool) -> None:
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: amx_bf16 of {vendor}\nflags\t\t: fpu {flags} sse2\nbugs\t: none"
    assert multiplies_bf16(core) == fast


def test_no_cpu_is_known_where_nothing_is_told() -> None:
    assert not multiplies_bf16("") and not multiplies_bf16("Features\t: fp asimd bf16")


@pytest.mark.parametrize("workers", ["²", "٣", "0", "1025", "-1", "two", ""])
def test_a_number_of_workers_that_is_none_is_named(workers: str) -> None:
    assert decide("cpu", "12").workers == 12
    with pytest.raises(RequestError, match=f"^WORKERS={workers}: allowed are auto and 1 to 1024"):
        decide("cpu", workers)


def test_what_torch_rounds_on_a_gpu_can_be_read_by_both_its_names() -> None:
    """`cudnn.flags` reads the older ones, which raise once the newer have been set otherwise."""
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


C_LIBRARY, C_VERSION = platform.libc_ver()


@pytest.mark.skipif(
    C_LIBRARY != "glibc" or tuple(map(int, C_VERSION.split("."))) < (2, 35), reason="glibc from 2.35 on keeps blocks of any size"
)
@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_was_freed_is_kept_for_the_next_step(kept: bool) -> None:
    """A tensor of 40 MiB, freed and made again, costs no page fault in the end; without `keep_memory` 10,240 of 4 KiB, or 20 of 2 MiB."""
    code = f"""
import resource
import torch
from pipeline.runtime import keep_memory
{kept} and keep_memory()
faults = []
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[-10:]))
"""
    faults = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert faults < 16 if kept else faults >= 16, faults
