"""What `make protect` prints at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, read_table
from pipeline.config import DataConfig, load
from pipeline.evaluation.accuracy import FEWEST_IDENTITIES
from pipeline.noise.arms import is_of, is_targeted
from pipeline.noise.given import REUSED
from pipeline.noise.table import FILE
from pipeline.photos.folder import LOOSE, counted
from pipeline.photos.stage import not_read

KNOWN = 0.5  # share of clean photos that a network names that has learned faces: what it does not know it cannot be misled about


def show(arm: str, data: Path, run: Path) -> None:
    """Print it for an arm of a run whose photos are protected.

    Raises:
        StageError: the photos are not protected yet, or a file that says of them is missing or damaged.
    """
    output, rejects = run / arm / "protected", data / "aligned" / "rejects.parquet"
    people = set(read_table(output / "manifest.parquet", ["identity"], only=True)["identity"])
    table = read_table(rejects, ["identity", "reason"], only=True)
    unprotected = Counter(table.loc[table["identity"].isin(people), "reason"])
    # Counted now: what is not read is no part of what `make` watches.
    unread = not_read(load(DataConfig, data / "data.yaml"))
    theirs, loose = sum((kinds for name, kinds in unread.items() if name in people), Counter()), unread.get(LOOSE, Counter())
    measures, noise = read_json(output / "measures.json"), read_json(run / arm / "noise.json")
    print(describe(output, arm, measures, unprotected, rejects.with_suffix(".csv"), theirs, loose, noise=noise, people=len(people)))


def describe(
    output: Path,
    arm: str,
    measures: dict[str, Any],
    unprotected: Counter[str],
    rejects: Path,
    unread: Counter[str],
    loose: Counter[str],
    *,
    noise: dict[str, Any],
    people: int,
) -> str:
    """Where the protected photos of `arm` are, how visible the change is and what to do next, for a person.

    Args:
        unprotected: how many photos of the protected people are not protected, by reason; each stands in the table `rejects`.
        unread: how many files in their folders are not read, by kind. loose: the same of photos that lie in nobody's folder.
        noise: what `noise.json` says of the search. people: how many are protected.
    """
    crops = measures["crops"]
    compared = " ".join(dict.fromkeys(("clean", arm, "random")))
    following = f'next, with the same variables: make study ARMS="{compared}" '
    if people < FEWEST_IDENTITIES:
        following += f"gives numbers, but no claim: {FEWEST_IDENTITIES} people or more must be protected for one, here {people}"
    else:
        following += "says how far that holds"
    least = min(noise.get("surrogates", ()), key=lambda one: one["names"], default=None)
    if noise["converged"] is False:  # a report calls such noise invalid
        following = (
            f"the search for noise did not converge in {noise['rounds']} rounds (error {noise['error']:.1%}), so it may protect little: "
            f"do not rely on it; rounds in configs/<profile>.yaml sets how many there may be\n{following}"
        )
    elif least is not None and least["names"] < KNOWN:
        following = (
            f"the {least['model']} that the noise was made against names {least['names']:.1%} of these people's clean test photos, fewer "
            "than half, so it may protect little: do not rely on it; more photos a person teach it more, or more epochs in "
            f"configs/<profile>.yaml\n{following}"
        )
    visible = f"crops PSNR {crops['psnr_db']:.1f} dB, SSIM {crops['ssim']:.3f}"
    if "photos" not in measures:
        only = f"protected crops only, for comparison: {output}\nlargest change of a pixel {crops['linf']:.0f}/255; {visible}"
        return f"{only}\n{following}"
    photos = measures["photos"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in unprotected.most_common())
    left = f"not protected, of the same people: {unprotected.total()} ({reasons}), by name in {rejects}\n" if unprotected else ""
    if unread:
        left += f"not read, so not protected, in their folders: {counted(unread)}\n"
    if loose:
        left += f"not read, so not protected, beside the folders in PHOTOS: {counted(loose)}\n"
    kept = output.parent / FILE
    later = ""
    if arm in REUSED:
        later = f"later photos of these people: NOISE={kept} puts the same patterns on them; keep it, and noise.json beside it\n"
    elif is_targeted(arm):
        later = "later photos of these people: the same command again; what is out already may stay, every photo has noise of its own\n"
    # Perhaps a sister: `distant_identity` draws from whoever the split protects or has for the search.
    whom = "to the recognisers it was made against a cloaked photo shows another of the people in PHOTOS: a search for that one finds it\n"
    return (
        f"{photos['count']} protected photos: {output / 'photos'} (PNG, without the photos' metadata, such as place and date)\n{left}"
        f"largest change of a pixel {photos['linf']:.0f}/255; photos PSNR {photos['psnr_db']:.1f} dB, SSIM {photos['ssim']:.3f}; "
        f"{visible}: look at some before you publish\n"
        "in a photo of several people only the folder owner's face is changed; where only somebody else's was found, that carries noise\n"
        f"{whom if is_of(arm, 'cloak') else ''}{later}"
        "noise found again when these files are cropped anew at the same place: correlation "
        f"{photos['recrop_correlation']['mean']:.2f} (least {photos['recrop_correlation']['min']:.2f}); a site that shrinks them or saves "
        "them as JPEG, and another detector, leave less\n"
        f"{following}"
    )
