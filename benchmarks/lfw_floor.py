"""What verification on LFW gives without any face recognition: the floor that a protected model's AUC is to be seen against.

    python -m benchmarks.lfw_floor --lfw /path/to/lfw --aligned data/lfw/aligned

Two embeddings that have learnt nothing: grey levels of the crop at 16×16 px, centred, and the laptop profile's network as it is drawn.
LFW's ten folds, as in the study; `--aligned` is what `make study LFW=…` leaves.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIDE = 16  # px


def grey_levels(crops: np.ndarray) -> np.ndarray:
    """Crops, uint8 (N, 112, 112, 3), as SIDE×SIDE averages less each crop's mean: float32 (N, SIDE²), L2-normalised."""
    import cv2
    import numpy as np

    small = [cv2.resize(crop.mean(2, dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for crop in crops]
    found = np.stack(small)
    found -= found.mean(1, keepdims=True)
    return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)


def main() -> None:
    """Print a line an embedding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder of LFW with pairs.txt")
    parser.add_argument("--aligned", type=Path, required=True, help="LFW's aligned crops, such as data/lfw/aligned")
    options = parser.parse_args()
    for path in (options.lfw / "pairs.txt", options.aligned / "manifest.parquet"):
        if not path.is_file():
            parser.error(f"{path} is missing")

    from benchmarks.machine import one_thread
    from pipeline.evaluation.lfw_protocol import embedder_of, verify_lfw
    from pipeline.models.recognisers import make_recogniser

    untrained = make_recogniser(classes=2, input_size=75, dropout=0.0, normalise=True, seed=0)
    for name, embed in (("grey levels", grey_levels), ("untrained network", embedder_of(untrained, one_thread()))):
        found = verify_lfw(options.lfw / "pairs.txt", options.aligned, embed)
        if found is None:
            parser.error(f"{options.aligned} has too few of the photos that pairs.txt names")
        text = f"accuracy {found['accuracy']:.4f} ± {found['standard_error']:.4f}, AUC {found['auc']:.4f}, {found['pairs']} pairs"
        print(f"{name:18s} {text}", flush=True)


if __name__ == "__main__":
    main()
