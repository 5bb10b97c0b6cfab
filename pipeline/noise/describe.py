"""What `make protect` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe(output: Path, arm: str, measures: dict[str, Any]) -> str:
    """Where the protected photos of `arm` are, how visible the change is and what to do next, for a person."""
    crops = measures["crops"]
    following = f'next, with the same variables: make study ARMS="clean {arm} random" says how far that holds'
    visible = f"crops PSNR {crops['psnr_db']:.1f} dB, SSIM {crops['ssim']:.3f}"
    if "photos" not in measures:
        only = f"protected crops only, for comparison: {output}\nlargest change of a pixel {crops['linf']:.0f}/255; {visible}"
        return f"{only}\n{following}"
    photos = measures["photos"]
    return (
        f"{photos['count']} protected photos: {output / 'photos'}\n"
        f"largest change of a pixel {photos['linf']:.0f}/255; photos PSNR {photos['psnr_db']:.1f} dB, SSIM {photos['ssim']:.3f}; "
        f"{visible}: look at some before you publish\n"
        f"noise found again when a protected photo is cropped anew: correlation {photos['recrop_correlation']['mean']:.2f} "
        f"(least {photos['recrop_correlation']['min']:.2f})\n"
        f"{following}"
    )
