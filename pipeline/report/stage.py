"""The report stage: metrics.json, metrics.csv and index.html of a run, in that order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.artifacts import made_again, read_json, read_table, write_json, write_text
from pipeline.config import ReportConfig, load
from pipeline.errors import StageError
from pipeline.evaluation.seeds import join_seeds
from pipeline.evaluation.summary import summarise_run
from pipeline.report.render import Panel, render_report
from pipeline.report.table import metrics_frame
from pipeline.runtime import Runtime
from pipeline.shards import open_shard

PEOPLE_SHOWN = 4


def report_run(arms: list[str], data: Path, run: Path, output: Path, runtime: Runtime) -> None:
    """Write the report of `run` into `output`: `metrics.json`, `metrics.csv` and `index.html`.

    Faces of real people are shown only where the report's config says that they consented.
    """
    metrics = summarise_run(arms, data, run, runtime)
    panels = choose_panels(arms, data, run) if load(ReportConfig, run / "config" / "report.yaml").faces_shown else []
    write_json(output / "metrics.json", metrics)
    write_text(output / "metrics.csv", metrics_frame(metrics).to_csv(index=False))
    render_report(metrics, panels, output)


def report_seeds(folders: list[Path], output: Path) -> None:
    """Join the reports in `folders`, one a seed, into one in `output`."""
    metrics = join_seeds([read_json(folder / "metrics.json") for folder in folders], name=output.name)
    write_json(output / "metrics.json", metrics)
    write_text(output / "metrics.csv", metrics_frame(metrics).to_csv(index=False))
    render_report(metrics, [], output)


def choose_panels(arms: list[str], data: Path, run: Path) -> list[Panel]:
    """The first photo of the first protected identities, as crop and as whole photo, in each arm with noise."""
    panels: list[Panel] = []
    clean = read_table(data / "aligned" / "manifest.parquet", ["photo", "shard", "row"]).set_index("photo")
    for arm in arms:
        folder = run / arm / "protected"
        if not (folder / "manifest.parquet").exists():
            continue
        table = read_table(folder / "manifest.parquet", ["photo", "identity", "shard", "row"])
        shown = table.drop_duplicates("identity").head(PEOPLE_SHOWN).reset_index(drop=True)
        for index in range(len(shown)):
            row = {name: shown[name].iloc[index] for name in shown.columns}
            place = clean.loc[row["photo"]]
            original = open_shard(data / "aligned" / str(place["shard"]))[int(place["row"])]
            protected = open_shard(folder / row["shard"])[int(row["row"])]
            panels.append(Panel(row["identity"], row["photo"], arm, original, protected, "crop"))
            if index == 0 and "file" in row:
                before, after = photo_pair(data / "photos" / row["photo"], folder / "photos" / row["file"])
                panels.append(Panel(row["identity"], row["photo"], arm, before, after, "photo"))
    return panels


def photo_pair(original: Path, protected: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photo and its protected version: uint8 H×W×3, RGB, upright."""
    from pipeline.photos.decode import decode_photo

    written = cv2.imread(str(protected), cv2.IMREAD_COLOR)
    if written is None:
        raise StageError(f"{protected}: unreadable; {made_again(protected.parents[2] / protected.name)}")
    before = decode_photo(original.read_bytes(), max_side=max(written.shape))
    return before, cv2.cvtColor(written, cv2.COLOR_BGR2RGB)
