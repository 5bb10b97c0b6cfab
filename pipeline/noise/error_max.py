"""Error-maximizing noise: adversarial examples against a trained network, the control of Huang et al., ICLR 2021, section 4.1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.models.recognisers import Recogniser
from pipeline.noise.descent import Objective


def lower_certainty(model: Recogniser) -> Objective:
    """Down this the network's own loss rises: error-maximizing noise (Madry et al., ICLR 2018; control of Huang et al., ICLR 2021)."""

    def loss(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        return -F.cross_entropy(model(x_BCHW), label_B, reduction="none")

    return loss
