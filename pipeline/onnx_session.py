"""Networks in ONNX files, on the device that was asked for and on nothing else. Nothing is ever downloaded."""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import StageError

CUDA = "CUDAExecutionProvider"
DRIVER = "libcuda.so.1"  # what no package brings
PT_LOAD, PT_DYNAMIC, DT_NEEDED, DT_STRTAB = 1, 2, 1, 5  # of ELF


def open_session(path: Path, device: str, *, threads: int = 1) -> Any:
    """An onnxruntime session of `threads` CPU threads on `device` (cpu, cuda or cuda:N).

    Raises:
        StageError: the file is missing or no model, or onnxruntime cannot use the device (it would fall back to the CPU without a word).
        ValueError: `threads` is below 1.
    """
    import onnxruntime

    if threads < 1:
        raise ValueError(f"threads is {threads}, at least 1 is needed")
    if not path.is_file():
        raise StageError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # insightface's recognisers announce a batch of one, and onnxruntime warns of every other
    wanted = "CPUExecutionProvider"
    providers: list[Any] = [wanted]
    if device.startswith("cuda"):
        wanted = CUDA
        number = int(device.partition(":")[2] or 0)
        # Without TF32, which moves boxes and embeddings, as MTCNN's: the same network gives the same faces on a CPU and on a GPU.
        settings = {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        providers = [(wanted, settings), "CPUExecutionProvider"]
        missing = missing_for_cuda()
        if missing is not None:
            raise StageError(f"{path}: DEVICE={device}, but onnxruntime cannot use CUDA here: {missing}; or take DEVICE=cpu")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no useful base
        raise StageError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0][:200]}); put a whole copy there") from None
    if session.get_providers()[0] != wanted:
        fell_to = session.get_providers()[0]
        raise StageError(f"{path}: DEVICE={device}, but onnxruntime fell back to {fell_to}; see `make doctor`, or take DEVICE=cpu")
    return session


def missing_for_cuda() -> str | None:
    """What keeps onnxruntime from loading its CUDA provider, and what helps; None: nothing. Libraries that it needs stay loaded.

    `get_available_providers` lists what a build knows, also where nothing of it can be loaded, and a session that cannot load its
    provider says so in a log at most. Asked for are the libraries that the provider is linked to; to load it is onnxruntime's own affair.
    """
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers() or not cuda_provider().is_file():
        return "this onnxruntime has no CUDA, install onnxruntime-gpu alone (`make setup`)"
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each library that it does not find, needed or not
        onnxruntime.preload_dlls()
    missing = [name for name in needed_libraries(cuda_provider()) if not loads(name)]
    if not missing:
        return None
    helps = "NVIDIA's driver is needed" if missing == [DRIVER] else "`make setup` installs all of them but the driver's"
    return f"{', '.join(missing)} cannot be loaded ({helps})"


def cuda_provider() -> Path:
    """The library through which onnxruntime uses CUDA; a build without CUDA has none."""
    import onnxruntime

    return Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"


def loads(library: str) -> bool:
    """Whether a shared library can be loaded by its name, or is loaded already."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def needed_libraries(library: Path) -> list[str]:
    """The names of the libraries that a shared library of 64-bit Linux is linked to (ELF's DT_NEEDED), in their order."""
    with library.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        assert elf[:6] == b"\x7fELF\x02\x01", f"{library} is no 64-bit little-endian ELF file"
        start, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
        # Of each segment: its kind, where it is in the file, where in memory, and its length in the file.
        fields = [struct.unpack_from("<I4xQQ8xQ", elf, start + number * size) for number in range(count)]
        _, at, _, length = next(segment for segment in fields if segment[0] == PT_DYNAMIC)
        entries = list(struct.iter_unpack("<QQ", elf[at : at + length - length % 16]))
        text = next(value for tag, value in entries if tag == DT_STRTAB)  # an address in memory
        names = next(at + text - there for kind, at, there, long in fields if kind == PT_LOAD and there <= text < there + long)
        return [elf[names + value : elf.find(b"\0", names + value)].decode() for tag, value in entries if tag == DT_NEEDED]
