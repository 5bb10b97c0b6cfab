"""How hard the synthetic photos are: is a face found, do simple tricks solve them, does a network learn them, how fast.

    python -m benchmarks.synthetic_hardness                       # detection, nearest neighbours, speed: about 5 min
    python -m benchmarks.synthetic_hardness --epochs 8            # and InceptionResnetV1 from scratch: 10-15 min more
    python -m benchmarks.synthetic_hardness --landmarks true      # align by the renderer's own landmarks, no detector

Everything runs on ``--threads`` threads of the CPU; the same options give the same photos and the same splits.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from facenet_pytorch import MTCNN, InceptionResnetV1

from pipeline.faces.geometry import similarity_transform, warp_crop
from pipeline.photos.synthetic import encode_photo, photo_landmarks


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.set_flush_denormal(True)
    photos_each = options.gallery + options.query
    count = options.identities * photos_each
    rows: list[tuple[str, str, str]] = []

    start = time.process_time()  # processor time: a busy machine is not a slow renderer
    photos = np.stack([render(options, index, photos_each) for index in range(count)])
    rows.append(("rendering, JPEG and decoding", f"{(time.process_time() - start) / count:.4f} CPU s a photo", "<= 0.05"))

    truth = np.stack([true_landmarks(options, index, photos_each) for index in range(count)])
    landmarks = truth
    if options.landmarks == "mtcnn":
        landmarks, probability = detect(photos)
        found = probability >= 0.9
        rows.append(("MTCNN finds a face (p >= 0.9)", f"{found.mean():.2%} of {count}", ">= 97 %"))
        eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
        error = np.linalg.norm(landmarks - truth, axis=2).mean(1)[found] / eyes[found]
        rows.append(("  its landmarks' error / eye distance", f"median {np.median(error):.3f}", ""))
        landmarks = np.where(found[:, None, None], landmarks, truth)

    crops = np.stack([warp_crop(photo, similarity_transform(points)) for photo, points in zip(photos, landmarks, strict=True)])
    labels = np.repeat(np.arange(options.identities), photos_each)
    query = np.tile(np.arange(photos_each) >= options.gallery, options.identities)
    chance = f"chance {1 / options.identities:.1%}"
    for name, features in (("16x16 thumbnail", thumbnails(crops)), ("8x8x8 histogram", histograms(crops))):
        accuracy = nearest_neighbour(features, labels, query)
        rows.append((f"{name}, nearest neighbour", f"{accuracy:.1%} ({chance})", "<= 30 %"))
    report(rows)

    if options.epochs:
        train(crops, labels, query, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--identities", type=int, default=150)
    parser.add_argument("--gallery", type=int, default=16, help="gallery, and training, photos of each identity")
    parser.add_argument("--query", type=int, default=4, help="held-out photos of each identity")
    parser.add_argument("--landmarks", choices=("mtcnn", "true"), default="mtcnn")
    parser.add_argument("--epochs", type=int, default=0, help="train InceptionResnetV1 that long; 0: don't")
    parser.add_argument("--input", type=int, default=75, help="side the crops are shrunk to for the network")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak-lr", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def render(options: argparse.Namespace, index: int, photos_each: int) -> np.ndarray:
    """Photo number ``index`` as it comes back from its file: uint8 (250, 250, 3), RGB."""
    identity, photo = divmod(index, photos_each)
    data = encode_photo(seed=options.seed, identity=identity, photo=photo)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1])


def true_landmarks(options: argparse.Namespace, index: int, photos_each: int) -> np.ndarray:
    identity, photo = divmod(index, photos_each)
    return photo_landmarks(seed=options.seed, identity=identity, photo=photo)


def detect(photos: np.ndarray, batch: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest face's landmarks, float32 (N, 5, 2), and its probability, 0 where there is no face."""
    detector = MTCNN(min_face_size=60, keep_all=True)
    landmarks, probability = np.zeros((len(photos), 5, 2), np.float32), np.zeros(len(photos), np.float32)
    for start in range(0, len(photos), batch):
        _, found, points = detector.detect(list(photos[start : start + batch]), landmarks=True)  # type: ignore[misc]
        for offset, (faces, five) in enumerate(zip(found, points, strict=True)):
            if faces[0] is not None:
                best = int(np.argmax(faces))
                landmarks[start + offset], probability[start + offset] = five[best], faces[best]
    return landmarks, probability


def thumbnails(crops: np.ndarray) -> np.ndarray:
    small = [cv2.resize(crop, (16, 16), interpolation=cv2.INTER_AREA) for crop in crops]
    return np.stack(small).reshape(len(crops), -1).astype(np.float32)


def histograms(crops: np.ndarray) -> np.ndarray:
    bins = (crops // 32).astype(np.int64).reshape(len(crops), -1, 3) @ np.array([64, 8, 1])
    return np.stack([np.bincount(row, minlength=512) for row in bins]).astype(np.float32)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray, query: np.ndarray) -> float:
    """Share of the queries whose nearest gallery photo (Euclidean) is of the same identity."""
    gallery, wanted = features[~query], features[query]
    distance = (gallery**2).sum(1)[None] - 2 * wanted @ gallery.T
    return float((labels[~query][distance.argmin(1)] == labels[query]).mean())


def train(crops: np.ndarray, labels: np.ndarray, query: np.ndarray, options: argparse.Namespace) -> None:
    """InceptionResnetV1 from scratch on the gallery, scored on the queries after every epoch."""
    torch.manual_seed(options.seed)
    images_NCHW = torch.from_numpy(crops).permute(0, 3, 1, 2)
    images_NCHW = F.interpolate(images_NCHW.float(), size=options.input, mode="bilinear", antialias=True) / 127.5 - 1
    targets = torch.from_numpy(labels)
    held = torch.from_numpy(query)
    train_x, train_y, test_x, test_y = images_NCHW[~held], targets[~held], images_NCHW[held], targets[held]
    model = InceptionResnetV1(classify=True, num_classes=options.identities, dropout_prob=0.0)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(model.parameters(), lr=options.peak_lr, momentum=0.9, weight_decay=5e-4)
    steps = len(train_x) // options.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=options.peak_lr, total_steps=steps * options.epochs, cycle_momentum=False
    )
    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        order = torch.randperm(len(train_x))[: steps * options.batch].view(steps, options.batch)
        losses, right = 0.0, 0
        for batch in order:
            x, y = train_x[batch], train_y[batch]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(-1))
            logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            losses, right = losses + loss.item(), right + int((logits.argmax(1) == y).sum())
        model.eval()
        with torch.no_grad():
            parts = [part.contiguous(memory_format=torch.channels_last) for part in test_x.split(100)]
            guesses = torch.cat([model(part).argmax(1) for part in parts])
        accuracy = float((guesses == test_y).float().mean())
        print(
            f"epoch {epoch:2d}  loss {losses / steps:.3f}  train {right / order.numel():.1%}  held out {accuracy:.1%}"
            f"  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def report(rows: list[tuple[str, str, str]]) -> None:
    for name, value, target in rows:
        print(f"{name:40s} {value:28s} {target}", flush=True)


if __name__ == "__main__":
    main()
