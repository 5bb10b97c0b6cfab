"""Networks in ONNX files, on the device that was asked for and on nothing else. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import StageError


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
        wanted = "CUDAExecutionProvider"
        number = int(device.partition(":")[2] or 0)
        providers = [(wanted, {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"]
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        if wanted not in onnxruntime.get_available_providers():
            raise StageError(f"{path}: DEVICE={device}, but this onnxruntime has no CUDA: install onnxruntime-gpu alone, or DEVICE=cpu")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no useful base
        raise StageError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0][:200]}); put a whole copy there") from None
    if session.get_providers()[0] != wanted:
        fell_to = session.get_providers()[0]
        raise StageError(f"{path}: DEVICE={device}, but onnxruntime fell back to {fell_to}; see `make doctor`, or take DEVICE=cpu")
    return session
