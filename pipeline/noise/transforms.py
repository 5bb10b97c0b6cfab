"""What may happen to a published photo before a network sees it: drawn at random for each photo, differentiable in its pixels.

Noise searched through these (expectation over transformations, Athalye et al., ICML 2018) gains less where a shift, a smaller copy or
greyscale takes it away, so grey in the mix moves a pattern from colour to light. It is not the min-min-max noise of Fu et al. (ICLR 2022,
*Robust Unlearnable Examples*): nothing here is adversarial. Static, random and small, stands where they have an attack, as in Liu et al.
(AAAI 2024, *Stable Unlearnable Example*); how well that resists adversarial training is for the matrix to say.

In order: shift, down or up to another size and back, blur, light and contrast, grey, JPEG, static, each of them always, by a drawn amount.
The first three are linear along each axis, so a photo's are one matrix for its rows and one for its columns, whatever was drawn. JPEG has
no gradient of use: the surrogate learns from photos that went through it, and noise moves as if they had not (straight-through, Bengio
et al. 2013; Athalye et al.'s BPDA with the identity).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.countermeasures.compression import jpeg

SHIFT = 6  # px each way
SIZES = (80, 160)  # px of a crop of 112 that is made smaller or larger, and 112 again
SIGMA = (0.1, 1.0)  # px, blur
LIGHT = 0.2  # brightness and contrast times 1 ± this
GREY = 0.5  # share of photos without colour; at a quarter a recogniser of grey photos still learned 31 % where it learns 6.5 % now
QUALITY = (50, 95)  # JPEG
STATIC = 4 / 255  # uniform, each way
STATICS = 32  # fields of static a batch draws from, each also as its negative: a field a photo would take as long as the forward pass
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as `countermeasures/processing.py`
REACH = 3  # px, of the blur's kernel: 3 times the largest sigma


@dataclass(frozen=True)
class Transforms:
    """What happens to each of N photos: arrays (N, …), so that every process of a run can draw all of them and take its own."""

    shift: np.ndarray  # (N, 2) int64: px that the window moves down, and to the right
    size: np.ndarray  # (N,) int64: px
    sigma: np.ndarray  # (N,) float32: px
    light: np.ndarray  # (N,) float32: factor
    contrast: np.ndarray  # (N,) float32: factor, about the photo's mean
    grey: np.ndarray  # (N,) bool
    quality: np.ndarray  # (N,) int64
    static: np.ndarray  # (N,) int64: a field, or from STATICS on a field's negative
    seed: int  # of the fields of static, one for all

    def part(self, index: slice | np.ndarray) -> Transforms:
        """Those of the photos at `index`, a slice or bool (N,)."""
        arrays = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "seed"}
        return Transforms(**arrays, seed=self.seed)


def describe_transforms() -> dict[str, Any]:
    """What is drawn, for a report: px, factors, shares and JPEG's qualities."""
    return {
        "shift": SHIFT, "sizes": list(SIZES), "blur": list(SIGMA), "light": LIGHT, "grey": GREY, "jpeg": list(QUALITY),
        "static": round(STATIC * 255),
    }  # fmt: skip


def draw_transforms(random: np.random.Generator, count: int) -> Transforms:
    """Transforms of `count` photos: all that is random about `transformed`."""
    return Transforms(
        shift=random.integers(-SHIFT, SHIFT + 1, (count, 2)),
        size=random.integers(SIZES[0], SIZES[1] + 1, count),
        sigma=random.uniform(*SIGMA, count).astype(np.float32),
        light=random.uniform(1 - LIGHT, 1 + LIGHT, count).astype(np.float32),
        contrast=random.uniform(1 - LIGHT, 1 + LIGHT, count).astype(np.float32),
        grey=random.random(count) < GREY,
        quality=random.integers(QUALITY[0], QUALITY[1] + 1, count),
        static=random.integers(2 * STATICS, size=count),
        seed=int(random.integers(2**31)),
    )


def mirrored(x_BCHW: Tensor, mirror_B: Tensor) -> Tensor:
    """Photos mirrored left to right where `mirror_B` says so."""
    return torch.where(mirror_B[:, None, None, None], x_BCHW.flip(3), x_BCHW)


def transformed(x_BCHW: Tensor, transforms: Transforms) -> Tensor:
    """Float crops in [0, 1], (B, 3, H, W), after what `transforms` (of B photos) does to each; the same shape, range and device."""
    batch, _, height, width = x_BCHW.shape
    assert len(transforms.size) == batch, (len(transforms.size), batch)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(x_BCHW.device)

    rows_BHH = axis_matrices(tensor(transforms.shift[:, 0]), transforms.size, tensor(transforms.sigma), height, x_BCHW.dtype)
    columns_BWW = axis_matrices(tensor(transforms.shift[:, 1]), transforms.size, tensor(transforms.sigma), width, x_BCHW.dtype)
    y_BCHW = rows_BHH[:, None] @ x_BCHW @ columns_BWW[:, None].transpose(-1, -2)
    mean_B = y_BCHW.mean((1, 2, 3), keepdim=True)
    factor_B = tensor(transforms.contrast)[:, None, None, None]
    y_BCHW = ((y_BCHW - mean_B) * factor_B + mean_B) * tensor(transforms.light)[:, None, None, None]
    luma_B1HW = (y_BCHW * y_BCHW.new_tensor(LUMA)[None, :, None, None]).sum(1, keepdim=True)
    y_BCHW = torch.where(tensor(transforms.grey)[:, None, None, None], luma_B1HW, y_BCHW).clamp(0, 1)
    y_BCHW = y_BCHW + (through_jpeg(y_BCHW.detach(), transforms.quality) - y_BCHW.detach())
    y_BCHW = y_BCHW + static(transforms, y_BCHW)
    return y_BCHW.clamp(0, 1).contiguous(memory_format=torch.channels_last)


def axis_matrices(shift_B: Tensor, size_B: np.ndarray, sigma_B: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Shift, resize and blur along one axis of `length` px as matrices (B, length, length), borders mirrored where photos end."""
    device = shift_B.device
    place_L = torch.arange(length, device=device)
    source_BL = mirrored_index(place_L[None] + shift_B[:, None], length)
    eye_LL = torch.eye(length, dtype=dtype, device=device)
    sizes, which_B = np.unique(size_B, return_inverse=True)
    resize_SLL = torch.stack([there_and_back(int(size), length, dtype, device) for size in sizes])
    offset_O = torch.arange(-REACH, REACH + 1, device=device)
    weight_BO = torch.exp(-0.5 * (offset_O[None] / sigma_B[:, None]) ** 2).to(dtype)
    weight_BO = weight_BO / weight_BO.sum(1, keepdim=True)
    blur_BLL = torch.einsum("bo,oij->bij", weight_BO, eye_LL[mirrored_index(place_L[None] + offset_O[:, None], length)])
    return blur_BLL @ resize_SLL[torch.from_numpy(which_B).to(device)] @ eye_LL[source_BL]


def mirrored_index(place: Tensor, length: int) -> Tensor:
    """Places outside 0 … length − 1 mirrored at the first and the last pixel."""
    place = place.abs()
    return torch.where(place >= length, 2 * (length - 1) - place, place)


@lru_cache(maxsize=2 * (SIZES[1] - SIZES[0] + 1))
def there_and_back(size: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Resizing from `length` px to `size` and back, bilinear and antialiased, along one axis: a matrix (L, L).

    Kept: there are few sizes (4 MB in all), and making those of a batch anew takes a GPU some hundred launches.
    """
    eye_LL = torch.eye(length, dtype=dtype, device=device)
    small_SL = F.interpolate(eye_LL[None, None], size=(size, length), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small_SL, size=(length, length), mode="bilinear", antialias=True, align_corners=False)[0, 0]


def through_jpeg(x_BCHW: Tensor, quality_B: np.ndarray) -> Tensor:
    """Each photo through JPEG of its quality and back, as decoded; without a gradient. As many at a time as torch has threads."""
    x_BHWC = (x_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # the encoder works outside Python's lock
        decoded = np.concatenate(list(pool.map(lambda i: jpeg(x_BHWC[i : i + 1], quality=int(quality_B[i])), range(len(quality_B)))))
    return torch.from_numpy(decoded).to(x_BCHW.device).permute(0, 3, 1, 2).to(x_BCHW.dtype) / 255


def static(transforms: Transforms, like_BCHW: Tensor) -> Tensor:
    """The static of each photo: uniform within ±STATIC, from fields drawn on the CPU, so that every device sees the same."""
    generator = torch.Generator().manual_seed(transforms.seed)
    fields_SCHW = torch.rand((STATICS, *like_BCHW.shape[1:]), generator=generator).to(like_BCHW) * 2 - 1
    which_B = torch.from_numpy(transforms.static).to(like_BCHW.device)
    sign_B = torch.where(which_B < STATICS, STATIC, -STATIC).to(like_BCHW.dtype)
    return fields_SCHW[which_B % STATICS] * sign_B[:, None, None, None]
