"""The whole head, built, painted and lit on the canonical plane."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.photos.synthetic.grid import HEIGHT, TEXELS, WIDTH, X_1W, Y_H1, blur, ramp, tinted
from pipeline.photos.synthetic.hair import front_hair, is_long
from pipeline.photos.synthetic.identity import Identity
from pipeline.photos.synthetic.paint import (
    darken,
    paint_beard,
    paint_brows,
    paint_eyes,
    paint_glasses,
    paint_moles,
    paint_mouth,
    paint_nose,
    skin_albedo,
)
from pipeline.photos.synthetic.scene import Scene
from pipeline.photos.synthetic.shape import PosedShape, height_field, posed_shape


@dataclass(frozen=True, slots=True)
class Head:
    colour: np.ndarray  # float32 (HEIGHT, WIDTH, 3), linear light
    cover: np.ndarray  # float32 (HEIGHT, WIDTH), 0..1
    height: np.ndarray  # float32 (HEIGHT, WIDTH), units
    face: PosedShape


def paint_head(person: Identity, scene: Scene) -> Head:
    rng = np.random.default_rng(scene.texture_seed)
    face = posed_shape(person, scene)
    radius = face.radius()
    z = height_field(face, radius)

    albedo = skin_albedo(person, scene, face, rng)
    gloss = np.full((HEIGHT, WIDTH), 0.16, np.float32)
    paint_nose(albedo, face)
    paint_mouth(albedo, gloss, person, scene, face)
    beard = paint_beard(albedo, radius, scene, face, rng)
    paint_moles(albedo, person)
    paint_eyes(albedo, gloss, person, scene, face)
    paint_brows(albedo, person, face, rng)

    covered = ramp(radius, 1.012, 0.985)
    if not is_long(scene):
        covered = np.maximum(covered, _ears(albedo, face))
    hair, hair_albedo = front_hair(scene, face, rng)
    covered = hair + covered * (1 - hair)
    # Of what is covered at all, the hair's share: a plain blend would leave a rim of skin around loose hair.
    albedo += tinted(hair / np.maximum(covered, 1e-3)) * (hair_albedo - albedo)
    gloss *= 1 - 0.6 * np.maximum(hair, beard)

    relief = z + 0.10 * blur(hair, 0.05) + 0.03 * beard
    colour = _lit(albedo, gloss, relief, scene)
    colour *= tinted(1 - 0.45 * blur(hair, 0.06) * (1 - hair))  # the hair's own shadow on the skin
    if scene.glasses is not None:
        lit = scene.ambient[1] + 0.5 * scene.key.colour[1]
        red, green, blue = scene.glasses.colour
        paint_glasses(colour, replace(scene.glasses, colour=(red * lit, green * lit, blue * lit)), face)
    return Head(colour=colour, cover=covered, height=z, face=face)


def _ears(albedo: np.ndarray, face: PosedShape) -> np.ndarray:
    shape = face.base
    x = np.abs(X_1W) - (shape.face_width + 0.01)
    y = (Y_H1 - 0.24) / (0.30 * shape.ear)
    level = np.sqrt((x / (0.115 * shape.ear)) ** 2 + y * y)
    mask = ramp(level, 1.05, 0.93)
    inner = ramp(level, 0.75, 0.45) * ramp(np.abs(X_1W), shape.face_width, shape.face_width + 0.03)
    darken(albedo, inner, (0.65, 0.55, 0.55))
    return mask


def _lit(albedo: np.ndarray, gloss: np.ndarray, z: np.ndarray, scene: Scene) -> np.ndarray:
    """Lambert and Blinn-Phong under two lights and an ambient one: float32 (HEIGHT, WIDTH, 3), linear."""
    soft = blur(z, 0.012)
    dx = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3, scale=TEXELS / 8)
    dy = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3, scale=TEXELS / 8)
    nz = 1 / np.sqrt(dx * dx + dy * dy + 1)
    hollow = np.clip((blur(z, 0.12) - z) * 3.0, -0.15, 0.5)  # cheap ambient occlusion: below one's surroundings
    light = tinted(1 - hollow, scene.ambient)
    shine = np.zeros_like(albedo)
    for lamp, casts in ((scene.key, True), (scene.fill, False)):
        lx, ly, lz = _in_head_frame(lamp.direction, scene)
        lambert = np.clip(((lz - lx * dx - ly * dy) * nz + 0.15) / 1.15, 0.0, None)
        if casts:
            lambert *= 1 - 0.75 * _cast_shadow(soft, lx, ly, lz)
        length = math.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)  # of the vector half way to the camera
        facing = np.clip((lz + 1 - lx * dx - ly * dy) * nz * (1 / length), 0.0, None)
        for _ in range(4):  # to the 16th power
            facing *= facing
        light += tinted(lambert, lamp.colour)
        shine += tinted(gloss * facing, lamp.colour)
    if scene.shadow_edge is not None:
        angle, offset, softness, depth = scene.shadow_edge
        across = X_1W * math.cos(angle) + Y_H1 * math.sin(angle) - offset
        shade = 1 - depth * ramp(across, -softness, softness)
        return tinted(shade.astype(np.float32)) * (albedo * light + shine)
    return albedo * light + shine


def _in_head_frame(direction: tuple[float, float, float], scene: Scene) -> tuple[float, float, float]:
    """A direction of the picture as the turned head sees it (roll aside: it is small)."""
    x, y, z = direction
    cy, sy, cp, sp = math.cos(scene.yaw), math.sin(scene.yaw), math.cos(scene.pitch), math.sin(scene.pitch)
    y, z = y * cp - z * sp, z * cp + y * sp
    return x * cy - z * sy, y, x * sy + z * cy


def _cast_shadow(z: np.ndarray, lx: float, ly: float, lz: float) -> np.ndarray:
    """Where something nearer the light stands in it: 0..1, by a few steps along the light over the height field."""
    flat = math.hypot(lx, ly)
    if flat < 0.2:
        return np.zeros_like(z)
    deepest = np.zeros_like(z)
    for step in (0.06, 0.12, 0.2, 0.3):
        dx, dy = lx / flat * step * TEXELS, ly / flat * step * TEXELS
        move = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
        toward = cv2.warpAffine(z, move, (z.shape[1], z.shape[0]), borderMode=cv2.BORDER_REPLICATE)
        np.maximum(deepest, toward - z - step * max(lz, 0.05) / flat, out=deepest)
    return blur(ramp(deepest, 0.0, 0.07), 0.025)
