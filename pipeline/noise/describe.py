"""What `make protect` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe(output: Path, measures: dict[str, Any]) -> str:
    """Where the protected photos are and how visible the change is, for a person."""
    crops = measures["crops"]
    visible = f"crops PSNR {crops['psnr_db']:.1f} dB, SSIM {crops['ssim']:.3f}"
    if "photos" not in measures:
        return f"protected crops only, for comparison: {output}\nlargest change of a pixel {crops['linf']:.0f}/255; {visible}"
    photos = measures["photos"]
    return (
        f"{photos['count']} protected photos: {output / 'photos'}\n"
        f"largest change of a pixel {photos['linf']:.0f}/255; photos PSNR {photos['psnr_db']:.1f} dB, SSIM {photos['ssim']:.3f}; "
        f"{visible}\n"
        f"noise found again when a protected photo is cropped anew: correlation {photos['recrop_correlation']['mean']:.2f} "
        f"(least {photos['recrop_correlation']['min']:.2f})"
    )
