"""Protected crops written in shards, by one process or several: the same bytes and measures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pipeline.artifacts import sha256_of, write_array, write_bytes, write_table
from pipeline.errors import StageError
from pipeline.evaluation.imperceptibility import change_of, summarise
from pipeline.noise import protect as module
from pipeline.noise.protect import protect
from pipeline.noise.random import random_noise
from pipeline.noise.table import NoiseTable, add_noise, load_rows, save_noise
from pipeline.runtime import Runtime
from pipeline.shards import open_shard

PHOTOS, IDENTITIES = 23, 4


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder with aligned crops in two shards, a split of all of them, and noise; the crops, and each crop's row of the noise table."""
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (PHOTOS, 112, 112, 3), dtype=np.uint8)
    for number, part in enumerate((crops[:10], crops[10:])):
        write_array(tmp_path / "data" / "aligned" / f"crops-{number}.npy", part)
    whose = np.sort(generator.permutation(np.arange(PHOTOS) % IDENTITIES))
    table = pd.DataFrame({"photo": [f"p{who}/{i:02d}" for i, who in enumerate(whose)], "identity": [f"p{who}" for who in whose]})
    table = table.assign(
        shard=[f"crops-{int(i >= 10)}.npy" for i in range(PHOTOS)], row=[i % 10 if i < 10 else i - 10 for i in range(PHOTOS)]
    )
    write_table(tmp_path / "data" / "aligned" / "manifest.parquet", table.assign(sha256=table["photo"]))
    write_table(
        tmp_path / "split.parquet", table.assign(label=whose, role="protected", part=np.where(np.arange(PHOTOS) % 5, "train", "test"))
    )
    delta = random_noise(rows=IDENTITIES, epsilon=16, seed=0)
    save_noise(tmp_path, NoiseTable(delta, tuple(f"p{who}" for who in range(IDENTITIES)), 16), {})
    return tmp_path, crops, delta[whose]


@pytest.mark.parametrize(("shard", "workers", "files"), [(4096, 1, 1), (10, 1, 3), (10, 2, 3), (6, 1, 4)])
def test_shards(
    project: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, shard: int, workers: int, files: int
) -> None:
    folder, crops, delta = project
    monkeypatch.setattr(module, "SHARD", shard)
    monkeypatch.setattr(module, "READ", 4)
    output = folder / "protected"
    write_array(output / "crops-00009.npy", crops[:1])  # of an earlier run
    (output / ".crops-00000.npy.1.tmp").write_bytes(b"half")
    runtime = Runtime(device="cpu", workers=workers, precision="fp32")
    measures = protect(folder / "split.parquet", folder / "data", folder, output, runtime, photos=False, max_side=1000)
    names = sorted(path.name for path in output.iterdir() if "crops" in path.name)
    assert names == [f"crops-{number:05d}.npy" for number in range(files)]
    wanted = add_noise(crops, delta)
    assert np.array_equal(np.concatenate([open_shard(output / name)[:] for name in names]), wanted)
    manifest = pd.read_parquet(output / "manifest.parquet")
    assert [(name, int(row)) for name, row in zip(manifest["shard"], manifest["row"], strict=True)] == [
        (f"crops-{i // shard:05d}.npy", i % shard) for i in range(PHOTOS)
    ]
    assert measures == {"crops": summarise(change_of(crops, wanted))}


def publish(folder: Path, people: tuple[int, ...]) -> list[str]:
    """Protect the photos of `people` alone, one of 112×112 px for each crop; returns the files in `photos/`."""
    aligned = pd.read_parquet(folder / "data" / "aligned" / "manifest.parquet")
    digests = []
    for photo, shard, row in zip(aligned["photo"], aligned["shard"], aligned["row"], strict=True):
        done, code = cv2.imencode(".png", np.load(folder / "data" / "aligned" / shard)[row])
        assert done
        write_bytes(folder / "data" / "photos" / photo, code.tobytes())
        digests.append(sha256_of(code.tobytes()))
    aligned = aligned.assign(sha256=digests, matrix=[np.eye(2, 3).ravel()] * len(aligned))
    write_table(folder / "data" / "aligned" / "manifest.parquet", aligned)
    everyone = pd.read_parquet(folder / "split.parquet")
    names = [f"p{who}" for who in people]
    write_table(folder / "split.parquet", everyone.assign(role=np.where(everyone["identity"].isin(names), "protected", "other")))
    delta = random_noise(rows=len(people), epsilon=16, seed=0)
    save_noise(folder, NoiseTable(delta, tuple(names), 16), {})
    runtime = Runtime(device="cpu", workers=1, precision="fp32")
    protect(folder / "split.parquet", folder / "data", folder, folder / "protected", runtime, photos=True, max_side=1000)
    return sorted(path.relative_to(folder / "protected" / "photos").as_posix() for path in (folder / "protected").rglob("photos/*/*"))


def test_nobody_elses_photos_lie_among_those_to_publish(project: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder = project[0]
    output = folder / "protected"
    first = publish(folder, (0, 1))
    assert {name.split("/")[0] for name in first} == {"p0", "p1"}
    (output / "photos" / "p1" / ".00.png.1.tmp").write_bytes(b"half")
    (output / "manifest.parquet").unlink()  # as after a kill
    second = publish(folder, (1, 2))
    assert second == sorted(pd.read_parquet(output / "manifest.parquet")["file"])
    assert sorted(path.name for path in (output / "photos").iterdir()) == ["p1", "p2"]
    captions = output / "photos" / "p2" / "captions.txt"
    captions.write_text("mine")
    third = publish(folder, (0, 1))
    assert {name.split("/")[0] for name in third} == {"p0", "p1", "p2"} and captions.exists(), "what a user put there stays"
    captions.unlink()
    captions.parent.rmdir()
    runtime = Runtime(device="cpu", workers=1, precision="fp32")
    protect(folder / "split.parquet", folder / "data", folder, output, runtime, photos=False, max_side=1000)
    assert not (output / "photos").exists()


def test_what_is_advised_about_a_damaged_list_of_photos_helps(project: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder = project[0]
    output = folder / "protected"
    publish(folder, (0, 1))
    (output / "photos.json").write_text('["p0/')
    with pytest.raises(StageError, match=r"photos\.json: damaged") as told:
        publish(folder, (1, 2))
    advised = re.search(r"delete (\S+) and run the same command again", str(told.value))
    assert advised is not None
    shutil.rmtree(advised[1])
    assert {name.split("/")[0] for name in publish(folder, (1, 2))} == {"p1", "p2"}


def test_no_manifest_lists_photos_that_are_being_removed(
    project: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project[0]
    publish(folder, (0, 1))
    manifest = folder / "protected" / "manifest.parquet"
    assert manifest.exists()

    def killed(output: Path, kept: set[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "remove_earlier", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(folder, (1, 2))
    assert not manifest.exists()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_photo_keeps_its_colour_profile(project: tuple[Path, np.ndarray, np.ndarray], mode: str) -> None:
    folder = project[0]
    publish(folder, (0,))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    aligned = pd.read_parquet(folder / "data" / "aligned" / "manifest.parquet")
    photo = next(name for name in aligned["photo"] if name.startswith("p0/"))
    path = folder / "data" / "photos" / photo
    pixels = np.array(Image.open(path))
    Image.fromarray(pixels).convert(mode).save(path, "PNG", icc_profile=profile)
    aligned.loc[aligned["photo"] == photo, "sha256"] = sha256_of(path.read_bytes())
    write_table(folder / "data" / "aligned" / "manifest.parquet", aligned)
    runtime = Runtime(device="cpu", workers=1, precision="fp32")
    measures = protect(folder / "split.parquet", folder / "data", folder, folder / "protected", runtime, photos=True, max_side=1000)
    with Image.open(folder / "protected" / "photos" / f"{photo}.png") as written:
        assert written.info["icc_profile"] == profile
        assert 0 < np.abs(np.array(written).astype(int) - pixels).max() <= 16
    others = [name for name in aligned["photo"] if name.startswith("p0/") and name != photo]
    with Image.open(folder / "protected" / "photos" / f"{others[0]}.png") as plain:
        assert "icc_profile" not in plain.info
    assert measures["photos"]["linf"] <= 16


def test_what_is_published_says_neither_where_nor_when(project: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder = project[0]
    publish(folder, (0,))
    aligned = pd.read_parquet(folder / "data" / "aligned" / "manifest.parquet")
    photo = next(name for name in aligned["photo"] if name.startswith("p0/"))
    path, exif = folder / "data" / "photos" / photo, Image.Exif()
    exif[0x0132] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})  # GPS
    Image.open(path).save(path, "PNG", exif=exif, pnginfo=comment("who took it"))
    with Image.open(path) as told:
        assert told.getexif().get_ifd(0x8825) and told.info["Comment"] == "who took it"
    aligned.loc[aligned["photo"] == photo, "sha256"] = sha256_of(path.read_bytes())
    write_table(folder / "data" / "aligned" / "manifest.parquet", aligned)
    runtime = Runtime(device="cpu", workers=1, precision="fp32")
    protect(folder / "split.parquet", folder / "data", folder, folder / "protected", runtime, photos=True, max_side=1000)
    with Image.open(folder / "protected" / "photos" / f"{photo}.png") as written:
        assert not written.getexif() and not written.info


def comment(text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return info


def test_a_manifest_is_of_the_crops_beside_it(project: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are written anew, and after a failure, there is none."""
    folder = project[0]
    publish(folder, (0, 1))

    def full_disk(*_: object, **__: object) -> None:
        raise StageError("the disk is full")

    monkeypatch.setattr(module, "protect_photos", full_disk)
    with pytest.raises(StageError, match="the disk is full"):
        publish(folder, (0, 1))
    assert (folder / "protected" / "crops-00000.npy").exists()
    assert not (folder / "protected" / "manifest.parquet").exists()


def test_rows_of_a_table_on_disk(project: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder = project[0]
    rows = np.array([3, 0, 3, 1])
    assert np.array_equal(load_rows(folder, rows), random_noise(rows=IDENTITIES, epsilon=16, seed=0)[rows])
