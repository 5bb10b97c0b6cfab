"""The stages of the benchmark of cost against size, each run on a small stand-in; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.standin import plain_split, write_standin
from benchmarks.webface import growth_of, main, with_splits
from benchmarks.webface_stages import STAGES, training_work
from pipeline.artifacts import read_table


def test_growth_is_the_exponent_of_size() -> None:
    sizes = [{"crops": n, "stages": {"split": {"on_cpu": True, "seconds": 1, "cpu_seconds": 3e-6 * n**2}}} for n in (100, 1000, 10000)]
    assert growth_of(sizes, "split") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "gpu"], "DEVICE=gpu: allowed are auto, cpu, cuda, cuda:N"),
        (["--device", "cuda:99"], "DEVICE=cuda:99: "),
        (["--stages", "read", "epoch"], "--stages epoch: a whole epoch takes a CPU days"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_generated(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["webface", "--folder", str(tmp_path / "crops"), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not (tmp_path / "crops").exists()


def test_a_stage_that_is_asked_for_alone_finds_the_split_that_it_reads() -> None:
    assert with_splits(["read"]) == ["split-full", "read"]
    assert with_splits(["evaluate", "noise-partial"]) == ["split-partial", "split-full", "noise-partial", "evaluate"]
    assert with_splits(["split-partial"]) == ["split-partial"]
    assert with_splits(list(STAGES)) == list(STAGES)


def test_stages_without_a_network(tmp_path: Path) -> None:
    manifest = write_standin(tmp_path / "aligned", 0.002)
    for stage in ("split-full", "protect-full", "read"):
        facts = STAGES[stage](tmp_path, "cpu")()
        assert all(value > 0 for value in facts.values())
    written = read_table(tmp_path / "run" / "full" / "random" / "protected" / "manifest.parquet", ["photo"])
    assert 0 < len(written) <= len(manifest)


@pytest.mark.slow
def test_an_epoch(tmp_path: Path) -> None:
    manifest = write_standin(tmp_path / "aligned", 0.0001)
    STAGES["split-full"](tmp_path, "cpu")()
    facts = STAGES["epoch"](tmp_path, "cpu")()
    assert facts["photos"] + facts["scored"] <= len(manifest) and min(facts.values()) > 0


@pytest.mark.slow
def test_training_steps_over_holes(tmp_path: Path) -> None:
    manifest = write_standin(tmp_path / "aligned", 0.001, holes=True)
    split = plain_split(manifest)
    facts = training_work(split, "clean", tmp_path / "aligned", tmp_path, "cpu", steps=1)
    assert facts["photos"] == np.count_nonzero(split["part"] == "train")
    assert 200 < facts["model_mib"] < 400
