"""Heads that turn embeddings into logits: softmax's plain linear layer is torch's own, ArcFace's is here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ArcFaceHead(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019, equation 3): scale · cos(θ + margin) for the right class, scale · cos θ else.

    Args:
        weight: (classes, D), the class centres' initial values.
        scale: s, length of the rescaled embedding. margin: m, radians.
    """

    def __init__(self, weight: Tensor, *, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.scale, self.margin = scale, margin

    def forward(self, embedding_BD: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Logits, float32 (B, classes); with labels (B,) int64 the margin is put on the right class, without them there is none."""
        with torch.autocast(embedding_BD.device.type, enabled=False):  # bf16 has steps of 0.004 near a cosine of 1
            cosine = F.linear(F.normalize(embedding_BD.float()), F.normalize(self.weight))
        if label_B is None:
            return self.scale * cosine
        right = cosine.gather(1, label_B[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        moved = torch.cos(torch.acos(right) + self.margin)
        # Beyond π − m the cosine would rise again: there the linear stand-in of the authors' code keeps it falling.
        limit = -torch.cos(torch.tensor(self.margin))
        moved = torch.where(right > limit, moved, right - self.margin * torch.sin(torch.tensor(self.margin)))
        return self.scale * cosine.scatter(1, label_B[:, None], moved)
