"""What is decided once about the machine."""

from __future__ import annotations

import torch

from pipeline.faces.detect_mtcnn import exactly
from pipeline.runtime import allow_tf32


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
