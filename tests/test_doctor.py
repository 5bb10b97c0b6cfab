"""What `make doctor` says of a machine."""

from __future__ import annotations

import pytest
import torch

from pipeline.doctor import examine
from pipeline.runtime import Runtime

GPUS = {"cuda": "GPU 0", "cuda:0": "GPU 0", "cuda:1": "GPU 1"}


@pytest.mark.parametrize(("device", "told"), [("cpu", "GPU 0"), ("cuda", "GPU 0"), ("cuda:1", "GPU 1")])
@pytest.mark.parametrize("capability", [(9, 0), (6, 1)])
def test_the_gpu_that_is_named_is_the_one_that_is_used(
    device: str, told: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device="cuda": GPUS[str(device)])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    (line,) = [line for line in examine(Runtime(device, 1, "fp32")).splitlines() if line.startswith("cuda  ")]
    if capability == (9, 0):
        assert line.split(maxsplit=1)[1] == told
    else:
        assert line.split(maxsplit=1)[1].startswith(f"no usable device: {told} has compute capability 6.1, this torch is built for 7.5, ")
