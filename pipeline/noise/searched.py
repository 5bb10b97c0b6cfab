"""Noise that a network is needed for: searched with a surrogate that learns, or against networks that have learned.

Apart from the stage, because a drawn pattern needs neither torch nor the seconds that importing it takes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import read_json, sha256_of, sha256_of_files
from pipeline.config import NoiseConfig, dump
from pipeline.errors import StageError
from pipeline.faces.geometry import CROP_SIZE
from pipeline.models.recognisers import for_inference, load_trained, make_recogniser
from pipeline.noise.arms import ARMS, SURROGATES, Arm
from pipeline.noise.cloak import leave
from pipeline.noise.descent import Objective, descend
from pipeline.noise.error_max import lower_certainty
from pipeline.noise.error_min import SearchResult, pass_batch, search_noise
from pipeline.noise.fawkes import distant_identity, feature_cloak, mean_embeddings
from pipeline.noise.known import load_known
from pipeline.noise.table import add_noise, quantise, row_names
from pipeline.noise.tap import look_like, next_identity
from pipeline.runtime import Runtime, free_memory, hash_seed, say
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import FaceSet, face_set, prefetched
from pipeline.training.keys import code_in
from pipeline.training.loop import predict, share_in_batches
from pipeline.training.stage import read_history

TABLES = 2  # float32 tables of noise at the least: the noise, and the directions it is to go; with momentum also the direction so far
CANDIDATES = 20  # Fawkes draws a few identities and takes the most distant one


def against_surrogates(
    config: NoiseConfig,
    arm: Arm,
    table: Any,
    names: tuple[str, ...],
    split: Path,
    aligned: Path,
    run: Path,
    output: Path,
    runtime: Runtime,
) -> tuple[np.ndarray, float]:
    """Noise of an adversarial arm against its trained clean surrogates: float32 (K, 3, 112, 112) in 1/255; and the seconds that it took,
    before a kill, too.
    """
    check_memory(len(names), arm, runtime, tables=TABLES + (config.step_momentum > 0))
    device = runtime.torch_device()
    trained = [trained_surrogate(run, name, config.arm) for name in arm.surrogates]
    classes = trained[0]["classes"]  # all have learned the same people
    models = [
        network_of(run / name / "model", facts, runtime, model=SURROGATES[name])
        for name, facts in zip(arm.surrogates, trained, strict=True)
    ]
    seen = table[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train")]
    carrying = table[(table["role"] == "protected") & ((table["part"] == "train") | arm.published)]
    protected = np.unique(carrying["label"].to_numpy())
    if arm.method == "error-max":
        objectives = [lower_certainty(model) for model in models]
    elif arm.method == "tap":
        following = next_identity(protected, seen["label"].to_numpy(), classes, config.seed)
        objectives = [look_like(model, torch.from_numpy(following).to(device)) for model in models]
    else:
        assert arm.method == "fawkes", arm
        everyone = face_set(seen, aligned)
        means = [mean_embeddings(predict(model, everyone, runtime)[1], everyone.label, classes) for model in models]
        whom = distant_identity(means, protected, candidates=CANDIDATES, seed=config.seed)
        objectives = [feature_cloak(model, torch.from_numpy(mean[whom]).to(device)) for model, mean in zip(models, means, strict=True)]
    row_N = rows_of(carrying, arm, names)
    faces, against = face_set(carrying, aligned), " and ".join(f"a clean {facts['model']}" for facts in trained)
    key, kept = search_key(config, arm, split) + "".join(facts["weights_sha256"] for facts in trained), output / "checkpoint.pt"
    return lowered(objectives, faces, row_N, config, runtime, against, rows=len(names), epsilon=config.epsilon, checkpoint=kept, key=key)


def trained_surrogate(run: Path, name: str, arm: str) -> dict[str, Any]:
    """What the train stage says of a surrogate; `StageError` where it is not trained."""
    if not (run / name / "model" / "train.json").exists():
        raise StageError(f"{run / name}: has no trained network, against which {arm} noise is made: train the arm `{name}` first")
    return read_json(run / name / "model" / "train.json")


def network_of(folder: Path, facts: dict[str, Any], runtime: Runtime, *, model: str) -> Any:
    """The trained network in `folder`, frozen and quick to ask; `facts` is what the train stage says of it."""
    seen = {key: facts[key] for key in ("classes", "input_size", "normalise")}
    trained = load_trained(folder / "weights.safetensors", **seen, model=model)
    trained = trained.to(runtime.torch_device(), memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    return for_inference(trained, bf16=runtime.precision == "bf16")


def facts_of_surrogates(arm: Arm, run: Path) -> dict[str, Any]:
    """What `noise.json` says of the networks that an arm's noise was made against: each one's kind, and the share of the protected people's
    clean test photos that it names.
    """
    folders = [run / name / "model" for name in arm.surrogates]
    kinds = [read_json(folder / "train.json")["model"] for folder in folders]
    shares = [read_history(folder / "history.jsonl")[-1]["protected"] for folder in folders]
    return {"surrogates": [{"model": kind, "names": round(share, 4)} for kind, share in zip(kinds, shares, strict=True)]}


def against_known(
    config: NoiseConfig, arm: Arm, table: Any, names: tuple[str, ...], split: Path, aligned: Path, output: Path, runtime: Runtime
) -> tuple[np.ndarray, SearchResult | None, float]:
    """A cloak of the photos `names` against `config.against`: float32 (K, 3, 112, 112) in 1/255; the search for what is beneath it; and
    the seconds that both took, before a kill, too.

    Where there is a pattern beneath, the cloak is made for photos that carry it, and the noise is the sum of both.
    """
    check_memory(len(names), arm, runtime)
    device = runtime.torch_device()
    pattern = None if config.beneath is None else pattern_beneath(config.beneath, table, split, aligned, output, runtime)
    table = table[table["role"].isin(("protected", "auxiliary"))]
    seen, carrying = table[table["part"] == "train"], table[table["role"] == "protected"]
    protected, classes = np.unique(carrying["label"].to_numpy()), int(table["label"].max()) + 1
    everyone = face_set(seen, aligned)
    networks = [load_known(Path(path), input_size=config.input_size).to(device) for path in config.against]
    means = [mean_embeddings(embeddings_by(network, everyone, runtime), everyone.label, classes) for network in networks]
    whom = distant_identity(means, protected, candidates=CANDIDATES, seed=config.seed)
    own = [torch.from_numpy(mean).to(device) for mean in means]
    objectives = [leave(network, mean, mean[runtime.tensor(whom)]) for network, mean in zip(networks, own, strict=True)]
    against = ", ".join(Path(path).name for path in config.against)
    key = search_key(config, arm, split)
    faces, row_N, epsilon, under = face_set(carrying, aligned), rows_of(carrying, arm, names), config.epsilon, None
    if pattern is not None and config.beneath is not None:
        people = tuple(sorted(carrying["identity"].unique()))
        under = quantise(pattern.delta, config.beneath.epsilon)[rows_of(carrying, ARMS[config.beneath.arm], people)]
        every = np.arange(len(faces))
        faces = FaceSet((add_noise(faces.crops(every), under),), np.zeros_like(every), every, faces.label)
        epsilon, key = epsilon - config.beneath.epsilon, key + sha256_of(under.tobytes())
    cloak, seconds = lowered(
        objectives, faces, row_N, config, runtime, against, rows=len(names), epsilon=epsilon, checkpoint=output / "checkpoint.pt", key=key
    )
    if under is not None:
        cloak[row_N] = quantise(cloak, epsilon)[row_N] + under.astype(np.float32)  # each rounded by itself, or the sum could pass epsilon
    return cloak, pattern, seconds + (0.0 if pattern is None else pattern.seconds)


def pattern_beneath(config: NoiseConfig, table: Any, split: Path, aligned: Path, output: Path, runtime: Runtime) -> SearchResult:
    """The error-minimizing pattern of each protected identity, in the order of their names: searched, or as an earlier call left it.

    A cloak over it takes much longer than the search, and may be killed in its middle.
    """
    arm = ARMS[config.arm]
    names = tuple(sorted(table.loc[table["role"] == "protected", "identity"].unique()))
    found = output / "beneath.pt"
    key = search_key(config, arm, split)
    state = load_checkpoint(found, key, torch.device("cpu"), found="the pattern beneath the cloak is known already")
    if state is None:
        result = search(config, arm, table, names, split, aligned, output / "beneath-checkpoint.pt", runtime)
        if runtime.ranks.first:
            save_checkpoint(found, key, vars(result) | {"delta": torch.from_numpy(result.delta)})
        return result
    return SearchResult(**state | {"delta": state["delta"].numpy()})


def rows_of(carrying: Any, arm: Arm, names: tuple[str, ...]) -> np.ndarray:
    """The place of each photo's row among `names`, int64 (N,)."""
    place = {name: code for code, name in enumerate(names)}
    return row_names(carrying, arm.per).map(place).to_numpy(np.int64)


def lowered(
    objectives: list[Objective],
    faces: FaceSet,
    row_N: np.ndarray,
    config: NoiseConfig,
    runtime: Runtime,
    against: str,
    *,
    rows: int,
    epsilon: int,
    **kept: Any,
) -> tuple[np.ndarray, float]:
    """The descent of `objectives`, told as it goes; see `descend`, for which `kept` is checkpoint and key."""
    say(f"{config.arm}: {config.steps} steps against {against} on {len(faces)} photos")

    def report(number: int, loss: float) -> None:
        say(f"{config.arm}: step {number} of {config.steps}: objective {loss:.3f}")

    return descend(
        objectives,
        faces,
        row_N,
        rows=rows,
        epsilon=epsilon,
        steps=config.steps,
        travel=config.travel,
        batch=pass_batch(config, runtime.torch_device(), len(faces)),
        runtime=runtime,
        seed=hash_seed(config.seed, 0xADE),
        report=report,
        transforms=config.transforms,
        untouched=config.untouched,
        momentum=config.step_momentum,
        **kept,
    )


@torch.no_grad()
def embeddings_by(network: Any, faces: FaceSet, runtime: Runtime) -> np.ndarray:
    """What a recogniser that exists makes of clean crops: L2-normalised float32 (N, D); each rank asks about a share, all get the whole."""
    parts, found = share_in_batches(len(faces), runtime), []
    # A rank without a share asks about one photo, too, to know how wide embeddings are.
    for x_BCHW, _ in prefetched(faces, parts or [np.arange(1)], runtime.torch_device()):
        with runtime.autocast():
            found.append(network.embed(x_BCHW))
    return runtime.ranks.rows(torch.cat(found)[: sum(map(len, parts))], len(faces)).cpu().numpy()


def search(
    config: NoiseConfig, arm: Arm, table: Any, names: tuple[str, ...], split: Path, aligned: Path, checkpoint: Path, runtime: Runtime
) -> SearchResult:
    """Error-minimizing noise of `names` on the training photos of protected and auxiliary identities."""
    table = table[table["role"].isin(("protected", "auxiliary")) & (table["part"] == "train")]
    protected = sorted(table.loc[table["role"] == "protected", "identity"].unique())
    identities = protected + sorted(set(table["identity"]) - set(protected))
    labels = table["identity"].map({name: code for code, name in enumerate(identities)})
    faces = face_set(table.assign(label=labels), aligned)
    keys = row_names(table, arm.per)
    carries = (table["role"] == "protected") | (config.search == "all")
    carrying = [*names, *sorted(set(keys[carries]) - set(names))]
    check_memory(len(carrying), arm, runtime)
    place = {name: code for code, name in enumerate(carrying)}
    row_N = keys.map(place).where(carries, -1).to_numpy(np.int64)
    weights = None if config.weights is None else Path(config.weights)

    def make_surrogate(number: int) -> torch.nn.Module:
        model = make_recogniser(
            classes=len(identities),
            input_size=config.input_size,
            dropout=config.dropout,
            normalise=config.normalise,
            seed=surrogate_seed(config.seed, number),
            weights=weights,
        )
        return model.to(runtime.torch_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]

    say(
        f"{config.arm}: searching {len(carrying)} patterns for {len(protected)} identities on {int((row_N >= 0).sum())} photos, "
        f"{len(identities)} classes, {config.surrogates} surrogate(s) of at most {config.rounds} rounds"
    )

    whose = "other people's photos" if config.binding else "noisy photos"

    def report(record: dict[str, float]) -> None:
        say(
            f"{config.arm}: round {record['round']:.0f} of at most {config.rounds * config.surrogates}: "
            f"surrogate loss {record['loss']:.3f}, error on {whose} {record['error']:.1%}, mean |delta| {record['mean_abs']:.1f}/255"
        )

    result = search_noise(
        config,
        make_surrogate,
        faces,
        row_N,
        rows=len(carrying),
        runtime=runtime,
        report=report,
        checkpoint=checkpoint,
        key=search_key(config, arm, split),
    )
    return replace(result, delta=result.delta[: len(names)])


def search_key(config: NoiseConfig, arm: Arm, split: Path) -> str:
    """What a search that was killed goes on by: its config, the photos that were split, and its code."""
    return dump(config) + sha256_of_files([split, split.with_suffix(".json"), *code_of_search(arm.method)])


def code_of_search(method: str) -> list[Path]:
    """The source files by which noise of `method` is searched: a search that was killed goes on by the same only."""
    room, training = Path(__file__).parent, ("at_hand.py", "faces.py", "learner.py", "optimiser.py", "replayed.py", "shared.py")
    names = {
        "error-min": ("error_min.py", "asked.py"),
        "error-max": ("descent.py", "error_max.py"),
        "tap": ("descent.py", "tap.py"),
        "fawkes": ("descent.py", "fawkes.py"),
        "cloak": ("descent.py", "cloak.py", "fawkes.py", "known.py"),
    }[method]
    own = [*(room / name for name in (*names, "transforms.py", "searched.py")), room.parent / "countermeasures" / "compression.py"]
    return [*own, *code_in("models"), *(room.parent / "training" / name for name in training)]


def check_memory(rows: int, arm: Arm, runtime: Runtime, *, tables: int = TABLES) -> None:
    """Noise of every photo of WebFace is 59 GB of float32: said before hours of work, rather than killed by the system in their middle.

    Raises:
        StageError: so many `tables` do not fit what the device has free.
    """
    needed, free = tables * rows * 3 * CROP_SIZE * CROP_SIZE * 4, free_memory(runtime.device)
    if free is not None and needed > free:
        raise StageError(
            f"noise of {rows} patterns, one per {arm.per}, takes at least {needed / 2**30:.1f} GiB of memory; "
            f"{free / 2**30:.1f} GiB are free on {runtime.device}: protect fewer people with IDENTITIES=, or with SETTING=partial"
        )


def surrogate_seed(seed: int, number: int) -> int:
    """The seed of surrogate `number`: never the downstream model's, whose initial weights the defender cannot know."""
    return hash_seed(seed, 0x5066, number)
