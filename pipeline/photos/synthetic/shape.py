"""The face as a surface: its outline, its curves and its height over the canonical plane, with an expression on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.photos.synthetic.grid import X_1W, Y_H1, bell, blur, ramp, window
from pipeline.photos.synthetic.identity import Identity, Shape
from pipeline.photos.synthetic.scene import Scene

SKULL_TOP, WIDEST = -1.38, 0.1  # y of the top of the skull and of the widest line
EYE_Y = 0.0


@dataclass(frozen=True, slots=True)
class PosedShape:
    """A person's shape with the photo's expression folded in."""

    base: Shape
    chin_y: float
    mouth_y: float
    mouth_width: float
    lift: float  # of the mouth's corners
    gap: float  # between the lips
    eye_open: float
    brow_y: float
    smile: float

    def radius(self, *, grow: float = 0.0) -> np.ndarray:
        """Distance from the head's axis, 1 on its outline: float32 (HEIGHT, WIDTH). ``grow`` widens the outline."""
        width = self.base.face_width + grow
        up = np.clip((WIDEST - Y_H1) / (WIDEST - (SKULL_TOP - grow)), 0.0, None) ** 2.4
        down = np.clip((Y_H1 - WIDEST) / (self.chin_y - WIDEST), 0.0, None) ** self.base.jaw_power
        return (np.abs(X_1W / width) ** 2.1 + (up + down)) ** (1 / 2.1)

    def lip_lines(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """y of the upper lip's upper and lower edge and of the lower lip's, at ``x`` (units from the middle)."""
        shape = self.base
        t = np.clip(np.abs(x) / self.mouth_width, 0.0, 1.0)
        line = self.mouth_y - self.lift * t * t
        full = 1 - t * t
        dip = 1 - 0.4 * shape.bow * np.exp(-((t / 0.17) ** 2)) + 0.18 * shape.bow * np.exp(-(((t - 0.3) / 0.2) ** 2))
        opening = self.gap * full
        thin = 1 - 0.22 * max(self.smile, 0.0)
        upper_low = line - 0.3 * opening
        upper_top = upper_low - shape.upper_lip * thin * (1 - t**2.0) * dip
        lower_top = line + 0.7 * opening
        lower_low = lower_top + shape.lower_lip * thin * (1 - t**2.4)
        return upper_top, upper_low, lower_top, lower_low

    def landmarks(self) -> np.ndarray:
        """The five points on the surface: float32 (5, 3) of x, y, z in units."""
        shape = self.base
        eye_z, nose_z, mouth_z = 0.66, 0.82 + 0.8 * shape.nose_height, 0.72
        corner_y = self.mouth_y - self.lift
        return np.array(
            [
                (-shape.eye_x, EYE_Y, eye_z),
                (shape.eye_x, EYE_Y, eye_z),
                (0.0, shape.nose_y, nose_z),
                (-self.mouth_width, corner_y, mouth_z),
                (self.mouth_width, corner_y, mouth_z),
            ],
            dtype=np.float32,
        )


def posed_shape(person: Identity, scene: Scene) -> PosedShape:
    shape = person.shape
    smile, opened = scene.smile, scene.mouth_open
    return PosedShape(
        base=replace(shape, nose_width=shape.nose_width * (1 + 0.06 * smile)),
        chin_y=shape.chin_y + 0.09 * opened,
        mouth_y=shape.nose_y + shape.mouth_gap - 0.02 * smile + 0.02 * opened,
        mouth_width=shape.mouth_width * (1 + 0.16 * smile - 0.08 * opened),
        lift=shape.mouth_curve + 0.085 * smile,
        gap=0.13 * opened + 0.04 * max(smile - 0.3, 0.0),
        eye_open=shape.eye_open * (1 - scene.squint - 0.15 * max(smile, 0.0)),
        brow_y=EYE_Y - shape.brow_gap - scene.brow_raise,
        smile=smile,
    )


def height_field(face: PosedShape, radius: np.ndarray) -> np.ndarray:
    """z of the bare skin: float32 (HEIGHT, WIDTH). Beyond the outline it keeps falling, for ears and hair to sit on."""
    shape = face.base
    z = 0.85 - 0.55 * np.minimum(radius, 1.5) ** 2.5
    mouth_y, eye_x = face.mouth_y, shape.eye_x

    for side in (-1.0, 1.0):
        add(z, side * eye_x, EYE_Y + 0.01, 0.20, 0.12, -0.10)  # socket
        add(z, side * eye_x, EYE_Y, 0.11, 0.085, 0.055)  # eyeball
        add(z, side * (eye_x + 0.02), face.brow_y + 0.05, 0.24, 0.075, 0.045)  # brow ridge
        add(z, side * (eye_x + 0.16), 0.42, 0.20, 0.16, shape.cheekbone + 0.04 * max(face.smile, 0.0))
        add(z, side * shape.nose_width * 0.74, shape.nose_y + 0.03, 0.065, 0.07, 0.11)  # wing of the nose
        add(z, side * (face.mouth_width + 0.05), mouth_y - face.lift, 0.05, 0.06, -0.02)
    add(z, 0.0, face.chin_y - 0.20, 0.17, 0.12, 0.04 + shape.chin_ball)
    if shape.chin_dimple > 0.5:
        add(z, 0.0, face.chin_y - 0.17, 0.025, 0.07, -0.09 * shape.chin_dimple)

    _add_nose(z, shape)
    _add_mouth(z, face)
    if shape.folds > 0.2:
        z -= blur(nasolabial_folds(face), 0.012) * (0.05 * shape.folds * (1 + 0.6 * max(face.smile, 0.0)))
    return z.astype(np.float32, copy=False)


def add(z: np.ndarray, cx: float, cy: float, sx: float, sy: float, amount: float) -> None:
    """Add a Gaussian bump in place."""
    where, x, y = window(cx, cy, 3 * sx, 3 * sy)
    z[where] += (amount * bell(x, sx)) * bell(y, sy)


def _add_nose(z: np.ndarray, shape: Shape) -> None:
    start = -0.12
    where, x, y = window(0.0, start, 0.5, shape.nose_y - start + 0.3)
    t = np.clip(y / (shape.nose_y - start), 0.0, 1.0)
    rise = shape.nose_height * t**1.35 + shape.bridge_hump * np.sin(np.pi * t) ** 2 + 0.03
    fall = ramp(y, shape.nose_y - start + 0.14, shape.nose_y - start - 0.02) * ramp(y, -0.15, 0.05)
    sigma = shape.bridge_width + (shape.nose_tip - shape.bridge_width) * t * t
    z[where] += rise * fall * np.exp(x * x * (-0.5 / sigma**2))


def _add_mouth(z: np.ndarray, face: PosedShape) -> None:
    where, x, _ = window(0.0, face.mouth_y, face.mouth_width, 0.4)
    y = Y_H1[where[0]]
    upper_top, upper_low, lower_top, lower_low = face.lip_lines(x)
    ridge = np.zeros(z[where].shape, np.float32)
    for top, low, amount in ((upper_top, upper_low, 0.05), (lower_top, lower_low, 0.07)):
        half = np.maximum((low - top) * 0.5, 0.008)
        ridge += amount * np.clip(1 - ((y - (top + low) * 0.5) / half) ** 2, 0.0, None)
    z[where] += ridge
    add(z, 0.0, (face.base.nose_y + face.mouth_y) * 0.5, 0.03, 0.08, -0.035 * face.base.philtrum)
    add(z, 0.0, float(lower_low.max()) + 0.06, 0.16, 0.035, -0.04)  # the hollow under the lower lip


def nasolabial_folds(face: PosedShape) -> np.ndarray:
    """The two creases from the nose's wings past the mouth's corners: float32 (HEIGHT, WIDTH), coverage 0..1."""
    shape = face.base
    top, bottom = shape.nose_y, face.mouth_y + 0.10
    mask = np.zeros((Y_H1.size, X_1W.size), np.float32)
    where, x, y = window(0.0, top, 1.0, bottom - top + 0.1)
    t = np.clip(y / (bottom - top), 0.0, 1.0)
    centre = shape.nose_width + 0.05 + (face.mouth_width + 0.10 - shape.nose_width - 0.05) * t**0.8
    mask[where] = bell(np.abs(x) - centre, 0.02) * ramp(y, -0.08, 0.05) * ramp(y, bottom - top + 0.08, bottom - top - 0.08)
    return mask
