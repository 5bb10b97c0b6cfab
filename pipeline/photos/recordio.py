"""CASIA-WebFace as InsightFace gives it away: all photos in one MXNet RecordIO file `.rec`, and `.idx` with where each begins.

A record is the magic number, a word of 3 bits continuation and 29 bits length, the data, and padding to 4 bytes. The data is a header
`<IfQQ>` (flag, label, id, id2), `flag` more float labels, and the photo. Record 0 holds in its labels where the photos end.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.photos.source import SourcePhoto, wrong_layout

MAGIC = 0xCED7230A
HEADER = struct.Struct("<IfQQ")


def record_file(photos: Path) -> Path | None:
    """The `.rec` at or in `photos`, None if there is none; `RequestError` if there are several or the `.idx` is missing."""
    found = [photos] if photos.suffix == ".rec" else sorted(photos.glob("*.rec")) if photos.is_dir() else []
    if not found:
        return None
    if len(found) > 1:
        raise wrong_layout("webface", photos, f"holds {len(found)} .rec files ({found[0].name}, {found[1].name}, …); name one")
    for needed in (found[0], found[0].with_suffix(".idx")):
        if not needed.is_file():
            raise wrong_layout("webface", photos, f"{needed.name} is missing")
    return found[0]


def check(photos: Path, dataset: str) -> None:
    """`RequestError` unless the file may be read, and the first photo in it can be."""
    rec = record_file(photos)
    if rec is not None and not os.access(rec, os.R_OK):
        raise wrong_layout(dataset, photos, "may not be read")
    if next(photos_in(photos), None) is None:
        raise wrong_layout(dataset, photos, "holds no photos")


def files_in(photos: Path) -> Iterator[Path]:
    """The `.rec` and its index."""
    rec = record_file(photos)
    assert rec is not None, photos
    yield from (rec, rec.with_suffix(".idx"))


def read_index(path: Path) -> dict[int, int]:
    """Byte offsets of records by key, from lines of `key<TAB>offset`."""
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        return {int(key): int(offset) for key, offset in pairs}
    except ValueError:
        raise wrong_layout("webface", path, "is not an index of keys and offsets") from None


def read_record(data: mmap.mmap | bytes, offset: int) -> bytes:
    """The record at `offset`, its parts joined where it was split; `ValueError` if it is not whole."""
    parts = []
    while True:
        if offset < 0 or offset + 8 > len(data):
            raise ValueError("beyond the end of the file")
        magic, word = struct.unpack_from("<II", data, offset)
        kind, length = word >> 29, word & (1 << 29) - 1
        if magic != MAGIC or kind > 3 or (kind in (0, 1)) != (not parts):
            raise ValueError("does not begin as a record")
        part = data[offset + 8 : offset + 8 + length]
        if len(part) != length:
            raise ValueError("ends in the middle")
        parts.append(part)
        if kind in (0, 3):  # whole, or the last part
            return struct.pack("<I", MAGIC).join(parts)  # a magic number inside the data is where it was split
        offset += 8 + length + -length % 4


def unpack(record: bytes) -> tuple[tuple[float, ...], bytes]:
    """Labels and payload of a record; `ValueError` if it is too short."""
    if len(record) < HEADER.size:
        raise ValueError("is too short for its header")
    flag, label, _, _ = HEADER.unpack_from(record)
    start = HEADER.size + 4 * flag
    if len(record) < start:
        raise ValueError("is too short for its labels")
    return (struct.unpack_from(f"<{flag}f", record, HEADER.size) if flag else (label,)), record[start:]


def photos_in(photos: Path) -> Iterator[SourcePhoto]:
    """All photos of the `.rec` at or in `photos`, by key: identity `0000042`, photo `00001234.jpg`, with their bytes.

    Raises:
        RequestError: the index or a record is damaged (says which).
    """
    rec = record_file(photos)
    assert rec is not None, photos
    index = read_index(rec.with_suffix(".idx"))
    if not index or rec.stat().st_size == 0:
        raise wrong_layout("webface", rec, "is empty")
    with open(rec, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        keys = sorted(index)
        key = keys[0]
        try:
            labels, payload = unpack(read_record(data, index[key]))
            if not payload:  # the header record: its first label is one past the last photo's key
                keys = [key for key in keys[1:] if key < labels[0]]
            for key in keys:
                labels, payload = unpack(read_record(data, index[key]))
                suffix = ".png" if payload.startswith(b"\x89PNG") else ".jpg"
                if not 0 <= labels[0] < 1e7 or labels[0] != int(labels[0]):
                    raise ValueError(f"has the label {labels[0]}, not an identity's number")
                yield SourcePhoto(f"{int(labels[0]):07d}", f"{key:08d}{suffix}", content=payload)
        except ValueError as error:
            raise wrong_layout("webface", rec, f"record {key} {error}") from None
