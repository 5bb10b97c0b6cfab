"""Device, whose turn it is there, dtype, threads, seeds, progress: decided once at the edge, said aloud, and handed on as arguments."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.distributed import ONE_PROCESS, Ranks, launched
from pipeline.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Runtime:
    """What a stage runs on. Nothing in here changes a result beyond rounding."""

    device: str  # "cpu", "cuda", "cuda:1"
    workers: int  # processes of a stage that has a pool of them; of a matrix the cores that its trials share
    precision: str  # "fp32" or "bf16": the dtype of matrix products under autocast
    ranks: Ranks = ONE_PROCESS  # this process among those of the run

    def torch_device(self) -> torch.device:
        """The torch device."""
        import torch

        return torch.device(self.device)

    def autocast(self) -> torch.autocast:
        """Autocast to bf16 where that is fast, otherwise a context that does nothing."""
        import torch

        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    def facts(self) -> dict[str, Any]:
        """What is kept beside a trained model: the kind of `device`, `precision` and the number of `processes`."""
        return {"device": self.torch_device().type, "precision": self.precision, "processes": self.ranks.size}

    @property
    def replays(self) -> bool:
        """Whether training steps and noise passes are recorded and replayed: on one GPU. What ranks say to each other is not recorded."""
        return self.device.startswith("cuda") and self.ranks.size == 1

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A NumPy array on the device, sent without waiting for what the device is doing."""
        import torch

        tensor = torch.from_numpy(array)
        if self.device.startswith("cuda"):
            return tensor.pin_memory().to(self.torch_device(), non_blocking=True)
        return tensor


@contextmanager
def turn(run: Path, runtime: Runtime) -> Iterator[None]:
    """Have the GPU for as long as this lasts: stages of `run` that train or search side by side go there one after the other.

    Two at once would share its memory, of which each takes what it finds free, and gain little. So what torch keeps of it for later is
    given back for the next one. Starts, reading, writing and what is done on the CPU need not wait. On a CPU, and in one of several
    processes that have a GPU each, there is nothing to wait for.
    """
    from pipeline.artifacts import at_work

    if not runtime.device.startswith("cuda") or runtime.ranks.size > 1:
        yield
        return
    import torch

    with at_work(run / "locks" / f"{runtime.device.replace(':', '-')}.lock", wait=True):
        yield
        torch.cuda.empty_cache()


def cores() -> int:
    """Cores this process may use (its affinity mask: more threads than free cores collapse)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware, and faster than fp32: emulated, bf16 is ten times slower."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            return multiplies_bf16(info.read().split("\n\n")[0])
    except OSError:
        return False


def multiplies_bf16(core: str) -> bool:
    """Whether a core multiplies bf16 faster than fp32, by its entry in /proc/cpuinfo.

    AMX does, and AMD's AVX512-BF16. Intel's, where a virtual machine hides the AMX beside it, takes twice as long as fp32
    (`python -m benchmarks matmul-bf16`: 0.083 and 0.166 TFLOP/s of a core of family 6 model 207; training 19 and 29 images/s at 112 px).
    """
    fields = dict(re.findall(r"^(flags|vendor_id)\s*:\s*(.*)$", core, re.MULTILINE))
    flags = fields.get("flags", "").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and fields.get("vendor_id") == "AuthenticAMD")


def cuda_has_fast_bf16(device: str) -> bool:
    """Whether the GPU multiplies bf16 matrices in hardware (from Ampere on); before, they are emulated."""
    import torch

    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def without_kernels(device: str) -> str | None:
    """Why torch cannot compute on a GPU that it sees; None: it can. Its builds leave out old GPUs, on which the first kernel fails."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    # sm_75: for capabilities 7.5 to 7.x; compute_75: translated for all from 7.5 on. Names of other makers' GPUs are not read.
    built = [(kind, int(number)) for kind, number in re.findall(r"\b(sm|compute)_(\d+)", " ".join(torch.cuda.get_arch_list()))]
    fitting = [n for kind, n in built if n <= 10 * major + minor and (kind == "compute" or n // 10 == major)]
    if fitting or not built:
        return None
    known = ", ".join(f"{n // 10}.{n % 10}" for n in sorted({n for _, n in built}))
    return f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, this torch is built for {known}"


def cuda_is_usable() -> bool:
    """Whether torch can compute on a GPU. Torch, which takes seconds to import, is asked only where there may be one."""
    if sys.platform == "linux" and not any(glob(path) for path in ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    import torch

    if not torch.cuda.is_available():
        return False
    reason = without_kernels("cuda")
    if reason is not None:
        say(f"DEVICE=auto: on the CPU, for {reason}")
    return reason is None


def decide(device: str = "auto", workers: str = "auto", precision: str = "auto", *, ranks: Ranks = ONE_PROCESS) -> Runtime:
    """Decide where to run. `RequestError` if the device asked for is not there (no silent fallback).

    With several ranks on GPUs each has its own, number `ranks.local` of this machine.
    """
    if workers == "auto":
        count = cores()
    elif workers.isascii() and workers.isdigit() and 1 <= int(workers) <= 1024:
        count = int(workers)
    else:
        raise RequestError(f"WORKERS={workers}: allowed are auto and 1 to 1024")
    if device == "auto":
        device = "cuda" if cuda_is_usable() else "cpu"
    elif re.fullmatch(r"cuda(:\d+)?", device, re.ASCII):
        import torch

        if not torch.cuda.is_available():
            raise RequestError(f"DEVICE={device}: this machine has no usable CUDA device; allowed are auto and cpu")
        if device != "cuda" and int(device[5:]) >= torch.cuda.device_count():
            raise RequestError(f"DEVICE={device}: allowed are cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    elif device != "cpu":
        raise RequestError(f"DEVICE={device}: allowed are auto, cpu, cuda, cuda:N")
    if ranks.size > 1 and device.startswith("cuda"):
        import torch

        if device != "cuda":
            raise RequestError(f"DEVICE={device}: each process has a GPU of its own; allowed are auto, cpu and cuda")
        there = torch.cuda.device_count()
        if ranks.local >= there:
            raise RequestError(f"NPROC={ranks.size}: each process needs a GPU of its own; allowed are 1 to {there} here, or DEVICE=cpu")
        device = f"cuda:{ranks.local}"
    if device.startswith("cuda") and (reason := without_kernels(device)) is not None:
        raise RequestError(f"DEVICE={device}: {reason}; allowed are cpu, and cuda:N for another GPU")
    if precision == "auto":
        precision = "bf16" if (cuda_has_fast_bf16(device) if device.startswith("cuda") else cpu_has_fast_bf16()) else "fp32"
    elif precision not in ("fp32", "bf16"):
        raise RequestError(f"PRECISION={precision}: allowed are auto, fp32, bf16")
    return Runtime(device=device, workers=count, precision=precision, ranks=ranks)


def free_memory(device: str) -> int | None:
    """Bytes that `device` can still give: of a GPU, or what the computer gives without swapping; None where the system does not say."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            return next((int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable:")), None)
    except OSError:
        return None


# Of torch, of CUDA and its libraries (a context, a handle), of onnxruntime, of torch on a CPU: each says so in an exception of its own.
NO_MEMORY = ("out of memory", "ALLOC_FAILED", "Failed to allocate memory", "can't allocate memory")


def out_of_memory(error: BaseException | None) -> str | None:
    """What was said where memory ran out, in one line; None where `error` came of something else. A step's recording fails in its wake."""
    while error is not None:
        told = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(sign in told for sign in NO_MEMORY):
            return re.split(r"(?<= is free)\.|\. Including|\. If reserved| CUDA kernel errors", told)[0].rstrip(".") or "no more is given"
        error = error.__cause__ or error.__context__
    return None


def prepare_torch(runtime: Runtime, threads: int) -> None:
    """Set torch's threads for this process, and flush denormals (tiny batch-norm gradients are slow otherwise)."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_memory()
    if runtime.device.startswith("cuda"):
        # cuDNN chooses by itself: to try every way of every convolution (`benchmark`) takes 20 s of each process.
        # Beside bf16 products TF32 (10 bits of mantissa to bf16's 7) loses nothing; whoever asks for fp32 gets it.
        allow_tf32(matmul=runtime.precision == "bf16", conv=runtime.precision == "bf16")


def keep_memory() -> None:
    """Have the C library keep what is freed for what comes next, until the process ends: what it had at its peak, it has from then on.

    Otherwise a step gives its largest tensors back to the system and gets them anew, page by page: up to 10,000 page faults a training step
    were seen in a virtual machine (112 px, bf16), and 5 to 10% of its time; a noise search over a table of 244 MiB took twice the time.
    """
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc; its malloc.h has these parameters' numbers
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        # Blocks above this size go back to the system; versions before 2.35 take 32 MiB at most.
        if library.mallopt(mmap_threshold, 2**30) or library.mallopt(mmap_threshold, 2**25):
            library.mallopt(trim_threshold, -1)
            library.mallopt(top_pad, 2**26)


def allow_tf32(*, matmul: bool, conv: bool) -> tuple[bool, bool]:
    """Whether a GPU may round factors of matrix products and of convolutions to TF32 from here on; gives what was set before.

    By torch's older names: what is set by the newer (`fp32_precision`) cannot be read by the older any more, as `cudnn.flags` does; what is
    set by the older can be read by both.
    """
    import torch

    before = bool(torch.backends.cuda.matmul.allow_tf32), bool(torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, conv
    return before


def hash_seed(*parts: int) -> int:
    """One 63-bit seed for torch from several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def say(message: str) -> None:
    """One line for the person watching, on stderr: results go to stdout. Of several ranks the first alone speaks."""
    if launched(os.environ).first:
        print(message, file=sys.stderr, flush=True)


def progress(items: Iterable[Any] | None, *, what: str, unit: str, total: int | None = None) -> Any:
    """A tqdm bar on stderr; where stderr is no terminal, a line every 15 s at most instead of a flood."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    return tqdm(items, desc=what, unit=unit, total=total, mininterval=15 if quiet else 0.2, ncols=100 if quiet else None, file=sys.stderr)
