"""Synthetic photos: same numbers, same bytes; faces are found in them; simple tricks don't tell them apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facenet_pytorch import MTCNN

from pipeline.faces.geometry import similarity_transform, warp_crop
from pipeline.photos.pool import spread
from pipeline.photos.synthetic import encode_photo, identity_name, photo_landmarks, render_photo

ROOT = Path(__file__).parents[2]
IDENTITIES, GALLERY, QUERY = 48, 10, 3


def decoded(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1])


def photos_of(identity: int) -> list[np.ndarray]:
    return [decoded(encode_photo(seed=0, identity=identity, photo=photo)) for photo in range(GALLERY + QUERY)]


@pytest.fixture(scope="module")
def photos() -> list[list[np.ndarray]]:
    """Decoded photos by identity: what a detector is given."""
    found = dict(spread(photos_of, range(IDENTITIES), workers=2))
    return [found[identity] for identity in range(IDENTITIES)]


@pytest.fixture(scope="module")
def crops(photos: list[list[np.ndarray]]) -> np.ndarray:
    """uint8 (IDENTITIES, GALLERY + QUERY, 112, 112, 3), aligned without a detector's noise to help us."""

    def crop(image: np.ndarray, identity: int, photo: int) -> np.ndarray:
        return warp_crop(image, similarity_transform(photo_landmarks(seed=0, identity=identity, photo=photo)))

    return np.array([[crop(image, identity, photo) for photo, image in enumerate(row)] for identity, row in enumerate(photos)])


def test_photo_is_rgb_uint8_of_the_asked_size() -> None:
    image = render_photo(seed=3, identity=1, photo=2)
    assert (image.shape, image.dtype) == ((250, 250, 3), np.uint8)
    assert render_photo(seed=3, identity=1, photo=2, size=128).shape == (128, 128, 3)
    assert image.std() > 10


def test_same_numbers_give_same_bytes_in_another_process_and_order() -> None:
    here = [encode_photo(seed=7, identity=4, photo=photo) for photo in (0, 1)]
    script = (
        "import sys, cv2; cv2.setNumThreads(2); from pipeline.photos.synthetic import encode_photo as e\n"
        "sys.stdout.buffer.write(e(seed=7, identity=4, photo=1) + e(seed=7, identity=4, photo=0))"
    )
    there = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True).stdout
    assert there == here[1] + here[0]


def test_file_is_a_baseline_jpeg_of_the_rendered_photo() -> None:
    data = encode_photo(seed=7, identity=4, photo=0)
    assert data[:2] == b"\xff\xd8"
    assert b"\xff\xc0" in data[:700], "no baseline frame header"
    error = np.abs(decoded(data).astype(int) - render_photo(seed=7, identity=4, photo=0)).mean()
    assert error < 8


@pytest.mark.parametrize("other", [{"seed": 8}, {"identity": 5}, {"photo": 1}])
def test_each_number_changes_the_photo(other: dict[str, int]) -> None:
    numbers = {"seed": 7, "identity": 4, "photo": 0}
    assert encode_photo(**numbers) != encode_photo(**(numbers | other))


def test_seed_identity_and_photo_do_not_collapse_into_one_number() -> None:
    distinct = {encode_photo(seed=s, identity=i, photo=p) for s, i, p in [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)]}
    assert len(distinct) == 4


@pytest.mark.parametrize("name", ["seed", "identity", "photo"])
@pytest.mark.parametrize("value", [-1, 1.5, "7", None, True])
def test_bad_number_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        render_photo(**({"seed": 0, "identity": 0, "photo": 0} | {name: value}))


@pytest.mark.parametrize("size", [0, 63, 2049, 250.0])
def test_bad_size_is_refused_with_its_value(size: Any) -> None:
    with pytest.raises(ValueError, match=f"size is {size!r}"):
        encode_photo(seed=0, identity=0, photo=0, size=size)


def test_numpy_integers_are_numbers_too() -> None:
    same = encode_photo(seed=np.int64(7), identity=np.int32(4), photo=np.uint8(0))  # type: ignore[arg-type]
    assert same == encode_photo(seed=7, identity=4, photo=0)


def test_identity_name_sorts_and_refuses_nonsense() -> None:
    assert [identity_name(i) for i in (7, 123, 12345)] == ["id0007", "id0123", "id12345"]
    with pytest.raises(ValueError, match="-3"):
        identity_name(-3)


def test_landmarks_lie_where_the_face_is() -> None:
    for photo in range(20):
        points = photo_landmarks(seed=0, identity=0, photo=photo)
        assert (points.shape, points.dtype) == ((5, 2), np.float32)
        assert points.min() > 20
        assert points.max() < 230
        left_eye, right_eye, _, left_mouth, right_mouth = points
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < min(left_mouth[1], right_mouth[1])


def test_mtcnn_finds_97_percent(photos: list[list[np.ndarray]]) -> None:
    sample = [photos[index % IDENTITIES][index % (GALLERY + QUERY)] for index in range(120)]
    detector = MTCNN(min_face_size=60, keep_all=True)
    found: list[float] = []
    for start in range(0, len(sample), 40):
        _, probabilities = detector.detect(sample[start : start + 40])  # type: ignore[misc]
        found += [max(p for p in row if p is not None) if row[0] is not None else 0.0 for row in probabilities]
    share = float(np.mean(np.array(found) >= 0.9))
    assert share >= 0.97, f"MTCNN is sure of a face in only {share:.1%} of {len(sample)} photos"


def nearest_neighbour(features: np.ndarray) -> float:
    """Share of query photos whose nearest gallery photo is of the same person. ``features``: (identity, photo, any)."""
    gallery = features[:, :GALLERY].reshape(IDENTITIES * GALLERY, -1)
    query = features[:, GALLERY:].reshape(IDENTITIES * QUERY, -1)
    nearest = ((gallery**2).sum(1) - 2 * query @ gallery.T).argmin(1) // GALLERY
    return float((nearest == np.repeat(np.arange(IDENTITIES), QUERY)).mean())


def test_thumbnails_do_not_solve_it(crops: np.ndarray) -> None:
    small = [cv2.resize(crop, (16, 16), interpolation=cv2.INTER_AREA) for row in crops for crop in row]
    accuracy = nearest_neighbour(np.array(small, np.float32).reshape(IDENTITIES, GALLERY + QUERY, -1))
    assert accuracy <= 0.30, f"16x16 thumbnails name {accuracy:.1%} of the queries"


def test_colour_histograms_do_not_solve_it(crops: np.ndarray) -> None:
    bins = (crops // 32).reshape(IDENTITIES * (GALLERY + QUERY), -1, 3).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.array([np.bincount(row, minlength=512) for row in bins], np.float32)
    accuracy = nearest_neighbour(counts.reshape(IDENTITIES, GALLERY + QUERY, -1))
    assert accuracy <= 0.30, f"8x8x8 histograms name {accuracy:.1%} of the queries"
