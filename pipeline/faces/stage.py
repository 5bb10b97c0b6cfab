"""The align stage: from `photos.parquet` to crops, manifest and rejects. Every photo ends in one or the other.

Whole identities are put together to chunks of about 200 photos. A chunk is aligned by one process and written as `crops-<key>.npy` and
then `crops-<key>.parquet`, where the key is a digest of the photos' names, sizes and times, of the config and of the code that cuts faces:
a run that was killed finds the chunks that are done, and redoes at most one for each worker.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_table, sha256_of_files, write_csv, write_table
from pipeline.config import AlignConfig
from pipeline.errors import RequestError, StageError
from pipeline.faces.align import ALIGNED, CHUNK_COLUMNS, DUPLICATE, FORBIDDEN, GONE, align_chunk, checksum, chunk_table
from pipeline.photos.pool import spread
from pipeline.runtime import Runtime, progress, say
from pipeline.shards import open_shard

NO_CROPS = ("stage.py", "restore.py")  # code in this folder that no crop depends on
CHUNK_PHOTOS = 200
ON_A_GPU = 4  # processes that look for faces on one GPU: each holds a context and the networks there
MANIFEST_COLUMNS = ["photo", "sha256", "identity", "box", "score", "landmarks", "matrix", "shard", "row", "width", "height"]
REJECT_COLUMNS = ["photo", "identity", "reason"]
TWO_IDENTITIES = "under two identities"


def align_photos(config: AlignConfig, data: Path, runtime: Runtime, folder: Path | None = None) -> None:
    """Write `data/aligned/`: `crops-*.npy` (uint8 N×112×112×3, RGB), `rejects.parquet` and, last, `manifest.parquet`; CSVs beside them.

    `manifest.parquet` has a row an aligned photo, columns `MANIFEST_COLUMNS`: `box` (x0, y0, x1, y1), `landmarks` (five x, y in turn) in
    the pixels of the upright photo, `matrix` (2×3, row by row) from the photo to the crop. The result does not depend on the number of
    workers.

    Args:
        data: folder of `photos.parquet`. folder: what the photos' paths in it are below; None: `data/photos`.

    Raises:
        RequestError, StageError: the detector cannot be used, `photos.parquet` is missing, or no photo could be aligned.
    """
    photos = read_table(data / "photos.parquet", ["photo", "identity"])
    aligned, folder = data / "aligned", folder or data / "photos"
    aligned.mkdir(parents=True, exist_ok=True)
    (aligned / "manifest.parquet").unlink(missing_ok=True)
    for left_over in aligned.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)
    code = sha256_of_files(code_of_crops())
    chunks = [(chunk_key(chunk, folder, config, code), chunk) for chunk in make_chunks(photos)]
    tables: dict[str, Any] = {}
    with progress(None, what="aligning", unit="photo", total=len(photos)) as bar:
        for key, chunk in chunks:
            table = read_chunk(aligned, key, len(chunk))
            if table is not None and not readable_now(table, folder):
                tables[key] = table
                bar.update(len(chunk))
        # the largest first: what is left to the end is small, and no core waits long for the others
        todo = sorted(((key, chunk) for key, chunk in chunks if key not in tables), key=lambda job: -len(job[1]))
        if todo and not config.already_aligned:
            check_detector(config, runtime)
        work = partial(align_and_write, config=config, photos=folder, aligned=aligned, device=runtime.device)
        workers = runtime.workers if config.already_aligned else detection_workers(runtime)
        for index, _ in spread(work, todo, workers=workers, preload=preload(config)):
            bar.update(len(todo[index][1]))
    for key, chunk in todo:
        table = read_chunk(aligned, key, len(chunk))
        if table is None:
            raise StageError(f"{aligned / f'crops-{key}.npy'}: cannot be read back; is the disk full? Run the same command again")
        tables[key] = table
    finish(aligned, [tables[key] for key, _ in chunks], len(photos))


def detection_workers(runtime: Runtime) -> int:
    """How many processes look for faces at a time."""
    return min(runtime.workers, ON_A_GPU) if runtime.device.startswith("cuda") else runtime.workers


def preload(config: AlignConfig) -> tuple[str, ...]:
    """What a worker imports that takes long."""
    common = ("pandas", "pyarrow.parquet", "PIL.Image", "pipeline.faces.align")
    if config.already_aligned:
        return common
    return (*common, "torch", *(("pipeline.faces.cascade",) if config.detector == "mtcnn" else ("insightface.model_zoo",)))


def make_chunks(photos: Any) -> list[list[tuple[str, str]]]:
    """(photo, identity) of whole identities, in the order of their names, together until there are `CHUNK_PHOTOS`."""
    chunks: list[list[tuple[str, str]]] = []
    for _, group in photos.sort_values(["identity", "photo"]).groupby("identity", sort=True):
        rows = list(zip(group["photo"], group["identity"], strict=True))
        if chunks and len(chunks[-1]) + len(rows) <= CHUNK_PHOTOS:
            chunks[-1].extend(rows)
        else:
            chunks.append(rows)
    return chunks


def code_of_crops() -> list[Path]:
    """The source files that decide where a face is found and what its crop looks like."""
    room = Path(__file__).parent
    return [*sorted(path for path in room.glob("*.py") if path.name not in NO_CROPS), room.parent / "photos" / "decode.py"]


def chunk_key(chunk: list[tuple[str, str]], photos: Path, config: AlignConfig, code: str) -> str:
    """A name for the result of aligning `chunk`: another one as soon as a photo, the config or the code (its digest) is another."""
    digest = hashlib.sha256(f"{code}\n{config.model_dump_json()}\n".encode())
    for photo, identity in chunk:
        try:
            status = (photos / photo).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{photo}\0{identity}\0{state}\n".encode())
    return digest.hexdigest()[:16]


def check_detector(config: AlignConfig, runtime: Runtime) -> None:
    """Fail here, with one line, rather than in a worker: is what the detector needs at hand?"""
    if config.detector == "scrfd":
        from pipeline.faces.detect_scrfd import pack_models
        from pipeline.onnx_session import open_session

        if config.detector_pack is None:
            raise RequestError("DETECTOR_PACK is empty: DETECTOR=scrfd needs the folder of a local insightface pack")
        open_session(pack_models(Path(config.detector_pack))[0], runtime.device)


def align_and_write(job: tuple[str, list[tuple[str, str]]], *, config: AlignConfig, photos: Path, aligned: Path, device: str) -> None:
    """Align one chunk and write its two files, the table last."""
    from pipeline.artifacts import write_array

    key, chunk = job
    rows, crops = align_chunk(chunk, photos, config, device=device)
    write_array(aligned / f"crops-{key}.npy", crops)
    write_table(aligned / f"crops-{key}.parquet", chunk_table(rows, f"crops-{key}.npy"))


def read_chunk(aligned: Path, key: str, photos: int) -> Any | None:
    """The table of a chunk that is there, whole and matches its crops; None otherwise, and then it is aligned anew."""
    try:
        table = read_table(aligned / f"crops-{key}.parquet", CHUNK_COLUMNS)
        crops = open_shard(aligned / f"crops-{key}.npy")[:]
    except StageError:
        return None
    kept = table[table["reason"] == ALIGNED]
    if len(table) != photos or crops.shape != (len(kept), 112, 112, 3):
        return None
    if list(kept["row"]) != list(range(len(kept))) or any(checksum(crops[row]) != kept["check"].iloc[row] for row in range(len(kept))):
        return None
    return table


def readable_now(table: Any, folder: Path) -> bool:
    """Whether a photo of a chunk that could not be read when it was aligned can be read by now."""
    return any(os.access(folder / photo, os.R_OK) for photo in table.loc[table["reason"].isin((GONE, FORBIDDEN)), "photo"])


def finish(aligned: Path, tables: list[Any], photos: int) -> None:
    """Join the chunks to rejects and manifest, drop files of other chunks, and say what became of the photos."""
    import pandas as pd

    everything: Any = pd.concat(tables, ignore_index=True)
    assert len(everything) == photos and everything["photo"].is_unique
    # The same file under two names says nothing of either: whose face is it?
    known = everything[everything["sha256"] != ""]
    owners = known.groupby("sha256")["identity"].nunique()
    contested = everything["sha256"].isin(owners.index[owners > 1]) & everything["reason"].isin((ALIGNED, DUPLICATE))
    everything.loc[contested, "reason"] = TWO_IDENTITIES
    manifest = everything.loc[everything["reason"] == ALIGNED, MANIFEST_COLUMNS].reset_index(drop=True)
    rejects = everything.loc[everything["reason"] != ALIGNED, REJECT_COLUMNS].reset_index(drop=True)
    assert len(manifest) + len(rejects) == photos

    reasons = Counter(rejects["reason"]).most_common()
    told = ", ".join(f"{count} {reason}" for reason, count in reasons)
    write_table(aligned / "rejects.parquet", rejects)
    write_csv(aligned / "rejects.csv", rejects)
    if manifest.empty:
        raise StageError(f"align: no face found in any of {photos} photos: {told}; see {aligned / 'rejects.csv'}")
    write_csv(aligned / "manifest.csv", manifest)
    write_table(aligned / "manifest.parquet", manifest)
    needed = {shard for table in tables for shard in table["shard"].unique()}
    for other in aligned.glob("crops-*.*"):
        if f"{other.stem}.npy" not in needed:
            other.unlink(missing_ok=True)
    say(f"aligned {len(manifest)} of {photos} photos" + (f"; {len(rejects)} rejected: {told}" if len(rejects) else ""))
