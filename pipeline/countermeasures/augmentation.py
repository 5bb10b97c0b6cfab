"""What a trainer does to training batches only: random, new each time, labels mixed where photos are.

Each function takes x_BCHW float32 in [0, 1], label_B int64 and a generator, and gives the same shape, range, device and memory format, and
the target: label_B as it came, or soft targets (B, classes) float32 whose rows sum to 1. All randomness comes from the generator; the
global one of the caller stays as it was.
"""

from __future__ import annotations

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
    """Fractal noise in [0, 1], one field a photo, (B, 1, H, W): octaves of random grids, each fainter than the one before by U(0.3, 0.7).

    Stands for the diamond-square fields, roughness 0.3 to 0.7, that UEraser takes from kornia.
    """
    batch, _, height, width = x_BCHW.shape
    fainter_B = 0.3 + 0.4 * uniform((batch, 1, 1, 1), generator, x_BCHW)
    field = x_BCHW.new_zeros((batch, 1, height, width))
    for octave in range(6):
        grid = uniform((batch, 1, 2 ** (octave + 1), 2 ** (octave + 1)), generator, x_BCHW)
        field += fainter_B**octave * F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(1e-6)


def make_ueraser_augment() -> Augment:
    """One candidate of UEraser: plasma brightness, plasma contrast, channels shuffled, each with p 0.5, then TrivialAugmentWide.

    As in the authors' code (Qin et al. 2023, *Learning the Unlearnable*), kornia's TrivialAugment replaced by torchvision's, which works
    on uint8.
    """
    from torchvision.transforms import v2  # heavy: only where it is used

    transform = v2.Compose([v2.RandomApply([v2.RandomChannelPermutation()], p=0.5), v2.TrivialAugmentWide()])

    def augment(x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        intensity_B, brighten_B, contrast_B = uniform((3, len(x_BCHW), 1, 1, 1), generator, x_BCHW)
        bright = (x_BCHW + (0.5 + 0.5 * intensity_B) * (2 * plasma(x_BCHW, generator) - 1)).clamp(0, 1)
        bright = torch.where(brighten_B < 0.5, bright, x_BCHW)
        contrasted = ((bright - 0.5) * 4 * plasma(x_BCHW, generator) + 0.5).clamp(0, 1)
        contrasted = torch.where(contrast_B < 0.5, contrasted, bright)
        changed = photo_by_photo((contrasted * 255).round().to(torch.uint8), transform, generator)
        return (changed.to(x_BCHW.dtype) / 255).contiguous(memory_format=format_of(x_BCHW)), label_B

    return augment
