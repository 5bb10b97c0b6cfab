"""The head in its picture: pose by parallax, what is behind and below it, and the camera that took it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipeline.photos.synthetic.grid import LEFT, TEXELS, TOP, blur, noise, tinted
from pipeline.photos.synthetic.hair import is_long
from pipeline.photos.synthetic.head import Head
from pipeline.photos.synthetic.identity import Colour, Identity
from pipeline.photos.synthetic.scene import Scene

# The point the head turns about, which is also what a scene's centre places.
_PIVOT_Y, _PIVOT_Z = 0.5, 0.45


def project(points_N3: np.ndarray, scene: Scene, *, size: int) -> np.ndarray:
    """Points on the head (units) to the picture (pixels): float32 (N, 2)."""
    x, y, z = points_N3[:, 0], points_N3[:, 1] - _PIVOT_Y, points_N3[:, 2] - _PIVOT_Z
    cy, sy, cp, sp = _angles(scene)
    turned_x, turned_z = x * cy + z * sy, z * cy - x * sy
    turned_y = y * cp + turned_z * sp
    to_picture = _to_picture(scene, size)
    pixels = np.stack([turned_x, turned_y], axis=1) @ to_picture[:, :2].T + to_picture[:, 2]
    return pixels.astype(np.float32)


def place(head: Head, person: Identity, scene: Scene, *, size: int) -> np.ndarray:
    """The whole picture in linear light: float32 (size, size, 3)."""
    rng = np.random.default_rng([scene.texture_seed, 1])
    picture = _background(size, rng)
    picture *= np.asarray(scene.ambient, np.float32) * 1.2 + np.asarray(scene.key.colour, np.float32) * 0.5
    _body(picture, head, person, scene, rng)
    map_x, map_y = _parallax(head, scene, size)
    layer = np.dstack([head.colour * tinted(head.cover), head.cover])
    warped = cv2.remap(layer, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))
    red, green, blue, covered = cv2.split(warped)
    picture *= 1 - tinted(covered)
    picture += cv2.merge((red, green, blue))
    return picture


def develop(linear: np.ndarray, scene: Scene) -> np.ndarray:
    """What the camera makes of the light: uint8 RGB, same height and width."""
    size = linear.shape[0]
    rng = np.random.default_rng([scene.texture_seed, 2])
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    vignette = 1 - scene.vignette * 0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2)
    image = linear * tinted(vignette * (1.15 * scene.exposure), scene.white_balance)
    image = cv2.GaussianBlur(image, (0, 0), scene.blur * size / 250)
    if scene.motion > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=scene.motion * 0.5 * size / 250, sigmaY=0.1)
    image = image * (1.0 + 0.12 * image) / (1.0 + 0.72 * image) * 1.45  # highlights roll off instead of clipping
    image = np.sqrt(np.clip(image, 0.0, 1.2))
    grey = tinted(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    image = grey + scene.saturation * (image - grey)
    image = (image - 0.45) * scene.contrast + 0.45
    image += scene.noise * cv2.merge([noise("fine", size, size, rng) for _ in range(3)])
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _angles(scene: Scene) -> tuple[float, float, float, float]:
    return math.cos(scene.yaw), math.sin(scene.yaw), math.cos(scene.pitch), math.sin(scene.pitch)


def _to_picture(scene: Scene, size: int) -> np.ndarray:
    """From turned units (about the pivot) to pixels: float64 (2, 3)."""
    scale = scene.scale * size
    c, s = math.cos(scene.roll) * scale, math.sin(scene.roll) * scale
    return np.array([[c, -s, scene.centre[0] * size], [s, c, scene.centre[1] * size]])


def _parallax(head: Head, scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the texel it shows: float32 (size, size) maps of x and y.

    The texel (u, v) shows at (u, v) turned together with its height, which depends on (u, v): a fixed point,
    reached in a few steps because the smoothed height is never steep enough to hide what is behind it.
    """
    inverse = cv2.invertAffineTransform(_to_picture(scene, size))
    px = np.arange(size, dtype=np.float32)
    a = (px[None, :] * float(inverse[0, 0]) + px[:, None] * float(inverse[0, 1])) + float(inverse[0, 2])
    b = (px[None, :] * float(inverse[1, 0]) + px[:, None] * float(inverse[1, 1])) + float(inverse[1, 2])
    cy, sy, cp, sp = _angles(scene)
    height = blur(head.height, 0.03) - _PIVOT_Z
    z = np.full((size, size), 0.3, np.float32)
    map_x = map_y = z
    for step in range(5):
        u = (a - z * sy) / cy
        v = (b - (z * cy - u * sy) * sp) / cp
        map_x, map_y = (u - LEFT) * TEXELS, (v + _PIVOT_Y - TOP) * TEXELS
        if step < 4:
            sampled = cv2.remap(height, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            z = sampled if step == 0 else 0.35 * z + 0.65 * sampled
    return map_x, map_y


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """An out-of-focus room: a gradient, some blurred shapes and some grain. float32 (size, size, 3), linear."""
    small = 64
    ends = rng.uniform(0.02, 0.9, (2, 3)).astype(np.float32) * np.float32(rng.uniform(0.2, 1.0))
    angle = float(rng.uniform(0, math.tau))
    axis = np.linspace(-0.5, 0.5, small, dtype=np.float32)
    t = np.clip(axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle) + 0.5, 0, 1)
    image = ends[0] + t[..., None] * (ends[1] - ends[0])
    for _ in range(int(rng.integers(0, 9))):
        colour = tuple(float(c) for c in rng.uniform(0.0, 0.8, 3))
        x, y = (int(v) for v in rng.integers(-8, small + 8, 2))
        if rng.random() < 0.6:
            w, h = (int(v) for v in rng.integers(3, 40, 2))
            cv2.rectangle(image, (x - w // 2, y - h // 2), (x + w // 2, y + h // 2), colour, -1)
        else:
            cv2.circle(image, (x, y), int(rng.integers(2, 16)), colour, -1)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + float(rng.uniform(0.2, 0.8)) * (image - grey)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 4.0)))
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    image *= tinted(1 + float(rng.uniform(0, 0.1)) * noise("soft", size, size, rng))
    return np.maximum(image, 0.0)


def _body(picture: np.ndarray, head: Head, person: Identity, scene: Scene, rng: np.random.Generator) -> None:
    """Long hair behind, then neck and shoulders, painted straight into the picture."""
    size = picture.shape[0]
    to_picture = _to_picture(scene, size)
    face = head.face
    width = face.base.face_width
    chin = face.chin_y - _PIVOT_Y  # below the pivot
    light = np.asarray(scene.ambient, np.float32) + 0.35 * np.asarray(scene.key.colour, np.float32)

    def fill(right: list[tuple[float, float]], soften: float) -> np.ndarray:
        """Coverage of the outline whose right half is given, from its top down, in units from the pivot."""
        turned = np.array(right + [(-x, y) for x, y in reversed(right)]) @ to_picture[:, :2].T + to_picture[:, 2]
        mask = np.zeros((size, size), np.float32)
        cv2.fillPoly(mask, [np.round(turned * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        return cv2.GaussianBlur(mask, (0, 0), soften * size / 250)

    def lay(mask: np.ndarray, shade: np.ndarray, colour: Colour) -> None:
        lit = [float(c * brightness) for c, brightness in zip(colour, light, strict=True)]
        np.multiply(picture, 1 - tinted(mask), out=picture)
        np.add(picture, tinted(mask * shade, lit), out=picture)

    strands = noise("strand", size, size, rng)
    if is_long(scene):
        out, end = width + scene.hair_volume + 0.05, scene.hair_length - _PIVOT_Y
        top = [(0.0, -1.9), (0.7 * out, -1.6), (out, -0.7)]
        mask = fill([*top, (out + 0.03, 0.3), (out + 0.1, end), (0.3, end + 0.1)], 2.0)
        lay(mask, np.clip(0.45 + 0.15 * strands, 0.1, 1.0), scene.hair)
    neck, shoulder = 0.56 * width, chin + 0.62
    nape = [(neck, chin - 0.8), (neck * 0.95, chin + 0.2), (neck * 1.1, shoulder)]
    mask = fill([*nape, (1.2, shoulder + 0.3), (1.2, 6.0)], 0.8)
    rows = np.arange(size, dtype=np.float32)
    below = (rows - float(to_picture[1, 2])) / float(scene.scale * size) - chin
    lay(mask, np.repeat(np.clip(0.62 + 0.6 * below, 0.5, 0.95)[:, None], size, axis=1), person.skin)
    collar = [(neck * 0.3, shoulder + float(rng.uniform(0.0, 0.35))), (neck * 1.15, shoulder - 0.12)]
    mask = fill([*collar, (1.25, shoulder + 0.22), (2.1, shoulder + 0.55), (2.4, 6.0)], 1.0)
    lay(mask, np.clip(1 + 0.06 * noise("soft", size, size, rng), 0.7, 1.3), scene.cloth)
