"""Noise against networks that stay as they are: surrogates that a run has trained on the clean photos, and recognisers that exist.

An arm goes down the losses of all its networks at once (`descent.py`). `cloak-error-min` does so over an error-minimizing pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.artifacts import read_json, sha256_of
from pipeline.config import NoiseConfig
from pipeline.errors import StageError
from pipeline.models.recognisers import for_inference, load_trained
from pipeline.noise.arms import ARMS, SURROGATES, Arm
from pipeline.noise.cloak import leave
from pipeline.noise.descent import Objective, descend
from pipeline.noise.error_max import lower_certainty
from pipeline.noise.error_min import SearchResult, pass_batch
from pipeline.noise.fawkes import distant_identity, feature_cloak, mean_embeddings
from pipeline.noise.known import load_known
from pipeline.noise.searched import TABLES, check_memory, rows_of, search, search_key
from pipeline.noise.table import add_noise, quantise
from pipeline.noise.tap import look_like, next_identity
from pipeline.runtime import Runtime, hash_seed, say
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.faces import FaceSet, face_set, prefetched
from pipeline.training.loop import predict, share_in_batches
from pipeline.training.stage import read_history

CANDIDATES = 20  # Fawkes draws a few identities and takes the most distant one


class People(NamedTuple):
    """Those whose photos are to change, and those whom networks know.

    Attributes:
        protected: labels, int64. seen: the training photos of everybody who is trained on. classes: how many labels there are.
    """

    protected: np.ndarray
    seen: FaceSet
    classes: int


def against_networks(
    config: NoiseConfig,
    arm: Arm,
    table: Any,
    names: tuple[str, ...],
    split: Path,
    aligned: Path,
    run: Path,
    output: Path,
    runtime: Runtime,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Noise of `names` against an arm's surrogates and `config.against`: float32 (K, 3, 112, 112) in 1/255; and what `noise.json` says of
    how it was made, the seconds before a kill among it.

    Where there is a pattern beneath, the noise is made for photos that carry it, and is returned as the sum of both.

    Raises:
        StageError: a surrogate is not trained, a file of a recogniser is missing or damaged, or the noise does not fit the memory.
    """
    check_memory(len(names), arm, runtime, tables=TABLES + (config.step_momentum > 0))
    trained = [trained_surrogate(run, name, config.arm) for name in arm.surrogates]
    pattern = None if config.beneath is None else pattern_beneath(config.beneath, table, split, aligned, output, runtime)
    classes = int(table["label"].max()) + 1  # of all who are trained on: the surrogates have an output for each, and learned those here
    table = table[table["role"].isin(("protected", "auxiliary"))]
    carrying = table[(table["role"] == "protected") & ((table["part"] == "train") | arm.published)]
    assert all(facts["classes"] == classes for facts in trained), (trained, classes)
    learned = [{"model": facts["model"], "names": names_protected(run / name)} for name, facts in zip(arm.surrogates, trained, strict=True)]
    people = People(np.unique(carrying["label"].to_numpy()), face_set(table[table["part"] == "train"], aligned), classes)
    objectives, known = against_surrogates(config, arm, trained, people, run, runtime), against_known(config, arm, people, runtime)
    # Beside networks that learned these people one that exists is asked a pass: each time all of them, they outweigh those.
    objectives, in_turn = (objectives, known) if objectives else (known, [])
    titles = [f"a clean {facts['model']}" for facts in trained] + [Path(path).name for path in config.against]
    key = search_key(config, arm, split) + "".join(facts["weights_sha256"] for facts in trained)
    faces, row_N, epsilon, under = face_set(carrying, aligned), rows_of(carrying, arm, names), config.epsilon, None
    if pattern is not None and config.beneath is not None:
        owners = tuple(sorted(carrying["identity"].unique()))
        under = quantise(pattern.delta, config.beneath.epsilon)[rows_of(carrying, ARMS[config.beneath.arm], owners)]
        every = np.arange(len(faces))
        faces = FaceSet((add_noise(faces.crops(every), under),), np.zeros_like(every), every, faces.label)
        epsilon, key = epsilon - config.beneath.epsilon, key + sha256_of(under.tobytes())
    say(f"{config.arm}: {config.steps} steps against {', '.join(titles)} on {len(faces)} photos")

    def report(number: int, loss: float) -> None:
        say(f"{config.arm}: step {number} of {config.steps}: objective {loss:.3f}")

    found, seconds = descend(
        objectives,
        faces,
        row_N,
        rows=len(names),
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
        in_turn=in_turn,
        checkpoint=output / "checkpoint.pt",
        key=key,
    )
    if under is not None:
        found[row_N] = quantise(found, epsilon)[row_N] + under.astype(np.float32)  # each rounded by itself, or the sum could pass epsilon
    facts: dict[str, Any] = {"steps": config.steps, "seconds": seconds}
    if learned:
        facts["surrogates"] = learned
    if config.against:
        digests = zip(config.against, config.against_sha256, strict=True)
        facts["against"] = [{"name": Path(path).name, "sha256": digest} for path, digest in digests]
    if pattern is not None and config.beneath is not None:
        facts["seconds"] += pattern.seconds
        facts |= {"beneath": {"method": config.beneath.arm, "epsilon": config.beneath.epsilon}, **pattern.facts()}
    return found, facts


def against_surrogates(
    config: NoiseConfig, arm: Arm, trained: Sequence[dict[str, Any]], people: People, run: Path, runtime: Runtime
) -> list[Objective]:
    """An objective for each of the arm's surrogates; `trained` is what the train stage says of them."""
    device = runtime.torch_device()
    models = [
        network_of(run / name / "model", facts, runtime, model=SURROGATES[name])
        for name, facts in zip(arm.surrogates, trained, strict=True)
    ]
    if arm.method == "error-max":
        return [lower_certainty(model) for model in models]
    if arm.method == "fawkes":
        means = [mean_embeddings(predict(model, people.seen, runtime)[1], people.seen.label, people.classes) for model in models]
        whom = distant_identity(means, people.protected, candidates=CANDIDATES, seed=config.seed)
        return [feature_cloak(model, torch.from_numpy(mean[whom]).to(device)) for model, mean in zip(models, means, strict=True)]
    following = next_identity(people.protected, people.seen.label, people.classes, config.seed)
    return [look_like(model, torch.from_numpy(following).to(device)) for model in models]


def against_known(config: NoiseConfig, arm: Arm, people: People, runtime: Runtime) -> list[Objective]:
    """An objective for each recogniser that exists, of `config.against`.

    Where there are surrogates, too, all networks are shown the same person: the next of the protected.
    """
    device = runtime.torch_device()
    networks = [load_known(Path(path), input_size=config.input_size).to(device) for path in config.against]
    means = [mean_embeddings(embeddings_by(network, people.seen, runtime), people.seen.label, people.classes) for network in networks]
    if not networks:
        return []
    if arm.surrogates:
        whom = next_identity(people.protected, people.seen.label, people.classes, config.seed)
    else:
        whom = distant_identity(means, people.protected, candidates=CANDIDATES, seed=config.seed)
    own = [torch.from_numpy(mean).to(device) for mean in means]
    return [leave(network, mean, mean[runtime.tensor(whom)]) for network, mean in zip(networks, own, strict=True)]


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


def names_protected(surrogate: Path) -> float:
    """The share of the protected people's clean test photos that the network trained in the folder `surrogate` names, 0 to 1."""
    return round(read_history(surrogate / "model" / "history.jsonl")[-1]["protected"], 4)


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


@torch.no_grad()
def embeddings_by(network: Any, faces: FaceSet, runtime: Runtime) -> np.ndarray:
    """What a recogniser that exists makes of clean crops: L2-normalised float32 (N, D); each rank asks about a share, all get the whole."""
    parts, found = share_in_batches(len(faces), runtime), []
    # A rank without a share asks about one photo, too, to know how wide embeddings are.
    for x_BCHW, _ in prefetched(faces, parts or [np.arange(1)], runtime.torch_device()):
        with runtime.autocast():
            found.append(network.embed(x_BCHW))
    return runtime.ranks.rows(torch.cat(found)[: sum(map(len, parts))], len(faces)).cpu().numpy()
