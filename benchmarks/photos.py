"""Photos as they are made and written: rendering people who do not exist, and putting the noise on a photo that is published.

python -m benchmarks render write-photo png-encode
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from benchmarks.row import Pair, Row, paired

if TYPE_CHECKING:
    import numpy as np

EPSILON = 16
PLAIN_STEPS = 30  # of plain projected gradients, which come as near to the noise as `STEPS` accelerated ones


def rows() -> list[Row]:
    """Rendering, writing of protected photos, and the PNG encoder alone."""
    return [
        Row(
            "render",
            "photos/s",
            "jpeg-encode",
            "Synthetic photos of 250 px rendered and encoded as JPEG, one process, against the JPEG encoder alone on rendered photos: the "
            "ratio is the share of the time that writing them costs at least.",
            paired(render_rate, jpeg_rate),
        ),
        Row(
            "write-photo",
            "photos/s",
            "plain-autograd",
            "Noise put through the inverse of the alignment on photos of 250 px and encoded as PNG, one process, against the same least-"
            f"squares problem solved over the whole photo with grid_sample and autograd, {PLAIN_STEPS} plain steps, which come as near, "
            "and the same encoder.",
            paired(lambda: write_rate(ours=True), lambda: write_rate(ours=False)),
        ),
        Row(
            "png-encode",
            "photos/s",
            "",
            "The PNG encoder alone on the same protected photos: what writing them costs at least.",
            lambda: Pair(encode_rate()),
            ceiling=True,
        ),
    ]


def render_rate(count: int = 40) -> float:
    """Photos a second of the renderer, 10 identities in turn."""
    from pipeline.photos.synthetic import encode_photo

    started = time.perf_counter()
    for number in range(count):
        encode_photo(seed=0, identity=number % 10, photo=number // 10)
    return count / (time.perf_counter() - started)


def jpeg_rate(count: int = 400) -> float:
    """Photos a second of the JPEG encoder, on 10 rendered photos in turn."""
    import cv2

    photos = [photo for photo, _, _ in samples(10)]
    started = time.perf_counter()
    for number in range(count):
        cv2.imencode(".jpg", photos[number % 10], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return count / (time.perf_counter() - started)


@cache
def samples(count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rendered photos with what belongs to them: uint8 (250, 250, 3) RGB, 2×3 photo → crop, int8 (3, 112, 112) in 1/255."""
    import numpy as np

    from pipeline.faces.geometry import similarity_transform
    from pipeline.photos.synthetic import photo_landmarks, render_photo

    random = np.random.default_rng(0)
    found = []
    for identity in range(count):
        matrix = similarity_transform(photo_landmarks(seed=0, identity=identity, photo=0))
        delta = random.choice(np.array([-EPSILON, EPSILON], np.int8), (3, 28, 28)).repeat(4, axis=1).repeat(4, axis=2)
        found.append((render_photo(seed=0, identity=identity, photo=0), matrix, delta))
    return found


def write_rate(*, ours: bool, count: int = 12) -> float:
    """Photos a second, protected and encoded, on one thread."""
    import cv2

    from benchmarks.machine import one_thread
    from pipeline.faces.restore import protect_photo
    from pipeline.noise.protect import png_of

    protect = protect_photo if ours else plain_protect
    jobs = samples(count)
    one_thread()
    cv2.setNumThreads(1)
    started = time.perf_counter()
    for photo, matrix, delta in jobs:
        png_of(protect(photo, matrix, delta, EPSILON), None)
    return count / (time.perf_counter() - started)


def encode_rate(count: int = 12) -> float:
    """Photos a second of the PNG encoder on one thread."""
    import cv2

    from pipeline.faces.restore import protect_photo
    from pipeline.noise.protect import png_of

    protected = [protect_photo(photo, matrix, delta, EPSILON) for photo, matrix, delta in samples(count)]
    cv2.setNumThreads(1)
    started = time.perf_counter()
    for photo in protected:
        png_of(photo, None)
    return count / (time.perf_counter() - started)


def plain_protect(photo: np.ndarray, matrix: np.ndarray, delta: np.ndarray, epsilon: int) -> np.ndarray:
    """`pipeline.faces.restore.protect_photo` as one writes it first: projected gradient steps on the whole photo by autograd.

    For faces that are not much larger than the crop (no oversampling), which the samples are.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from pipeline.faces.geometry import CROP_SIZE, inverse, oversampling, to_crop

    assert oversampling(matrix) == 1
    height, width = photo.shape[:2]
    v, u = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    place = to_crop(np.stack([u.ravel(), v.ravel()], 1), inverse(matrix)).reshape(CROP_SIZE, CROP_SIZE, 2)
    grid = torch.from_numpy(place / (np.array([width, height]) - 1) * 2 - 1).float()[None]
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    wanted = torch.from_numpy(delta).float()[None]
    low, high = torch.clamp(-pixels, min=-epsilon), torch.clamp(255 - pixels, max=epsilon)
    change = torch.zeros_like(pixels, requires_grad=True)

    def cut(x: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)

    (weight,) = torch.autograd.grad(cut(change).sum(), change)
    step = 1 / max(float(weight.max()), 1e-6)
    for _ in range(PLAIN_STEPS):
        (gradient,) = torch.autograd.grad(((cut(change) - wanted) ** 2).sum() / 2, change)
        with torch.no_grad():
            change = torch.clamp(change - step * gradient, low, high).requires_grad_(True)
    done = (pixels + change.detach().round()).to(torch.uint8)
    return done[0].permute(1, 2, 0).contiguous().numpy()
