"""How anything is written and read back: whole or not at all.

Every file goes to a temporary name in the same folder and is renamed when complete, so a file that exists is a file that is
whole; a stage writes its manifest last. Readers check what they read and raise `StageError` naming the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RequestError, StageError

if TYPE_CHECKING:
    import numpy as np

FULL = 2**20  # bytes: a disk with less left is full
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
WATCHED = {"aligned": "manifest.parquet", "protected": "manifest.parquet", "model": "history.jsonl"}  # folder: the file that make watches
MADE_WITH = {"noise.json": "noise.safetensors", "split.json": "split.parquet"}
HASHED_AT_ONCE = 2**20  # bytes: shards of crops are large


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, on failure removed.

    Raises:
        StageError: the disk is full, which each library says in an exception of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # as the user's umask has it
        temporary.unlink()
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors lets nobody else read what it writes
            temporary.chmod(mode)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (StageError, RequestError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in NO_ROOM or shutil.disk_usage(path.parent).free < FULL:
            raise full_disk(path) from None
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def clear_left_over(path: Path) -> None:
    """Remove what runs that were killed while they wrote `path` left beside it: for large files, which one process at a time writes."""
    for pattern in (f".{path.name}.*.tmp", ".tmp??????"):  # safetensors writes to a name of its own first
        for left_over in path.parent.glob(pattern):
            left_over.unlink(missing_ok=True)


def full_disk(path: Path) -> StageError:
    """What to say where there is no room for `path`."""
    return StageError(f"{path}: cannot be written, the disk is full; make room and run the same command again")


@contextmanager
def at_work(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` meanwhile; it goes with its process, however that ends.

    Args:
        wait: for another process that holds it, until it has ended.

    Raises:
        StageError: another process holds it, such as one that outlived the `make` which started it, and nobody waits; or the disk is full.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another one"
            raise StageError(
                f"{path}: process {holder} is at this already; wait for it, or stop it and run the same command again"
            ) from None
        lock.truncate(0)
        try:
            os.write(lock.fileno(), f"{os.getpid()}\n".encode())  # past the buffer, which would be tried once more as the file is closed
        except OSError as error:
            if error.errno in NO_ROOM:
                raise full_disk(path) from None
            raise OSError(error.errno, error.strerror, str(path)) from None
        yield


def watched(path: Path) -> Path:
    """The file by which `make` knows what `path` was made with: it watches one file of each stage, and makes the others with it."""
    if path.parent.name in WATCHED:
        return path.with_name(WATCHED[path.parent.name])
    if path.name in MADE_WITH and path.parent.name != "timings":  # those are called like what they timed
        return path.with_name(MADE_WITH[path.name])
    page = path.with_name("index.html")  # of a report
    return page if page.exists() else path


def made_again(path: Path) -> str:
    """What to do about a file that is damaged, or gone while `make` believes it there."""
    return f"delete {'it' if watched(path) == path else watched(path)} and run the same command again"


def missing(path: Path) -> StageError:
    """A file that a stage before this one should have left is not there: it did not run, or `make` believes that it did."""
    believed = watched(path)
    ran = believed != path and believed.exists()
    return StageError(f"{path}: missing; {made_again(path) if ran else 'run the stage that makes it'}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def spreadsheet_safe(text: str) -> str:
    """A name that a spreadsheet would take for a formula gets an apostrophe in front; all others stay as they are."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and text else text


def write_if_changed(path: Path, text: str) -> bool:
    """Write `text` unless `path` already holds exactly that, so that Make sees a change only where there is one."""
    if path.exists() and path.read_bytes() == text.encode("utf-8"):
        return False
    write_text(path, text)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; `StageError` names the file if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path) from None
    except ValueError as error:
        raise StageError(f"{path}: not valid JSON ({error}); {made_again(path)}") from None


def write_table(path: Path, table: Any) -> None:
    """Write a pandas DataFrame as Parquet (no index), whole or not at all."""
    with whole_file(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path, columns: list[str], *, only: bool = False) -> Any:
    """Read a Parquet table and check that it has `columns`. `StageError` names the file and what to do.

    Args:
        only: read no other columns: lists (boxes, landmarks) take most of the time and memory of a large manifest.
    """
    import pandas as pd  # heavy: only where a table is really read

    try:
        table = pd.read_parquet(path, columns=present(path, columns) if only else None)
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # pyarrow raises many kinds on a damaged file
        raise StageError(f"{path}: unreadable ({error}); {made_again(path)}") from None
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise StageError(f"{path}: has no column {', '.join(lacking)}; {made_again(path)}")
    return table


def write_csv(path: Path, table: Any) -> None:
    """A table for people and spreadsheets, whole or not at all: arrays as JSON, and no text that a spreadsheet would run."""

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return spreadsheet_safe(value)
        return json.dumps([round(float(number), 3) for number in value]) if hasattr(value, "__len__") else value

    shown = table.copy()
    for column in shown.select_dtypes(exclude="number"):
        shown[column] = shown[column].map(cell)
    write_text(path, shown.to_csv(index=False))


def present(path: Path, columns: list[str]) -> list[str]:
    """Those of `columns` that a Parquet file has."""
    from pyarrow.parquet import read_schema

    names = set(read_schema(path).names)
    return [column for column in columns if column in names]


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one `.npy` array, whole or not at all."""
    import numpy as np  # here and below: what only reads or writes JSON starts without it

    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)


def sha256_of(content: bytes) -> str:
    """Hex SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, whatever it is called."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_files(paths: list[Path]) -> str:
    """Hex SHA-256 over the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with open(path, "rb") as stream:
            while block := stream.read(HASHED_AT_ONCE):
                digest.update(block)
    return digest.hexdigest()
