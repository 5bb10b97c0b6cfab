"""Protected crops written in shards, by one process or several: the same bytes and measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import write_array, write_table
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


def test_rows_of_a_table_on_disk(project: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder = project[0]
    rows = np.array([3, 0, 3, 1])
    assert np.array_equal(load_rows(folder, rows), random_noise(rows=IDENTITIES, epsilon=16, seed=0)[rows])
