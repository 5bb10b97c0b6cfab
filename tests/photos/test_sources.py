"""One test file for the sources that are files in folders; the `.rec` has its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RequestError
from pipeline.photos import celeba, folder
from pipeline.photos.lfw import Pair, read_pairs
from pipeline.photos.source import LAYOUTS, safe_name
from pipeline.photos.stage import check_source, fingerprint
from tests.photos.conftest import jpeg


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    return root


@pytest.mark.parametrize("name", ["<script>", "Zoë", "a b", "x..y", "C++", "%2e%2e", "O'Neil", "李"])
def test_strange_names_are_kept(name: str) -> None:
    assert safe_name(name, "here") == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\nb", "a\0b", "\x85", "\udcff", "x" * 300])
def test_names_that_could_leave_the_folder_or_break_a_table_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="here: the name"):
        safe_name(name, "here")


def test_folder_is_sorted_and_skips_what_is_no_photo(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.JPG", "b/1.png", "a/x.WebP", "a/.hidden.jpg", ".git/x.jpg", "<script>/1.jpeg", "top.jpg", "a/deeper/y.jpg")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "b" / "circle.jpg").symlink_to(tmp_path / "b" / "circle.jpg")
    found = [(one.identity, one.photo) for one in folder.photos_in(tmp_path)]
    assert found == [("<script>", "1.jpeg"), ("a", "x.WebP"), ("b", "1.png"), ("b", "2.JPG")]


def test_celeba(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "img_celeba/000001.jpg", "img_celeba/000002.jpg", "img_celeba/000003.jpg", "img_celeba/unnamed.jpg")
    (tmp_path / "identity_CelebA.txt").write_text("000003.jpg 7\n000001.jpg 12\n000002.jpg 7\n000009.jpg 7\n")
    found = [(one.identity, one.photo) for one in celeba.photos_in(tmp_path)]
    assert found == [("12", "000001.jpg"), ("7", "000002.jpg"), ("7", "000003.jpg")]
    assert "1 photos" in capsys.readouterr().err
    check_source("celeba", str(tmp_path))


def test_lists_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 5\n", encoding="utf-8-sig")
    assert [(one.identity, one.photo) for one in celeba.photos_in(tmp_path)] == [("5", "1.jpg")]
    (tmp_path / "pairs.txt").write_text(PAIRS, encoding="utf-8-sig")
    assert len(read_pairs(tmp_path / "pairs.txt")) == 2


def test_celeba_images_beside_the_list(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 5\n")
    assert [one.path for one in celeba.photos_in(tmp_path)] == [tmp_path / "1.jpg"]


@pytest.mark.parametrize("line", ["1.jpg", "1.jpg ../x", "../1.jpg 5", "1.jpg 5 6", "1.jpg .x"])
def test_celeba_refuses_a_bad_line(tmp_path: Path, line: str) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "identity_CelebA.txt").write_text(f"1.jpg 5\n{line}\n")
    with pytest.raises(RequestError, match="line 2"):
        check_source("celeba", str(tmp_path))


PAIRS = "2 1\nAda 1 2\nAda 1 Bo 1\nBo 1 2\nBo 2 Ada 2\n"


def test_pairs(tmp_path: Path) -> None:
    fill(tmp_path, "Ada/Ada_0001.jpg", "Ada/Ada_0002.jpg", "Bo/Bo_0001.jpg", "Bo/Bo_0002.jpg")
    (tmp_path / "pairs.txt").write_text(PAIRS)
    folds = read_pairs(tmp_path / "pairs.txt", tmp_path)
    assert [len(fold) for fold in folds] == [2, 2]
    assert folds[0] == [Pair("Ada/Ada_0001.jpg", "Ada/Ada_0002.jpg", True), Pair("Ada/Ada_0001.jpg", "Bo/Bo_0001.jpg", False)]
    check_source("lfw", str(tmp_path))
    (tmp_path / "Bo/Bo_0002.jpg").unlink()
    with pytest.raises(RequestError, match=r"lacks 1 photos.*Bo/Bo_0002\.jpg"):
        check_source("lfw", str(tmp_path))


SWAPS = ("Bo 1 2", "Bo 1"), ("Ada 2", "../x 2"), ("Bo 1 2", "Bo 1 Ada 2")


@pytest.mark.parametrize("text", ["", "x\n", "2 1\nAda 1 2\n", *(PAIRS.replace(*swap) for swap in SWAPS)])
def test_pairs_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(RequestError, match="PHOTOS"):
        read_pairs(tmp_path / "pairs.txt")


def test_lfw_as_it_is(lfw: Path) -> None:
    folds = read_pairs(lfw / "pairs.txt", lfw)
    assert len(folds) == 10 and all(sum(pair.same for pair in fold) == 300 and len(fold) == 600 for fold in folds)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_wrong_source_is_refused_with_the_layout(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no photos" / "someone").mkdir(parents=True)
    for path in ("missing", "file", "empty", "no photos"):
        with pytest.raises(RequestError, match=rf"PHOTOS=.*{path}.*DATASET={dataset} expects "):
            check_source(dataset, str(tmp_path / path))
    with pytest.raises(RequestError, match="PHOTOS="):
        check_source(dataset, None)


def test_who_has_photos_of_other_formats_only_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.heic", "a/2.HEIC", "b/x.txt")
    with pytest.raises(RequestError, match=r"has 2 folders, but no photo of a format that is read in them: 2 .heic, 1 .txt; DATASET"):
        check_source("folder", str(tmp_path))


def test_synthetic_needs_no_source() -> None:
    check_source("synthetic", None)


def test_fingerprint_notices_new_and_changed_photos(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "b/1.jpg")
    seen = {fingerprint("folder", tmp_path)}
    (tmp_path / "a/notes.txt").write_text("not a photo")
    assert fingerprint("folder", tmp_path) in seen
    fill(tmp_path, "a/2.jpg")
    seen.add(fingerprint("folder", tmp_path))
    (tmp_path / "b/1.jpg").write_bytes(b"other")
    seen.add(fingerprint("folder", tmp_path))
    assert len(seen) == 3
