"""Networks that are asked, not trained: their copies without batch norms answer the same."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.recognisers import for_inference, make_recogniser, renew


@pytest.mark.parametrize(("network", "size"), [("inception-resnet-v1", 75), ("inception-resnet-v1", 112), ("mobilefacenet", 75)])
def test_folded_copy_answers_the_same(network: str, size: int) -> None:
    """A copy for inference: the same logits and gradient of the photo, weights of the model untouched and without gradients in the copy.

    In float64: rounding in float32 takes a ReLU whose sum is about nothing to its other side, which photo by photo is a thousandth.
    """
    model = make_recogniser(classes=5, input_size=size, dropout=0.5, normalise=True, seed=0, model=network).double()
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


@pytest.mark.parametrize("network", ["inception-resnet-v1", "mobilefacenet"])
def test_a_copy_is_given_new_weights_where_it_is(network: str) -> None:
    model = make_recogniser(classes=5, input_size=75, dropout=0.0, normalise=True, seed=0, model=network)
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
    model = make_recogniser(classes=3, input_size=112, dropout=0.0, normalise=True, seed=0, model="resnet18")
    assert for_inference(model.train(), bf16=False) is model and not model.training
