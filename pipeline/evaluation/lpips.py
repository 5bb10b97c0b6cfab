"""LPIPS (Zhang et al., CVPR 2018): how different two pictures look to a network, closer to people's judgement than PSNR and SSIM.

It needs AlexNet's ImageNet weights, which are not part of any package: they are used where they already lie in torch's hub folder
(`$TORCH_HOME/hub/checkpoints`, where torchvision puts them), and never fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import read_table
from pipeline.evaluation.tested import spread_evenly
from pipeline.evaluation.utility import crops_of

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

ALEXNET = "alexnet-owt-7be5be79.pth"  # torchvision's name for them, which takes it seconds to say
MOST_COMPARED = 300  # crops
BATCH = 50


def weights_file() -> Path:
    """Where torchvision keeps AlexNet's weights; they need not be there."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def lpips_distance(original: np.ndarray, changed: np.ndarray, *, device: str = "cpu") -> float | None:
    """Mean LPIPS (AlexNet, version 0.1) of N pairs; 0 for equal pictures. None where AlexNet's weights are not at hand.

    Args:
        original, changed: uint8 (N, H, W, 3), RGB.
    """
    assert original.shape == changed.shape and original.dtype == changed.dtype == np.uint8
    if not len(original) or not weights_file().is_file():
        return None
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    def as_tensor(crops: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2).float() / 255

    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)
    for start in range(0, len(original), BATCH):
        metric.update(as_tensor(original[start : start + BATCH]), as_tensor(changed[start : start + BATCH]))
    return round(float(metric.compute()), 4)


def lpips_of(aligned: Path, protected: Path, table: Any, runtime: Runtime) -> float | None:
    """`lpips_distance` over at most `MOST_COMPARED` of an arm's protected crops, as decoded from disk.

    Args:
        aligned: folder of the clean crops. protected: folder of the arm's manifest and crops. table: the split.
    """
    if not weights_file().is_file():
        return None
    rows = read_table(protected / "manifest.parquet", ["photo", "shard", "row"]).sort_values("photo")
    rows = rows.iloc[spread_evenly(len(rows), MOST_COMPARED)]
    clean = table.set_index("photo").loc[rows["photo"]]
    return lpips_distance(crops_of(aligned, clean), crops_of(protected, rows), device=runtime.device)
