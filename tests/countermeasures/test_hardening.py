"""Hardening: the worst candidate is chosen, the ball is kept, the model is left as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.countermeasures.catalogue import countermeasure_of
from pipeline.countermeasures.hardening import Harden, make_adversarial, make_worst_of
from pipeline.runtime import Runtime, prepare_torch
from pipeline.training.at_hand import AtHand
from pipeline.training.replayed import WARM_UP, CudaRecorder, Recorder
from tests.pretended_gpu import Repeating

CPU = Runtime(device="cpu", workers=1, precision="fp32")


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def harden_of(name: str) -> Harden:
    harden = countermeasure_of(name, classes=4).harden
    assert harden is not None
    return harden


@pytest.fixture
def model() -> nn.Module:
    """A small network with batch norm and dropout, in train mode but for one frozen module."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.AvgPool2d(4), nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(8 * 24 * 24, 4)
        )
    made.train()
    made[2].eval()
    weight = made.get_parameter("6.weight")
    weight.grad = torch.full_like(weight, 7.0)
    return made


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x_BCHW = torch.rand((6, 3, 112, 112), generator=generator_of(0)).contiguous(memory_format=torch.channels_last)
    x_BCHW[0] = 0.0  # photos at the ends of the range: the ball is cut there
    x_BCHW[1] = 1.0
    return x_BCHW, torch.tensor([0, 1, 2, 3, 0, 1])


def loss_of(model: nn.Module, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(copy.deepcopy(model).eval()(x_BCHW), label_B, reduction="none")


@pytest.mark.parametrize("name", ["ueraser", "adversarial-4"])
def test_model_and_global_generator_are_left_alone(name: str, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x_BCHW, label_B = batch
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes, state, photos = [module.training for module in model.modules()], torch.get_rng_state(), x_BCHW.clone()
    first = harden_of(name)(AtHand(model, CPU, batch=6), x_BCHW, label_B, generator_of(1))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [parameter.grad is None for parameter in model.parameters()] == [True] * 4 + [False, True]
    assert (model.get_parameter("6.weight").grad == 7).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x_BCHW, photos)

    assert first.shape == x_BCHW.shape
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(harden_of(name)(AtHand(model, CPU, batch=6), x_BCHW, label_B, generator_of(1)), first)
    assert not torch.equal(harden_of(name)(AtHand(model, CPU, batch=6), x_BCHW, label_B, generator_of(2)), first)


def test_mode_comes_back_after_a_failure(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(RuntimeError):
        harden_of("adversarial-4")(AtHand(model, CPU, batch=6), batch[0][:, :2], batch[1], generator_of(0))
    assert model.training
    assert not model[2].training  # type: ignore[index]


@pytest.mark.parametrize("name", ["ueraser", "adversarial-4"])
def test_training_afterwards_still_has_gradients(name: str, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """A weight that autocast had cast where no gradient is kept would have none here."""
    bf16 = replace(CPU, precision="bf16")
    hard = harden_of(name)(AtHand(model, bf16, batch=6), *batch, generator_of(0))
    with bf16.autocast():
        logits = model(hard)
    F.cross_entropy(logits.float(), batch[1]).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in (model[1].weight, model[6].bias))  # type: ignore[index]
    assert (model.get_parameter("6.weight").grad != 7).any()


def test_the_worst_candidate_of_each_photo_is_chosen() -> None:
    class Brightness(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            mean = x_BCHW.mean((1, 2, 3))
            return torch.stack([mean, 1 - mean], dim=1) * 10  # class 0 is bright

    shown: list[Tensor] = []

    def augment(x_BCHW: Tensor, label_B: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shown.append(torch.rand((len(x_BCHW), 1, 1, 1), generator=generator))
        return x_BCHW * 0 + shown[-1], label_B

    x_BCHW, label_B = torch.zeros((8, 3, 4, 4)), torch.tensor([0, 1] * 4)
    worst = make_worst_of(augment, candidates=5)(AtHand(Brightness(), CPU, batch=8), x_BCHW, label_B, generator_of(0))
    assert len(shown) == 5
    light_5B = torch.stack(shown)[:, :, 0, 0, 0]
    torch.testing.assert_close(worst[:, 0, 0, 0], torch.where(label_B == 0, light_5B.amin(0), light_5B.amax(0)))


def test_ueraser_is_harder_than_one_candidate(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    from pipeline.countermeasures.augmentation import make_ueraser_augment

    worst = harden_of("ueraser")(AtHand(model, CPU, batch=6), *batch, generator_of(5))
    first, _ = make_ueraser_augment()(*batch, generator_of(5))  # the first of the five
    assert (loss_of(model, worst, batch[1]) >= loss_of(model, first, batch[1]) - 1e-5).all()
    assert loss_of(model, worst, batch[1]).mean() > loss_of(model, first, batch[1]).mean()


@pytest.mark.parametrize("radius", [1, 4, 8])
def test_adversarial_photos_stay_in_the_ball_and_raise_the_loss(radius: int, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x_BCHW, label_B = batch
    hard = harden_of(f"adversarial-{radius}")(AtHand(model, CPU, batch=6), x_BCHW, label_B, generator_of(0))
    distance = (hard - x_BCHW).abs()
    assert distance.max() <= radius / 255 + 1e-6
    assert (distance[2:] > 0.9 * radius / 255).float().mean() > 0.3  # and much of it at its edge
    noise = (torch.rand(x_BCHW.shape, generator=generator_of(9)) * 2 - 1).sign() * radius / 255
    by_chance = loss_of(model, (x_BCHW + noise).clamp(0, 1), label_B)
    assert (loss_of(model, hard, label_B) > loss_of(model, x_BCHW, label_B)).all()
    assert (loss_of(model, hard, label_B) > by_chance).all()


def test_more_steps_are_no_weaker(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    one, ten = (
        loss_of(model, make_adversarial(8, steps=n)(AtHand(model, CPU, batch=6), *batch, generator_of(0)), batch[1]).mean() for n in (1, 10)
    )
    assert ten >= one


def asked_while_training(name: str, runtime: Runtime, recorder: Recorder, model: nn.Module) -> None:
    """A recorded network against the network itself, whose weights and running means change between questions."""
    generator, model = generator_of(0), model.to(runtime.torch_device())
    recorded, plain = (AtHand(model, runtime, batch=3, recorder=recorder) for _ in range(2))
    plain.recorder = None
    answers = []
    for count in (3,) * (WARM_UP + 1) + (2, 3, 3):
        x_BCHW = torch.rand(count, 3, 112, 112, generator=generator).to(runtime.torch_device())
        label_B = torch.randint(4, (count,), generator=generator).to(runtime.torch_device())
        answers.append(getattr(recorded, name)(x_BCHW, label_B))
        torch.testing.assert_close(answers[-1], getattr(plain, name)(x_BCHW, label_B), rtol=1e-3, atol=1e-6)
        with torch.no_grad():
            for tensor in (*model.parameters(), model.get_buffer("2.running_var")):
                tensor.mul_(1.05)
    if name == "losses":
        assert not torch.equal(answers[-1], answers[-2]), "an answer that is kept is not written over by the next one"


@pytest.mark.parametrize(("name", "shape"), [("losses", (3,)), ("gradient", (3, 3, 112, 112))])
def test_repeated_questions_see_the_weights_as_they_are(name: str, shape: tuple[int, ...], model: nn.Module) -> None:
    recorder = Repeating(torch.zeros(shape), torch.zeros(()))
    asked_while_training(name, CPU, recorder, model)
    assert (recorder.recorded, recorder.replayed) == (1, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["losses", "gradient"])
def test_replayed_questions_see_the_weights_as_they_are(name: str, model: nn.Module) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = Runtime(device="cuda", workers=1, precision="fp32")
    prepare_torch(cuda, 1)  # without TF32
    asked_while_training(name, cuda, CudaRecorder(torch.device("cuda")), model)
