"""What is left of the noise in a protected photo after a site made it smaller and saved it as JPEG, and a scraper found the face anew?

    python -m benchmarks.after_posting --data data/folder --run data/runs/<run> --arm error-min [--width 112]

A line a way of posting: in what share of the photos a face is found again in its place, and how the noise cut anew compares with the one
that was meant: correlation, and strength (the share of its amplitude that is there). Every photo is first brought to the same width of the
face, so that small and large ones say the same. Fine noise that lies a pixel aside counts as lost here, though it lies so on the face, too:
of a cloak a third or less is found, and the recogniser that it was made against is hindered all the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.countermeasures.compression import jpeg
from pipeline.faces.geometry import similarity_transform
from pipeline.faces.restore import recropped_noise

if TYPE_CHECKING:
    from pipeline.faces.detect import Detector

WIDTHS = (200, 112, 80, 56)  # px, of the face in the photo as posted
QUALITIES = (None, 85, 75, 50)  # JPEG; None: not compressed


def posted(photo: np.ndarray, share: float, quality: int | None) -> np.ndarray:
    """A photo (uint8 H×W×3, RGB) at `share` of its sides and through JPEG, chroma at 4:2:0 as sites have it; as decoded."""
    size = max(1, round(photo.shape[1] * share)), max(1, round(photo.shape[0] * share))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR) if share != 1 else photo
    return small if quality is None else jpeg(small[None], quality=quality)[0]


def noise_found(
    detector: Detector, photo: np.ndarray, protected: np.ndarray, box: np.ndarray, delta: np.ndarray
) -> tuple[float, float] | None:
    """Correlation with `delta`, and strength, of the noise in the face that is found at `box`; None where there is none.

    Args:
        photo, protected: uint8 H×W×3, RGB, both as posted. box: x0, y0, x1, y1 there. delta: int8 3×112×112.
    """
    faces = detector.detect([protected])[0]
    if not len(faces):
        return None
    away = np.linalg.norm(faces.boxes.reshape(-1, 2, 2).mean(1) - box.reshape(2, 2).mean(0), axis=1)
    nearest = int(np.argmin(away))
    if away[nearest] > (box[2] - box[0]) / 2:
        return None
    found = recropped_noise(photo, protected, similarity_transform(faces.landmarks[nearest])).ravel().astype(np.float64)
    meant = delta.ravel() - delta.mean()
    shared = float((found - found.mean()) @ meant)
    spread = float(found.std() * meant.std()) * len(meant)
    return (shared / spread if spread else 0.0), shared / float(meant @ meant)


def measure(data: Path, run: Path, arm: str, width: int, quality: int | None) -> list[tuple[float, float] | None]:
    """`noise_found` of every protected photo of an arm whose face is as wide as `width` px or wider, posted so that it is that wide.

    Raises:
        StageError: the arm's photos are not protected, or a photo is another one than it was.
    """
    from pipeline.artifacts import read_table
    from pipeline.config import AlignConfig, load
    from pipeline.faces.detect import make_detector
    from pipeline.noise.protect import read_original
    from pipeline.noise.table import load_noise, row_names
    from pipeline.photos.decode import decode_photo

    config = load(AlignConfig, data / "align.yaml")
    detector = make_detector(config.model_copy(update={"min_face": 20}), device="cpu")
    table, _ = load_noise(run / arm)
    place = {name: row for row, name in enumerate(table.names)}
    rows = read_table(run / arm / "protected" / "manifest.parquet", ["photo", "identity", "file"])
    rows = rows[["photo", "identity", "file"]].merge(
        read_table(data / "aligned" / "manifest.parquet", ["photo", "sha256", "box"], only=True), on="photo"
    )
    found = []
    for row, name in zip(rows.itertuples(), row_names(rows, table.per), strict=True):
        box = np.asarray(row.box, np.float64)
        share = width / (box[2] - box[0])
        if share > 1:
            continue
        photo, _ = read_original(data / "photos" / row.photo, row.sha256, config.max_side)
        protected = decode_photo((run / arm / "protected" / "photos" / row.file).read_bytes(), max_side=config.max_side)
        before, after = (posted(one, share, quality) for one in (photo, protected))
        found.append(noise_found(detector, before, after, box * share, table.delta[place[name]]))
    return found


def main() -> None:
    """Print a line a width of the face and quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, such as data/folder")
    parser.add_argument("--run", type=Path, required=True, help="a run's folder, with protected photos")
    parser.add_argument("--arm", default="error-min", help="an arm whose whole photos are protected (default error-min)")
    parser.add_argument("--width", type=int, nargs="+", default=WIDTHS, help=f"px of the face (default {' '.join(map(str, WIDTHS))})")
    options = parser.parse_args()
    if not (options.run / options.arm / "protected" / "photos").is_dir():
        parser.error(f"{options.run / options.arm / 'protected' / 'photos'} is missing")
    for width in options.width:
        for quality in QUALITIES:
            every = measure(options.data, options.run, options.arm, width, quality)
            there = np.array([one for one in every if one is not None]).reshape(-1, 2)
            saved = "not compressed" if quality is None else f"JPEG {quality}"
            told = "no photo has so wide a face"
            if len(every):
                told = f"{len(every)} photos, face found in {len(there) / len(every):.0%}"
            if len(there):
                told += f", correlation {there[:, 0].mean():.2f}, strength {there[:, 1].mean():.2f}"
            print(f"face {width} px wide, {saved}: {told}", flush=True)


if __name__ == "__main__":
    main()
