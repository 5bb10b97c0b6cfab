"""The protect stage: noise on crops and, through the inverse of the alignment, on the whole photos that a person publishes.

What is written is decoded back and measured; the manifest comes last. All photos of a protected identity get its noise, held-out ones
too (that is what identity-wise noise is for); sample-wise noise that nobody would publish exists for the training photos alone. Training
uses the `train` ones only, and scores always use clean crops.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.artifacts import read_json, read_table, sha256_of, write_bytes, write_csv, write_json, write_table
from pipeline.errors import StageError
from pipeline.evaluation.imperceptibility import Measures, change_of, summarise
from pipeline.faces.restore import protect_photo, recropped_noise
from pipeline.noise.table import NoiseTable, add_noise, load_noise, load_rows, row_names
from pipeline.photos.decode import PhotoError, colour_profile, decode_photo
from pipeline.photos.pool import spread
from pipeline.runtime import Runtime, progress, say
from pipeline.shards import CropTable, crop_table, open_shard, write_shard
from pipeline.split import SPLIT_COLUMNS

SHARD = 4096  # crops in a file, 154 MB, the work of one process at a time
READ = 256  # crops in memory at a time


def protect(split: Path, data: Path, noise: Path, output: Path, runtime: Runtime, *, photos: bool, max_side: int) -> dict[str, Any]:
    """Write `crops-00000.npy` and so on, `photos/<identity>/<photo>.png`, `measures.json` and, last, `manifest.parquet` into `output`.

    What an earlier request left there, crops and photos of other people among it, is removed.

    Args:
        split: `split.parquet`.
        data: `data/<dataset>`, with `photos/` and `aligned/`.
        noise: folder of the arm's `noise.safetensors`.
        photos: write whole photos too; a control that nobody publishes needs crops only.
        max_side: longest side of a photo that is read, px.

    Returns:
        What was written to `measures.json`: for crops and photos each linf (1/255), psnr_db, ssim, and the mean and least correlation of
        the noise found when a protected photo is cropped again with the noise that was meant.

    Raises:
        StageError: noise of another split, a photo that changed since it was aligned, or a change above epsilon on disk.
    """
    table, _ = load_noise(noise)
    rows = read_table(split, SPLIT_COLUMNS)
    rows = rows[rows["role"] == "protected"].reset_index(drop=True)
    columns = ["photo", "sha256", "matrix"] if photos else ["photo", "sha256"]
    rows = rows.merge(read_table(data / "aligned" / "manifest.parquet", columns, only=True), on="photo", validate="one_to_one")
    place = {name: code for code, name in enumerate(table.names)}
    rows["noise"] = row_names(rows, table.per)
    # Sample-wise noise that nobody publishes is of training photos alone.
    if not set(rows.loc[rows["part"] == "train", "noise"]) <= set(place) <= set(rows["noise"]):
        whose = "photos" if table.per == "photo" else "identities"
        raise StageError(f"{noise}: noise of other {whose} than the split protects; delete {noise} and run again")
    rows = rows[rows["noise"].isin(place)].reset_index(drop=True)

    rows["file"] = [png_name(photo) for photo in rows["photo"]] if photos else ""
    (output / "manifest.parquet").unlink(missing_ok=True)  # until what it lists is there again, whole
    remove_earlier(output, set(rows["file"]) if photos else set())
    crop_measures = protect_crops(crop_table(rows, data / "aligned"), noise, rows["noise"].map(place).to_numpy(), output, runtime)
    written = rows[["photo", "identity", "part"]].assign(
        shard=[shard_name(number // SHARD) for number in range(len(rows))], row=np.arange(len(rows)) % SHARD
    )
    measures: dict[str, Any] = {"crops": summarise(crop_measures)}
    if photos:
        found = protect_photos(rows, table, place, data / "photos", output / "photos", runtime, max_side=max_side)
        correlation = {"mean": round(float(found["correlation"].mean()), 4), "min": round(float(found["correlation"].min()), 4)}
        measures["photos"] = summarise(found) | {"count": len(rows), "recrop_correlation": correlation}
        written = written.assign(
            file=rows["file"],
            linf=found["linf"],
            psnr_db=found["psnr_db"],
            ssim=found["ssim"],
            recrop_correlation=found["correlation"],
        )
    for kind, measured in measures.items():
        if measured["linf"] > table.epsilon:
            raise StageError(f"{output}: {kind} on disk differ by {measured['linf']}/255, more than epsilon {table.epsilon}/255")
    write_json(output / "measures.json", measures)
    write_csv(output / "manifest.csv", written)
    write_table(output / "manifest.parquet", written)
    return measures


def remove_earlier(output: Path, kept: set[str]) -> None:
    """Remove the protected photos of an earlier request but for `kept` (paths below `output/photos`), and say how many.

    `photos.json` lists what this stage wrote or was about to write; other files stay. Folders that are empty then go.

    Raises:
        StageError: `photos.json` is damaged.
    """
    note, photos = output / "photos.json", output / "photos"
    try:
        listed = set(read_json(note)) if note.exists() else set()
    except (StageError, TypeError):  # nothing that is made again would mend it: it is read before anything is
        raise StageError(
            f"{note}: damaged, so nobody knows which of the photos beside it an earlier request left; delete {output} and run the same "
            "command again"
        ) from None
    gone = [photos / file for file in sorted(listed - kept)]
    there = [path for path in gone if path.exists()]
    for path in [*there, *photos.glob("*/.*.tmp")]:
        path.unlink()
    for folder in [*{path.parent for path in gone}, photos]:
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    if there:
        say(f"{photos}: {len(there)} protected photos of an earlier request removed")
    write_json(note, sorted(kept))


def shard_name(number: int) -> str:
    """The file of the crops from `number` × `SHARD` on."""
    return f"crops-{number:05d}.npy"


def protect_crops(places: CropTable, noise: Path, noise_row: np.ndarray, output: Path, runtime: Runtime) -> Measures:
    """Write the protected crops in shards, over a pool of processes, and measure each as it is read back.

    Args:
        noise: folder of the noise table. noise_row: its row for each crop, int (N,).
    """
    for left_over in output.glob(".*.tmp"):  # of a run that was killed
        left_over.unlink(missing_ok=True)
    parts = [np.arange(start, min(start + SHARD, len(places))) for start in range(0, len(places), SHARD)]
    jobs = [(shard_name(number), places.part(part), noise_row[part]) for number, part in enumerate(parts)]
    found: list[Measures] = [{}] * len(jobs)
    with progress(None, what="protected crops", unit="crop", total=len(places)) as bar:
        one = partial(protect_shard, noise=noise, output=output)
        for index, measured in spread(one, jobs, workers=runtime.workers, preload=("skimage.metrics", "scipy.sparse")):
            found[index] = measured
            bar.update(len(parts[index]))
    names = {name for name, *_ in jobs}
    for other in output.glob("crops-*.npy"):
        if other.name not in names:
            other.unlink()
    return {name: np.concatenate([measured[name] for measured in found]) for name in found[0]}


def protect_shard(job: tuple[str, CropTable, np.ndarray], *, noise: Path, output: Path) -> Measures:
    """Write one shard of protected crops, then read it back and measure its change."""
    name, places, noise_row = job
    parts = [np.arange(start, min(start + READ, len(places))) for start in range(0, len(places), READ)]
    shape = (len(places), *places.shards[0].shape[1:])
    write_shard(output / name, shape, (add_noise(places.crops(part), load_rows(noise, noise_row[part])) for part in parts))
    written = open_shard(output / name)
    found = [change_of(places.crops(part), written[part]) for part in parts]
    return {measure: np.concatenate([some[measure] for some in found]) for measure in found[0]}


def png_name(photo: str) -> str:
    """`identity/photo.jpg` → `identity/photo.jpg.png`: the old suffix stays, so that a.jpg and a.png do not collide."""
    return f"{photo}.png"


def protect_photos(
    rows: Any,
    table: NoiseTable,
    place: dict[str, int],
    source: Path,
    output: Path,
    runtime: Runtime,
    *,
    max_side: int,
) -> Measures:
    """Write the protected photos over a pool of processes, and measure each as it is decoded back."""
    one = partial(protect_one, source=source, output=output, epsilon=table.epsilon, max_side=max_side)
    jobs = [
        (row.photo, row.file, row.sha256, np.asarray(row.matrix, np.float64).reshape(2, 3), table.delta[place[row.noise]])
        for row in rows.itertuples()
    ]
    found: list[tuple[float, float, float, float]] = [(0.0, 0.0, 0.0, 0.0)] * len(jobs)
    with progress(None, what="protected photos", unit="photo", total=len(jobs)) as bar:
        for index, measured in spread(one, jobs, workers=runtime.workers, preload=("skimage.metrics", "scipy.sparse")):
            found[index] = measured
            bar.update()
    columns = np.array(found, np.float64).T
    return dict(zip(("linf", "psnr_db", "ssim", "correlation"), columns, strict=True))


def protect_one(
    job: tuple[str, str, str, np.ndarray, np.ndarray], *, source: Path, output: Path, epsilon: int, max_side: int
) -> tuple[float, float, float, float]:
    """Protect one photo, write it as PNG, decode it back. Returns linf (1/255), PSNR (dB), SSIM, correlation of re-cropped noise."""
    photo, file, digest, matrix, delta = job
    original, profile = read_original(source / photo, digest, max_side)
    protected = protect_photo(original, matrix, delta, epsilon)
    write_bytes(output / file, png_of(protected, profile))
    decoded = cv2.imread(str(output / file), cv2.IMREAD_COLOR)
    if decoded is None:
        raise StageError(f"{output / file}: could not be read back; is the disk full?")
    decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    measures = change_of(original[None], decoded[None])
    found = recropped_noise(original, decoded, matrix).ravel().astype(np.float64)
    meant = delta.ravel().astype(np.float64)
    spread = found.std() * meant.std()
    correlation = float(((found - found.mean()) * (meant - meant.mean())).mean() / spread) if spread else 0.0
    return float(measures["linf"][0]), float(measures["psnr_db"][0]), float(measures["ssim"][0]), correlation


def png_of(pixels: np.ndarray, profile: bytes | None) -> bytes:
    """A PNG file of uint8 H×W×3, RGB, in the colours of an ICC profile; None: sRGB, as whoever opens it takes for granted."""
    if profile is None:
        # Runs alone: photos hold few other repetitions, and the search for them takes longer than it saves.
        how = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), how)
        assert done
        return encoded.tobytes()
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3, icc_profile=profile)
    return buffer.getvalue()


def read_original(path: Path, digest: str, max_side: int) -> tuple[np.ndarray, bytes | None]:
    """The photo as it was when it was aligned, and its ICC profile; `StageError` if it is gone or another one now."""
    try:
        content = path.read_bytes()
        if sha256_of(content) != digest:
            raise StageError(f"{path}: changed since it was aligned; run `make align` again")
        return decode_photo(content, max_side=max_side), colour_profile(content)
    except (OSError, PhotoError) as error:
        raise StageError(f"{path}: cannot be read any more ({error}); run `make data align` again") from None
