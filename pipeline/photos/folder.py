"""Photos in one folder an identity: scraped photos, CASIA-WebFace unpacked, LFW."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.photos.source import NOT_DECODED, PHOTO_SUFFIXES, SourcePhoto, is_photo_name, safe_name, wrong_layout

LOOSE = ""  # whose the photos are that lie in no identity's folder


def identity_folders(photos: Path) -> list[Path]:
    """The folders in `photos`, sorted by name; hidden ones left out.

    Only this level and the one below are ever read, so links that loop are not followed.

    Raises:
        RequestError: a folder whose name cannot be used.
    """
    with os.scandir(photos) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry.path))
    return [photos / safe_name(name, str(photos)) for name in names]


def photo_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The photo files in an identity's folder, sorted by name; other files, hidden files and dangling links left out."""
    with os.scandir(folder) as entries:
        named = [entry for entry in entries if is_photo_name(entry.name)]
    return sorted((entry for entry in named if os.path.isfile(entry.path)), key=lambda entry: entry.name)


def check(photos: Path, dataset: str) -> None:
    """`RequestError` unless there are folders, and photos in some of them."""
    folders = identity_folders(photos)
    if not folders:
        raise wrong_layout(dataset, photos, "has no folders in it")
    if not any(photo_entries(one) for one in folders):
        unread = counted(sum(left_over(photos).values(), Counter())) or "nothing"
        raise wrong_layout(dataset, photos, f"has {len(folders)} folders, but no photo of a format that is read in them: {unread}")


def left_over(photos: Path) -> dict[str, Counter[str]]:
    """What lies in each identity's folder and is not read, by `unread_in`; identities of whom all is read are left out.

    Under `LOOSE` stand the photos beside the folders; other files there, such as lists, are not meant to be read as photos.
    """
    found = {folder.name: unread_in(folder) for folder in identity_folders(photos)}
    with os.scandir(photos) as entries:
        beside = [entry.name for entry in entries if not entry.name.startswith(".") and not os.path.isdir(entry.path)]
    suffixes = [os.path.splitext(name)[1].lower() for name in beside]
    found[LOOSE] = Counter(suffix for suffix in suffixes if suffix in PHOTO_SUFFIXES | NOT_DECODED)
    return {name: kinds for name, kinds in found.items() if kinds}


def unread_in(folder: Path) -> Counter[str]:
    """How many files and folders in an identity's folder are not read, by suffix (`folder` for folders); hidden ones do not count."""
    read = {entry.name for entry in photo_entries(folder)}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name not in read and not entry.name.startswith(".")]
    return Counter(kind_of(folder / name) for name in names)


def kind_of(path: Path) -> str:
    """What a file or folder that is not read is called where such are counted."""
    if os.path.isdir(path):  # of a link into a closed folder `Path.is_dir` would raise
        return "folder"
    suffix = os.path.splitext(path.name)[1].lower() or "without a suffix"
    return f"{suffix} that cannot be reached (a broken link, a closed folder)" if is_photo_name(path.name) else suffix


def counted(kinds: Counter[str]) -> str:
    """The kinds in words, the most frequent first: `30 .heic, 1 folder`."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0])))


def photos_in(photos: Path) -> Iterator[SourcePhoto]:
    """All photos of a source with one folder an identity, sorted by identity and name. Folders without photos give none.

    Raises:
        RequestError: a folder or photo whose name cannot be used.
    """
    for folder in identity_folders(photos):
        for entry in photo_entries(folder):
            yield SourcePhoto(folder.name, safe_name(entry.name, str(folder)), Path(entry.path))


def files_in(photos: Path) -> Iterator[os.DirEntry[str]]:
    """The photo files."""
    for folder in identity_folders(photos):
        yield from photo_entries(folder)
