"""LFW's verification protocol: ten folds of pairs, the threshold chosen on nine and tested on the tenth.

Huang et al., *Labeled Faces in the Wild*, 2007, view 2; with outside training data, as everybody reports it since 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import read_table
from pipeline.errors import StageError
from pipeline.evaluation.verification import roc_measures
from pipeline.photos.lfw import Pair, read_pairs

if TYPE_CHECKING:
    from pipeline.models.recognisers import Recogniser
    from pipeline.runtime import Runtime

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 (B, 112, 112, 3), RGB → float32 (B, D)
MANIFEST_COLUMNS = ["photo", "shard", "row"]


def best_threshold(score: np.ndarray, same: np.ndarray) -> float:
    """The threshold with most right answers when `score > threshold` says "same"; of several, the middle one.

    Between two neighbouring scores any threshold says alike, so only the midpoints are tried, and one below and above all.
    """
    order = np.argsort(score, kind="stable")
    ranked, hits = score[order], same[order]
    # `right[i]`: the answers that are right when the lowest i pairs are called different.
    right = np.concatenate([[0], np.cumsum(~hits)]) + np.concatenate([np.cumsum(hits[::-1])[::-1], [0]])
    cut = np.concatenate([[ranked[0] - 1], (ranked[1:] + ranked[:-1]) / 2, [ranked[-1] + 1]])
    possible = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])  # equal scores cannot be told apart
    best = np.flatnonzero(possible & (right == right[possible].max()))
    return float(cut[best[len(best) // 2]])


def lfw_result(score: np.ndarray, same: np.ndarray, fold: np.ndarray) -> dict[str, Any] | None:
    """LFW's figures from the pairs' scores.

    Args:
        score: (P,) float, the higher the more alike; NaN where a pair could not be scored, such a pair is left out and counted.
        same: (P,) bool, whether the pair shows one person. fold: (P,) int, which fold the pair belongs to.

    Returns:
        {"accuracy" (mean over the folds), "standard_error" (of that mean, from the folds' standard deviation), "auc", "eer",
        "tar_at_far": {"0.01", "0.001"} (over all pairs; None with fewer than 1 / FAR different pairs), "pairs", "pairs_left_out"}.
        None where fewer than two folds have pairs or all scored pairs are of one kind.

    Raises:
        ValueError: the arrays differ in length.
    """
    if not score.shape == same.shape == fold.shape or score.ndim != 1:
        raise ValueError(f"score {score.shape}, same {same.shape} and fold {fold.shape} must be of one length")
    scored = np.isfinite(score)
    left_out = int((~scored).sum())
    score, same, fold = score[scored].astype(np.float64), same[scored].astype(bool), fold[scored]
    folds = np.unique(fold)
    if len(folds) < 2 or same.all() or not same.any():
        return None
    accuracies = []
    for one in folds:
        tested = fold == one
        threshold = best_threshold(score[~tested], same[~tested])
        accuracies.append(float(((score[tested] > threshold) == same[tested]).mean()))
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "standard_error": round(float(np.std(accuracies, ddof=1) / np.sqrt(len(folds))), 4),
        **roc_measures(score, same),
        "pairs": len(score),
        "pairs_left_out": left_out,
    }


def pair_rows(folds: list[list[Pair]], photos: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the photos of `pairs.txt` are in a list of photos, by file name without its suffix.

    Args:
        folds: as `read_pairs` gives them. photos: paths below a photo root, such as a manifest's column `photo`.

    Returns:
        (P, 2) int64, positions in `photos`, −1 for a photo that is not there; (P,) bool, whether the pair is of one person; (P,) int64,
        its fold.

    Raises:
        StageError: two photos have one name.
    """
    place: dict[str, int] = {}
    for position, photo in enumerate(photos):
        name = PurePosixPath(photo).stem
        if name in place:
            raise StageError(f"{photo}: {photos[place[name]]} has the same name; LFW names each photo <Name>_<number> once")
        place[name] = position
    pairs = [(number, pair) for number, fold in enumerate(folds) for pair in fold]
    rows = [[place.get(PurePosixPath(photo).stem, -1) for photo in (pair.first, pair.second)] for _, pair in pairs]
    same, fold = [pair.same for _, pair in pairs], [number for number, _ in pairs]
    return np.array(rows, np.int64).reshape(-1, 2), np.array(same, bool), np.array(fold, np.int64)


def embed_crops(crops: np.ndarray, embed: Embed) -> np.ndarray:
    """L2-normalised embeddings, float32 (N, D), of crops, uint8 (N, 112, 112, 3), RGB."""
    found = embed(crops)
    return (found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


def verify_lfw(pairs: Path, aligned: Path, embed: Embed) -> dict[str, Any] | None:
    """LFW's figures of one recogniser, by cosine similarity; each photo that a pair needs is embedded once.

    Args:
        pairs: LFW's `pairs.txt`. aligned: folder of the align stage's `manifest.parquet` and crops of LFW.
        embed: gives the embeddings of crops, see `embedder_of` and `pipeline.models.arcface_onnx.ArcFaceOnnx`.

    Returns:
        As `lfw_result`. Pairs with a photo that was not aligned (or is not in this subset of LFW) are left out and counted; faces that no
        detector finds are hard ones, so many pairs left out flatter the figures. Crops are embedded as they are: many papers add the
        mirrored crop's embedding.

    Raises:
        RequestError: `pairs.txt` is missing or of another form. StageError: the manifest or a shard is missing or damaged.
    """
    from pipeline.training.faces import embedded, face_set

    folds = read_pairs(pairs)
    manifest = read_table(aligned / "manifest.parquet", MANIFEST_COLUMNS)
    rows, same, fold = pair_rows(folds, list(manifest["photo"]))
    whole = (rows >= 0).all(1)
    score = np.full(len(rows), np.nan)
    if whole.any():
        needed = np.unique(rows[whole])
        faces = face_set(manifest.iloc[needed].assign(label=0), aligned)
        embedding = embedded(lambda crops: embed_crops(crops, embed), faces)
        first, second = np.searchsorted(needed, rows[whole]).T
        score[whole] = (embedding[first] * embedding[second]).sum(1)
    return lfw_result(score, same, fold)


def embedder_of(model: Recogniser, runtime: Runtime) -> Embed:
    """The embeddings of one of the project's own recognisers, in eval mode on its device: uint8 crops to float32 (B, 512)."""
    from pipeline.training.faces import FaceSet
    from pipeline.training.loop import predict

    def embed(crops: np.ndarray) -> np.ndarray:
        nothing = np.zeros(len(crops), np.int64)
        return predict(model, FaceSet((crops,), nothing, np.arange(len(crops)), nothing), runtime)[1]

    return embed
