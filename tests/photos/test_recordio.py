from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pipeline.errors import RequestError
from pipeline.photos.recordio import HEADER, MAGIC, photos_in
from pipeline.photos.stage import check_source, fingerprint
from tests.photos.conftest import jpeg


def record(data: bytes, kind: int = 0) -> bytes:
    return struct.pack("<II", MAGIC, kind << 29 | len(data)) + data + b"\0" * (-len(data) % 4)


def labelled(labels: list[float], payload: bytes, key: int) -> bytes:
    flag = 0 if len(labels) == 1 else len(labels)
    extra = struct.pack(f"<{flag}f", *labels) if flag else b""
    return HEADER.pack(flag, labels[0] if not flag else 0.0, key, 0) + extra + payload


def write(folder: Path, records: list[bytes]) -> Path:
    offset, index = 0, []
    for key, one in enumerate(records):
        index.append(f"{key}\t{offset}\n")
        offset += len(one)
    (folder / "train.rec").write_bytes(b"".join(records))
    (folder / "train.idx").write_text("".join(index))
    return folder / "train.rec"


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """Header record, three photos of two identities (the last with an array of labels), and an identity record as InsightFace has."""
    records = [record(labelled([4.0, 6.0], b"", 0))]
    records += [record(labelled([label], jpeg(key), key)) for key, label in ((1, 0.0), (2, 0.0))]
    records += [record(labelled([1.0, 9.0], jpeg(3), 3)), record(labelled([1.0, 3.0], b"", 4)), record(labelled([3.0, 4.0], b"", 5))]
    return write(tmp_path, records)


def test_photos_and_identities(rec: Path) -> None:
    found = list(photos_in(rec))
    assert [one.identity for one in found] == ["0000000", "0000000", "0000001"]
    assert [one.photo for one in found] == ["00000001.jpg", "00000002.jpg", "00000003.jpg"]
    assert [one.content for one in found] == [jpeg(1), jpeg(2), jpeg(3)]
    check_source("webface", str(rec))
    check_source("webface", str(rec.parent))


def test_a_file_without_header_record_is_all_photos(tmp_path: Path) -> None:
    found = list(photos_in(write(tmp_path, [record(labelled([7.0], jpeg(key), key)) for key in range(2)])))
    assert [one.identity for one in found] == ["0000007", "0000007"]


def test_a_record_split_where_its_data_holds_the_magic_number(tmp_path: Path) -> None:
    data = labelled([1.0], b"abcd", 1) + struct.pack("<I", MAGIC) + b"efgh" + struct.pack("<I", MAGIC) + b"ij"
    parts = data.split(struct.pack("<I", MAGIC))
    path = write(tmp_path, [b"".join(record(part, kind) for part, kind in zip(parts, (1, 2, 3), strict=True))])
    (one,) = photos_in(path)
    assert one.content == b"abcd" + struct.pack("<I", MAGIC) + b"efgh" + struct.pack("<I", MAGIC) + b"ij"


@pytest.mark.parametrize("damage", ["cut", "magic", "label", "index", "empty"])
def test_damage_is_one_line(rec: Path, damage: str) -> None:
    content = bytearray(rec.read_bytes())
    if damage == "cut":
        rec.write_bytes(content[: len(content) // 2])
    elif damage == "magic":
        second = int(rec.with_suffix(".idx").read_text().splitlines()[2].split()[1])
        content[second] ^= 0xFF
        rec.write_bytes(content)
    elif damage == "label":
        write(rec.parent, [record(labelled([0.5], jpeg(1), 1))])
    elif damage == "index":
        rec.with_suffix(".idx").write_text("one two three\n")
    else:
        rec.write_bytes(b"")
    with pytest.raises(RequestError, match=r"PHOTOS=.*train.*DATASET=webface expects"):
        list(photos_in(rec))


def test_a_missing_index_is_named(rec: Path) -> None:
    rec.with_suffix(".idx").unlink()
    with pytest.raises(RequestError, match=r"train\.idx is missing"):
        check_source("webface", str(rec.parent))


def test_fingerprint(rec: Path) -> None:
    before = fingerprint("webface", rec.parent)
    assert fingerprint("webface", rec) == before
    rec.write_bytes(rec.read_bytes() + b"\0\0\0\0")
    assert fingerprint("webface", rec) != before
