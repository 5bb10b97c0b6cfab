"""What a trainer does to training batches only: random, new each time, labels mixed where photos are.

Each function takes x_BCHW float32 in [0, 1], label_B int64 and a generator, and gives the same shape, range, device and memory format, and
the target: label_B as it came, or soft targets (B, classes) float32 whose rows sum to 1. All randomness comes from the generator; the
global one of the caller stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

if TYPE_CHECKING:
    from torchvision.transforms import v2

Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


@contextmanager
def global_rng_from(generator: Generator) -> Iterator[None]:
    """torch's global CPU generator seeded from `generator`, and put back on leaving: torchvision's transforms draw from no other."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the GPUs, which nobody puts back
        yield


def uniform(shape: tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    """Numbers in [0, 1) on the device of `like`, drawn where the generator lives: the same for a CPU and a GPU run."""
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    if like.device.type == "cuda" and drawn.device.type == "cpu":  # drawn while the GPU works: from pageable memory the copy would wait
        drawn = drawn.pin_memory()
    return drawn.to(like, non_blocking=True)


def format_of(x_BCHW: Tensor) -> torch.memory_format:
    """The memory format of a batch."""
    return torch.channels_last if x_BCHW.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def photo_by_photo(x_BCHW: Tensor, change: Callable[[Tensor], Tensor], generator: Generator) -> Tensor:
    """`change`, which draws from torch's global generator, applied to each photo (C, H, W) with draws of its own."""
    with global_rng_from(generator):
        changed = torch.stack([change(x_CHW) for x_CHW in x_BCHW])
    return changed.contiguous(memory_format=format_of(x_BCHW))


def cutout(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One black square a photo, half the photo's side (DeVries and Taylor 2017, section 3: 16 of 32 px).

    Its centre is any pixel, so the square may stick out, as in the paper: a quarter of it at least is inside.
    """
    batch, _, height, width = x_BCHW.shape
    side = min(height, width) // 2
    inside = []
    for length in (height, width):
        centre_B = (uniform((batch,), generator, x_BCHW) * length).long()
        distance = torch.arange(length, device=x_BCHW.device) - centre_B[:, None]
        inside.append((distance >= -(side // 2)) & (distance < side - side // 2))
    square_BHW = inside[0][:, :, None] & inside[1][:, None, :]
    return x_BCHW.masked_fill(square_BHW[:, None], 0.0).contiguous(memory_format=format_of(x_BCHW)), label_B


def make_shift(pixels: int) -> Augment:
    """Re-crops shifted by up to `pixels` px each way, the border mirrored (padding and cropping as in He et al. 2016, section 4.2)."""

    def shift(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        batch, _, height, width = x_BCHW.shape
        offset_2B = (uniform((2, batch), generator, x_BCHW) * (2 * pixels + 1)).long()
        padded_BHWC = F.pad(x_BCHW, [pixels] * 4, mode="reflect").permute(0, 2, 3, 1)
        photo = torch.arange(batch, device=x_BCHW.device)[:, None, None]
        row = (offset_2B[0, :, None] + torch.arange(height, device=x_BCHW.device))[:, :, None]
        column = (offset_2B[1, :, None] + torch.arange(width, device=x_BCHW.device))[:, None, :]
        return padded_BHWC[photo, row, column].permute(0, 3, 1, 2).contiguous(memory_format=format_of(x_BCHW)), label_B

    return shift


def make_mixing(transform: v2.MixUp | v2.CutMix) -> Augment:
    """A batch mixed with itself rolled by one photo, with one share for all: the batch must come shuffled. Soft targets."""

    def mix(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        with global_rng_from(generator):
            mixed_BCHW, target_BK = transform(x_BCHW, label_B)
        return mixed_BCHW.contiguous(memory_format=format_of(x_BCHW)), target_BK

    return mix


def make_mixup(classes: int) -> Augment:
    """λ x + (1 − λ) x′, λ ~ Beta(1, 1), and the same of the labels (Zhang et al., ICLR 2018, section 2)."""
    from torchvision.transforms import v2  # heavy: only where it is used

    return make_mixing(v2.MixUp(alpha=1.0, num_classes=classes))


def make_cutmix(classes: int) -> Augment:
    """A rectangle of x′ pasted into x, area 1 − λ, λ ~ Beta(1, 1), labels mixed by area (Yun et al., ICCV 2019, section 3)."""
    from torchvision.transforms import v2  # heavy: only where it is used

    return make_mixing(v2.CutMix(alpha=1.0, num_classes=classes))


def make_strong() -> Augment:
    """A random mix a photo: flip, affine, colour jitter, grey, blur, erasing (after SimCLR, Chen et al., ICML 2020, appendix A).

    A small affine change stands for SimCLR's random crop: aligned faces stay whole.
    """
    from torchvision.transforms import v2  # heavy: only where it is used

    affine = v2.RandomAffine((-15, 15), translate=(0.1, 0.1), scale=(0.85, 1.15), shear=8, interpolation=v2.InterpolationMode.BILINEAR)
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomApply([affine], p=0.8),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(11, (0.1, 2.0))], p=0.5),
            v2.RandomErasing(p=0.5, scale=(0.02, 0.2)),
        ]
    )

    def strong(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return photo_by_photo(x_BCHW, transform, generator).clamp_(0, 1), label_B

    return strong


def plasma(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """Clouds for plasma brightness and contrast, (B, C, H, W): a field a channel, as kornia 0.6.12's `diamond_square` makes them.

    From a 3×3 grid each field is refined to 2^n + 1 points a side, of which the top left is taken. A new point is its neighbours' mean
    blended with U(0, 1); the share of the latter falls from one refinement to the next by the photo's roughness, U(0.3, 0.7). Kornia
    divides the first grid's corners and middle by three, and multiplies means on the border by 4/3. So at 112 px fields are 0.47 on
    average, their spread within a photo is small (0.11), and points at the border exceed 1.
    """
    batch, channels, height, width = x_BCHW.shape
    roughness = (0.3 + 0.4 * uniform((batch, 1, 1, 1), generator, x_BCHW)).repeat_interleave(channels, 0)
    side = 2 ** math.ceil(math.log2(max(height, width) - 1)) + 1
    field = uniform((batch * channels, 1, side, side), generator, x_BCHW)  # each point's own random number, until it becomes known
    step = side // 2
    corners = field[..., :: 2 * step, :: 2 * step]
    middle = F.avg_pool2d(corners, 2)
    field[..., :: 2 * step, step : step + 1] = (corners[..., :1] + corners[..., 1:] + middle) / 3
    field[..., step : step + 1, :: 2 * step] = (corners[..., :1, :] + corners[..., 1:, :] + middle) / 3
    field[..., step : step + 1, step : step + 1] = middle / 3
    corners /= 3
    random = torch.ones_like(roughness)
    while step > 1:
        step //= 2
        random = random * roughness
        known = field[..., :: 2 * step, :: 2 * step]
        middle = field[..., step :: 2 * step, step :: 2 * step]
        middle.mul_(random).add_((1 - random) * F.avg_pool2d(known, 2, 1))
        for turned in (field, field.mT):  # points between two known ones of a row, then of a column
            beside, middle = turned[..., :: 2 * step, :: 2 * step], turned[..., step :: 2 * step, step :: 2 * step]
            above = F.pad(middle, (0, 0, 1, 1), mode="replicate")
            mean = (beside[..., :-1] + beside[..., 1:] + above[..., :-1, :] + above[..., 1:, :]) / 4
            mean[..., [0, -1], :] *= 4 / 3
            turned[..., :: 2 * step, step :: 2 * step].mul_(random).add_((1 - random) * mean)
    return field[..., :height, :width].reshape(x_BCHW.shape)


def plasma_brightness(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """Clouds of colour and light added: x + a (2 plasma − 1), a ~ U(0.5, 1) for each photo."""
    intensity_B = 0.5 + 0.5 * uniform((len(x_BCHW), 1, 1, 1), generator, x_BCHW)
    return (x_BCHW + intensity_B * (2 * plasma(x_BCHW, generator) - 1)).clamp(0, 1)


def plasma_contrast(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """Contrast about mid-grey multiplied by clouds: (x − 0.5) · 4 plasma + 0.5."""
    return ((x_BCHW - 0.5) * 4 * plasma(x_BCHW, generator) + 0.5).clamp(0, 1)


def make_trivial_augment() -> dict[str, Callable[[Tensor], Tensor]]:
    """The changes of kornia 0.6.12's TrivialAugment, each of one photo (C, H, W) in [0, 1], with draws from torch's global generator.

    Its ranges are not those of the paper (Müller and Hutter, ICCV 2021) and of torchvision's `TrivialAugmentWide`: shear, which it calls
    0.3, goes up to 54°. "Contrast" multiplies pixels, "brightness" adds to them. In that version rotation, shear and translation go one
    way only, and leave half of the photos as they are.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional  # heavy: only where it is used

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(()))

    def half_the_time(most: float) -> float:
        return between(0, most) * int(torch.randint(2, ()))

    def moved(x_CHW: Tensor, *, angle: float = 0.0, x: float = 0.0, y: float = 0.0, shear_x: float = 0.0, shear_y: float = 0.0) -> Tensor:
        return functional.affine(x_CHW, angle, [x, y], 1.0, [shear_x, shear_y], interpolation=InterpolationMode.BILINEAR)

    return {
        "auto-contrast": functional.autocontrast,
        "equalize": functional.equalize,
        "rotate": lambda x_CHW: moved(x_CHW, angle=-half_the_time(30)),
        "posterize": lambda x_CHW: functional.posterize(x_CHW, round(between(0, 4))),
        "solarize": lambda x_CHW: functional.solarize(x_CHW, between(0, 1)),
        "contrast": lambda x_CHW: (x_CHW * between(0.1, 1.9)).clamp(0, 1),
        "brightness": lambda x_CHW: (x_CHW + between(-0.9, 0.9)).clamp(0, 1),
        "sharpness": lambda x_CHW: functional.adjust_sharpness(x_CHW, between(0.1, 1.9)),
        "shear-x": lambda x_CHW: moved(x_CHW, shear_x=half_the_time(54)),
        "shear-y": lambda x_CHW: moved(x_CHW, shear_y=half_the_time(54)),
        "translate-x": lambda x_CHW: moved(x_CHW, x=half_the_time(x_CHW.shape[2] / 2)),
        "translate-y": lambda x_CHW: moved(x_CHW, y=half_the_time(x_CHW.shape[1] / 2)),
    }


def make_ueraser_augment() -> Augment:
    """One candidate of UEraser: plasma brightness, plasma contrast, channels shuffled, each with p 0.5, then one change of TrivialAugment.

    The policy of Qin et al. 2023, *Learning the Unlearnable*, with the numbers of one of the authors' examples (others have both clouds in
    every photo). Theirs is kornia's; here each step changes photos as kornia 0.6.12 does, in mean and spread. One thing is not theirs: each
    photo draws its own change of TrivialAugment, where theirs draws one for the whole batch.
    """
    from torchvision.transforms import v2  # heavy: only where it is used

    changes = list(make_trivial_augment().values())

    def trivial(x_CHW: Tensor) -> Tensor:
        return changes[int(torch.randint(len(changes), ()))](x_CHW)

    transform = v2.Compose([v2.RandomApply([v2.RandomChannelPermutation()], p=0.5), trivial])

    def augment(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        changed_BCHW = x_BCHW
        for change in (plasma_brightness, plasma_contrast):
            chosen_B = uniform((len(x_BCHW), 1, 1, 1), generator, x_BCHW) < 0.5
            changed_BCHW = torch.where(chosen_B, change(changed_BCHW, generator), changed_BCHW)
        return photo_by_photo(changed_BCHW, transform, generator), label_B

    return augment
