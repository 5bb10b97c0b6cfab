"""What is painted on the skin: brows, eyes, lips, nostrils, marks, stubble. Albedo in linear light, RGB, in place."""

from __future__ import annotations

import numpy as np

from pipeline.photos.synthetic.grid import HEIGHT, WIDTH, X_1W, Y_H1, bell, blur, inside, noise, ramp, tinted, window
from pipeline.photos.synthetic.identity import Colour, Identity
from pipeline.photos.synthetic.scene import Glasses, Scene
from pipeline.photos.synthetic.shape import EYE_Y, PosedShape, nasolabial_folds


def cover(image: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Paint ``colour`` over ``image`` (h, w, 3) in place, where and as far as ``mask`` (h, w) says."""
    spread = tinted(mask)
    image *= 1 - spread
    image += tinted(mask, colour)


def darken(image: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Multiply by ``colour`` where the mask is 1: a shade that keeps what is under it."""
    image *= 1 - tinted(mask, (1 - colour[0], 1 - colour[1], 1 - colour[2]))


def skin_albedo(person: Identity, scene: Scene, face: PosedShape, rng: np.random.Generator) -> np.ndarray:
    """Bare skin with its blotches, freckles, moles and blush: float32 (HEIGHT, WIDTH, 3)."""
    uneven = 1 + 0.025 * noise("soft", HEIGHT, WIDTH, rng) + 0.02 * noise("speck", HEIGHT, WIDTH, rng)
    albedo = tinted(uneven, person.skin)
    shape = face.base

    own = np.random.default_rng(person.skin_seed)  # freckles are the person's, not the photo's
    if person.freckles > 0:
        where, x, y = window(0.0, 0.30, 0.85, 0.5)
        spots = noise("speck", y.shape[0], x.shape[1], own)
        area = np.exp(-(((np.abs(x) - 0.42) / 0.36) ** 2) - (y / 0.24) ** 2) + 0.6 * bell(x, 0.2) * bell(y, 0.14)
        darken(albedo[where], ramp(spots, 1.1, 1.9) * np.clip(area * 1.4, 0, 1) * person.freckles, (0.62, 0.42, 0.32))
    for side in (-1.0, 1.0):
        where, x, y = window(side * 0.55, 0.45, 0.5, 0.4)
        darken(albedo[where], (0.1 + 0.5 * scene.blush) * bell(x, 0.18) * bell(y, 0.14), (1.0, 0.72, 0.70))
        where, x, y = window(side * shape.eye_x, EYE_Y + 0.17, 0.32, 0.15)
        darken(albedo[where], shape.eye_bag * bell(x, 0.15) * bell(y, 0.045), (0.66, 0.56, 0.58))
    where, x, y = window(0.0, shape.nose_y, 0.3, 0.25)
    darken(albedo[where], 0.35 * bell(x, 0.13) * bell(y, 0.09), (1.0, 0.78, 0.75))
    _forehead_lines(albedo, face)
    darken(albedo, nasolabial_folds(face) * (0.55 * max(shape.folds - 0.2, 0.0)), (0.6, 0.45, 0.4))
    return albedo


def _forehead_lines(albedo: np.ndarray, face: PosedShape) -> None:
    shape = face.base
    if shape.forehead_lines <= 0:
        return
    for row in range(3):
        where, x, y = window(0.0, face.brow_y - 0.17 - 0.12 * row, 0.6, 0.08)
        lines = bell(y - 0.05 * x * x, 0.014) * ramp(np.abs(x), 0.55, 0.3)
        darken(albedo[where], 0.6 * shape.forehead_lines * lines, (0.6, 0.5, 0.45))


def paint_moles(albedo: np.ndarray, person: Identity) -> None:
    for cx, cy, radius in person.moles:
        where, x, y = window(cx, cy, 2 * radius, 2 * radius)
        distance = np.sqrt(x * x + y * y) - radius
        cover(albedo[where], 0.9 * inside(distance, 2.0), (0.05, 0.025, 0.018))


def paint_brows(albedo: np.ndarray, person: Identity, face: PosedShape, rng: np.random.Generator) -> None:
    shape = face.base
    for side in (-1.0, 1.0):
        centre = side * (shape.eye_x + shape.brow_inset)
        where, x, y = window(centre, face.brow_y, shape.brow_length + 0.05, 0.3)
        t = x * (side / shape.brow_length)  # -1 at the nose, 1 at the temple
        line = -shape.brow_tilt * 0.3 * t - shape.brow_arch * (1 - (t - 0.25) ** 2)
        half = shape.brow_thick * (0.55 + 0.45 * np.clip(1 - t, 0, 1.2)) * ramp(np.abs(t), 1.08, 0.72)
        hairs = noise("fine", y.shape[0], x.shape[1], rng)
        mask = inside(np.abs(y - line) - half, 2.2) * ramp(np.abs(t), 1.08, 0.9)
        cover(albedo[where], np.clip(mask * shape.brow_density * (1 + 0.10 * hairs), 0, 1), person.brow)


def paint_eyes(albedo: np.ndarray, gloss: np.ndarray, person: Identity, scene: Scene, face: PosedShape) -> None:
    """Eyeballs, lids and lashes. ``gloss`` (HEIGHT, WIDTH) is raised where the eyes are wet."""
    shape = face.base
    opened = face.eye_open
    rim = (0.55 * person.iris[0], 0.55 * person.iris[1], 0.55 * person.iris[2])
    for side in (-1.0, 1.0):
        where, x, y0 = window(side * shape.eye_x, EYE_Y, 0.38, 0.32)
        t = np.abs(x) / shape.eye_width
        y = y0 + (shape.eye_tilt * side) * x  # outer corners up for a positive tilt
        curve = 1 - np.clip(t, 0, 1) ** shape.eye_round
        upper, lower = -1.15 * opened * curve, 0.75 * opened * curve
        ball = inside(np.maximum(upper - y, y - lower)) * inside((t - 1) * shape.eye_width)

        patch = albedo[where]
        shade = np.clip(0.55 + 0.3 * (y - upper) / (2 * opened), 0.4, 0.8)  # the lid's own shadow
        patch *= 1 - tinted(ball)
        patch += tinted(ball * shade, (0.68, 0.65, 0.62))
        gx, gy = scene.gaze[0] * 0.14, -0.15 * opened + scene.gaze[1] * 0.04
        distance = np.sqrt((x - gx) ** 2 + (y0 - gy) ** 2)
        cover(patch, ball * inside(distance - shape.iris), rim)
        cover(patch, ball * inside(distance - 0.80 * shape.iris, 1.5), person.iris)
        cover(patch, ball * inside(distance - 0.40 * shape.iris), (0.008, 0.007, 0.007))
        gloss[where] *= 1 - 0.7 * ball
        light = scene.key.direction
        spark = inside(np.sqrt((x - gx - 0.04 * light[0]) ** 2 + (y0 - gy - 0.035 * light[1]) ** 2) - 0.014, 1.5)
        cover(patch, spark * ball * 0.9, (1.0, 1.0, 1.0))

        near = ramp(t, 1.12, 0.9)
        lashes = bell(y - upper + 0.008, 0.012 + 0.014 * shape.lash) * near
        cover(patch, np.clip(lashes * (0.5 + 0.5 * shape.lash), 0, 1), (0.03, 0.02, 0.018))
        darken(patch, 0.5 * bell(y - lower, 0.012) * near, (0.5, 0.38, 0.36))
        crease = bell(y - upper + shape.crease, 0.014) * ramp(t, 1.2, 0.85)
        darken(patch, 0.75 * crease, (0.45, 0.36, 0.33))
        lid = ramp(y, -shape.crease - 0.02 - 1.15 * opened, -1.15 * opened) * ramp(y, 0.02, -0.02) * near
        darken(patch, 0.25 * lid * (1 - ball), (0.7, 0.55, 0.52))
        inner = inside(np.sqrt((x + side * shape.eye_width * 0.97) ** 2 + y * y) - 0.02, 2.0)
        darken(patch, 0.6 * inner, (0.8, 0.4, 0.4))


def paint_nose(albedo: np.ndarray, face: PosedShape) -> None:
    shape = face.base
    for side in (-1.0, 1.0):
        where, x, y = window(side * shape.nose_width * 0.48, shape.nose_y + 0.085, 0.14, 0.1)
        hole = inside(np.sqrt((x / 1.7) ** 2 + (y + side * 0.25 * x) ** 2) - 0.030 * (0.5 + shape.nostril), 2.0)
        cover(albedo[where], hole * (0.4 + 0.55 * shape.nostril), (0.025, 0.012, 0.010))
        where, x, y = window(side * (shape.nose_width + 0.015), shape.nose_y + 0.03, 0.08, 0.16)
        rim = bell(x - side * 0.25 * (0.04 - y * y * 3), 0.018) * bell(y, 0.055)
        darken(albedo[where], 0.75 * rim, (0.5, 0.36, 0.32))


def paint_mouth(albedo: np.ndarray, gloss: np.ndarray, person: Identity, scene: Scene, face: PosedShape) -> None:
    where, x, _ = window(0.0, face.mouth_y, face.mouth_width + 0.08, 0.4)
    y = Y_H1[where[0]]
    upper_top, upper_low, lower_top, lower_low = face.lip_lines(x)
    across = inside(np.abs(x) - face.mouth_width, 2.0)
    patch = albedo[where]
    lip = (person.lip[0] * scene.lip_tint[0], person.lip[1] * scene.lip_tint[1], person.lip[2] * scene.lip_tint[2])
    upper = inside(np.maximum(upper_top - y, y - upper_low), 1.6) * across
    lower = inside(np.maximum(lower_top - y, y - lower_low), 1.6) * across
    cover(patch, 0.9 * upper, (lip[0] * 0.78, lip[1] * 0.78, lip[2] * 0.78))
    cover(patch, 0.9 * lower, lip)
    gloss[where] += 0.12 * lower + 0.04 * upper
    if face.gap > 0.015:
        hollow = inside(np.maximum(upper_low - y, y - lower_top)) * across
        cover(patch, hollow, (0.05, 0.015, 0.015))
        teeth = hollow * inside(y - (upper_low + 0.62 * face.gap)) * ramp(np.abs(x) / face.mouth_width, 0.95, 0.6)
        cover(patch, 0.92 * teeth, (0.68, 0.64, 0.58))
        gloss[where] += 0.2 * teeth
    seam = bell(y - (upper_low + lower_top) * 0.5, 0.012) * inside(np.abs(x) - face.mouth_width * 1.02, 3.0)
    if face.gap <= 0.05:
        cover(patch, 0.8 * seam, (lip[0] * 0.12, lip[1] * 0.10, lip[2] * 0.10))
    for side in (-1.0, 1.0):
        at, cx, cy = window(side * face.mouth_width, face.mouth_y - face.lift, 0.08, 0.08)
        darken(albedo[at], 0.7 * bell(cx, 0.025) * bell(cy, 0.02), (0.35, 0.25, 0.24))


def paint_beard(albedo: np.ndarray, radius: np.ndarray, scene: Scene, face: PosedShape, rng: np.random.Generator) -> np.ndarray:
    """Stubble to full beard; returns where it is, float32 (HEIGHT, WIDTH) 0..1."""
    if scene.beard == "none":
        return np.zeros((HEIGHT, WIDTH), np.float32)
    shape = face.base
    mouth_y, nose_y = face.mouth_y, shape.nose_y
    ax = np.abs(X_1W)
    lip_top = mouth_y - shape.upper_lip - face.gap * 0.3
    moustache = ramp(Y_H1, nose_y + 0.10, nose_y + 0.2) * ramp(Y_H1, lip_top + 0.07, lip_top)
    moustache = moustache * ramp(ax, face.mouth_width + 0.12, face.mouth_width - 0.04)
    drop = float(face.mouth_width + 0.06)
    chin = ramp(Y_H1, mouth_y + 0.14, mouth_y + 0.26) * ramp(ax, drop + 0.06, drop - 0.1)
    sides = ramp(ax - (face.mouth_width + 0.16) + 0.8 * (Y_H1 - mouth_y), 0.0, 0.16) * ramp(Y_H1, 0.15, 0.6)
    below = ramp(Y_H1, mouth_y + 0.16, mouth_y + 0.3)
    mask = {
        "stubble": np.maximum(np.maximum(moustache, below), sides) * 0.55,
        "moustache": moustache,
        "goatee": np.maximum(moustache * 0.9, chin),
        "full": np.maximum(np.maximum(moustache, below), sides),
    }[scene.beard]
    mask = mask * ramp(radius, 1.06, 1.0)
    mask = blur(np.ascontiguousarray(mask, np.float32), 0.02)
    density = np.clip(scene.beard_density * (1 + 0.28 * noise("speck", HEIGHT, WIDTH, rng)), 0, 1)
    mask = mask * density
    cover(albedo, mask, scene.beard_colour)
    return mask


def paint_glasses(image: np.ndarray, glasses: Glasses, face: PosedShape) -> None:
    """Frames over the shaded face (HEIGHT, WIDTH, 3), and what the lenses take and give of the light."""
    shape = face.base
    cy = EYE_Y + 0.03
    rx, ry, power = glasses.radius_x, glasses.radius_y, glasses.power
    for side in (-1.0, 1.0):
        cx = side * max(shape.eye_x, rx + 0.05)
        where, x, y = window(cx, cy, rx + 0.1, ry + 0.1)
        level = (np.abs(x / rx) ** power + np.abs(y / ry) ** power) ** (1 / power)
        distance = (level - 1) * min(rx, ry)
        lens = inside(distance)
        darken(image[where], lens * glasses.tint, (0.25, 0.25, 0.25))
        glare = ramp(x + y * 0.8, -0.10, 0.0) * ramp(x + y * 0.8, 0.12, 0.02) * lens
        cover(image[where], 0.10 * glare, (1.0, 1.0, 1.0))
        darken(image[where], 0.3 * bell(distance - glasses.thickness, 0.03) * (1 - lens), (0.3, 0.3, 0.3))
        cover(image[where], inside(np.abs(distance) - glasses.thickness, 1.5) * 0.95, glasses.colour)
        where, x, y = window(side * (abs(cx) + rx), cy - 0.05, 0.5, 0.06)
        arm = (
            inside(np.abs(y) - glasses.thickness * 0.9, 1.5)
            * ramp(x * side, -0.01, 0.02)
            * ramp(np.abs(X_1W[:, where[1]]), shape.face_width + 0.03, shape.face_width - 0.02)
        )
        cover(image[where], arm * 0.9, glasses.colour)
    gap = max(shape.eye_x, rx + 0.05) - rx
    where, x, y = window(0.0, cy - 0.06, gap + 0.02, 0.08)
    bridge = inside(np.abs(y + 0.02 - 0.6 * x * x) - glasses.thickness * 0.9, 1.5) * inside(np.abs(x) - gap)
    cover(image[where], bridge * 0.95, glasses.colour)
