"""The machine a benchmark runs on: what it is, what of it a row uses, and the key its ratios are kept under."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runtime import Runtime


def one_thread() -> Runtime:
    """One CPU thread in the machine's own precision, as one arm of `make study` has it; torch is set to it."""
    from pipeline.runtime import decide, prepare_torch

    runtime = decide("cpu", "1")
    prepare_torch(runtime, 1)
    return runtime


def describe_machine() -> dict[str, Any]:
    """What `bench.json` says of the hardware: as in the report's provenance, and what ratios depend on beyond it."""
    from pipeline.doctor import memory_gib
    from pipeline.provenance import PACKAGES, hardware, installed
    from pipeline.runtime import cpu_has_fast_bf16, decide

    runtime = decide()
    return {
        **hardware(runtime),
        "cpu_model": cpu_model(),
        "cpu_precision": "bf16" if cpu_has_fast_bf16() else "fp32",
        "memory_gib": round(memory_gib(), 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "packages": {name: installed(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    """Vendor's family and model numbers and the matrix extensions: a hypervisor may hide the name, and ratios depend on the extensions."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            lines = [line.partition(":") for line in info.read().split("\n\n")[0].splitlines()]
    except OSError:
        return "unknown"
    first = {name.strip(): value.strip() for name, _, value in lines}
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in first.get("flags", "").split()]
    return f"family {first.get('cpu family', '?')} model {first.get('model', '?')} {'+'.join(extensions)}".strip()


def machine_key(found: dict[str, Any]) -> str:
    """The kind of machine whose ratios can be compared: CPU, cores, precision, and the GPU where there is one."""
    parts = [found["cpu"], found["cpu_model"], f"{found['cores']} cores", found["cpu_precision"]]
    return ", ".join(parts + ([found["gpu"]] if "gpu" in found else []))
