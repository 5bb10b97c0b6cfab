"""A cloak against recognisers that exist: to each of them every photo shows somebody else (after Shan et al., USENIX Security 2020, Fawkes;
several extractors at once as in Cherepanova et al., ICLR 2021, LowKey).

Error-minimizing noise acts on networks that learn from the photos. Whoever takes the embeddings of a network that is there already trains
none, so only noise against that very network acts on them. Down the objective a photo's embedding leaves its person's own mean and nears
that of a distant person, the same one for all of a person's photos: a classifier then learns the wrong cluster, and a gallery holds the
wrong template. Photos go through the transforms of `transforms.py`, since they are found, cropped and compressed again before anybody
embeds them. Neither paper's program: the change is bounded by epsilon, as all arms' here, and there is no perceptual term.

A cloak leaves most of a face to who trains a network from scratch, so `cloak-error-min` makes it, with half of epsilon, for photos that
carry an error-minimizing pattern with the other half: that pattern is what such a network learns. `cloak-tap` shares epsilon with nobody:
networks that exist and networks that learned these people (`tap.py`) are shown the same person, the next of the protected, by one change.
What a cloak does to a network that was not among those it was made against is for `MATRIX=svm-reference` to say.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.noise.descent import Objective


def leave(network: Any, own_KD: Tensor, target_KD: Tensor) -> Objective:
    """Down this a photo's embedding nears `target_KD[label]` and leaves `own_KD[label]`, both by cosine; rows are L2-normalised."""

    def loss(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        towards_KD = target_KD - own_KD
        return 1 - (network.embed(x_BCHW) * towards_KD[label_B]).sum(1)

    return loss
