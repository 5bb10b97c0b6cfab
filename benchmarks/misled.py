"""Whom do networks see in targeted noise? A run's surrogates and its clean recogniser, asked of the photos that tap arms publish.

    python -m benchmarks.misled --data data/synthetic --run data/runs/<run> [--known w.safetensors w600k_mbf.onnx]

Of each tap arm, cloak-tap among them, and each network that has learned clean photos: the share of the protected people's training photos
in which it sees the person that the noise is to show, and the share in which it still sees their own; as photos are, and through a draw of
`transforms.py`. The noise was made against the arm's surrogates; the clean arm's recogniser, where there is one, is a network that it was
not made against. A recogniser that exists (`--known`) sees in a photo whoever's mean embedding of clean training photos is nearest. Nothing
is trained, so a change of the descent can be judged by it before hours of trainings are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.of_a_run import folders_in, parser_of_folders, shown_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipeline.runtime import Runtime

SIZE = 160  # px that facenet-pytorch's weights were made at; insightface's networks take crops as they are


class Seen(NamedTuple):
    """Shares of the protected people's training photos in which `network` sees the target, and their own person."""

    arm: str
    network: str
    against: bool  # the noise was made against it
    target: float
    own: float
    target_transformed: float
    own_transformed: float


def misled(data: Path, run: Path, known: Sequence[Path] = ()) -> Iterator[Seen]:
    """Of each targeted arm whose photos are protected and each network that is trained, or `known`.

    Raises:
        StageError: the run's split, configs or crops, or a recogniser's file, are missing or damaged.
    """
    import numpy as np

    from benchmarks.machine import one_thread
    from pipeline.artifacts import read_json, read_table, sha256_of_file
    from pipeline.noise.against import network_of
    from pipeline.noise.arms import ARMS, SURROGATES, is_targeted
    from pipeline.split import SPLIT_COLUMNS
    from pipeline.training.loop import predict
    from pipeline.training.stage import training_set

    runtime = one_thread()
    table = read_table(run / "split.parquet", SPLIT_COLUMNS)
    protected, classes = np.unique(table.loc[table["role"] == "protected", "label"]), int(table["label"].max()) + 1
    networks: dict[str, tuple[str, Any]] = {}  # by folder, or a file's SHA-256: its name, and the network
    for name in (*SURROGATES, "clean"):
        if (run / name / "model" / "history.jsonl").exists():
            facts = read_json(run / name / "model" / "train.json")
            kind = SURROGATES.get(name, SURROGATES["surrogate"])  # every arm trains the study's own kind
            networks[name] = name, network_of(run / name / "model", facts, runtime, model=kind)
    for path in known:
        networks[sha256_of_file(path)] = path.stem, nearest_mean(path, table, data / "aligned", classes, runtime)
    for arm in ARMS:
        if not is_targeted(arm) or not (run / arm / "protected" / "manifest.parquet").exists():
            continue
        faces = training_set(table, arm, data / "aligned", run)
        faces = faces.where(np.isin(faces.label, protected))
        against = {*ARMS[arm].surrogates, *(one["sha256"] for one in read_json(run / arm / "noise.json").get("against", ()))}
        target = shown_by(table, run, arm, classes)[faces.label]
        for key, (name, network) in networks.items():
            named = [predict(network, faces, runtime, fitted=how)[0] for how in (None, Transformed())]
            shares = [float((found == whom).mean()) for found in named for whom in (target, faces.label)]
            yield Seen(arm, name, key in against, *shares)


def nearest_mean(path: Path, table: Any, aligned: Path, classes: int, runtime: Runtime) -> Any:
    """A recogniser that exists, as a network that names whoever's mean embedding of clean training photos is nearest."""
    import torch

    from pipeline.models.backbones import WIDTH
    from pipeline.noise.against import embeddings_by
    from pipeline.noise.fawkes import mean_embeddings
    from pipeline.noise.known import load_known
    from pipeline.training.faces import face_set

    class Nearest(torch.nn.Module):
        def __init__(self, network: Any, mean_KD: Tensor) -> None:
            super().__init__()
            self.network, self.mean_KD = network, mean_KD

        def embed_and_classify(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            # `predict` asks for embeddings of our networks' width, too; nobody reads them here.
            return x_BCHW.new_zeros((len(x_BCHW), WIDTH)), self.network.embed(x_BCHW) @ self.mean_KD.T

    network = load_known(path, input_size=SIZE)
    clean = face_set(table[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train")], aligned)
    mean_KD = mean_embeddings(embeddings_by(network, clean, runtime), clean.label, classes)
    return Nearest(network, torch.from_numpy(mean_KD)).eval()


class Transformed:
    """Photos after a draw of `transforms.py`, the same for each network, where `predict` takes what a trainer does to them."""

    def __init__(self) -> None:
        import numpy as np

        self.random: np.random.Generator = np.random.default_rng(0)

    def asked(self, x_BCHW: Tensor) -> Tensor:
        """Float crops in [0, 1], (B, 3, H, W), transformed."""
        from pipeline.noise.transforms import draw_transforms, transformed

        return transformed(x_BCHW, draw_transforms(self.random, len(x_BCHW)))

    def __call__(self, x_BCHW: Tensor, index_B: Tensor) -> Tensor:
        """As `asked`, whichever photos they are."""
        return self.asked(x_BCHW)


def main() -> None:
    """Print a line an arm and network."""
    parser = parser_of_folders(__doc__)
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="recognisers that exist (.safetensors, .onnx)")
    data, run, options = folders_in(parser)
    for path in options.known:
        if not path.is_file():
            parser.error(f"{path} is not there")
    for seen in misled(data, run, options.known):
        made = "made against" if seen.against else "not made against"
        print(
            f"{seen.arm:13s} {seen.network:24s} ({made + '):':18s} the target in {seen.target:6.1%}, their own in {seen.own:6.1%}; "
            f"transformed {seen.target_transformed:6.1%}, {seen.own_transformed:6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
