"""Area averages of many rectangles at once, through integral images: the pyramid's levels and the networks' crops.

Each output pixel is the mean over the pixels that its bin touches, as torch's `interpolate(mode="area")` has it: bin i of n pixels in s is
⌊i n/s⌋ to ⌈(i+1) n/s⌉. Sums are of integers, so they are exact, and what a crop costs does not depend on its size in the photo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import torch

LARGEST = 2**31 // 255  # pixels of a photo: more, and a sum would not fit 32 bits


class IntegralImages:
    """Integral images of some photos on a device, in one array, four channels (the fourth is always 0)."""

    def __init__(self, photos: list[np.ndarray], *, device: torch.device) -> None:
        """`photos`: uint8 H×W×3, any sizes."""
        import torch

        self.sizes = [photo.shape[:2] for photo in photos]
        assert all(height * width <= LARGEST for height, width in self.sizes)
        lengths = [(height + 1) * (width + 1) for height, width in self.sizes]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        sums = torch.empty((int(self.starts[-1]), 4), dtype=torch.int32)
        for photo, start, length in zip(photos, self.starts, lengths, strict=False):
            wide = cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA)
            wide[..., 3] = 0
            shape = photo.shape[0] + 1, photo.shape[1] + 1, 4
            cv2.integral(wide, sums[start : start + length].numpy().reshape(shape), sdepth=cv2.CV_32S)
        self.sums = sums.to(device)

    def level(self, photos: list[int], size: tuple[int, int]) -> torch.Tensor:
        """Some photos of one size, shrunk to `size` (height, width): float32 B×4×h×w, 0..255, channels_last."""
        import torch

        (height, width), device = self.sizes[photos[0]], self.sums.device
        assert all(self.sizes[photo] == (height, width) for photo in photos)
        top, bottom = bins(height, size[0])
        left, right = bins(width, size[1])
        area = torch.as_tensor(np.outer(bottom - top, right - left).astype(np.float32), device=device)[:, :, None]
        top, bottom, left, right = (torch.as_tensor(edge, device=device) for edge in (top, bottom, left, right))
        found = torch.empty((len(photos), *size, 4), dtype=torch.float32, device=device)
        for out, photo in zip(found, photos, strict=True):
            whole = self.sums[self.starts[photo] : self.starts[photo + 1]].view(height + 1, (width + 1) * 4)
            # a pixel of four sums is moved as one complex number: torch gathers those fastest
            strips = whole.index_select(0, bottom).sub_(whole.index_select(0, top)).view(torch.complex128)
            sums = strips.index_select(1, right).view(torch.int32).sub_(strips.index_select(1, left).view(torch.int32))
            out.copy_(sums.view(*size, 4)).div_(area)  # not in one go: torch divides integers by floats slowly
        return found.permute(0, 3, 1, 2)

    def crops(self, photos: np.ndarray, boxes: np.ndarray, side: int) -> torch.Tensor:
        """A crop of each box shrunk (or, if smaller, spread) to `side`: float32 N×4×side×side, 0..255, channels_last.

        Args:
            photos: int N, which photo.
            boxes: int N×4 (x0, y0, x1, y1), the last pixel not included; inside the photo, not empty.
        """
        import torch

        device = self.sums.device
        photos = np.asarray(photos, np.int64)
        widths = np.array([width + 1 for _, width in self.sizes], np.int64)[photos]
        left, right = bins(boxes[:, 2] - boxes[:, 0], side)
        top, bottom = bins(boxes[:, 3] - boxes[:, 1], side)
        area = torch.as_tensor(((bottom - top)[:, :, None] * (right - left)[:, None, :]).astype(np.float32), device=device)
        left, right = (torch.as_tensor(edge + boxes[:, 0, None], device=device)[:, None, :] for edge in (left, right))
        origin = self.starts[photos]
        top, bottom = (
            torch.as_tensor(origin[:, None] + (edge + boxes[:, 1, None]) * widths[:, None], device=device)[:, :, None]
            for edge in (top, bottom)
        )
        points = self.sums.view(torch.complex128).view(-1)

        def at(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
            return points.index_select(0, (rows + columns).view(-1)).view(torch.int32)

        sums = at(bottom, right).sub_(at(bottom, left)).sub_(at(top, right)).add_(at(top, left))
        return sums.view(-1, side, side, 4).to(torch.float32).div_(area[..., None]).permute(0, 3, 1, 2)


def bins(lengths: np.ndarray | int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end (not included) of `count` bins over each length, int64 …×count."""
    steps = np.arange(count, dtype=np.int64)
    long = np.asarray(lengths, np.int64)[..., None]
    return steps * long // count, -(-(steps + 1) * long // count)
