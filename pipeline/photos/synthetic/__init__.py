"""Photos of people who do not exist: a parametric 2.5-D face, rendered with numpy and OpenCV.

An *identity* is a face shape, its colours and its marks; a *photo* is one look at it: light, pose, expression, hair,
glasses, beard, background, camera. Both are drawn from ``(seed, identity, photo)`` alone, so the same three numbers
give the same bytes in any process and in any order.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.photos.synthetic.camera import develop, place, project
from pipeline.photos.synthetic.head import paint_head
from pipeline.photos.synthetic.identity import Identity, draw_identity
from pipeline.photos.synthetic.scene import Scene, draw_scene
from pipeline.photos.synthetic.shape import posed_shape

__all__ = ["LANDMARKS", "encode_photo", "identity_name", "photo_landmarks", "render_photo"]

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""The five points, in the order of MTCNN and ArcFace; left and right are those of the image."""

MIN_SIZE, MAX_SIZE = 64, 2048


def render_photo(*, seed: int, identity: int, photo: int, size: int = 250) -> np.ndarray:
    """The photo before JPEG: uint8 (size, size, 3), RGB, 0..255."""
    return _render(*_draw(seed, identity, photo, size), size)


def encode_photo(*, seed: int, identity: int, photo: int, size: int = 250) -> bytes:
    """The photo as a baseline JPEG file; its quality is drawn with the rest of the photo."""
    person, scene = _draw(seed, identity, photo, size)
    rgb = _render(person, scene, size)
    # Contiguous BGR: what cv2 writes. Quality is the only encoder setting that varies.
    written, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg])
    assert written, "OpenCV could not encode a JPEG"
    return data.tobytes()


def photo_landmarks(*, seed: int, identity: int, photo: int, size: int = 250) -> np.ndarray:
    """Where the five ``LANDMARKS`` truly are in that photo: float32 (5, 2), x and y in pixels, without any detector."""
    person, scene = _draw(seed, identity, photo, size)
    return project(posed_shape(person, scene).landmarks(), scene, size=size)


def identity_name(identity: int) -> str:
    """The identity's folder name: ``id0007`` for 7."""
    return f"id{_whole('identity', identity):04d}"


def _render(person: Identity, scene: Scene, size: int) -> np.ndarray:
    return develop(place(paint_head(person, scene), person, scene, size=size), scene)


def _draw(seed: int, identity: int, photo: int, size: int) -> tuple[Identity, Scene]:
    seed, identity, photo = _whole("seed", seed), _whole("identity", identity), _whole("photo", photo)
    if not MIN_SIZE <= _whole("size", size) <= MAX_SIZE:
        raise ValueError(f"size is {size}, but must be {MIN_SIZE} to {MAX_SIZE} pixels")
    person = draw_identity(seed=seed, identity=identity)
    return person, draw_scene(person, seed=seed, identity=identity, photo=photo)


def _whole(name: str, value: int) -> int:
    """``value`` as a plain int: numpy integers pass, bools, floats and negative numbers do not."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{name} is {value!r}, but must be a whole number of 0 or more")
    return int(value)
