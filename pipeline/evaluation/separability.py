"""What a linear model sees: can a scraper tell protected photos from clean ones, and is the noise a shortcut to the name?

Noise that makes photos unlearnable is as a rule linearly separable (Yu et al., *Availability Attacks Create Shortcuts*, KDD 2022;
Sandoval-Segura et al., *What Can We Learn from Unlearnable Datasets?*, NeurIPS 2023). The first question is about the noise's traces in
people never seen, the second about the noise itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FOLDS = 5
BLOCK = 8  # JPEG's own block, whose quantisation is what noise changes first
CHUNK = 256  # crops in memory as floats
RIDGE = 0.1  # of the Gram matrix's mean diagonal: more than enough for a solution, little enough to name faces


def check_pairs(clean: np.ndarray, protected: np.ndarray, identity: np.ndarray) -> None:
    """`ValueError` unless `protected` are the crops `clean` changed, uint8 (N, H, W, 3), and there is an identity for each."""
    if clean.dtype != np.uint8 or clean.ndim != 4 or clean.shape[3] != 3 or min(clean.shape[1:3]) < 2 * BLOCK:
        raise ValueError(f"crops are {clean.dtype} {clean.shape}, uint8 N×H×W×3 of at least {2 * BLOCK} px is needed")
    if protected.dtype != clean.dtype or protected.shape != clean.shape or identity.shape != (len(clean),):
        raise ValueError(f"clean {clean.shape}, protected {protected.dtype} {protected.shape} and identity {identity.shape} do not match")


def frequency_features(crops: np.ndarray) -> np.ndarray:
    """How much there is of each spatial frequency: log mean |DCT coefficient| over the crop's 8×8 blocks, constant part left out.

    No place and no phase is kept, so it is told what kind of noise is there but neither whose noise nor whose face. Blocks are laid from
    the corner and from half a block off it: noise that is itself in blocks of 8 px has its edges between those of one grid.

    Args:
        crops: uint8 (N, H, W, 3), RGB; what is left over of the last blocks is not looked at.

    Returns:
        float32 (N, 378): of each grid 63 frequencies of each of Y, Cb and Cr.
    """
    return np.concatenate([features_of_grid(crops[:, off:, off:]) for off in (0, BLOCK // 2)], axis=1)


def features_of_grid(crops: np.ndarray) -> np.ndarray:
    """`frequency_features` of the grid that begins in the corner: float32 (N, 189)."""
    from scipy.fft import dctn

    # JPEG's colours (ITU-T T.871), without the offset
    to_ycc = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32).T
    down, across = (side // BLOCK for side in crops.shape[1:3])
    parts = [np.empty((0, 3 * (BLOCK**2 - 1)), np.float32)]
    for start in range(0, len(crops), CHUNK):
        x = crops[start : start + CHUNK, : down * BLOCK, : across * BLOCK].astype(np.float32) @ to_ycc
        blocks = x.reshape(len(x), down, BLOCK, across, BLOCK, 3)
        size = np.abs(np.asarray(dctn(blocks, axes=(2, 4), norm="ortho"))).mean((1, 3))  # N, 8, 8, 3
        parts.append(np.log(size.reshape(len(x), BLOCK**2, 3)[:, 1:] + 0.1).reshape(len(x), -1).astype(np.float32))
    return np.concatenate(parts)


def folds_by_identity(identity: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each photo, int64 (N,): identities are dealt to folds by seed, so nobody is in two."""
    _, code = np.unique(identity, return_inverse=True)
    return (np.random.default_rng((seed, 0x5E9)).permutation(code.max() + 1) % folds)[code]


def linear_separability(crops_clean: np.ndarray, crops_protected: np.ndarray, identity: np.ndarray, seed: int) -> dict[str, Any] | None:
    """Whether a linear classifier tells protected photos from clean ones, of people whose photos it was not fitted on.

    Logistic regression on `frequency_features`, both versions of each photo, cross-validated by identity (nobody on both sides).

    Args:
        crops_clean, crops_protected: uint8 (N, H, W, 3), RGB, row by row the same photos. identity: (N,) int or str.

    Returns:
        {"auc" (mean over the folds; 0.5: cannot tell, 1: always can), "identities"}; None with fewer than two identities.

    Raises:
        ValueError: the arrays do not match.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_pairs(crops_clean, crops_protected, identity)
    identities = len(np.unique(identity))
    if identities < 2:
        return None
    folds = min(FOLDS, identities)
    fold = np.tile(folds_by_identity(identity, folds, seed), 2)
    features = np.concatenate([frequency_features(crops_clean), frequency_features(crops_protected)])
    changed = np.repeat([False, True], len(identity))
    areas = []
    for one in range(folds):
        tested = fold == one
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(features[~tested], changed[~tested])
        areas.append(float(roc_auc_score(changed[tested], model.decision_function(features[tested]))))
    return {"auc": round(float(np.mean(areas)), 4), "identities": identities}


def linear_class_accuracy(
    crops_clean: np.ndarray, crops_protected: np.ndarray, identity: np.ndarray, seed: int, *, side: int = 32
) -> dict[str, Any] | None:
    """How often a linear model names the identity from pixels alone, of clean and of protected crops: the noise's shortcut is the rise.

    Ridge regression on one-hot identities, cross-validated by photo: each version is fitted and tested on photos of its own kind.

    Args:
        crops_clean, crops_protected: uint8 (N, H, W, 3), RGB, row by row the same photos. identity: (N,) int or str; identities with
            fewer than five photos are left out.
        side: crops are averaged down to this, px; what is finer than that, noise too, is lost.

    Returns:
        {"clean", "protected" (accuracies), "chance" (share of the identity with most photos), "identities", "photos", "side"}; None with
        fewer than two identities.

    Raises:
        ValueError: the arrays do not match.
    """
    check_pairs(crops_clean, crops_protected, identity)
    names, code = np.unique(identity, return_inverse=True)
    kept = np.flatnonzero(np.bincount(code, minlength=len(names))[code] >= FOLDS)
    _, code = np.unique(code[kept], return_inverse=True)
    if len(kept) == 0 or code.max() == 0:
        return None
    fold = folds_by_photo(code, seed)
    accuracy = {
        version: round(float((name_by_ridge(pixels(crops, kept, side), code, fold) == code).mean()), 4)
        for version, crops in (("clean", crops_clean), ("protected", crops_protected))
    }
    chance = round(float(np.bincount(code).max() / len(code)), 4)
    return {**accuracy, "chance": chance, "identities": int(code.max()) + 1, "photos": len(code), "side": side}


def folds_by_photo(code: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each photo, int64 (N,): each identity's photos are dealt evenly to all folds, by seed."""
    generator = np.random.default_rng((seed, 0xF01D))
    fold = np.empty(len(code), np.int64)
    for one in np.unique(code):
        here = np.flatnonzero(code == one)
        fold[here] = (generator.permutation(len(here)) + generator.integers(FOLDS)) % FOLDS
    return fold


def pixels(crops: np.ndarray, kept: np.ndarray, side: int) -> np.ndarray:
    """Crops at `kept` averaged down to `side` px, as rows of pixels: float32 (len(kept), side² · 3), 0..1."""
    import cv2

    small = [cv2.resize(crops[row], (side, side), interpolation=cv2.INTER_AREA) if crops.shape[1] != side else crops[row] for row in kept]
    return np.stack(small).reshape(len(kept), -1).astype(np.float32) / 255


def name_by_ridge(x: np.ndarray, code: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Each photo's identity by ridge regression fitted on the other folds: int64 (N,).

    Solved through the Gram matrix (N, N), computed once for all folds: there are more pixels than photos.
    """
    x = x - x.mean(0)
    gram = (x @ x.T).astype(np.float64)
    found = np.empty(len(code), np.int64)
    for one in np.unique(fold):
        test, train = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        target = np.eye(code.max() + 1)[code[train]]
        mean = target.mean(0)
        inner = gram[np.ix_(train, train)]
        # Centre on the training photos alone: the tested ones may not lend their mean.
        across = gram[np.ix_(test, train)]
        row = inner.mean(0)
        across = across - across.mean(1, keepdims=True) - row + row.mean()
        inner = inner - row - row[:, None] + row.mean()
        weight = np.linalg.solve(inner + RIDGE * np.trace(inner) / len(inner) * np.eye(len(inner)), target - mean)
        found[test] = (across @ weight + mean).argmax(1)
    return found
