"""Photos as somebody finds them after they were posted: under their own names in one folder, as they are or saved as JPEG."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.artifacts import write_bytes
from pipeline.errors import StageError
from pipeline.photos.decode import PhotoError, decode_photo
from pipeline.photos.pool import spread
from pipeline.runtime import Runtime, progress


def post(files: dict[str, Path], folder: Path, quality: int | None, max_side: int, runtime: Runtime) -> None:
    """Fill `folder` with the files of `files` under its keys: links or, with a JPEG `quality` (1 to 100), saved anew.

    What is saved is as old as its source, so that an alignment that was killed finds the chunks that it has done. What was in `folder`
    is removed.

    Args:
        max_side: longest side of a photo that is read, px.

    Raises:
        StageError: a file cannot be read as a photo.
    """
    if folder.exists():
        shutil.rmtree(folder)
    jobs = [(source.resolve(), folder / photo) for photo, source in files.items()]
    for parent in {place.parent for _, place in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    if quality is None:
        for source, place in jobs:
            place.symlink_to(source)
        return
    with progress(None, what=f"saving as JPEG {quality}", unit="photo", total=len(jobs)) as bar:
        for _ in spread(partial(save_as_jpeg, quality=quality, max_side=max_side), jobs, workers=runtime.workers):
            bar.update()


def save_as_jpeg(job: tuple[Path, Path], *, quality: int, max_side: int) -> None:
    """One photo, (source, place), as an upright JPEG, chroma at OpenCV's default 4:2:0, with its source's time."""
    source, place = job
    try:
        pixels = decode_photo(source.read_bytes(), max_side=max_side)
    except (OSError, PhotoError) as error:
        raise StageError(f"{source}: cannot be read any more ({error}); run `make data align` again") from None
    done, code = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    write_bytes(place, code.tobytes())
    status = source.stat()
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
