"""How hard a photo an adversarial trainer finds by one step, three or ten: is a cheaper inner search as strong?

    python -m benchmarks.adversarial_steps --data data/synthetic --run data/runs/<run>

Against the run's trained clean model, on 64 of its training photos within 4/255: mean loss and error. Fast adversarial training takes one
step of 1.25 radius (Wong et al., ICLR 2020); the countermeasure of the study takes three of 2.5 radius / 3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.artifacts import read_table
from pipeline.config import TrainConfig, load
from pipeline.models.recognisers import load_trained
from pipeline.split import SPLIT_COLUMNS
from pipeline.training.faces import face_set

PHOTOS, RADIUS = 64, 4 / 255


def hardened(model: torch.nn.Module, x_BCHW: torch.Tensor, label_B: torch.Tensor, *, steps: int, step: float) -> torch.Tensor:
    """The photos after `steps` sign steps up the loss from a random start, within RADIUS: as they came in shape and range."""
    low, high = (x_BCHW - RADIUS).clamp(min=0), (x_BCHW + RADIUS).clamp(max=1)
    start = 2 * torch.rand(x_BCHW.shape, generator=torch.Generator().manual_seed(0)) - 1
    moved = torch.minimum(torch.maximum(x_BCHW + RADIUS * start, low), high)
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), label_B, reduction="sum"), moved)
        moved = torch.minimum(torch.maximum(moved.detach() + step * gradient.sign(), low), high)
    return moved


def main() -> None:
    """Print a line a search."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of the data set")
    arguments.add_argument("--run", type=Path, required=True, help="folder of the finished run")
    args = arguments.parse_args()
    config, table = load(TrainConfig, args.run / "config" / "train.yaml"), read_table(args.run / "split.parquet", SPLIT_COLUMNS)
    weights, classes = args.run / "clean" / "model" / "weights.safetensors", int(table["label"].max()) + 1
    model = load_trained(weights, classes=classes, input_size=config.input_size, normalise=config.normalise).eval()
    faces = face_set(table[table["part"] == "train"], args.data / "aligned")
    x_BCHW, label_B = faces.batch(np.random.default_rng(0).permutation(len(faces))[:PHOTOS], torch.device("cpu"))
    for name, steps, step in (("none", 0, 0.0), ("one step", 1, 1.25), ("three steps", 3, 2.5 / 3), ("ten steps", 10, 0.25)):
        found_BCHW = x_BCHW if steps == 0 else hardened(model, x_BCHW, label_B, steps=steps, step=step * RADIUS)
        with torch.no_grad():
            logits = model(found_BCHW)
        error = float((logits.argmax(1) != label_B).float().mean())
        print(f"{name:12} loss {float(F.cross_entropy(logits, label_B)):6.3f}, error {error:.0%}", flush=True)


if __name__ == "__main__":
    main()
