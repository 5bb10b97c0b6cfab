"""What all photo sources share: how one is read, what a photo is called, which names are safe, what is a photo at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import RequestError

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"))
NOT_DECODED = frozenset((".heic", ".heif", ".hif", ".jxl", ".jp2", ".dng"))  # photos, too, and of cameras and phones; not read

LONGEST_NAME = 225  # bytes: file systems take 255, of which `.png` and a temporary file's name need some

LAYOUTS = {
    "folder": "one folder an identity, photos in it: <PHOTOS>/<identity>/<photo>.jpg",
    "webface": "InsightFace's .rec and .idx (the .rec, or the folder that holds both), or one folder an identity",
    "celeba": "identity_CelebA.txt (lines of: photo identity) and the images in img_celeba/, img_align_celeba/ or beside it",
    "lfw": "one folder an identity, and pairs.txt beside the folders",
}


@dataclass(frozen=True)
class SourcePhoto:
    """One photo of a source: a file at `path`, or its bytes where the source is one big file."""

    identity: str  # name of the identity, safe as a folder name
    photo: str  # file name, safe
    path: Path | None = None
    content: bytes | None = None


class Source(Protocol):
    """How one layout is read: what a module such as `folder.py` has. `photos` is what the user gave as PHOTOS."""

    def check(self, photos: Path, dataset: str) -> None:
        """`RequestError`, naming PHOTOS and the layout of `dataset`, unless `photos` is laid out so; at most one photo is read."""
        ...

    def photos_in(self, photos: Path) -> Iterator[SourcePhoto]:
        """All photos, always in the same order, no two of an identity of one name. `RequestError` for what cannot be read or named."""
        ...

    def files_in(self, photos: Path) -> Iterator[Path | os.DirEntry[str]]:
        """The files that say what the photos are: one is added, changed or taken away whenever that changes."""
        ...


def wrong_layout(dataset: str, photos: Path | str | None, what: str) -> RequestError:
    """The one message for a source that is not laid out as expected."""
    return RequestError(f"PHOTOS={photos}: {what}; DATASET={dataset} expects {LAYOUTS[dataset]}")


def is_photo_name(name: str) -> bool:
    """Whether a file is a photo, by its suffix in any case; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def safe_name(name: str, where: str) -> str:
    """`name`, if it can be the name of a file or folder and of nothing else, and can be written to a table.

    `<script>` is a legal name; `../x`, names with slashes, control characters, a leading dot, or not in UTF-8 are not.

    Raises:
        RequestError: says which name, and `where` it stands.
    """
    wrong = None
    if not name:
        wrong = "is empty"
    elif "/" in name or "\\" in name:
        wrong = "has a slash in it"
    elif name.startswith("."):
        wrong = "begins with a dot"
    elif any(ord(char) < 32 or 0x7F <= ord(char) <= 0x9F for char in name):
        wrong = "has a control character in it"
    elif any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        wrong = "is not UTF-8"
    elif len(name.encode("utf-8")) > LONGEST_NAME:
        wrong = "is too long"
    if wrong:
        raise RequestError(f"PHOTOS: {where}: the name {name!a} {wrong}; rename it, names become files here")
    return name
