"""Labeled Faces in the Wild: one folder an identity, and `pairs.txt` with its ten folds of pairs (Huang et al., 2007)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.photos import folder
from pipeline.photos.source import safe_name, wrong_layout

PAIRS_FILE = "pairs.txt"
photos_in = folder.photos_in


@dataclass(frozen=True)
class Pair:
    """Two photos as `identity/photo.jpg`, and whether they show the same person."""

    first: str
    second: str
    same: bool


def check(photos: Path, dataset: str) -> None:
    """`RequestError` unless there are folders of photos, and `pairs.txt`, whose photos are all there."""
    folder.check(photos, dataset)
    read_pairs(photos / PAIRS_FILE, photos)


def files_in(photos: Path) -> Iterator[Path | os.DirEntry[str]]:
    """The photo files, and `pairs.txt`."""
    yield from folder.files_in(photos)
    yield photos / PAIRS_FILE


def photo_of(name: str, number: str) -> str:
    """`Aaron_Eckhart`, `1` → `Aaron_Eckhart/Aaron_Eckhart_0001.jpg`."""
    return f"{name}/{name}_{int(number):04d}.jpg"


def read_pairs(path: Path, photos: Path | None = None) -> list[list[Pair]]:
    """The folds of the verification protocol (ten in LFW), each its same pairs and then as many different ones.

    Args:
        path: `pairs.txt`: a first line of folds and pairs, then lines of `name n1 n2` (same) and `name1 n1 name2 n2` (different).
        photos: folder of the identities; where given, each photo named must be there.

    Raises:
        RequestError: the file is missing or of another form, or names photos that are missing (says how many, and the first few).
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise wrong_layout("lfw", path.parent, f"has no {path.name}") from None
    except UnicodeDecodeError:
        raise wrong_layout("lfw", path, "is not text") from None
    if not lines or len(lines[0]) not in (1, 2) or not all(word.isdigit() for word in lines[0]):
        raise wrong_layout("lfw", path, "does not begin with the number of folds and of pairs in each")
    folds, each = (1, int(lines[0][0])) if len(lines[0]) == 1 else (int(lines[0][0]), int(lines[0][1]))
    pairs = [read_pair(words, path, number) for number, words in enumerate(lines[1:], 2)]
    if folds < 1 or each < 1 or len(pairs) != folds * each * 2:
        raise wrong_layout("lfw", path, f"announces {folds} folds of {each} same and {each} different pairs, but holds {len(pairs)} pairs")
    found = [pairs[start : start + 2 * each] for start in range(0, len(pairs), 2 * each)]
    if any(pair.same != (place < each) for fold in found for place, pair in enumerate(fold)):
        raise wrong_layout("lfw", path, "does not give each fold's same pairs before its different ones")
    if photos is not None:
        named = sorted({photo for pair in pairs for photo in (pair.first, pair.second)})
        missing = [photo for photo in named if not (photos / photo).is_file()]
        if missing:
            raise wrong_layout("lfw", photos, f"lacks {len(missing)} photos that {path.name} names: {', '.join(missing[:3])}")
    return found


def read_pair(words: list[str], path: Path, number: int) -> Pair:
    """One line of `pairs.txt`."""
    places = {3: (1, 2), 4: (1, 3)}.get(len(words), ())
    if not places or not all(words[place].isdigit() for place in places):
        raise wrong_layout("lfw", path, f"line {number} is {' '.join(words)[:80]!r}, not a pair")
    for name in {words[0], words[-2]} if len(words) == 4 else {words[0]}:
        safe_name(name, f"{path}, line {number}")
    if len(words) == 3:
        return Pair(photo_of(words[0], words[1]), photo_of(words[0], words[2]), same=True)
    return Pair(photo_of(words[0], words[1]), photo_of(words[2], words[3]), same=False)
