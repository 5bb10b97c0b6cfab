from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import onnx_session
from pipeline.config import AlignConfig
from pipeline.errors import RequestError, StageError
from pipeline.faces.detect import Detections, Detector, detections, make_detector
from pipeline.faces.geometry import TEMPLATE, similarity_transform, to_crop
from pipeline.photos.decode import decode_photo
from pipeline.photos.synthetic import encode_photo, photo_landmarks


def photo(identity: int, number: int = 0) -> np.ndarray:
    return decode_photo(encode_photo(seed=0, identity=identity, photo=number), max_side=300)


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    return make_detector(AlignConfig(min_face=60), device="cpu")


def same(first: Detections, second: Detections, within: float = 0.5) -> bool:
    if len(first) != len(second):
        return False
    return np.allclose(first.boxes, second.boxes, atol=within) and np.allclose(first.landmarks, second.landmarks, atol=within)


def test_landmarks_lie_where_the_face_was_rendered(mtcnn: Detector) -> None:
    photos = [photo(identity) for identity in range(6)]
    errors = []
    for identity, found in enumerate(mtcnn.detect(photos)):
        if len(found):
            truth = photo_landmarks(seed=0, identity=identity, photo=0)
            away = np.linalg.norm(found.landmarks[0] - truth, axis=1).mean()
            errors.append(away / np.linalg.norm(truth[0] - truth[1]))
            aligned = to_crop(found.landmarks[0], similarity_transform(found.landmarks[0]))
            assert np.linalg.norm(aligned - TEMPLATE, axis=1).mean() < 10
    assert len(errors) >= 5 and np.median(errors) < 0.2  # of the distance between the eyes


def test_other_photos_do_not_matter(mtcnn: Detector) -> None:
    mixed = [photo(0), np.zeros((70, 300, 3), np.uint8), photo(1)[:200], np.zeros((4, 4, 3), np.uint8), photo(2), photo(1)]
    together = mtcnn.detect(mixed)
    for one, found in zip(mixed, together, strict=True):
        assert same(found, mtcnn.detect([one])[0])
    assert len(together[1]) == 0 and len(together[3]) == 0 and len(together[0]) == 1


def test_a_large_photo_is_searched_at_a_smaller_size(mtcnn: Detector) -> None:
    small = photo(0)
    large = np.kron(small, np.ones((6, 6, 1), np.uint8))
    (found,), (at_first,) = mtcnn.detect([large]), mtcnn.detect([small])
    assert len(found) == 1 and np.abs(found.landmarks / 6 - at_first.landmarks).max() < 4


def test_a_small_face_is_found_beside_a_near_one_in_a_phones_photo() -> None:
    """Or the near one would be taken for the person whose photo it is."""
    faces = [photo(identity) for identity in range(4)]
    detector = make_detector(AlignConfig(), device="cpu")
    for near, far in ((0, 1), (2, 3)):
        whole = np.full((3024, 4032, 3), 120, np.uint8)
        whole[200:1700, 300:1800] = np.kron(faces[near], np.ones((6, 6, 1), np.uint8))
        whole[2000:2250, 2800:3050] = faces[far]
        (found,) = detector.detect([whole])
        middle = found.boxes.reshape(-1, 2, 2).mean(1)
        assert {(x > 2700, y > 1900) for x, y in middle} == {(False, False), (True, True)}


def test_nothing_given_nothing_found(mtcnn: Detector) -> None:
    assert mtcnn.detect([]) == []


def test_faces_that_are_not_finite_are_dropped_and_the_best_is_first() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, np.nan, 1], [0, 0, 3, 3]])
    found = detections(boxes, np.array([0.5, 0.9, 0.8]), np.zeros((3, 5, 2)))
    assert found.scores.tolist() == [np.float32(0.8), 0.5] and found.boxes[0, 2] == 3


def test_scrfd_finds_real_faces_and_tells_persons_apart(pack: Path, real_photos: Path) -> None:
    from pipeline.faces.geometry import warp_crop

    detector = make_detector(AlignConfig(detector="scrfd", detector_pack=str(pack)), device="cpu")
    crops = []
    for folder in sorted(real_photos.iterdir())[:3]:
        for path in sorted(folder.glob("*.jpg"))[:4]:
            one = decode_photo(path.read_bytes(), max_side=8192)
            (found,) = detector.detect([one])
            assert len(found) >= 1 and found.boxes[0].min() > -60
            crops.append(warp_crop(one, similarity_transform(found.landmarks[0])))
    described = detector.describe(np.stack(crops)).reshape(3, 4, -1)
    cosines = np.einsum("aid,bjd->abij", described, described)
    same_person = np.mean([cosines[a, a][~np.eye(4, dtype=bool)].mean() for a in range(3)])
    others = np.mean([cosines[a, b].mean() for a in range(3) for b in range(3) if a != b])
    assert same_person > others + 0.15
    for strip in (np.zeros((4, 4, 3), np.uint8), np.zeros((10, 2000, 3), np.uint8)):
        assert len(detector.detect([strip])[0]) == 0


@pytest.mark.parametrize("kind", ["missing", "empty", "no model"])
def test_a_pack_that_is_none(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "missing" if kind == "missing" else tmp_path
    if kind == "no model":
        (tmp_path / "det_x.onnx").write_bytes(b"not a model")
    with pytest.raises(StageError if kind == "no model" else RequestError, match="det_x.onnx" if kind == "no model" else "DETECTOR_PACK"):
        make_detector(AlignConfig(detector="scrfd", detector_pack=str(folder)), device="cpu")


def test_a_silent_fallback_to_the_cpu_is_an_error(pack: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(StageError, match="DEVICE=cuda"):
        make_detector(AlignConfig(detector="scrfd", detector_pack=str(pack)), device="cuda")


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ((), None),
        (("libcuda.so.1",), "driver"),
        (("libcurand.so.10",), "`make setup`"),
        (("libcurand.so.10", "libcuda.so.1"), "`make setup`"),
    ],
)
def test_what_onnxruntime_lacks_for_cuda_is_named(missing: tuple[str, ...], told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "loads", lambda library: library not in missing)
    found = onnx_session.missing_for_cuda()
    assert found is None if told is None else found is not None and told in found and found.startswith(", ".join(missing))
