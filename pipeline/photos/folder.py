"""Photos in one folder an identity: scraped photos, CASIA-WebFace unpacked, LFW."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.photos.source import SourcePhoto, is_photo_name, safe_name, wrong_layout


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
        raise wrong_layout(dataset, photos, f"has {len(folders)} folders, but no photos in them")


def left_over(photos: Path) -> dict[str, int]:
    """How many files and folders in the identities' folders are not read, by suffix (`folder` for folders); hidden ones do not count."""
    found: Counter[str] = Counter()
    for folder in identity_folders(photos):
        read = {entry.name for entry in photo_entries(folder)}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name not in read and not entry.name.startswith("."):
                    suffix = os.path.splitext(entry.name)[1].lower() or "without a suffix"
                    broken = f"{suffix} that cannot be reached (a broken link, a closed folder)"
                    found["folder" if os.path.isdir(entry.path) else broken if is_photo_name(entry.name) else suffix] += 1
    return dict(found.most_common())


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
