"""The variables of `make`, one by one: what each may be, and what is wrong with one that may not."""

from __future__ import annotations

import os
import shlex
import unicodedata
from pathlib import Path
from typing import Any

from pipeline.artifacts import sha256_of_file, sha256_of_files
from pipeline.errors import RequestError
from pipeline.photos.lfw import PAIRS_FILE

KNOWN_RECOGNISERS = (".safetensors", ".onnx")  # how files end that `noise/known.py` reads


def one_of(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value`, if it is allowed; otherwise `RequestError` naming the variable and what is."""
    if value not in allowed:
        raise RequestError(f"{variable}={value}: allowed are {', '.join(allowed)}")
    return value


def whole_number(variable: str, value: str, low: int, high: int) -> int:
    """`value` as a whole number within [low, high]; otherwise `RequestError`."""
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise RequestError(f"{variable}={value}: allowed are whole numbers from {low} to {high}")
    return int(value)


def composed(name: str) -> str:
    """`name` in Unicode's form NFC: an ö is typed as one character, and where a folder came from a Mac it is often an o and its dots."""
    return unicodedata.normalize("NFC", name)


def identities_asked_for(value: str) -> int | tuple[str, ...]:
    """How many identities, or the names in a file with one a line, sorted: in which order they stand there says nothing."""
    path = Path(value)
    if not path.is_file():
        try:
            return whole_number("IDENTITIES", value, 1, 1_000_000)
        except RequestError as error:
            raise RequestError(f"{error}, or a file with one name a line (there is none called that)") from None
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"IDENTITIES={value}: not readable as text ({error})") from None
    if not names:
        raise RequestError(f"IDENTITIES={value}: the file names nobody; allowed is one identity a line")
    spelt = [composed(name) for name in names]
    repeated = sorted({name for name in spelt if spelt.count(name) > 1})
    if repeated:
        raise RequestError(f"IDENTITIES={value}: {repeated[0]!r} stands there more than once")
    return tuple(sorted(names))


def identities_in(dataset: str, source: str, identities: int | tuple[str, ...], setting: str) -> int | tuple[str, ...]:
    """The identities asked for, names as their folders are spelt.

    Refuses those that the source cannot have, before any face is looked for: where folders are identities, that is quick to see.

    Raises:
        RequestError: more than there are, a name that is no folder, or whose folder holds no photo, or with SETTING=partial nobody left who
            is not protected.
    """
    from pipeline.photos.folder import counted, identity_folders, photo_entries, unread_in
    from pipeline.photos.source import PHOTO_SUFFIXES
    from pipeline.photos.stage import by_folder

    if not by_folder(dataset, Path(source)):
        return identities
    folders = {path.name for path in identity_folders(Path(source))}
    most = len(folders) - (setting == "partial")
    if most < 1:
        raise RequestError(f"PHOTOS={source}: holds one folder; noise is searched against other people, so at least two are needed")
    if isinstance(identities, int):
        count = identities
    else:
        ordered = sorted(folders)
        # A line is read without the blanks around it, so a folder's name with some is found without them, too.
        spelling = {composed(name.strip()): name for name in ordered} | {composed(name): name for name in ordered}
        spelling |= {name: name for name in ordered}
        missing = [name for name in identities if name not in spelling and composed(name) not in spelling]
        if missing:
            raise RequestError(f"IDENTITIES: {missing[0]!r} is no folder in PHOTOS={source}")
        identities = tuple(spelling[name] if name in spelling else spelling[composed(name)] for name in identities)
        for name in identities:
            if not photo_entries(Path(source) / name):
                inside = counted(unread_in(Path(source) / name)) or "nothing"
                raise RequestError(
                    f"IDENTITIES: {name!r}: that folder in PHOTOS={source} holds no photo of a format that is read: {inside}; allowed are "
                    f"{' '.join(sorted(PHOTO_SUFFIXES))}"
                )
        count = len(identities)
    if count > most:
        others = "" if setting == "full" else ": SETTING=partial leaves some unprotected; or SETTING=full"
        raise RequestError(f"IDENTITIES={count}: allowed are 1 to {most} of the {len(folders)} folders in PHOTOS={source}{others}")
    return identities


def source_asked_for(dataset: str, photos: str) -> str | None:
    """The absolute path of the photos; none for synthetic ones."""
    if dataset == "synthetic":
        if photos:
            raise RequestError(f"PHOTOS={photos}: synthetic photos are rendered; for your own give DATASET=folder as well")
        return None
    if not photos:
        raise RequestError(f"PHOTOS is empty: DATASET={dataset} needs the path of the photos")
    try:
        path = str(Path(photos).expanduser().absolute())
    except RuntimeError:
        raise RequestError(f"PHOTOS={photos}: nobody of that name has a home here; write the folder out") from None
    plain = os.path.normpath(path)  # one folder, one spelling, or all would be done anew; after a link `..` leads elsewhere
    if os.path.exists(plain) and os.path.exists(path) and os.path.samefile(plain, path):
        path = plain
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"PHOTOS={path!r}: a name in it is not UTF-8; rename that folder") from None
    return path


def weights_asked_for(variable: str, value: str) -> dict[str, str]:
    """Path and SHA-256 of a weights file; empty if none was asked for."""
    if not value:
        return {}
    path = Path(value)
    if path.suffix != ".safetensors" or not path.is_file():
        raise RequestError(f"{variable}={value}: not there; allowed is the path of a .safetensors file, or nothing (from scratch)")
    return {"weights": str(path.resolve()), "weights_sha256": sha256_of_file(path)}


def reference_asked_for(value: str) -> dict[str, str]:
    """Absolute path and SHA-256 of an ONNX recogniser that was trained elsewhere; empty if it was not asked for."""
    if not value:
        return {}
    if not value.endswith(".onnx") or not Path(value).is_file():
        raise RequestError(f"REFERENCE={value}: not there; allowed is the path of an insightface recogniser (.onnx), or nothing")
    return {"reference": str(Path(value).absolute()), "reference_sha256": sha256_of_file(Path(value))}


def lfw_asked_for(value: str, dataset: str, source: str | None) -> str | None:
    """The absolute path of LFW, for verification; none if it was not asked for. `source`: the photos of the data set itself."""
    if not value:
        return None
    if source is not None and (dataset == "lfw" or Path(source).resolve() == Path(value).resolve()):
        raise RequestError(
            f"LFW={value}: the ten folds hold photos that PHOTOS={source} trains on; leave LFW= empty: people who are kept out of training "
            f"are verified anyway"
        )
    if not (Path(value) / PAIRS_FILE).is_file():
        raise RequestError(f"LFW={value}: allowed is a folder of LFW with {PAIRS_FILE} in it, or nothing")
    return str(Path(value).absolute())


def cloaked_from(value: str) -> dict[str, Any]:
    """Paths and SHA-256 of the recognisers that a cloak is made against."""
    try:
        paths = [Path(word).expanduser() for word in shlex.split(value)]  # a shell leaves `~` in quotes as it is
    except (ValueError, RuntimeError) as error:  # quotes that do not end; `~nobody`
        raise RequestError(f"CLOAK_AGAINST={value}: not to be read as words ({error}); paths with spaces go in quotes") from None
    allowed = "allowed are paths of recognisers: .safetensors (facenet-pytorch's InceptionResnetV1) or .onnx (insightface's)"
    if not paths:
        raise RequestError(f"ARMS: cloak is made against recognisers that exist: give CLOAK_AGAINST=; {allowed}")
    for path in paths:
        if path.suffix not in KNOWN_RECOGNISERS:
            raise RequestError(f"CLOAK_AGAINST={value}: {path} is no such file; {allowed}")
        if not path.is_file():
            raise RequestError(f"CLOAK_AGAINST={value}: {path} is not there; {allowed}")
    digests = [sha256_of_file(path) for path in paths]
    twice = [str(path) for path, digest in zip(paths, digests, strict=True) if digests.count(digest) > 1]
    if twice:
        raise RequestError(f"CLOAK_AGAINST={value}: {' and '.join(twice)} are one recogniser; each counts once")
    return {"against": [str(path.absolute()) for path in paths], "against_sha256": digests}


def given_to(arms: list[str], value: str, epsilon: int) -> dict[str, dict[str, str]]:
    """By arm, the patterns that it takes from an earlier run; empty where none were given."""
    if not value:
        return {}
    from pipeline.noise.given import patterns_asked_for  # reads arrays: only where there are some

    return patterns_asked_for(value, arms, epsilon)


def detector_pack(value: str, wanted_by: str) -> dict[str, str]:
    """Absolute path of the insightface pack that scrfd needs, and a digest of its models."""
    if not value or not Path(value).is_dir():
        raise RequestError(f"DETECTOR_PACK={value}: {wanted_by} needs the folder of a local insightface pack (det_*.onnx)")
    pack = Path(value).absolute()
    return {"detector_pack": str(pack), "detector_pack_sha256": sha256_of_files(sorted(pack.glob("*.onnx")))}
