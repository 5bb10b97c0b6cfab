"""What exists is whole; what is damaged is named and not trusted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from pipeline.artifacts import (
    at_work,
    made_again,
    read_json,
    read_table,
    whole_file,
    write_array,
    write_csv,
    write_if_changed,
    write_json,
    write_table,
    write_text,
)
from pipeline.errors import StageError
from pipeline.shards import open_shard


def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail_halfway() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with whole_file(path) as temporary:
        save_file({"delta": np.zeros(1, np.int8)}, temporary)
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_full_disk_is_said_whatever_the_library_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"

    def fail(error: Exception) -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(RuntimeError, match="unexpected pos"):
        fail(RuntimeError("unexpected pos"))
    with pytest.raises(OSError, match=r"a\.bin"):  # which write() leaves without a name
        fail(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(StageError, match=r"a\.bin: cannot be written, the disk is full; make room"):
        fail(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("pipeline.artifacts.shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(StageError, match="disk is full"):
        fail(RuntimeError("unexpected pos"))
    with pytest.raises(StageError, match="of its own"):
        fail(StageError("of its own"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "watched"),
    [
        ("aligned/crops-00000.npy", "aligned/manifest.parquet"),
        ("aligned/rejects.parquet", "aligned/manifest.parquet"),
        ("error-min/protected/measures.json", "error-min/protected/manifest.parquet"),
        ("error-min/model/train.json", "error-min/model/history.jsonl"),
        ("error-min/noise.json", "error-min/noise.safetensors"),
        ("split.json", "split.parquet"),
        ("report/metrics.json", "report/index.html"),
        ("error-min/metrics.json", "it"),
        ("timings/split.json", "it"),
        ("photos.parquet", "it"),
    ],
)
def test_advice_names_what_make_watches(tmp_path: Path, file: str, watched: str) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("")
    name = watched if watched == "it" else tmp_path / watched
    assert made_again(tmp_path / file) == f"delete {name} and run the same command again"


def test_what_is_missing_of_a_stage_that_never_ran_is_not_to_be_had_by_deleting(tmp_path: Path) -> None:
    made = tmp_path / "error-min" / "model" / "train.json"
    with pytest.raises(StageError, match=r"train.json: missing; run the stage that makes it$"):
        read_json(made)
    write_text(made.with_name("history.jsonl"), "{}")
    with pytest.raises(StageError, match=r"train.json: missing; delete .*history.jsonl and run the same command again$"):
        read_json(made)


def test_a_table_for_people_runs_nothing(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"photo": ["=cmd|calc/0.png", "an/a.png"], "box": [np.array([1, 2.00049]), np.empty(0)], "row": [3, 4]})
    write_csv(tmp_path / "t.csv", table)
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read["photo"]) == ["'=cmd|calc/0.png", "an/a.png"]
    assert list(read["box"]) == ["[1.0, 2.0]", "[]"] and list(read["row"]) == [3, 4]


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_write_if_changed_keeps_the_time(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert write_if_changed(path, "a")
    before = path.stat().st_mtime_ns
    assert not write_if_changed(path, "a")
    assert path.stat().st_mtime_ns == before
    assert write_if_changed(path, "b")
    path.write_bytes(b"\xff damaged")
    assert write_if_changed(path, "b") and path.read_text() == "b"


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    table, array, text = tmp_path / "t.parquet", tmp_path / "crops-x.npy", tmp_path / "j.json"
    write_table(table, pd.DataFrame({"a": range(100)}))
    write_array(array, np.zeros((4, 8, 8, 3), np.uint8))
    write_json(text, {"a": [1, 2, 3]})
    for path in (table, array, text):
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.write_bytes(b"\x93NUMPY something else")
    for path, read in ((table, lambda: read_table(table, ["a"])), (array, lambda: open_shard(array)), (text, lambda: read_json(text))):
        with pytest.raises(StageError, match=path.name):
            read()


def test_tables_and_crops_of_the_wrong_kind(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pd.DataFrame({"a": [1]}))
    with pytest.raises(StageError, match="no column b"):
        read_table(tmp_path / "t.parquet", ["a", "b"])
    write_array(tmp_path / "c.npy", np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(StageError, match="expected uint8"):
        open_shard(tmp_path / "c.npy")


def test_a_disk_too_full_for_a_lock_is_said_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that a stage writes: on a full disk it is what fails."""
    path = tmp_path / "locks" / "split.lock"

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.artifacts.os.write", fail)
        with pytest.raises(StageError, match=r"split\.lock: cannot be written, the disk is full; make room"), at_work(path):
            pytest.fail("went on")
    with at_work(path):
        assert path.read_text().strip() == str(os.getpid())


HOLDS = """
import sys, time
from pathlib import Path
from pipeline.artifacts import at_work
with at_work(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_is_being_worked_on_is_left_alone_until_that_process_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "train-clean.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(StageError, match=f"process {holder.pid} is at this already; wait for it, or stop it"), at_work(path):
        pytest.fail("two at once")
    holder.kill()
    holder.communicate()
    with at_work(path):
        assert path.read_text().strip() == str(os.getpid())
    with at_work(path):
        pass
