"""What this machine has, and what is missing, for `make doctor`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pipeline.evaluation.lpips import weights_file
from pipeline.onnx_session import missing_for_cuda
from pipeline.provenance import PACKAGES, hardware, installed
from pipeline.runtime import Runtime, without_kernels


def examine(runtime: Runtime) -> str:
    """One line a fact, as text for a terminal."""
    import torch

    found = hardware(runtime)
    without = missing_for_cuda()
    lines = [
        f"python      {sys.version.split()[0]} on {found['system']}",
        f"cpu         {found['cpu']}, {found['cores']} cores for this process, {memory_gib():.0f} GiB memory",
        f"device      {runtime.device}, matrix products in {runtime.precision}, {runtime.workers} workers",
        f"cuda        {gpu(runtime) if torch.cuda.is_available() else 'no usable device'}",
        f"onnxruntime {'on the CPU and on CUDA' if without is None else f'on the CPU; not on CUDA: {without}'}",
        f"disk        {shutil.disk_usage('.').free / 2**30:.0f} GiB free here",
    ]
    lines += [f"{name:<18}{installed(name) or 'MISSING: run `make setup`'}" for name in PACKAGES]
    alexnet = weights_file()
    lines.append(
        f"lpips       {alexnet}" if alexnet.is_file() else f"lpips       not measured: torchvision's AlexNet weights are not at {alexnet}"
    )
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    lines.append(f"chromium    {chromium or 'missing: only the report test in a browser needs it'}")
    return "\n".join(lines)


def gpu(runtime: Runtime) -> str:
    """The GPU that is used, or would be by default; or why torch cannot use it."""
    import torch

    device = runtime.device if runtime.device.startswith("cuda") else "cuda"
    reason = without_kernels(device)
    return torch.cuda.get_device_name(device) if reason is None else f"no usable device: {reason}"


def memory_gib() -> float:
    """Physical memory, GiB; 0 where the system does not say."""
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    except (OSError, StopIteration):
        return 0.0
    return int(line.split()[1]) / 2**20
