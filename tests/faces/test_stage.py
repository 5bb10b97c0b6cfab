from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts import write_table
from pipeline.config import AlignConfig
from pipeline.errors import RequestError, StageError
from pipeline.faces import stage
from pipeline.faces.geometry import warp_crop
from pipeline.faces.stage import MANIFEST_COLUMNS, ON_A_GPU, REJECT_COLUMNS, TWO_IDENTITIES, align_photos, detection_workers, make_chunks
from pipeline.photos.decode import decode_photo
from pipeline.photos.synthetic import encode_photo, identity_name
from pipeline.runtime import Runtime
from pipeline.shards import open_shard

CONFIG = AlignConfig(min_face=60)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def look(identity: int, photo: int) -> np.ndarray:
    return decode_photo(encode_photo(seed=0, identity=identity, photo=photo), max_side=300)


def data_folder(root: Path, files: dict[str, bytes]) -> Path:
    """A data folder as the data stage leaves it."""
    for name, content in files.items():
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    names = sorted(files)
    rows = [{"photo": name, "identity": name.split("/")[0], "bytes": len(files[name])} for name in names]
    write_table(root / "photos.parquet", pd.DataFrame(rows))
    return root


def faces(identities: int, photos: int) -> dict[str, bytes]:
    return {
        f"{identity_name(identity)}/{photo:04d}.jpg": encode_photo(seed=0, identity=identity, photo=photo)
        for identity in range(identities)
        for photo in range(photos)
    }


def results(data: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The manifest's rows by photo, checked, and the rejects' reasons by photo."""
    aligned = data / "aligned"
    manifest, rejects = pd.read_parquet(aligned / "manifest.parquet"), pd.read_parquet(aligned / "rejects.parquet")
    assert list(manifest.columns) == MANIFEST_COLUMNS and list(rejects.columns) == REJECT_COLUMNS
    listed = pd.read_parquet(data / "photos.parquet")["photo"]
    assert sorted([*manifest["photo"], *rejects["photo"]]) == sorted(listed)
    rows: dict[str, Any] = {str(photo): row for photo, (_, row) in zip(manifest["photo"], manifest.iterrows(), strict=True)}
    for row in rows.values():
        assert len(row["box"]) == 4 and len(row["landmarks"]) == 10 and len(row["matrix"]) == 6
    in_csv = pd.read_csv(aligned / "manifest.csv")
    assert len(in_csv) == len(manifest) and len(json.loads(str(in_csv["matrix"][0]))) == 6
    return rows, dict(zip(rejects["photo"], rejects["reason"], strict=True))


def crop_of(data: Path, row: Any) -> np.ndarray:
    return np.asarray(open_shard(data / "aligned" / row["shard"])[row["row"]])


def test_a_messy_folder(tmp_path: Path, cpu: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    files = faces(3, 5)
    mine, stranger = look(3, 1), look(7, 0)
    for shift in range(6):  # a burst of much the same photo
        files[f"id0003/{shift}.png"] = png(np.clip(np.roll(mine, shift, (0, 1)) * 0.9 + 3.0 * shift, 0, 255).astype(np.uint8))
    large = np.asarray(Image.fromarray(stranger).resize((325, 325)))
    group = np.full((325, 575, 3), 90, np.uint8)
    group[:, :325], group[40:290, 325:] = large, mine
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(look(0, 7))).save(turned, "JPEG", quality=95, exif=exif)
    alpha = np.dstack([look(1, 6), np.full((250, 250), 255, np.uint8)])
    files |= {
        "id0003/group.png": png(group),
        "id0000/turned.jpg": turned.getvalue(),
        "id0001/alpha.png": png(alpha),
        "id0001/again.jpg": files["id0001/0001.jpg"],
        "id0001/blank.png": png(np.full((200, 200, 3), 128, np.uint8)),
        "id0001/cut.jpg": files["id0001/0000.jpg"][:3000],
        "id0001/empty.jpg": b"",
        "id0001/grey.png": png(look(1, 7).mean(2).astype(np.uint8)),
        "id0001/html.jpg": b"<html>",
        "id0001/tiny.png": png(np.zeros((3, 3, 3), np.uint8)),
        "id0001/wide.png": png(np.zeros((2, 20_000, 3), np.uint8)),
        "<script>/theirs.jpg": files["id0002/0002.jpg"],
    }
    data = data_folder(tmp_path, files)
    align_photos(CONFIG, data, cpu)
    rows, reasons = results(data)
    assert (
        reasons.items()
        >= {
            "id0001/again.jpg": "duplicate",
            "id0001/blank.png": "no face",
            "id0001/cut.jpg": "truncated",
            "id0001/empty.jpg": "empty",
            "id0001/html.jpg": "unreadable",
            "id0001/tiny.png": "too small",
            "id0001/wide.png": "too large",
            "id0002/0002.jpg": TWO_IDENTITIES,
            "<script>/theirs.jpg": TWO_IDENTITIES,
        }.items()
    )
    assert {"id0001/grey.png", "id0001/alpha.png", "id0003/group.png", "id0000/turned.jpg"} <= set(rows)
    assert rows["id0003/group.png"]["box"][0] > 300  # the smaller face, on the right
    assert (rows["id0003/group.png"]["width"], rows["id0003/group.png"]["height"]) == (575, 325)
    upright = np.ravel(rows["id0000/turned.jpg"]["landmarks"]).reshape(5, 2)
    assert upright[:2, 1].max() < upright[3:, 1].min()  # eyes above the mouth
    for photo in ("id0003/group.png", "id0000/0001.jpg", "id0000/turned.jpg"):
        matrix = np.reshape(rows[photo]["matrix"], (2, 3))
        expected = warp_crop(decode_photo(files[photo], max_side=8192), matrix)
        assert (crop_of(data, rows[photo]) == expected).all()
    assert f"aligned {len(rows)} of {len(files)} photos" in capsys.readouterr().err


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def test_a_large_photo_is_cut_as_if_it_were_decoded_whole(tmp_path: Path, cpu: Runtime) -> None:
    """A JPEG is decoded at reduced scale, a PNG of the same pixels is not."""
    close = np.asarray(Image.fromarray(look(4, 0)).resize((2301, 2301), Image.Resampling.BICUBIC))
    far = np.full((2200, 2300, 3), 90, np.uint8)  # the face is so small that its crop needs all pixels
    far[900:1400, 700:1200] = np.asarray(Image.fromarray(look(7, 0)).resize((500, 500), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = 6
    jpegs = {
        "close": jpeg(close),
        "turned": jpeg(np.rot90(close[:2111]), exif=exif),
        "far": jpeg(far),
        "grey": jpeg(close.mean(2).astype(np.uint8)),
    }
    files = {f"{name}/jpeg.jpg": content for name, content in jpegs.items()}
    whole = {name: decode_photo(content, max_side=8192) for name, content in jpegs.items()}
    files |= {f"{name}/png.png": png(pixels) for name, pixels in whole.items()}
    data = data_folder(tmp_path, files)
    align_photos(AlignConfig(), data, cpu)
    rows, reasons = results(data)
    assert not reasons
    for name, pixels in whole.items():
        reduced, full = rows[f"{name}/jpeg.jpg"], rows[f"{name}/png.png"]
        assert (reduced["width"], reduced["height"]) == (full["width"], full["height"]) == pixels.shape[1::-1]
        eyes, expected = (np.reshape(row["landmarks"], (5, 2)) for row in (reduced, full))
        assert np.linalg.norm(eyes - expected, axis=1).mean() < 0.05 * np.linalg.norm(expected[0] - expected[1])
        assert np.abs(np.subtract(reduced["box"], full["box"])).max() < 0.05 * (full["box"][2] - full["box"][0])
        crop, cut = crop_of(data, reduced), warp_crop(pixels, np.reshape(reduced["matrix"], (2, 3)))
        if name == "far":
            assert (crop == cut).all()
        else:
            assert not (crop == cut).all() and np.abs(crop.astype(int) - cut).mean() < 1.5


@pytest.fixture
def three_chunks(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stage, "CHUNK_PHOTOS", 2)
    data = data_folder(tmp_path, faces(3, 2))
    align_photos(CONFIG, data, cpu)
    return data


def contents(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "aligned").iterdir()}


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "table gone", "table cut", "left over"])
def test_a_damaged_chunk_is_done_again_and_no_other(three_chunks: Path, damage: str, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(three_chunks)
    shard = sorted((three_chunks / "aligned").glob("crops-*.npy"))[1]
    table = shard.with_suffix(".parquet")
    if damage == "gone":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(before[shard.name][:-1000])
    elif damage == "flipped":
        shard.write_bytes(before[shard.name][:-1000] + bytes(byte ^ 255 for byte in before[shard.name][-1000:]))
    elif damage == "table gone":
        table.unlink()
    elif damage == "table cut":
        table.write_bytes(before[table.name][:100])
    else:  # as after a kill: a temporary file and no manifest
        (three_chunks / "aligned" / ".crops-x.npy.123.tmp").write_bytes(b"half")
        (three_chunks / "aligned" / "manifest.parquet").unlink()
    done: list[str] = []
    original = stage.align_and_write
    monkeypatch.setattr(stage, "align_and_write", lambda job, **rest: (done.append(job[0]), original(job, **rest)))
    align_photos(CONFIG, three_chunks, cpu)
    assert done == ([] if damage == "left over" else [shard.stem.removeprefix("crops-")])
    assert contents(three_chunks) == before


def test_a_changed_photo_or_config_is_aligned_anew(three_chunks: Path, cpu: Runtime) -> None:
    before = contents(three_chunks)
    photo = three_chunks / "photos" / "id0001" / "0000.jpg"
    photo.write_bytes(encode_photo(seed=1, identity=1, photo=0))
    align_photos(CONFIG, three_chunks, cpu)
    kept = {name for name, content in contents(three_chunks).items() if name.startswith("crops-") and before.get(name) == content}
    assert len(kept) == 4 and len(list((three_chunks / "aligned").glob("crops-*"))) == 6
    align_photos(CONFIG.model_copy(update={"min_face": 61}), three_chunks, cpu)
    assert not kept & set(contents(three_chunks))


def test_an_edit_to_what_cuts_faces_leaves_no_old_crop(
    three_chunks: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = stage.code_of_crops()
    names = {path.name for path in code}
    assert {"align.py", "choose.py", "cascade.py", "detect_scrfd.py", "geometry.py", "decode.py"} <= names and "restore.py" not in names
    before = set(contents(three_chunks))
    edited = tmp_path / "geometry.py"
    edited.write_text("# cut otherwise", encoding="utf-8")
    monkeypatch.setattr(stage, "code_of_crops", lambda: [edited if path.name == edited.name else path for path in code])
    align_photos(CONFIG, three_chunks, cpu)
    assert not {name for name in before if name.startswith("crops-")} & set(contents(three_chunks))


@pytest.mark.slow
def test_two_workers_give_the_same(three_chunks: Path) -> None:
    before = contents(three_chunks)
    for path in (three_chunks / "aligned").glob("crops-*"):
        path.unlink()
    align_photos(CONFIG, three_chunks, Runtime(device="cpu", workers=2, precision="fp32"))
    assert contents(three_chunks) == before


def test_a_gpu_is_shared_by_few_processes() -> None:
    many = Runtime(device="cpu", workers=16, precision="fp32")
    on_gpus = replace(many, device="cuda"), replace(many, device="cuda:1", workers=2)
    assert [detection_workers(one) for one in (many, *on_gpus)] == [16, ON_A_GPU, 2]


def test_whole_identities_stay_together() -> None:
    photos = pd.DataFrame([(f"{name}/{number}", name) for name in "abcde" for number in range(90)], columns=["photo", "identity"])
    chunks = make_chunks(photos)
    assert [len(chunk) for chunk in chunks] == [180, 180, 90]
    large = make_chunks(pd.DataFrame({"photo": [f"a/{number:04d}" for number in range(500)], "identity": "a"}))
    assert [len(chunk) for chunk in large] == [500]


def test_the_central_face_is_taken_where_that_is_the_rule(tmp_path: Path, cpu: Runtime) -> None:
    """LFW's: the face nearest the centre, though others are larger and the identity has no other photo to compare with."""
    group = np.full((250, 750, 3), 90, np.uint8)
    group[:, :250], group[:, 500:] = look(1, 0), look(2, 0)
    group[25:225, 275:475] = np.asarray(Image.fromarray(look(3, 0)).resize((200, 200)))
    data = data_folder(tmp_path, {"id0003/group.png": png(group)})
    align_photos(CONFIG.model_copy(update={"face": "centre"}), data, cpu)
    rows, reasons = results(data)
    assert not reasons
    left, _, right, _ = rows["id0003/group.png"]["box"]
    assert 275 < left < right < 475


def test_crops_that_are_aligned_already(tmp_path: Path, cpu: Runtime) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    data = data_folder(tmp_path, {"a/1.png": png(crop), "a/2.png": png(crop[:100])})
    align_photos(AlignConfig(already_aligned=True), data, cpu)
    rows, reasons = results(data)
    assert reasons == {"a/2.png": "not a 112×112 crop"}
    (row,) = rows.values()
    assert (crop_of(data, row) == crop).all() and list(row["matrix"]) == [1, 0, 0, 0, 1, 0]


def test_no_face_anywhere_says_why(tmp_path: Path, cpu: Runtime) -> None:
    blank = {f"a/{value}.png": png(np.full((150, 150, 3), value, np.uint8)) for value in (10, 200)}
    data = data_folder(tmp_path, blank | {"b/1.png": b"", "b/2.png": b"x"})
    with pytest.raises(StageError, match="2 no face, 1 empty, 1 unreadable"):
        align_photos(CONFIG, data, cpu)
    assert not (data / "aligned" / "manifest.parquet").exists()


def test_each_copy_of_a_broken_file_is_broken(tmp_path: Path, cpu: Runtime) -> None:
    """And not a duplicate of a photo, or one that is under two identities."""
    broken = {f"{name}/{number}.jpg": content for name in ("a", "b") for number, content in enumerate((b"x", b"x", b"", b""))}
    data = data_folder(tmp_path, faces(1, 1) | broken)
    align_photos(CONFIG, data, cpu)
    assert results(data)[1] == {photo: "unreadable" if content else "empty" for photo, content in broken.items()}


def test_a_photo_that_vanished_is_rejected(tmp_path: Path, cpu: Runtime) -> None:
    data = data_folder(tmp_path, faces(1, 2))
    (data / "photos" / "id0000" / "0001.jpg").unlink()
    align_photos(CONFIG, data, cpu)
    assert results(data)[1] == {"id0000/0001.jpg": "missing"}


def test_a_photo_that_may_not_be_read_is_not_called_missing(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_folder(tmp_path, faces(1, 2))
    read = Path.read_bytes

    def forbidden(path: Path) -> bytes:
        if path.name == "0001.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    align_photos(CONFIG, data, cpu)
    assert results(data)[1] == {"id0000/0001.jpg": "may not be read"}


def test_without_the_data_stage(tmp_path: Path, cpu: Runtime) -> None:
    with pytest.raises(StageError, match=r"photos\.parquet: missing"):
        align_photos(CONFIG, tmp_path, cpu)


def test_real_group_photos(tmp_path: Path, cpu: Runtime, real_photos: Path) -> None:
    """Where a stranger's larger face is put beside, the identity's is taken or none."""
    files: dict[str, bytes] = {}
    people = sorted(real_photos.iterdir())[:5]
    for folder in people:
        files |= {f"{folder.name}/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:9]}
    stranger = decode_photo(sorted(sorted(real_photos.iterdir())[20].glob("*.jpg"))[0].read_bytes(), max_side=8192)
    own = people[0].name
    for name in [name for name in sorted(files) if name.startswith(own)][:4]:
        mine = decode_photo(files[name], max_side=8192)
        tall = max(len(mine), 2 * len(stranger))
        both = np.zeros((tall, mine.shape[1] + 2 * stranger.shape[1], 3), np.uint8)
        both[: len(mine), : mine.shape[1]] = mine
        both[: 2 * len(stranger), mine.shape[1] :] = stranger.repeat(2, 0).repeat(2, 1)
        files[name] = png(both)
    data = data_folder(tmp_path, files)
    align_photos(AlignConfig(), data, cpu)
    rows, reasons = results(data)
    groups = [name for name in files if name.startswith(own) and files[name].startswith(b"\x89PNG")]
    right = [name for name in groups if name in rows and rows[name]["box"][0] < rows[name]["width"] - 2 * stranger.shape[1]]
    assert len(right) + sum(reasons.get(name) == "ambiguous" for name in groups) == len(groups)
    assert right


def test_scrfd(tmp_path: Path, cpu: Runtime, pack: Path) -> None:
    data = data_folder(tmp_path, faces(2, 2))
    align_photos(AlignConfig(detector="scrfd", detector_pack=str(pack), min_face=60), data, cpu)
    rows, _ = results(data)
    assert len(rows) >= 3


@pytest.mark.parametrize("given", [None, "/nowhere", ""])
def test_scrfd_without_its_pack(tmp_path: Path, cpu: Runtime, given: str | None) -> None:
    data = data_folder(tmp_path, faces(1, 2))
    with pytest.raises(RequestError, match="DETECTOR_PACK"):
        align_photos(AlignConfig(detector="scrfd", detector_pack=given), data, cpu)
