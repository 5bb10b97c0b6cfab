"""The quicker InceptionResnetV1 is the package's own, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.models.inception import facenet_networks, inception_resnet_v1


def pair(classes: int = 5) -> tuple[Any, Any]:
    """The package's network and the quick one, drawn with the same seed."""
    torch.manual_seed(0)
    plain = facenet_networks().InceptionResnetV1(pretrained=None, classify=True, num_classes=classes, dropout_prob=0.0)
    torch.manual_seed(0)
    quick = inception_resnet_v1(classes=classes, dropout=0.0).to(memory_format=torch.channels_last)
    return plain, quick


def test_same_names_and_initial_weights() -> None:
    plain, quick = pair()
    assert Path(facenet_networks().__file__).parts[-3:] == ("facenet_pytorch", "models", "inception_resnet_v1.py")
    assert list(plain.state_dict()) and set(plain.state_dict()) == set(quick.state_dict())
    assert all(torch.equal(tensor, quick.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("size", [75, 112])
def test_same_logits_gradients_and_statistics(size: int) -> None:
    """In training mode: logits, the gradient of the photo and of each weight, and what batch norm remembers; then in eval mode.

    In float64, because batch norm over few photos makes much of the last bit of a float32.
    """
    plain, quick = (network.double() for network in pair())
    photos = torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    label = torch.arange(6) % 5
    found = []
    for network, layout in ((plain, torch.contiguous_format), (quick, torch.channels_last)):
        x_BCHW = photos.clone().contiguous(memory_format=layout).detach().requires_grad_(True)
        network.train()
        logits = network(x_BCHW)
        F.cross_entropy(logits, label).backward()
        assert x_BCHW.grad is not None
        found.append((logits.detach(), x_BCHW.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).norm() < 1e-6 * found[0][1].norm()
    quick_weights, largest = dict(quick.named_parameters()), max(float(p.grad.norm()) for p in plain.parameters())
    for name, weight in plain.named_parameters():
        difference = (weight.grad - quick_weights[name].grad).norm()
        assert difference < 1e-6 * weight.grad.norm() + 1e-9 * largest, name
    quick_buffers = dict(quick.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffer, quick_buffers[name], msg=name)
    plain.eval()
    quick.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(photos), quick(photos.contiguous(memory_format=torch.channels_last)))
