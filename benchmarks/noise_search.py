"""How much faster the noise search is than the same algorithm written plainly from the paper (`tests/noise/reference.py`).

    python -m benchmarks.noise_search              # 3 paired repeats on 16 photos, about 2 minutes on one core

Each pair runs one round of both, one after the other in the same process on one thread, from the same weights and with the same random
draws. The ratio of a pair is what counts: absolute times differ between machines and moments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from pipeline.config import NoiseConfig
from pipeline.models.recognisers import make_recogniser
from pipeline.noise.error_min import search_noise
from pipeline.runtime import Runtime, prepare_torch
from pipeline.training.faces import FaceSet
from tests.noise.reference import reference_search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    parser.add_argument("--photos", type=int, default=16, help="photos of each of 4 identities, all protected")
    parser.add_argument("--input-size", type=int, default=75, help="surrogate's input, px")
    options = parser.parse_args()
    runtime = Runtime(device="cpu", workers=1, precision="fp32")
    prepare_torch(runtime, 1)
    faces = noise_crops(identities=4, photos=options.photos)
    values = {
        "arm": "error-min",
        "rounds": 1,
        "batches": 4,
        "batch": 32,
        "dropout": 0.0,
        "stop_error": 0.0,
        "input_size": options.input_size,
    }
    config = NoiseConfig.model_validate(values)

    def surrogate() -> torch.nn.Module:
        return make_recogniser(classes=4, input_size=config.input_size, dropout=0.0, normalise=True, seed=0)

    def fast() -> np.ndarray:
        model = surrogate().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return search_noise(config, lambda _: model, faces, faces.label, rows=4, runtime=runtime, report=lambda _: None).delta

    def plain() -> np.ndarray:
        return reference_search(config, surrogate(), faces.crops(np.arange(len(faces))), faces.label, 4)[0].numpy()

    images = config.batches * min(config.batch, len(faces)) + len(faces)
    ratios, fast_rates, agreement = [], [], []
    for _ in range(options.repeats):
        (delta, seconds), (wanted, plain_seconds) = timed(fast), timed(plain)
        ratios.append(plain_seconds / seconds)
        fast_rates.append(images / seconds)
        agreement.append(float((np.sign(delta) == np.sign(wanted)).mean()))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"noise-search    {median(fast_rates):.1f} images/s, {median(ratios):.2f}× the plain reference ({spread})")
    print(f"same signs      {min(agreement):.2%} of the noise at least")


def noise_crops(*, identities: int, photos: int) -> FaceSet:
    """Crops of random blocks, as good as faces for timing."""
    small = np.random.default_rng(0).integers(0, 256, (identities * photos, 14, 14, 3), dtype=np.uint8)
    crops = small.repeat(8, axis=1).repeat(8, axis=2)
    count = len(crops)
    return FaceSet((crops,), np.zeros(count, np.int64), np.arange(count), np.repeat(np.arange(identities), photos))


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What `work` returns, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    main()
