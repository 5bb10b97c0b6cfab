"""Device, dtype, threads, seeds, progress: decided once at the edge, said aloud, and handed on as arguments."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.distributed import ONE_PROCESS, Ranks, launched
from pipeline.errors import RequestError, StageError

if TYPE_CHECKING:
    import numpy as np
    import torch

# torch.compile's modes, and when: auto is its default mode, on a GPU, where a run is long enough to win back the minutes of compiling
COMPILE = ("auto", "off", "default", "reduce-overhead", "max-autotune-no-cudagraphs")
WORTH_COMPILING = 5000  # steps


@dataclass(frozen=True)
class Runtime:
    """What a stage runs on. Nothing in here changes a result beyond rounding."""

    device: str  # "cpu", "cuda", "cuda:1"
    workers: int  # processes, or threads where a stage is one process
    precision: str  # "fp32" or "bf16": the dtype of matrix products under autocast
    ranks: Ranks = ONE_PROCESS  # this process among those of the run
    compile: str = "auto"  # how torch.compile is used on networks, one of COMPILE

    def torch_device(self) -> torch.device:
        """The torch device."""
        import torch

        return torch.device(self.device)

    def autocast(self) -> torch.autocast:
        """Autocast to bf16 where that is fast, otherwise a context that does nothing."""
        import torch

        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def replays(self) -> bool:
        """Whether a training step is recorded and replayed: on one GPU. What ranks say to each other is not recorded."""
        return self.device.startswith("cuda") and self.ranks.size == 1

    def compile_mode(self, steps: int) -> str | None:
        """The mode of torch.compile for a network that will take `steps` steps; None: it runs as it is.

        On a CPU compiling did not pay for training. Over several ranks each batch norm is a sum over processes, which would cut what is
        compiled into pieces.

        Raises:
            StageError: a mode was asked for by name, on a GPU, and what compiling needs there is missing; `auto` goes on without.
        """
        on_gpu = self.device.startswith("cuda")
        if self.compile == "off" or (self.compile == "auto" and not (on_gpu and self.ranks.size == 1 and steps >= WORTH_COMPILING)):
            return None
        missing = missing_for_compiling() if on_gpu else None
        if missing is None:
            return "default" if self.compile == "auto" else self.compile
        if self.compile != "auto":
            raise StageError(f"COMPILE={self.compile}: {missing}; or take auto or off")
        say_once(f"not compiled, which only takes longer: {missing}")
        return None

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A NumPy array on the device, sent without waiting for what the device is doing."""
        import torch

        tensor = torch.from_numpy(array)
        if self.device.startswith("cuda"):
            return tensor.pin_memory().to(self.torch_device(), non_blocking=True)
        return tensor


def cores() -> int:
    """Cores this process may use (its affinity mask: more threads than free cores collapse)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16); emulated, bf16 is ten times slower than fp32."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as info:
            flags = next((line for line in info if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def cuda_has_fast_bf16(device: str) -> bool:
    """Whether the GPU multiplies bf16 matrices in hardware (from Ampere on); before, they are emulated."""
    import torch

    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def missing_for_compiling() -> str | None:
    """What torch.compile lacks on a GPU, where triton builds its launchers with a C compiler and Python's headers; None: nothing."""
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang"))):
        return "torch.compile needs a C compiler on a GPU, gcc or clang"
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return None if headers.is_file() else f"torch.compile needs Python's headers on a GPU, and there is no {headers} (python3-dev)"


def cuda_is_usable() -> bool:
    """Whether torch can compute on a GPU. Torch, which takes seconds to import, is asked only where there may be one."""
    if sys.platform == "linux" and not any(glob(path) for path in ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def decide(
    device: str = "auto", workers: str = "auto", precision: str = "auto", *, compile: str = "auto", ranks: Ranks = ONE_PROCESS
) -> Runtime:
    """Decide where to run. `RequestError` if the device asked for is not there (no silent fallback).

    With several ranks on GPUs each has its own, number `ranks.local` of this machine.
    """
    if workers == "auto":
        count = cores()
    elif workers.isdigit() and 1 <= int(workers) <= 1024:
        count = int(workers)
    else:
        raise RequestError(f"WORKERS={workers}: allowed are auto and 1 to 1024")
    if device == "auto":
        device = "cuda" if cuda_is_usable() else "cpu"
    elif device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise RequestError(f"DEVICE={device}: this machine has no usable CUDA device; allowed are auto and cpu")
        if device != "cuda" and not (device[5:].isdigit() and int(device[5:]) < torch.cuda.device_count()):
            raise RequestError(f"DEVICE={device}: allowed are cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    elif device != "cpu":
        raise RequestError(f"DEVICE={device}: allowed are auto, cpu, cuda, cuda:N")
    if ranks.size > 1 and device.startswith("cuda"):
        import torch

        if device != "cuda":
            raise RequestError(f"DEVICE={device}: each process has a GPU of its own; allowed are auto, cpu and cuda")
        if ranks.local >= torch.cuda.device_count():
            raise RequestError(f"NPROC: this machine has {torch.cuda.device_count()} GPU(s), and each process needs one of its own")
        device = f"cuda:{ranks.local}"
    if precision == "auto":
        precision = "bf16" if (cuda_has_fast_bf16(device) if device.startswith("cuda") else cpu_has_fast_bf16()) else "fp32"
    elif precision not in ("fp32", "bf16"):
        raise RequestError(f"PRECISION={precision}: allowed are auto, fp32, bf16")
    if compile not in COMPILE:
        raise RequestError(f"COMPILE={compile}: allowed are {', '.join(COMPILE)}")
    if ranks.size > 1 and compile not in ("auto", "off"):  # torch's compiler does not know the shapes of what they sum in a batch norm
        raise RequestError(f"COMPILE={compile}: networks of several processes are not compiled; allowed are auto and off")
    return Runtime(device=device, workers=count, precision=precision, ranks=ranks, compile=compile)


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


def prepare_torch(runtime: Runtime, threads: int) -> None:
    """Set torch's threads for this process, and flush denormals (tiny batch-norm gradients are slow otherwise)."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if runtime.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
        # Beside bf16 products TF32 (10 bits of mantissa to bf16's 7) loses nothing; whoever asks for fp32 gets it.
        allow_tf32(matmul=runtime.precision == "bf16", conv=runtime.precision == "bf16")


def allow_tf32(*, matmul: bool, conv: bool) -> tuple[bool, bool]:
    """Whether a GPU may round factors of matrix products and of convolutions to TF32 from here on; gives what was set before.

    By torch's older names: what is set by the newer (`fp32_precision`) cannot be read by the older any more, as its compiler does; what is
    set by the older can be read by both.
    """
    import torch

    before = bool(torch.backends.cuda.matmul.allow_tf32), bool(torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, conv
    return before


@cache
def say_once(message: str) -> None:
    """`say`, the first time."""
    say(message)


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
