"""The data stage: fill `photos/` with one folder an identity, rendered, written or linked, and list them in `photos.parquet`."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, sha256_of_files, write_bytes, write_json, write_table
from pipeline.config import DataConfig
from pipeline.errors import RequestError, StageError
from pipeline.photos import celeba, folder, lfw, recordio
from pipeline.photos.pool import spread
from pipeline.photos.source import PHOTO_SUFFIXES, Source, wrong_layout
from pipeline.runtime import Runtime, progress, say

PHOTO_COLUMNS = ["photo", "identity", "bytes"]
SOURCES: dict[str, Source] = {"folder": folder, "celeba": celeba, "lfw": lfw}  # webface is a folder or a .rec
RENDER_BATCH = 16  # photos a job: some seconds of work, so that progress is seen and little is lost
# The files that this stage writes, by data set: what it renders, what it takes out of a `.rec`. All else it links.
WRITTEN = {"synthetic": re.compile(r"id\d{4,}/\d{4,}\.jpg"), "webface": re.compile(r"\d{7}/\d{8,}\.(jpg|png)")}


def import_photos(config: DataConfig, output: Path, runtime: Runtime) -> None:
    """Fill `output/photos/<identity>/<photo>` and write, last, `output/photos.parquet`: a row a photo, columns `PHOTO_COLUMNS`.

    `photo` is the path below `output/photos`, `bytes` the file's size; rows are sorted by identity and photo. Synthetic photos are
    rendered, those that are there already are kept; photos in folders are linked, not copied; those in a `.rec` are written out.

    Raises:
        RequestError: the source is missing, empty or laid out otherwise than expected, or two photos would have one path.
        StageError: `output/photos` holds something that this stage did not put there and would have to remove.
    """
    check_source(config.dataset, config.photos)
    root = output / "photos"
    source = None if config.photos is None else Path(config.photos)
    if source is not None:
        place, here = source.resolve(), root.resolve()
        if place == here or here in place.parents:
            raise RequestError(f"PHOTOS={config.photos}: lies inside {root}, which this stage fills anew; move the photos elsewhere")
    (output / "photos.parquet").unlink(missing_ok=True)
    claim(root, output / "photos.json", {"source": origin(config)})
    if config.dataset == "synthetic":
        rows = render(config, root, runtime)
    else:
        assert source is not None
        rows = take(config.dataset, source, root)

    import pandas as pd

    table: Any = pd.DataFrame(sorted(rows), columns=["identity", "photo", "bytes"])[PHOTO_COLUMNS]  # type: ignore[arg-type]
    if table.empty:
        raise wrong_layout(config.dataset, config.photos, "holds no photos")
    if not table["photo"].is_unique:
        twice = table.loc[table["photo"].duplicated(), "photo"].iloc[0]
        raise RequestError(f"PHOTOS={config.photos}: holds more than one photo that would be {twice}; give one another name")
    write_table(output / "photos.parquet", table)
    say(f"{len(table)} photos of {table['identity'].nunique()} identities in {root}")
    skipped = not_read(config)
    loose = skipped.pop(folder.LOOSE, Counter())
    told = [folder.counted(sum(skipped.values(), Counter()))] if skipped else []
    if loose:
        told.append(f"{folder.counted(loose)} beside the folders")
    if told:
        allowed = " ".join(sorted(PHOTO_SUFFIXES))
        say(f"not read, so neither protected nor trained on: {'; '.join(told)}; read are {allowed} that lie in a person's folder itself")


def not_read(config: DataConfig) -> dict[str, Counter[str]]:
    """What lies in a source of one folder an identity and is not read, as `folder.left_over` counts it.

    Empty for other sources, and where the folder is not there (any more).
    """
    source = None if config.photos is None else Path(config.photos)
    return folder.left_over(source) if source is not None and source.is_dir() and by_folder(config.dataset, source) else {}


def origin(config: DataConfig) -> dict[str, Any]:
    """What the files in `photos/` depend on, apart from how many there are: another origin, and they are made anew."""
    if config.dataset == "synthetic":
        code = sha256_of_files(sorted((Path(__file__).parent / "synthetic").glob("*.py")))
        return {"dataset": config.dataset, "seed": config.seed, "size": config.size, "code": code}
    return {"dataset": config.dataset, "photos": config.photos, "fingerprint": config.fingerprint}


def claim(root: Path, note: Path, wanted: dict[str, Any]) -> None:
    """Make `root` an empty folder, unless `note` says that what it holds comes from the origin that is wanted.

    Raises:
        StageError: `root` holds a file that this stage did not write for the origin in `note`; nothing is removed.
    """
    writes: list[re.Pattern[str]] = []
    if note.is_file():
        try:
            before = read_json(note)
            if before == wanted and root.is_dir():
                return
            writes = [files for dataset, files in WRITTEN.items() if dataset == before["source"]["dataset"]]
        except (StageError, TypeError, KeyError):
            writes = [*WRITTEN.values()]  # a damaged note is a note of ours all the same
    elif root.is_symlink() or (root.exists() and any(root.iterdir())):
        raise StageError(f"{root}: holds files that this stage did not put there; move them elsewhere and name that path in PHOTOS")
    if root.exists():
        for path in sorted(real_files(root)):
            if not any(one.fullmatch(written_as(path.relative_to(root))) for one in writes):
                raise StageError(f"{path}: this stage did not put it there, and would remove it; move it elsewhere")
        shutil.rmtree(root)  # removes links, not what they lead to
    # The old note stands until the folder is empty: a run that is killed in between goes on from there.
    note.unlink(missing_ok=True)
    root.mkdir(parents=True)
    write_json(note, wanted)


def real_files(root: Path) -> list[Path]:
    """All files below `root` but links; what links lead to is not looked into."""
    return [path for place, _, names in os.walk(root) for name in names if not (path := Path(place) / name).is_symlink()]


def written_as(path: Path) -> str:
    """`path`, or the one that a temporary file would have become: after a kill one may be left (`pipeline/artifacts.py`)."""
    return re.sub(r"/\.(.+)\.\d+\.tmp$", r"/\1", path.as_posix())


def render(config: DataConfig, root: Path, runtime: Runtime) -> list[tuple[str, str, int]]:
    """Render the synthetic photos that are not there yet. Returns (identity, photo path, bytes) of all."""
    from pipeline.photos.synthetic import identity_name

    photos = [config.photos_per_identity] * config.identities + [config.photos_per_stranger] * config.strangers
    wanted = {
        (identity, photo): root / identity_name(identity) / f"{photo:04d}.jpg"
        for identity, count in enumerate(photos)
        for photo in range(count)
    }
    todo = [(*place, path) for place, path in wanted.items() if not path.is_file()]
    jobs = [todo[start : start + RENDER_BATCH] for start in range(0, len(todo), RENDER_BATCH)]
    with progress(None, what="rendering photos", unit="photo", total=len(wanted)) as bar:
        bar.update(len(wanted) - len(todo))
        for index, _ in spread(partial(render_some, seed=config.seed, size=config.size), jobs, workers=runtime.workers):
            bar.update(len(jobs[index]))
    return [(path.parent.name, f"{path.parent.name}/{path.name}", path.stat().st_size) for path in wanted.values()]


def render_some(photos: list[tuple[int, int, Path]], *, seed: int, size: int) -> None:
    """Render a few photos, each (identity, photo, path)."""
    from pipeline.photos.synthetic import encode_photo

    for identity, photo, path in photos:
        write_bytes(path, encode_photo(seed=seed, identity=identity, photo=photo, size=size))


def take(dataset: str, photos: Path, root: Path) -> list[tuple[str, str, int]]:
    """Link or write the photos of a source. Returns (identity, photo path, bytes) of all."""
    rows = []
    whole_folders = by_folder(dataset, photos)
    for one in progress(source_of(dataset, photos).photos_in(photos), what=f"{dataset} photos", unit="photo"):
        target = root / one.identity / one.photo
        if one.content is not None:
            if not target.is_file() or target.stat().st_size != len(one.content):
                write_bytes(target, one.content)
            size = len(one.content)
        else:
            assert one.path is not None
            if whole_folders:
                link(root / one.identity, photos / one.identity)
            else:
                link(target, one.path)
            size = one.path.stat().st_size
        rows.append((one.identity, f"{one.identity}/{one.photo}", size))
    return rows


def link(place: Path, target: Path) -> None:
    """A symbolic link at `place` to the absolute path of `target`; one that is there is kept."""
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target.absolute())


def source_of(dataset: str, photos: Path) -> Source:
    """The module that reads `photos`; CASIA-WebFace comes in two layouts."""
    if dataset == "webface":
        return folder if recordio.record_file(photos) is None else recordio
    return SOURCES[dataset]


def by_folder(dataset: str, photos: Path) -> bool:
    """Whether `photos` holds one folder an identity."""
    return source_of(dataset, photos) in (folder, lfw)


def check_source(dataset: str, photos: str | None) -> None:
    """Check that the source is there and laid out as `dataset` is, reading one photo at most.

    Raises:
        RequestError: names PHOTOS, its value and the layout expected.
    """
    if dataset == "synthetic":
        return
    if not photos:
        raise wrong_layout(dataset, photos or "", "no path given")
    path = Path(photos)
    if not path.exists():
        raise wrong_layout(dataset, photos, "there is no such path")
    source = source_of(dataset, path)
    if source is not recordio and not path.is_dir():
        raise wrong_layout(dataset, photos, "is not a folder")
    if not os.access(path, os.R_OK):
        raise wrong_layout(dataset, photos, "may not be read")
    source.check(path, dataset)


def fingerprint(dataset: str, photos: Path) -> str:
    """A digest of the names, sizes and times in a source, so that Make notices new photos: 12 hex digits.

    Nothing is read but folders; half a million photos take seconds.
    """
    digest = hashlib.sha256()
    for path in source_of(dataset, photos).files_in(photos):
        status = path.stat()
        closed = "" if os.access(path, os.R_OK) else "\0may not be read"  # so that it is tried again when that is mended
        digest.update(f"{os.fspath(path)}\0{status.st_size}\0{status.st_mtime_ns}{closed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
