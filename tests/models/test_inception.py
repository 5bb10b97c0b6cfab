"""The quicker InceptionResnetV1 is the package's own, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.models.inception import facenet_networks, inception_resnet_v1
from pipeline.models.recognisers import for_inference, make_recogniser, renew


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


@pytest.mark.parametrize("size", [75, 112])
def test_folded_copy_answers_the_same(size: int) -> None:
    """A copy for inference: the same logits and gradient of the photo, weights of the model untouched and without gradients in the copy.

    In float64: rounding in float32 takes a ReLU whose sum is about nothing to its other side, which photo by photo is a thousandth.
    """
    model = make_recogniser(classes=5, input_size=size, dropout=0.5, normalise=True, seed=0).double()
    photos = torch.rand(6, 3, 112, 112, generator=torch.Generator().manual_seed(1)).double().contiguous(memory_format=torch.channels_last)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(photos)  # so that the batch norms remember something
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = for_inference(model, bf16=False)
    model.eval()
    assert not copy.training and not any(parameter.requires_grad for parameter in copy.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) for module in copy.modules())
    found = []
    for one in (model, copy):
        x_BCHW = photos.clone().requires_grad_(True)
        logits = one(x_BCHW)
        (gradient,) = torch.autograd.grad(logits[:, 2].sum(), x_BCHW)
        found.append((logits.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-7)  # logits are float32
    assert (found[0][1] - found[1][1]).norm() < 1e-6 * found[0][1].norm()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not {parameter.data_ptr() for parameter in copy.parameters()} & {parameter.data_ptr() for parameter in model.parameters()}
    model.float()
    in_bf16 = for_inference(model, bf16=True)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert (in_bf16(photos.float()) - found[0][0]).abs().max() < 0.05 * found[0][0].abs().max() + 0.02


def test_a_copy_is_given_new_weights_where_it_is() -> None:
    model = make_recogniser(classes=5, input_size=75, dropout=0.0, normalise=True, seed=0)
    made = for_inference(model, bf16=True)
    places = {name: tensor.data_ptr() for name, tensor in made.named_parameters()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *(one for name, one in model.named_buffers() if "running" in name)):
            tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())))
    renew(made, model)
    assert {name: tensor.data_ptr() for name, tensor in made.named_parameters()} == places
    for name, tensor in for_inference(model, bf16=True).named_parameters():
        assert torch.equal(tensor, made.get_parameter(name)), name


def test_a_network_that_cannot_be_folded_is_asked_itself() -> None:
    model = make_recogniser(classes=3, input_size=112, dropout=0.0, normalise=True, seed=0, model="mobilefacenet")
    assert for_inference(model.train(), bf16=False) is model and not model.training
