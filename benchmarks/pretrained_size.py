"""At how many px is a pretrained network to be asked? Its weights were made at one size, and at a smaller one it hardly knows faces.

    python -m benchmarks.pretrained_size --weights w.safetensors --lfw /path/to/lfw --lfw-aligned data/lfw/aligned
    python -m benchmarks.pretrained_size --weights w.safetensors --data data/folder --run data/runs/<run> --arms "clean error-min"

A line a size: LFW's ten folds, and of each arm how many clean test photos of the protected people and of the others a linear SVM and the
nearest training photo name on the network's embeddings. A protection is measured against the trainer who asks at the best size, so the
profiles' `train_from_weights` has that one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.evaluation.lfw_protocol import Embed

SIZES = (75, 96, 112, 128, 160, 182)  # px


def network(weights: Path, size: int) -> Embed:
    """What the network gives at `size` px: uint8 crops (N, 112, 112, 3) to L2-normalised float32 (N, 512).

    Raises:
        StageError: the file is not the weights of facenet-pytorch's InceptionResnetV1.
    """
    from benchmarks.machine import one_thread
    from pipeline.evaluation.lfw_protocol import embedder_of
    from pipeline.models.recognisers import make_recogniser

    made = make_recogniser(classes=2, input_size=size, dropout=0.0, normalise=True, seed=0, weights=weights)
    return embedder_of(made, one_thread())


def named(embed: Embed, data: Path, run: Path, arms: list[str]) -> Iterator[tuple[str, str, dict[str, float | None]]]:
    """Of each arm and classifier on the embeddings: their names, and the share of clean test photos of each group named rightly.

    Raises:
        StageError: the run's split or an arm's crops are missing.
    """
    from pipeline.artifacts import read_table
    from pipeline.evaluation.probes import linear_svm, nearest_neighbour
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.faces import embedded
    from pipeline.training.loop import accuracy_by_group
    from pipeline.training.stage import test_photos, training_set

    table, aligned = read_table(run / "split.parquet", SPLIT_COLUMNS), data / "aligned"
    test = test_photos(table, aligned)
    asked = embedded(embed, test.faces)
    for arm in arms:
        train = training_set(table, arm, aligned, run)
        known = embedded(embed, train)
        for name, fit in (("linear SVM", linear_svm), ("nearest photo", nearest_neighbour)):
            yield arm, name, accuracy_by_group(fit(known, train.label, asked), test)


def main() -> None:
    """Print a line a size and measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of facenet-pytorch's InceptionResnetV1")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help=f"px (default {' '.join(map(str, SIZES))})")
    parser.add_argument("--lfw", type=Path, help="folder of LFW with pairs.txt")
    parser.add_argument("--lfw-aligned", type=Path, help="LFW's aligned crops, such as data/lfw/aligned")
    parser.add_argument("--data", type=Path, help="the data folder, such as data/folder")
    parser.add_argument("--run", type=Path, help="a run's folder, with protected crops")
    parser.add_argument("--arms", default="clean error-min", help="of that run (default clean error-min)")
    options = parser.parse_args()
    if (options.lfw is None) != (options.lfw_aligned is None) or (options.data is None) != (options.run is None):
        parser.error("--lfw goes with --lfw-aligned, and --data with --run")
    if options.lfw is None and options.run is None:
        parser.error("nothing to ask about: give --lfw and --lfw-aligned, or --data and --run")
    for path in (options.weights, options.lfw and options.lfw / "pairs.txt", options.lfw_aligned, options.run):
        if path is not None and not path.exists():
            parser.error(f"{path} is missing")

    from pipeline.evaluation.lfw_protocol import verify_lfw

    for size in options.sizes:
        embed = network(options.weights, size)
        if options.lfw is not None and (found := verify_lfw(options.lfw / "pairs.txt", options.lfw_aligned, embed)) is not None:
            text = f"accuracy {found['accuracy']:.4f} ± {found['standard_error']:.4f}, AUC {found['auc']:.4f}, {found['pairs']} pairs"
            print(f"{size:3d} px  LFW {text}", flush=True)
        if options.run is not None:
            for arm, name, shares in named(embed, options.data, options.run, options.arms.split()):
                said = ", ".join(f"{group} {share:6.1%}" for group, share in shares.items() if share is not None)
                print(f"{size:3d} px  {arm}, {name}: {said}", flush=True)


if __name__ == "__main__":
    main()
