"""The noise search against the same algorithm written plainly from the paper (`tests/noise/reference.py`).

    python -m benchmarks noise-search noise-search-75 noise-round noise-converged noise-search-batched noise-converged-batched
    python -m benchmarks ask-inception ask-mobilefacenet

Both sides start from the same weights and draw the same batches. The plain side is the paper's algorithm in fp32: loops over single photos,
the error measured in a pass of its own after each round. Ours runs as the stage does: the machine's own precision, one thread. The plain
side in batches shows how much of the ratio is the loop over single photos.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.machine import one_thread
from benchmarks.row import Pair, Row, paired

if TYPE_CHECKING:
    import torch

    from pipeline.config import NoiseConfig
    from pipeline.runtime import Runtime
    from pipeline.training.faces import FaceSet

ASKED = 64  # photos at a time, as in a noise pass on a CPU
BATCH = 32  # photos at a time of the plain side in batches, as many as in a surrogate's
# A tenth of a laptop study's round, in its proportion of surrogate batches to photos that carry noise.
SIZE: dict[str, Any] = {"identities": 5, "photos": 16, "batches": 3}
# In the laptop profile's proportion, too; small enough for the plain side (two minutes), hard enough that both need several rounds.
CONVERGING: dict[str, Any] = {
    "identities": 8,
    "photos": 16,
    "batches": 5,
    "batch": 32,
    "rounds": 40,
    "step": 4.0,
    "lr": 0.01,
    "input_size": 75,
}


def rows() -> list[Row]:
    """Images a second at two input sizes, seconds a round, seconds to converged; two of them against the plain side in batches, too."""
    from pipeline.runtime import cpu_has_fast_bf16

    precision = "bf16" if cpu_has_fast_bf16() else "fp32"
    search = "One round over 5 people × 16 photos, all protected, 3 surrogate batches of 32 (the laptop profile’s proportion), {} px input."
    against = " Against the paper’s algorithm written plainly: fp32, one photo at a time, the error measured in a pass of its own."
    batched = f" Against the same plain algorithm, which here looks at {BATCH} photos at a time in its noise step and its error pass, too."
    return [
        Row("noise-search", "images/s", "plain-reference", search.format(112) + against, search_pair(112), target=6.0),
        Row("noise-search-75", "images/s", "plain-reference", search.format(75) + against, search_pair(75), target=6.0),
        Row(
            "noise-round",
            "s",
            f"matmul-{precision}",
            "One round as large as the laptop profile’s: 150 people × 16 photos, 50 protected, 30 surrogate batches of 32, 75 px input. "
            f"Against the time in which one thread’s {precision} matrix product does as much arithmetic (as torch’s FLOP counter counts "
            "it), measured right beside it: the ratio is the share of the ceiling.",
            round_pair(precision),
            lower_is_better=True,
        ),
        Row(
            "noise-converged",
            "s",
            "plain-reference",
            "From nothing to an error below 0.1 on the noisy photos: 8 rendered people × 16 photos, all protected, 5 surrogate batches of "
            "32 a round, 75 px input; each pair from another seed, the same on both sides." + against,
            converged_pair(),
            lower_is_better=True,
            target=6.0,
        ),
        Row("noise-search-batched", "images/s", "plain-in-batches", "As noise-search." + batched, search_pair(112, plain_batch=BATCH)),
        Row(
            "noise-converged-batched",
            "s",
            "plain-in-batches",
            "As noise-converged." + batched,
            converged_pair(plain_batch=BATCH),
            lower_is_better=True,
        ),
        *(
            Row(
                f"ask-{name}",
                "images/s",
                "not-folded",
                f"Gradients of the loss by {ASKED} photos at 75 px, as such noise asks {title}: batch norms folded away, "
                "against the network as it is trained.",
                paired(partial(asking_rate, model, True), partial(asking_rate, model, False)),
            )
            for name, model, title in (
                ("inception", "inception-resnet-v1", "an InceptionResnetV1"),
                ("mobilefacenet", "mobilefacenet", "a MobileFaceNet"),
            )
        ),
    ]


def asking_rate(model: str, folded: bool) -> float:
    """Images a second of which a network with fixed weights gives the gradient."""
    import torch

    from pipeline.models.recognisers import for_inference, make_recogniser
    from pipeline.training.at_hand import loss_gradient

    runtime = one_thread()
    made = make_recogniser(classes=150, input_size=75, dropout=0.0, normalise=True, seed=0, model=model)
    asked = made.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    network = for_inference(asked, bf16=runtime.precision == "bf16") if folded else asked
    x_BCHW = torch.rand(ASKED, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    label_B = torch.arange(ASKED)
    loss_gradient(network, runtime, x_BCHW, label_B)
    started = time.perf_counter()
    for _ in range(3):
        loss_gradient(network, runtime, x_BCHW, label_B)
    return 3 * ASKED / (time.perf_counter() - started)


def config_of(**values: Any) -> NoiseConfig:
    """A search without dropout, that never stops by itself unless told to."""
    from pipeline.config import NoiseConfig

    return NoiseConfig.model_validate(
        {"arm": "error-min", "rounds": 1, "batch": 32, "dropout": 0.0, "stop_error": 0.0, "lr": 0.02} | values
    )


def surrogate_of(config: NoiseConfig, faces: FaceSet, runtime: Runtime | None = None) -> torch.nn.Module:
    """The surrogate of `config.seed`; on the runtime's device in channels_last, or where it is None plain and on the CPU."""
    import torch

    from pipeline.models.recognisers import make_recogniser

    classes = int(faces.label.max()) + 1
    made = make_recogniser(
        classes=classes, input_size=config.input_size, dropout=config.dropout, normalise=config.normalise, seed=config.seed
    )
    return made if runtime is None else made.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


def fast(config: NoiseConfig, faces: FaceSet, runtime: Runtime, *, protected: int) -> float:
    """Seconds of our search; `RuntimeError` if it was to converge and did not."""
    import numpy as np

    from pipeline.noise.error_min import search_noise

    surrogate = surrogate_of(config, faces, runtime)
    row_N = np.where(faces.label < protected, faces.label, -1)
    started = time.perf_counter()
    found = search_noise(config, lambda _: surrogate, faces, row_N, rows=protected, runtime=runtime, report=lambda _: None)
    seconds = time.perf_counter() - started
    if config.stop_error > 0 and not found.converged:
        raise RuntimeError(f"our search did not converge in {found.rounds} rounds (seed {config.seed}, error {found.error:.2f})")
    return seconds


def plain(config: NoiseConfig, faces: FaceSet, *, protected: int, batch: int) -> float:
    """Seconds of the plain reference, `batch` photos at a time; `RuntimeError` if it was to converge and did not."""
    import numpy as np

    from tests.noise.reference import reference_search

    surrogate, photos = surrogate_of(config, faces), faces.crops(np.arange(len(faces)))
    started = time.perf_counter()
    _, errors = reference_search(config, surrogate, photos, faces.label, protected, apart=True, batch=batch)
    seconds = time.perf_counter() - started
    if config.stop_error > 0 and errors[-1] >= config.stop_error:
        raise RuntimeError(f"the plain search did not converge in {len(errors)} rounds (seed {config.seed}, error {errors[-1]:.2f})")
    return seconds


def search_pair(
    input_size: int,
    *,
    identities: int = SIZE["identities"],
    photos: int = SIZE["photos"],
    batches: int = SIZE["batches"],
    plain_batch: int = 1,
):
    """A `measure`: images a second of one round, photos of surrogate batches and photos of the noise pass counted alike.

    Args:
        plain_batch: photos that the plain side looks at at a time.
    """

    def rate(ours: bool) -> float:
        from benchmarks.crops import block_crops

        runtime, faces = one_thread(), block_crops(identities=identities, photos=photos)
        config = config_of(batches=batches, input_size=input_size)
        images = batches * min(config.batch, len(faces)) + len(faces)
        if ours:
            return images / fast(config, faces, runtime, protected=identities)
        return images / plain(config, faces, protected=identities, batch=plain_batch)

    return paired(partial(rate, True), partial(rate, False))


def round_pair(precision: str, *, identities: int = 150, protected: int = 50, photos: int = 16, batches: int = 30, input_size: int = 75):
    """A `measure`: seconds of one round of ours against those of its arithmetic at the rate of the matrix product."""
    from benchmarks.ceilings import matmul_rate
    from benchmarks.training import asking_flops, step_flops

    def ours() -> float:
        from benchmarks.crops import block_crops

        faces = block_crops(identities=identities, photos=photos)
        config = config_of(batches=batches, input_size=input_size, step=4.0, smooth=3.0)
        return fast(config, faces, one_thread(), protected=protected)

    def at_the_ceiling() -> float:
        trained = batches * min(BATCH, identities * photos) * step_flops(input_size, classes=identities)
        asked = protected * photos * asking_flops(input_size, gradient=True, classes=identities)
        return (trained + asked) / (matmul_rate(precision, 1) * 1e12)

    return paired(ours, at_the_ceiling, warm=False)


def converged_pair(*, stop_error: float = 0.1, plain_batch: int = 1, **values: Any):
    """A `measure`: seconds until the error is below `stop_error`, each pair from a seed of its own.

    Args:
        plain_batch: photos that the plain side looks at at a time.
    """
    size = CONVERGING | values
    identities, photos = size.pop("identities"), size.pop("photos")
    turns = itertools.count()

    def seconds(ours: bool, turn: int) -> float:
        from benchmarks.crops import face_crops

        runtime, faces = one_thread(), face_crops(identities=identities, photos=photos)
        config = config_of(stop_error=stop_error, seed=turn, **size)
        if ours:
            return fast(config, faces, runtime, protected=identities)
        return plain(config, faces, protected=identities, batch=plain_batch)

    def measure() -> Pair:
        turn = next(turns)
        if turn % 2:
            other = seconds(False, turn)
            return Pair(seconds(True, turn), other)
        return Pair(seconds(True, turn), seconds(False, turn))

    return measure
