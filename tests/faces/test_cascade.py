"""The cascade is held to facenet-pytorch's own `detect_face`, its area averages to torch's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from pipeline.faces.area import IntegralImages
from pipeline.faces.cascade import FIRST_LOOK, Boxes, Cascade, overlapping, pyramid, suppress, suppress_nested
from pipeline.faces.mtcnn_networks import PNET_CELL, CropNet, PNet, max_pool
from pipeline.photos.decode import decode_photo
from pipeline.photos.synthetic import encode_photo

CPU = torch.device("cpu")


@cache
def photo(identity: int, number: int = 0) -> np.ndarray:
    return decode_photo(encode_photo(seed=0, identity=identity, photo=number), max_side=300)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade(device=CPU)


@pytest.fixture(scope="module")
def reference():
    """facenet-pytorch's detection of one photo: boxes and probabilities N×5, landmarks N×5×2."""
    from facenet_pytorch import MTCNN
    from facenet_pytorch.models.utils.detect_face import detect_face

    net = MTCNN(keep_all=True)

    def detect(one: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            boxes, landmarks = detect_face(one[None], least, net.pnet, net.rnet, net.onet, net.thresholds, net.factor, CPU)
        return np.asarray(boxes[0], np.float32).reshape(-1, 5), np.asarray(landmarks[0], np.float32).reshape(-1, 5, 2)

    return detect


def group(*photos: np.ndarray) -> np.ndarray:
    """Photos side by side, on grey."""
    canvas = np.full((max(len(one) for one in photos), sum(one.shape[1] for one in photos), 3), 100, np.uint8)
    left = 0
    for one in photos:
        canvas[: len(one), left : left + one.shape[1]] = one
        left += one.shape[1]
    return canvas


def photos_of_all_kinds() -> list[np.ndarray]:
    photos = [photo(identity) for identity in range(4)]
    return [*photos, photo(4)[:201, 7:], photo(5)[31:, :183], group(photo(6), photo(7)[::2, ::2], photo(8)), photo(9)[:, :62]]


@pytest.mark.parametrize("least", [20, 40, 61.5])
def test_as_facenet_pytorch_has_it(reference, least: float) -> None:
    photos = photos_of_all_kinds()
    cascade, count = Cascade(device=CPU, first_look=1.0), 0
    for one, (boxes, landmarks) in zip(photos, cascade.find(photos, [least] * len(photos)), strict=True):
        expected_boxes, expected_landmarks = reference(one, PNET_CELL / pyramid(one.shape[:2], least)[0])
        assert len(boxes) == len(landmarks) == len(expected_boxes)
        order, expected_order = np.lexsort(boxes.T[:1]), np.lexsort(expected_boxes.T[:1])
        assert np.abs(boxes[order, :4] - expected_boxes[expected_order, :4]).max(initial=0) < 0.5
        assert np.abs(boxes[order, 4] - expected_boxes[expected_order, 4]).max(initial=0) < 0.01
        assert np.abs(landmarks[order] - expected_landmarks[expected_order]).max(initial=0) < 0.5
        count += len(boxes)
    assert count >= len(photos) - 1


def test_a_first_look_spares_boxes_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """On photos with faces O-Net is given fewer crops than where it looks at all."""
    photos = photos_of_all_kinds()

    def crops_seen(first_look: float) -> int:
        cascade, seen = Cascade(device=CPU, first_look=first_look), []
        outputs = cascade.onet.outputs
        monkeypatch.setattr(cascade.onet, "outputs", lambda crops: (seen.append(len(crops)), outputs(crops))[1])
        cascade.find(photos, [20.0] * len(photos))
        return sum(seen)

    assert 0 < crops_seen(FIRST_LOOK) < 0.8 * crops_seen(1.0)


def test_a_first_look_finds_the_same_faces(cascade: Cascade, reference) -> None:
    """As many faces, each a few pixels from facenet-pytorch's, and the landmarks with it."""
    photos, apart = photos_of_all_kinds(), []
    for one, (boxes, landmarks) in zip(photos, cascade.find(photos, [20.0] * len(photos)), strict=True):
        expected_boxes, expected_landmarks = reference(one, 20.0)
        assert len(boxes) == len(expected_boxes)
        order, expected_order = np.lexsort(boxes.T[:1]), np.lexsort(expected_boxes.T[:1])
        sides = (expected_boxes[expected_order, 2:4] - expected_boxes[expected_order, :2]).max(1)
        distances = np.linalg.norm(landmarks[order] - expected_landmarks[expected_order], axis=2).mean(1)
        assert (distances < 0.05 * sides).all()
        apart += distances.tolist()
    assert np.median(apart) <= 2


def test_only_sure_faces_spare_others_a_look(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no face is sure enough, O-Net looks at all boxes, and the result is that of looking at all at once."""
    photos, least = photos_of_all_kinds(), [20.0] * len(photos_of_all_kinds())
    everything = Cascade(device=CPU, first_look=1.0).find(photos, least)
    monkeypatch.setattr("pipeline.faces.cascade.SURE", 1 - 1e-12)
    for (boxes, landmarks), (all_boxes, all_landmarks) in zip(cascade.find(photos, least), everything, strict=True):
        assert len(boxes) == len(all_boxes)
        assert np.allclose(boxes, all_boxes, atol=0.01) and np.allclose(landmarks, all_landmarks, atol=0.01)


def test_overlap_is_of_the_same_photo() -> None:
    def boxes(*rows: tuple[int, int, int, int, int]) -> Boxes:
        table = np.array(rows, np.float32).reshape(-1, 5)
        return Boxes(table[:, 0].astype(np.int64), table[:, 1:], np.ones(len(rows), np.float32))

    some = boxes((0, 0, 0, 10, 10), (0, 6, 0, 16, 10), (1, 0, 0, 10, 10), (0, 50, 50, 60, 60))
    other = boxes((0, 2, 0, 12, 10))  # shares 80 of 120 with the first, 60 of 140 with the second
    assert overlapping(some, other, 0.4).tolist() == [True, True, False, False]
    assert overlapping(some, other, 0.5).tolist() == [True, False, False, False]
    assert not overlapping(some, boxes(), 0.4).any() and len(overlapping(boxes(), some, 0.4)) == 0


def test_no_face_no_photo_no_room(cascade: Cascade) -> None:
    assert cascade.find([], []) == []
    blank = np.full((90, 120, 3), 128, np.uint8)
    for photos, least in (([blank], [20.0]), ([blank[:12, :12]], [12.0]), ([blank[:5]], [20.0]), ([blank, blank[:, :40]], [30.0, 30.0])):
        for boxes, landmarks in cascade.find(photos, least):
            assert boxes.shape == (0, 5) and landmarks.shape == (0, 5, 2)


def test_one_photo_is_not_lost_by_another(cascade: Cascade) -> None:
    """facenet-pytorch fails on a box that misses its photo; here it is the box that goes."""
    rng = np.random.default_rng(0)
    strips = [rng.integers(0, 256, (24, width, 3), np.uint8) for width in (24, 31, 200)]
    together = cascade.find([*strips, photo(0), photo(1)], [20.0] * 5)
    for one, found in zip((photo(0), photo(1)), together[3:], strict=True):
        ((boxes, landmarks),) = cascade.find([one], [20.0])
        assert len(found[0]) == len(boxes) >= 1
        assert np.allclose(found[0], boxes, atol=0.01) and np.allclose(found[1], landmarks, atol=0.01)
    images = IntegralImages([photo(0)], device=CPU)
    wide = np.array([[300, 10, 340, 50], [-60, 10, -20, 50], [10, 10, 9, 9], [1e12, 0, 2e12, 9], [20, 20, 200, 200]], np.float32)
    boxes, outputs = cascade.look_closer(cascade.rnet, images, Boxes(np.zeros(5, np.int64), wide, np.ones(5, np.float32)), 24, 2, 1e-6)
    assert len(boxes) == len(outputs) <= 1


def test_levels_and_crops_are_torchs_area_averages() -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, shape, np.uint8) for shape in ((61, 97, 3), (40, 33, 3), (61, 97, 3))]
    images = IntegralImages(photos, device=CPU)

    def area(pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        return torch.nn.functional.interpolate(torch.tensor(pixels).permute(2, 0, 1)[None].float(), size=size, mode="area")

    found = images.level([0, 2], (37, 58))
    assert found.is_contiguous(memory_format=torch.channels_last) and found.shape == (2, 4, 37, 58)
    assert torch.allclose(found[:, :3], torch.cat([area(photos[0], (37, 58)), area(photos[2], (37, 58))]), atol=1e-3)
    boxes = np.array([[0, 0, 97, 61], [3, 5, 40, 19], [10, 10, 11, 12], [0, 0, 33, 40], [96, 60, 97, 61]])
    which = np.array([0, 2, 1, 1, 2])
    crops = images.crops(which, boxes, 24)
    for crop, photo_index, (x0, y0, x1, y1) in zip(crops, which, boxes, strict=True):
        assert torch.allclose(crop[:3], area(photos[photo_index][y0:y1, x0:x1], (24, 24))[0], atol=1e-3)
    assert images.crops(which[:0], boxes[:0], 24).shape == (0, 4, 24, 24)


def test_the_networks_are_facenet_pytorchs() -> None:
    from facenet_pytorch.models.mtcnn import ONet, RNet
    from facenet_pytorch.models.mtcnn import PNet as Plain

    generator = torch.Generator().manual_seed(0)

    def pixels(*shape: int) -> torch.Tensor:
        return (255 * torch.rand(*shape, generator=generator)).to(memory_format=torch.channels_last)

    with torch.inference_mode():
        for size in ((33, 20), (12, 12), (31, 46)):
            x = pixels(3, 4, *size)
            net = PNet(device=CPU)
            features = net.features(x)
            boxes, faces = Plain()((x[:, :3] - 127.5) / 128)
            odds = torch.nn.functional.linear(features, *net.odds).squeeze(3)
            assert torch.allclose(odds.sigmoid(), faces[:, 1], atol=1e-5)
            assert torch.allclose(torch.nn.functional.linear(features, *net.box).permute(0, 3, 1, 2), boxes, atol=1e-4)
        for name, plain, side in (("rnet", RNet(), 24), ("onet", ONet(), 48)):
            x = pixels(5, 4, side, side)
            outputs = CropNet(name, device=CPU).outputs(x)
            boxes, *landmarks, faces = plain((x[:, :3] - 127.5) / 128)
            assert torch.allclose(outputs[:, 0].sigmoid(), faces[:, 1], atol=1e-5)
            assert torch.allclose(outputs[:, 1:], torch.cat([boxes, *landmarks], 1), atol=1e-4)


@pytest.mark.parametrize(("size", "height", "width"), [(2, 8, 9), (2, 1, 2), (3, 9, 10), (3, 11, 46), (3, 3, 4)])
def test_pooling_is_torchs(size: int, height: int, width: int) -> None:
    x = torch.randn(2, 5, height, width).to(memory_format=torch.channels_last)
    assert torch.equal(max_pool(x, size), torch.nn.functional.max_pool2d(x, size, 2, ceil_mode=True))


def test_suppression_is_torchvisions() -> None:
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (300, 2))
    place = np.hstack([corner, corner + rng.uniform(10, 40, (300, 2))]).astype(np.float32)
    boxes = Boxes(rng.integers(0, 4, 300), place, rng.uniform(0.5, 5, 300).astype(np.float32))
    expected = batched_nms(torch.tensor(place), torch.tensor(boxes.odds), torch.tensor(boxes.photo), 0.5)
    assert sorted(suppress(boxes, 0.5)) == sorted(expected.tolist())
    nested = Boxes(np.array([0, 0, 1]), np.array([[0, 0, 100, 100], [20, 20, 50, 50], [20, 20, 50, 50]], np.float32), np.array([1.0, 2, 3]))
    assert sorted(suppress_nested(nested, 0.7)) == [1, 2]


def test_the_pyramid_is_facenet_pytorchs_without_what_is_needless() -> None:
    for least in (20, 28, 40, 61.5, 64):
        scales = pyramid((250, 300), least)
        assert np.allclose(scales, pyramid((250, 300), 20)[-len(scales) :])
        assert 12 / scales[0] <= least < 12 / scales[0] / 0.709  # the first window is no larger than the smallest face
    assert 12 / pyramid((250, 300), 15)[0] == 15


def test_the_pyramid_ends_at_the_window() -> None:
    scales = pyramid((250, 300), 20)
    assert scales[0] == 0.6 and 250 * scales[-1] >= 12 > 250 * scales[-1] * 0.709
    assert pyramid((19, 300), 20) == []
