"""How visible the change is, measured on what was decoded back from disk."""

from __future__ import annotations

import numpy as np

Measures = dict[str, np.ndarray]


def change_of(original: np.ndarray, changed: np.ndarray) -> Measures:
    """Measure N pairs of uint8 images (N, H, W, 3), RGB.

    Returns:
        `linf` (N,) largest difference of a pixel in 1/255; `psnr_db` (N,), peak 255, 100 dB at most; `ssim` (N,), Gaussian window of
        11 px, sigma 1.5, mean over channels (Wang et al. 2004), by scikit-image.
    """
    from skimage.metrics import structural_similarity  # without torch: photos are measured in many small processes

    assert original.shape == changed.shape and original.dtype == changed.dtype == np.uint8
    linf, psnr, ssim = [], [], []
    for before, after in zip(original, changed, strict=True):
        difference = before.astype(np.int16) - after
        linf.append(np.abs(difference).max())
        mse = (difference.astype(np.float64) ** 2).mean()
        psnr.append(min(100.0, 10 * np.log10(255**2 / max(mse, 1e-12))))
        ssim.append(
            structural_similarity(
                before.astype(np.float32),
                after.astype(np.float32),
                data_range=255.0,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )
    return {"linf": np.array(linf, np.float64), "psnr_db": np.array(psnr, np.float64), "ssim": np.array(ssim, np.float64)}


def summarise(measures: Measures) -> dict[str, float]:
    """The largest linf (1/255), and the means of PSNR (dB) and SSIM."""
    return {
        "linf": int(measures["linf"].max()),
        "psnr_db": round(float(measures["psnr_db"].mean()), 2),
        "ssim": round(float(measures["ssim"].mean()), 4),
    }
