"""Hair: a layer in front of the head (from the front view) and one behind it."""

from __future__ import annotations

import numpy as np

from pipeline.photos.synthetic.grid import HEIGHT, WIDTH, X_1W, Y_H1, blur, noise, ramp, tinted
from pipeline.photos.synthetic.scene import Scene
from pipeline.photos.synthetic.shape import PosedShape


def is_long(scene: Scene) -> bool:
    return scene.hair_style in ("long", "long_fringe")


def front_hair(scene: Scene, face: PosedShape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (HEIGHT, WIDTH) 0..1 and albedo (HEIGHT, WIDTH, 3) of the hair around the face."""
    style = scene.hair_style
    if style == "bald":
        return np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH, 3), np.float32)
    shape = face.base
    strands = noise("strand", HEIGHT, WIDTH, rng)
    volume = {"buzz": 0.02, "curly": scene.hair_volume + 0.1}.get(style, scene.hair_volume)
    outer = face.radius(grow=volume) + (0.05 if style == "curly" else 0.006) * noise("soft", HEIGHT, WIDTH, rng)
    body = ramp(outer, 1.0 + 0.03, 1.0 - 0.02)

    # The opening the face looks out of: down to the hairline above, and as wide as sideburns leave it.
    fringed = style in ("fringe", "long_fringe")
    line = shape.hairline_y - 0.04
    if fringed:
        line = min(line + 0.42, face.brow_y - 0.10)
    wide = shape.face_width * (0.84 if is_long(scene) else 0.91)
    x = X_1W - (0.3 * scene.hair_part if style != "buzz" else 0.0) * np.clip(-Y_H1 - 0.2, 0.0, 1.0)
    up = np.clip((0.25 - Y_H1) / (0.25 - line), 0.0, None) ** 2.6
    opening = (np.abs(x / wide) ** (3.4 if fringed else 2.5) + up) ** (1 / 2.6)
    ragged = 0.045 if fringed else 0.022
    mask = body * ramp(opening + ragged * strands, 0.97, 1.05)
    if is_long(scene):
        end = min(scene.hair_length, 1.9)
        mask = mask * ramp(Y_H1, end, end - 0.3)
        falls = ramp(np.abs(X_1W), wide - 0.02, wide + 0.04) * ramp(np.abs(X_1W), wide + 0.46, wide + 0.32)
        falls = falls * ramp(Y_H1, end, end - 0.3) * ramp(Y_H1, -0.2, 0.1)
        mask = np.maximum(mask, falls)
    else:
        side_end = {"curly": 0.6, "buzz": 0.1}.get(style, 0.25)
        mask = mask * ramp(Y_H1, side_end + 0.12, side_end - 0.12)
    if style == "buzz":
        mask = mask * 0.75
    light = 1 + 0.20 * strands + 0.12 * noise("soft", HEIGHT, WIDTH, rng)
    if style == "curly":
        light = light + 0.35 * blur(noise("fine", HEIGHT, WIDTH, rng), 0.04) * 6
    return mask.astype(np.float32, copy=False), tinted(np.clip(light, 0.35, 2.2), scene.hair)
