from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config import DATASETS, DataConfig, Dataset
from pipeline.errors import RequestError, StageError
from pipeline.photos import folder, stage
from pipeline.photos.pool import spread
from pipeline.photos.source import LAYOUTS, SourcePhoto
from pipeline.photos.stage import PHOTO_COLUMNS, fingerprint, import_photos
from pipeline.runtime import Runtime
from tests.photos.conftest import jpeg
from tests.photos.jobs import double
from tests.photos.test_recordio import labelled, record, write
from tests.photos.test_sources import fill


def table(output: Path) -> pd.DataFrame:
    found = pd.read_parquet(output / "photos.parquet")
    assert list(found.columns) == PHOTO_COLUMNS
    assert list(found["photo"]) == sorted(found["photo"])
    for photo, identity, size in zip(found["photo"], found["identity"], found["bytes"], strict=True):
        assert (output / "photos" / photo).stat().st_size == size
        assert photo.split("/")[0] == identity
    return found


def synthetic(**changes: int) -> DataConfig:
    return DataConfig.model_validate({"dataset": "synthetic", "identities": 2, "photos_per_identity": 2, "size": 64} | changes)


def test_synthetic_is_rendered_once(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    import_photos(synthetic(), tmp_path, cpu)
    assert len(table(tmp_path)) == 4
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "photos").glob("*/*")}
    lost = next(iter(times))
    content = lost.read_bytes()
    lost.unlink()
    import_photos(synthetic(identities=3), tmp_path, cpu)
    assert len(table(tmp_path)) == 6
    assert [path for path, time in times.items() if path.stat().st_mtime_ns != time] == [lost]
    assert lost.read_bytes() == content
    import_photos(synthetic(), tmp_path, cpu)
    assert len(table(tmp_path)) == 4


def test_strangers_come_after_the_others_and_have_photos_of_their_own_number(tmp_path: Path, cpu: Runtime) -> None:
    import_photos(synthetic(strangers=2, photos_per_stranger=3), tmp_path, cpu)
    assert table(tmp_path)["identity"].value_counts(sort=False).to_dict() == {"id0000": 2, "id0001": 2, "id0002": 3, "id0003": 3}


def test_another_seed_or_size_is_rendered_anew(tmp_path: Path, cpu: Runtime) -> None:
    contents = set()
    for config in (synthetic(), synthetic(seed=1), synthetic(size=80)):
        import_photos(config, tmp_path, cpu)
        contents.add((tmp_path / "photos" / table(tmp_path)["photo"].iloc[0]).read_bytes())
    assert len(contents) == 3


def test_a_killed_stage_leaves_no_table_and_goes_on(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    import_photos(synthetic(), tmp_path, cpu)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "render_some", killed)
        with pytest.raises(KeyboardInterrupt):
            import_photos(synthetic(identities=3), tmp_path, cpu)
    assert not (tmp_path / "photos.parquet").exists()
    import_photos(synthetic(identities=3), tmp_path, cpu)
    assert len(table(tmp_path)) == 6


def test_folders_are_linked_not_copied(tmp_path: Path, cpu: Runtime) -> None:
    source = fill(tmp_path / "source", "<script>/1.jpg", "ann/1.jpg", "ann/2.jpg", "ann/.x.jpg", "none/readme.txt")
    config, output = DataConfig(dataset="folder", photos=str(source)), tmp_path / "data"
    import_photos(config, output, cpu)
    assert list(table(output)["photo"]) == ["<script>/1.jpg", "ann/1.jpg", "ann/2.jpg"]
    assert (output / "photos" / "ann").is_symlink()
    assert os.readlink(output / "photos" / "ann") == str(source / "ann")
    fill(source, "bob/1.jpg")
    import_photos(config.model_copy(update={"fingerprint": "new"}), output, cpu)
    assert "bob/1.jpg" in set(table(output)["photo"])
    assert (source / "ann" / "2.jpg").is_file()


def test_celeba_is_linked_photo_by_photo(tmp_path: Path, cpu: Runtime) -> None:
    source = fill(tmp_path / "source", "img_celeba/1.jpg", "img_celeba/2.jpg")
    (source / "identity_CelebA.txt").write_text("1.jpg 9\n2.jpg 8\n")
    import_photos(DataConfig(dataset="celeba", photos=str(source)), tmp_path / "data", cpu)
    assert list(table(tmp_path / "data")["photo"]) == ["8/2.jpg", "9/1.jpg"]


def test_records_are_written_out(tmp_path: Path, cpu: Runtime) -> None:
    rec = write(tmp_path, [record(labelled([3.0, 4.0], b"", 0)), *(record(labelled([5.0], jpeg(key), key)) for key in (1, 2))])
    import_photos(DataConfig(dataset="webface", photos=str(rec)), tmp_path / "data", cpu)
    assert list(table(tmp_path / "data")["photo"]) == ["0000005/00000001.jpg", "0000005/00000002.jpg"]
    assert (tmp_path / "data/photos/0000005/00000002.jpg").read_bytes() == jpeg(2)


def test_photos_of_others_are_never_deleted(tmp_path: Path, cpu: Runtime) -> None:
    mine = fill(tmp_path / "data" / "photos", "ann/1.jpg", "bob/1.jpg")
    with pytest.raises(RequestError, match="lies inside"):
        import_photos(DataConfig(dataset="folder", photos=str(mine)), tmp_path / "data", cpu)
    source = fill(tmp_path / "source", "ann/1.jpg")
    with pytest.raises(StageError, match="did not put there"):
        import_photos(DataConfig(dataset="folder", photos=str(source)), tmp_path / "data", cpu)
    assert (mine / "ann/1.jpg").is_file() and (mine / "bob/1.jpg").is_file()


@pytest.mark.parametrize("dataset", ["folder", "webface", "lfw", "celeba"])
def test_what_a_user_put_among_the_links_is_not_deleted(tmp_path: Path, cpu: Runtime, dataset: Dataset) -> None:
    source = fill(tmp_path / "source", "ann/1.jpg", "images/1.jpg")
    (source / "identity_CelebA.txt").write_text("1.jpg ann\n")
    (source / "pairs.txt").write_text("1 1\nann 1 1\nann 1 ann 1\n")
    fill(source, "ann/ann_0001.jpg")
    config = DataConfig(dataset=dataset, photos=str(source), fingerprint="one")
    import_photos(config, tmp_path / "data", cpu)
    mine = fill(tmp_path / "data" / "photos", "bob/1.jpg") / "bob/1.jpg"
    with pytest.raises(StageError, match=r"bob/1.jpg: this stage did not put it there"):
        import_photos(config.model_copy(update={"fingerprint": "two"}), tmp_path / "data", cpu)
    assert mine.is_file()
    shutil.rmtree(mine.parent)
    import_photos(config.model_copy(update={"fingerprint": "two"}), tmp_path / "data", cpu)
    assert (source / "ann/1.jpg").is_file() and (tmp_path / "data/photos/ann/1.jpg").is_file()


def test_photos_put_where_an_import_failed_are_not_deleted(tmp_path: Path, cpu: Runtime) -> None:
    """It leaves a note and an empty folder, which looks as if photos belonged there."""
    config, root = DataConfig(dataset="folder", photos=str(fill(tmp_path / "first", "ann/a\nb.jpg"))), tmp_path / "data" / "photos"
    with pytest.raises(RequestError, match="control character"):
        import_photos(config, tmp_path / "data", cpu)
    assert list(root.iterdir()) == []
    mine = fill(root, "id0000/0000.jpg") / "id0000/0000.jpg"  # called as what is rendered, which folders are not
    other = DataConfig(dataset="folder", photos=str(fill(tmp_path / "second", "bob/1.jpg")))
    with pytest.raises(StageError, match=r"id0000/0000.jpg: this stage did not put it there, and would remove it; move it elsewhere"):
        import_photos(other, tmp_path / "data", cpu)
    assert mine.is_file()
    mine.rename(tmp_path / "mine.jpg")
    import_photos(other, tmp_path / "data", cpu)
    assert list(table(tmp_path / "data")["photo"]) == ["bob/1.jpg"]


def test_what_a_user_put_among_rendered_photos_is_not_deleted(tmp_path: Path, cpu: Runtime) -> None:
    import_photos(synthetic(), tmp_path, cpu)
    rendered, mine = sorted((tmp_path / "photos").glob("*/*")), fill(tmp_path / "photos", "id0000/me.jpg") / "id0000/me.jpg"
    import_photos(synthetic(identities=3), tmp_path, cpu)
    with pytest.raises(StageError, match=r"id0000/me.jpg: this stage did not put it there"):
        import_photos(synthetic(seed=1), tmp_path, cpu)
    assert mine.is_file() and all(path.is_file() for path in rendered), "nothing is removed before all is seen to be ours"
    mine.rename(rendered[0].with_name(".0000.jpg.123.tmp"))  # as a kill leaves one
    (tmp_path / "photos.json").write_text("{", encoding="utf-8")
    import_photos(synthetic(seed=1), tmp_path, cpu)
    assert sorted((tmp_path / "photos").glob("*/*")) == rendered


def test_photos_that_would_have_one_path_are_refused(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two only one would be linked; the sources that there are have none such, another might."""
    source = fill(tmp_path / "source", "ann/1.jpg", "bob/1.jpg")

    class Nested:
        check, files_in = staticmethod(folder.check), staticmethod(folder.files_in)

        @staticmethod
        def photos_in(photos: Path) -> Iterator[SourcePhoto]:
            yield from (SourcePhoto("ann", one.photo, one.path) for one in folder.photos_in(photos))

    monkeypatch.setitem(stage.SOURCES, "celeba", Nested())
    with pytest.raises(RequestError, match=r"PHOTOS=.*source: holds more than one photo that would be ann/1.jpg; give"):
        import_photos(DataConfig(dataset="celeba", photos=str(source)), tmp_path / "data", cpu)
    assert not (tmp_path / "data" / "photos.parquet").exists()


def test_records_give_way_to_the_same_photos_in_folders(tmp_path: Path, cpu: Runtime) -> None:
    rec = write(tmp_path, [record(labelled([3.0, 4.0], b"", 0)), *(record(labelled([5.0], jpeg(key), key)) for key in (1, 2))])
    import_photos(DataConfig(dataset="webface", photos=str(rec)), tmp_path / "data", cpu)
    source = fill(tmp_path / "source", "ann/1.jpg")
    import_photos(DataConfig(dataset="webface", photos=str(source)), tmp_path / "data", cpu)
    assert list(table(tmp_path / "data")["photo"]) == ["ann/1.jpg"]


def test_what_a_data_set_is_called_is_said_alike_everywhere() -> None:
    assert set(DATASETS) == {"synthetic", *LAYOUTS} == {"synthetic", "webface", *stage.SOURCES}
    helped = "synthetic, folder, webface, celeba or lfw"
    assert set(helped.replace(" or", ",").split(", ")) == set(DATASETS)
    root = Path(__file__).resolve().parents[2]
    assert all(helped in (root / file).read_text(encoding="utf-8") for file in ("Makefile", "pipeline/command_line.py"))


def test_a_kill_while_old_photos_are_removed_locks_nobody_out(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "source", "ann/1.jpg", "bob/1.jpg")
    config = DataConfig(dataset="folder", photos=str(source), fingerprint="one")
    import_photos(config, tmp_path / "data", cpu)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    other = config.model_copy(update={"fingerprint": "two"})
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        import_photos(other, tmp_path / "data", cpu)
    monkeypatch.undo()
    import_photos(other, tmp_path / "data", cpu)
    assert (tmp_path / "data/photos/bob/1.jpg").is_file()


def test_files_that_are_not_read_are_counted(tmp_path: Path, cpu: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    source = fill(tmp_path / "source", "ann/1.jpg", "ann/2.JFIF", "ann/3.HEIC", "ann/4.heic", "ann/more/5.jpg", "ann/notes", "ann/.hidden")
    fill(source, "8.jpg", "9.HEIC", "list.txt", "bob/1.heif")
    (source / "ann" / "6.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (source / "ann" / "7.jpg").symlink_to(source / "ann" / "7.jpg")
    (source / "loop").symlink_to(source / "loop")
    import_photos(DataConfig(dataset="folder", photos=str(source)), tmp_path / "data", cpu)
    told = capsys.readouterr().err
    assert "2 photos of 1 identities" in told
    assert "not read, so neither protected nor trained on: 2 .heic, " in told
    for kind in ("1 folder", "1 without a suffix", "2 .jpg that cannot be reached", "1 .heif", "; 1 .heic, 1 .jpg beside the folders;"):
        assert kind in told
    assert ".txt" not in told
    counted = stage.not_read(DataConfig(dataset="folder", photos=str(source)))
    assert {name: kinds.total() for name, kinds in counted.items()} == {"ann": 6, "bob": 1, folder.LOOSE: 2}
    assert stage.not_read(DataConfig(dataset="celeba", photos=str(source))) == {} == stage.not_read(synthetic())
    assert stage.not_read(DataConfig(dataset="folder", photos=str(tmp_path / "gone"))) == {}


def test_a_photo_that_may_be_read_again_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "source", "ann/1.jpg", "ann/2.jpg")
    before = fingerprint("folder", source)
    monkeypatch.setattr("pipeline.photos.stage.os.access", lambda path, _: not os.fspath(path).endswith("2.jpg"))
    closed = fingerprint("folder", source)
    monkeypatch.undo()
    assert closed != before == fingerprint("folder", source)


def test_an_identity_that_would_leave_the_folder_writes_nothing(tmp_path: Path, cpu: Runtime) -> None:
    source = fill(tmp_path / "source", "1.jpg")
    (source / "identity_CelebA.txt").write_text("1.jpg ../x\n")
    with pytest.raises(RequestError, match=r"'\.\./x' has a slash"):
        import_photos(DataConfig(dataset="celeba", photos=str(source)), tmp_path / "data", cpu)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_spread(workers: int) -> None:
    with pytest.raises(StageError, match="job -1"):
        list(spread(double, [3, 1, -1], workers=workers))
    assert list(spread(double, [4], workers=workers)) == [(0, 8)]
