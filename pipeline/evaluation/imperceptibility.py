"""How visible the change is, measured on what was decoded back from disk."""

from __future__ import annotations

from typing import Any

import numpy as np

Measures = dict[str, np.ndarray]
SIGMA, REACH = 1.5, 5  # px, of SSIM's window; pixels as near to the border have no full one, and scikit-image leaves them out


def change_of(original: np.ndarray, changed: np.ndarray) -> Measures:
    """Measure N pairs of uint8 images (N, H, W, 3), RGB.

    Returns:
        `linf` (N,) largest difference of a pixel in 1/255; `psnr_db` (N,), peak 255, 100 dB at most; `ssim` (N,), Gaussian window of
        11 px, sigma 1.5, mean over channels (Wang et al. 2004), by scikit-image.
    """
    assert original.shape == changed.shape and original.dtype == changed.dtype == np.uint8
    linf, psnr, ssim = [], [], []
    for before, after in zip(original, changed, strict=True):
        difference = before.astype(np.int16) - after
        linf.append(np.abs(difference).max())
        mse = (difference.astype(np.float64) ** 2).mean()
        psnr.append(min(100.0, 10 * np.log10(255**2 / max(mse, 1e-12))))
        ssim.append(similarity(before, after))
    return {"linf": np.array(linf, np.float64), "psnr_db": np.array(psnr, np.float64), "ssim": np.array(ssim, np.float64)}


def similarity(before: np.ndarray, after: np.ndarray) -> float:
    """SSIM of two pictures, uint8 (H, W, 3), both sides at least 11 px.

    Where nothing changed it is 1, so only the box around what did is measured: of a large photo the face.
    """
    from skimage.metrics import structural_similarity  # without torch: photos are measured in many small processes

    changed = (before != after).any(2)
    if not changed.any():
        return 1.0
    # A change is seen from as far as the window reaches, and there the window must lie within the box.
    rows, columns = (around(np.flatnonzero(changed.any(axis)), 2 * REACH, changed.shape[1 - axis]) for axis in (1, 0))
    inside: Any = structural_similarity(
        before[rows, columns].astype(np.float32),
        after[rows, columns].astype(np.float32),
        data_range=255.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=SIGMA,
        use_sample_covariance=False,
    )
    measured = (rows.stop - rows.start - 2 * REACH) * (columns.stop - columns.start - 2 * REACH)
    whole = (changed.shape[0] - 2 * REACH) * (changed.shape[1] - 2 * REACH)
    return 1.0 - (1.0 - float(inside)) * measured / whole


def around(places: np.ndarray, margin: int, length: int) -> slice:
    """From the first to the last of `places` (sorted), and `margin` beyond, within 0 … `length`."""
    return slice(max(0, int(places[0]) - margin), min(length, int(places[-1]) + 1 + margin))


def summarise(measures: Measures) -> dict[str, float]:
    """The largest linf (1/255), and the means of PSNR (dB) and SSIM."""
    return {
        "linf": int(measures["linf"].max()),
        "psnr_db": round(float(measures["psnr_db"].mean()), 2),
        "ssim": round(float(measures["ssim"].mean()), 4),
    }
