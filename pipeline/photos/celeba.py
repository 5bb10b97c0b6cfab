"""CelebA: all photos in one folder, and `identity_CelebA.txt` that says whose each is (Liu et al., ICCV 2015)."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipeline.photos.folder import photo_entries
from pipeline.photos.source import SourcePhoto, is_photo_name, safe_name, wrong_layout
from pipeline.runtime import say

IDENTITY_FILE = "identity_CelebA.txt"
IDENTITY_PLACES = (".", "Anno")
IMAGE_PLACES = ("img_celeba", "img_align_celeba", "Img/img_celeba", "Img/img_align_celeba", "images", ".")


def check(photos: Path, dataset: str) -> None:
    """`RequestError` unless there are `identity_CelebA.txt` and some of the images it names."""
    identities_and_images(photos)


def identities_and_images(photos: Path) -> tuple[dict[str, list[str]], Path]:
    """The photo names of each identity, and the folder of the images."""
    identities = read_identities(identity_file(photos))
    return identities, image_folder(photos, [name for names in identities.values() for name in names])


def files_in(photos: Path) -> Iterator[Path | os.DirEntry[str]]:
    """`identity_CelebA.txt`, and all images beside those it names."""
    yield identity_file(photos)
    yield from photo_entries(identities_and_images(photos)[1])


def identity_file(photos: Path) -> Path:
    """Where `identity_CelebA.txt` lies; `RequestError` if it does not."""
    for place in IDENTITY_PLACES:
        if (photos / place / IDENTITY_FILE).is_file():
            return photos / place / IDENTITY_FILE
    raise wrong_layout("celeba", photos, f"has no {IDENTITY_FILE}")


def read_identities(path: Path) -> dict[str, list[str]]:
    """Photo names of each identity, from lines of `photo identity`, both sorted.

    Raises:
        RequestError: a line that is not of that kind, a name that cannot be used, or a photo named twice.
    """
    owner: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise wrong_layout("celeba", path, "is not text") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise wrong_layout("celeba", path, f"line {number} is {line[:80]!r}, not: photo identity")
        photo, identity = (safe_name(word, f"{path}, line {number}") for word in words)
        if owner.setdefault(photo, identity) != identity:
            raise wrong_layout("celeba", path, f"line {number} gives {photo} to {identity}, a line before to {owner[photo]}")
    found: dict[str, list[str]] = defaultdict(list)
    for photo in sorted(owner):
        found[owner[photo]].append(photo)
    return dict(sorted(found.items()))


def image_folder(photos: Path, some: list[str]) -> Path:
    """The folder that holds the images, told by `some` of their names; `RequestError` if none does."""
    for place in IMAGE_PLACES:
        if any((photos / place / name).is_file() for name in some):
            return photos / place
    raise wrong_layout("celeba", photos, f"holds none of the images that {IDENTITY_FILE} names, such as {some[0] if some else 'none'}")


def photos_in(photos: Path) -> Iterator[SourcePhoto]:
    """All photos that `identity_CelebA.txt` names and that are there, sorted by identity and name; says how many are missing.

    Raises:
        RequestError: not laid out like CelebA.
    """
    identities, images = identities_and_images(photos)
    missing = []
    for identity, names in identities.items():
        for name in names:
            if not is_photo_name(name):
                continue
            if (images / name).is_file():
                yield SourcePhoto(identity, name, images / name)
            else:
                missing.append(name)
    if missing:
        say(f"celeba: {len(missing)} photos that {IDENTITY_FILE} names are not in {images}, such as {missing[0]}")
