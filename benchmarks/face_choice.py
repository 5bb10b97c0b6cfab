"""How often the face taken from a group photo is the identity's, against taking the largest.

    python -m benchmarks.face_choice --photos <folder> --pack <insightface pack> [--detector mtcnn] [--limit 0]

`--photos` has one folder an identity. The pack's ArcFace is the judge: in a group photo the right face is the one whose median cosine with
the identity's one-face photos is at least 0.25 and 0.1 above the next; photos where there is none are not judged. Besides real groups,
which are few, the second number puts each one-face photo's face beside one of a stranger of the same chunk, of the same size.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.config import AlignConfig
from pipeline.faces.align import Candidate, PhotoFaces, detector_of, look, take_faces
from pipeline.faces.detect import Detector
from pipeline.faces.detect_scrfd import Scrfd
from pipeline.faces.stage import make_chunks
from pipeline.photos import folder
from pipeline.runtime import progress

CLEAR, AHEAD = 0.25, 0.1  # cosines
STRANGERS = 3  # made-up groups of each identity


def judged(rows: list[PhotoFaces], judge: Detector) -> dict[int, int]:
    """The right face of each group photo (by its index in `rows`) that the judge is sure of."""
    truth: dict[int, int] = {}
    for identity in {row.identity for row in rows}:
        own = [index for index, row in enumerate(rows) if row.identity == identity]
        groups = [index for index in own if len(rows[index].candidates) > 1]
        alone = [rows[index].candidates[0].crop for index in own if len(rows[index].candidates) == 1]
        if not groups or not alone:
            continue
        known = judge.describe(np.stack(alone))
        for index in groups:
            faces = judge.describe(np.stack([face.crop for face in rows[index].candidates]))
            cosine = np.median(known @ faces.T, axis=0)
            second, best = np.argsort(cosine)[-2:]
            if cosine[best] >= CLEAR and cosine[best] - cosine[second] >= AHEAD:
                truth[index] = int(best)
    return truth


def with_strangers(rows: list[PhotoFaces], generator: np.random.Generator) -> tuple[list[PhotoFaces], dict[int, int]]:
    """One-face photos, some with a stranger's face put beside; and which face is right there."""
    alone = [row for row in rows if len(row.candidates) == 1]
    made = [PhotoFaces(row.photo, row.identity, candidates=list(row.candidates)) for row in alone]
    truth: dict[int, int] = {}
    for identity in sorted({row.identity for row in alone}):
        own = [index for index, row in enumerate(alone) if row.identity == identity]
        others = [index for index, row in enumerate(alone) if row.identity != identity]
        if len(own) <= STRANGERS + 1 or not others:
            continue
        for index in generator.choice(own, STRANGERS, replace=False):
            stranger = alone[generator.choice(others)].candidates[0]
            mine = alone[index].candidates[0]
            same_size = Candidate(mine.box, stranger.score, stranger.landmarks, stranger.matrix, stranger.crop)
            place = int(generator.integers(2))
            made[index].candidates = [same_size, mine] if place else [mine, same_size]
            truth[int(index)] = place
    return made, truth


def score(rows: list[PhotoFaces], truth: dict[int, int], detector: Detector) -> list[tuple[bool, bool, bool]]:
    """(right, ambiguous, the largest would be right) of each judged photo."""
    take_faces(rows, detector)
    found = []
    for index, right in truth.items():
        row = rows[index]
        largest = int(np.argmax([face.size for face in row.candidates]))
        found.append((row.crop is row.candidates[right].crop, row.crop is None, largest == right))
    return found


def tell(found: list[tuple[bool, bool, bool]]) -> dict[str, int]:
    right, ambiguous, largest = (int(sum(column)) for column in zip(*found, strict=True)) if found else (0, 0, 0)
    return {"photos": len(found), "right": right, "ambiguous": ambiguous, "wrong": len(found) - right - ambiguous, "largest right": largest}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=Path, required=True)
    arguments.add_argument("--pack", type=Path, required=True)
    arguments.add_argument("--detector", choices=("mtcnn", "scrfd"), default="mtcnn")
    arguments.add_argument("--min-face", type=int, default=AlignConfig().min_face)
    arguments.add_argument("--limit", type=int, default=0, help="chunks at most; 0: all")
    options = arguments.parse_args()
    cv2.setNumThreads(1)
    pack = str(options.pack.absolute())
    config = AlignConfig(detector=options.detector, min_face=options.min_face, detector_pack=pack if options.detector == "scrfd" else None)
    judge = Scrfd(Path(pack), device="cpu")
    names = [{"photo": f"{one.identity}/{one.photo}", "identity": one.identity} for one in folder.photos_in(options.photos)]
    photos = pd.DataFrame(names)
    generator = np.random.default_rng(0)
    real: list[tuple[bool, bool, bool]] = []
    made: list[tuple[bool, bool, bool]] = []
    chunks = make_chunks(photos)[: options.limit or None]
    for chunk in progress(chunks, what="chunks", unit="chunk"):
        rows = look(chunk, options.photos, config, device="cpu")
        detector = detector_of(config, "cpu")
        mixed, places = with_strangers(rows, generator)
        real += score(rows, judged(rows, judge), detector)
        made += score(mixed, places, detector)
    counted = {"detector": options.detector, "photos": sum(map(len, chunks))}
    print(json.dumps(counted | {"real groups": tell(real), "with a stranger": tell(made)}))


if __name__ == "__main__":
    main()
