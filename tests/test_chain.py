"""The whole chain on the smoke profile from an empty folder, and what the Makefile promises about running again.

The project is copied, so that files can be touched and runs killed; tests here run in order and share that copy. One that is run alone has
its study made first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.report.validity import counts

ROOT = Path(__file__).resolve().parents[1]
RUN = "synthetic-smoke-partial-id3-eps16-s0"
STAGE = re.compile(r"-m pipeline (data|align|split|noise|protect|train|evaluate|report)(?:.*--arm (\S+))?")
pytestmark = pytest.mark.slow


class Project:
    """A copy of the project in an empty folder, and `make` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("pipeline", "configs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "requirements.lock"):
            shutil.copy2(ROOT / name, folder / name)
        # The packages that run this test are the ones to use: nothing is installed from here.
        venv = folder / ".venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (venv / "bin" / "python").chmod(0o755)
        shutil.copy(ROOT / "requirements.lock", venv / "installed.lock")

    def words(self, *words: str) -> list[str]:
        return ["make", *words, *([] if any(word.startswith("PROFILE=") for word in words) else ["PROFILE=smoke"])]

    def environment(self) -> dict[str, str]:
        """On the CPU, where the same seed gives the same bytes: a GPU adds up in any order, and make would take one that it finds."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))} | {"DEVICE": "cpu"}

    def make(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.words(*words), cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def stages(self, *words: str) -> list[str]:
        """The stages that `make` ran, as `stage` or `stage arm`."""
        found = STAGE.findall(self.make(*words).stdout)
        return sorted(" ".join(part for part in one if part) for one in found)

    @property
    def run(self) -> Path:
        return self.folder / "data" / "runs" / RUN

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "reports" / RUN / "metrics.json").read_text(encoding="utf-8"))


STUDY = ("study", "IDENTITIES=3")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project; nothing was run in it before the first test."""
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def project(empty: Project) -> Project:
    """The same copy with its study in it, which the first test leaves there."""
    if not (empty.folder / "reports" / RUN / "index.html").exists():
        empty.make(*STUDY)
    return empty


def test_killed_noise_leaves_nothing_to_trust_and_the_study_goes_on(empty: Project) -> None:
    running = subprocess.Popen(
        empty.words(*STUDY), cwd=empty.folder, env=empty.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    seen = ""
    for line in running.stdout:
        seen += line
        if "error-min: round 1" in line:
            os.killpg(running.pid, signal.SIGKILL)
            break
    running.communicate()
    assert "round 1" in seen, seen
    assert not (empty.run / "error-min" / "noise.safetensors").exists()
    assert not (empty.folder / "reports" / RUN).exists()

    stages = empty.stages(*STUDY)
    assert not {"data", "align", "split"} & set(stages)
    assert {"noise error-min", "protect error-min", "train error-min", "evaluate error-min", "report"} <= set(stages)


def test_study_ends_with_the_verdict_and_a_second_one_runs_nothing(project: Project) -> None:
    done = project.make(*STUDY)
    assert not STAGE.search(done.stdout), done.stdout
    verdict, report = done.stdout.strip().splitlines()[-2:]
    assert verdict == project.metrics()["verdict"]
    assert report == f"report: reports/{RUN}/index.html"
    assert (project.folder / "reports" / RUN / "index.html").stat().st_size > 10_000


def test_metrics_keep_the_contract(project: Project) -> None:
    metrics = project.metrics()
    assert metrics["schema"] == 1
    assert metrics["run"] == RUN
    assert (metrics["identities"], metrics["classes"], metrics["setting"]) == (3, 6, "partial")
    assert set(metrics["arms"]) == {"clean", "error-min", "random"}
    for name, arm in metrics["arms"].items():
        for group in ("protected", "others"):
            record = arm[group]
            assert len(record["by_epoch"]) == 2
            assert record["final"] == record["by_epoch"][-1]
            assert record["peak"] == max(record["by_epoch"])
            assert len(record["per_identity"]) == 3
        assert set(arm["verification"]["tar_at_far"]) == {"0.01", "0.001"}
        assert ("noise" in arm) == (name != "clean")
    told = set(re.findall(r"[`.]([a-z_0-9]+)(?=[`.])", (ROOT / "reports" / "README.md").read_text(encoding="utf-8")))
    assert told >= {*metrics} - {"arms"}, "every key stands in reports/README.md"
    for arm in metrics["arms"].values():
        assert told >= {*arm, *arm["verification"], *arm["training"], *arm.get("noise", {})}
    assert {"commit", "dirty", "created", "seeds", "config", "dataset", "packages", "hardware", "seconds"} <= set(metrics["provenance"])
    checks = {check["name"]: check["ok"] for check in metrics["checks"]}
    assert checks["no photo on both sides"]
    assert checks["error-min: epsilon kept on disk"]
    table = pd.read_csv(project.folder / "reports" / RUN / "metrics.csv")
    assert {"clean", "error-min", "random"} <= set(table["arm"].dropna())


def run_notebook(name: str, project: Project, *, cells: int | None = None, **variables: str) -> str:
    """Run a notebook's cells, or the first so many, in the project's copy; returns what they printed."""
    notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
    code = "\n\n".join(["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"][:cells])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    env = os.environ | variables
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_of_a_run_reads_its_report(project: Project) -> None:
    printed = run_notebook("finished_run.ipynb", project)
    assert project.metrics()["verdict"] in printed
    arms = [arm for arm in project.metrics()["arms"] if not counts(project.metrics(), arm)]
    assert ("of the protected are never recognised" in printed) == ("error-min" not in arms)
    assert all(f"{arm}: invalid, not drawn" in printed for arm in arms)
    assert "check failed: enough identities for intervals (3 protected" in printed


def test_the_notebook_of_one_identity_walks_through_the_run(project: Project) -> None:
    printed = run_notebook("one_identity.ipynb", project)
    assert f"{RUN}: 3 protected" in printed
    assert re.search(r"largest change [1-9]\d*/255", printed)
    arms = project.metrics()["arms"]
    person = re.search(r"here (\S+) with", printed)
    assert person is not None
    for arm in ("clean", "error-min"):
        right = re.search(rf"trained on {arm} photos: (\d+) of (\d+) recognised", printed)
        assert right is not None
        assert int(right[1]) / int(right[2]) == pytest.approx(arms[arm]["protected"]["per_identity"][person[1]], abs=1e-4)


def test_the_notebook_of_one_identity_finds_the_photos_of_a_profile_with_a_dash(project: Project) -> None:
    data, profile = project.folder / "data", "laptop-quick"  # laptop's own photos are elsewhere
    run = RUN.replace("smoke", profile)
    (data / f"synthetic-{profile}").symlink_to("synthetic-smoke")
    (data / "runs" / run).symlink_to(RUN)
    printed = run_notebook("one_identity.ipynb", project, cells=2, RUN_FOLDER=str(data / "runs" / run))
    for link in (data / f"synthetic-{profile}", data / "runs" / run):
        link.unlink()
    assert f"{run}: 3 protected" in printed


def test_networks_are_asked_whether_they_name_people_by_their_noise(project: Project) -> None:
    from benchmarks.named_by_noise import named

    shares: dict[str, tuple[float, float, float]] = {}
    for arm, own, without, anybody, for_another in named(project.folder / "data" / "synthetic-smoke", project.run):
        shares[arm] = own, without, anybody
        assert for_another is None, "that is asked of tap alone"
    assert set(shares) == {"clean", "error-min", "random"}
    own, without, anybody = shares["clean"]
    assert own == without <= anybody <= 1  # without noise there is nothing to leave out
    assert all(0 <= share <= 1 for three in shares.values() for share in three)


def test_what_is_published_keeps_epsilon_and_the_rest_of_the_photo(project: Project) -> None:
    from pipeline.photos.decode import decode_photo

    folder = project.run / "error-min" / "protected"
    manifest: Any = pd.read_parquet(folder / "manifest.parquet")
    split: Any = pd.read_parquet(project.run / "split.parquet")
    aligned: Any = pd.read_parquet(project.folder / "data" / "synthetic-smoke" / "aligned" / "manifest.parquet").set_index("photo")
    assert set(manifest["photo"]) == set(split.loc[split["role"] == "protected", "photo"])
    largest = 0
    for row in manifest.to_dict("records"):
        original = decode_photo((project.folder / "data" / "synthetic-smoke" / "photos" / row["photo"]).read_bytes(), max_side=8192)
        encoded = np.fromfile(folder / "photos" / row["file"], np.uint8)
        written = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]
        change = np.abs(written.astype(int) - original)
        assert change.max() == row["linf"]
        matrix = aligned.loc[row["photo"], "matrix"].reshape(2, 3)
        y, x = np.mgrid[: change.shape[0], : change.shape[1]]
        at = np.stack([x, y], 2) @ matrix[:, :2].T + matrix[:, 2]
        outside = ((at < -1) | (at > 112)).any(2)
        assert outside.any()
        assert not change[outside].any(), "the photo changed outside its face"
        largest = max(largest, change.max())
    assert 2 < largest <= 16
    crops = np.load(project.run / "random" / "protected" / "crops-00000.npy")
    assert len(crops) == len(manifest)
    assert not (project.run / "random" / "protected" / "photos").exists(), "a control is not for publishing"


def test_same_seed_same_files(project: Project, tmp_path: Path) -> None:
    """What the report joins is compared, and what it was measured on; its own sums are in the summary's tests."""
    from pipeline.noise.table import load_noise

    project.make("evaluate", "IDENTITIES=3", "ARMS=clean error-min", f"DATA_ROOT={tmp_path}", "WORKERS=3")

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if key not in ("seconds", "peak_memory_mib")}
        return value

    again = tmp_path / "runs" / RUN
    for arm in ("clean", "error-min"):
        before, after = (json.loads((run / arm / "metrics.json").read_text(encoding="utf-8")) for run in (project.run, again))
        assert timeless(before) == timeless(after)
    for name in ("protected/crops-00000.npy", "model/weights.safetensors"):
        assert (project.run / "error-min" / name).read_bytes() == (again / "error-min" / name).read_bytes(), name
    (noise, _), (same, _) = (load_noise(run / "error-min") for run in (project.run, again))  # whose file has metadata in any order
    assert np.array_equal(noise.delta, same.delta) and noise.names == same.names


def test_other_identities_reuse_photos_and_crops(project: Project) -> None:
    assert project.stages("align", "IDENTITIES=2") == []  # writes the snapshots of their run
    assert dry(project, RUN.replace("id3", "id2"), "protect", "IDENTITIES=2") == {"split", "noise error-min", "protect error-min"}
    assert project.stages("protect", "IDENTITIES=3") == []


def test_other_arms_rerun_the_report_alone(project: Project) -> None:
    report = project.folder / "reports" / RUN / "index.html"
    assert project.stages(*STUDY, "ARMS=clean error-min") == ["report"]
    assert "random" not in project.metrics()["arms"]
    stamp = report.stat().st_mtime_ns
    assert project.stages(*STUDY, "ARMS=clean error-min") == [] and report.stat().st_mtime_ns == stamp
    assert project.stages(*STUDY) == ["report"]
    assert set(project.metrics()["arms"]) == {"clean", "error-min", "random"}


def test_a_config_reruns_only_what_reads_it(project: Project) -> None:
    profile = project.folder / "configs" / "smoke.yaml"
    text = profile.read_text(encoding="utf-8")
    profile.write_text(text + "\n# a comment changes nothing\n", encoding="utf-8")
    assert project.stages(*STUDY) == []
    profile.write_text(text.replace("bootstrap: 200", "bootstrap: 201"), encoding="utf-8")
    assert project.stages(*STUDY) == ["evaluate clean", "evaluate error-min", "evaluate random", "report"]
    assert project.stages(*STUDY) == []


@pytest.mark.parametrize(
    ("module", "reran", "kept"),
    [
        ("pipeline/report/render.py", {"report"}, {"evaluate clean", "train clean"}),
        ("pipeline/evaluation/verdict.py", {"report"}, {"evaluate clean", "train clean"}),
        ("pipeline/evaluation/verification.py", {"evaluate clean", "report"}, {"train clean", "noise error-min"}),
        ("pipeline/training/loop.py", {"train clean", "train error-min", "report"}, {"noise error-min", "protect error-min", "align"}),
        ("pipeline/noise/protect.py", {"protect error-min", "train error-min"}, {"noise error-min", "train clean", "align"}),
    ],
)
def test_an_edit_reruns_its_own_stage_and_what_follows(project: Project, module: str, reran: set[str], kept: set[str]) -> None:
    time.sleep(0.01)
    (project.folder / module).touch()
    found = dry(project, RUN, *STUDY)
    assert reran <= found
    assert not kept & found
    for path in (project.folder / "data").rglob("*"):  # up to date again for the next one
        if path.is_file() and path.suffix in (".parquet", ".safetensors", ".jsonl", ".json"):
            path.touch()
    for name in ("split.parquet", "*/noise.safetensors", "*/protected/manifest.parquet", "*/model/history.jsonl", "*/metrics.json"):
        for path in project.run.glob(name):
            path.touch()
            time.sleep(0.01)
    (project.folder / "reports" / RUN / "index.html").touch()


def dry(project: Project, run: str, *words: str) -> set[str]:
    """The stages that would run, as `stage` or `stage arm`: snapshots count as up to date."""
    folders = (project.folder / "data" / "synthetic-smoke", project.folder / "data" / "runs" / run / "config")
    snapshots = [path.relative_to(project.folder) for folder in folders for path in folder.glob("*.yaml")]
    told = project.make(*words, "-n", "-o", "FORCE", *(f"-o{path}" for path in snapshots)).stdout
    return {" ".join(part for part in one if part) for one in STAGE.findall(told)}


def test_a_damaged_artefact_is_named_and_not_trusted(project: Project) -> None:
    path = project.run / "error-min" / "noise.safetensors"
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[: len(whole) // 2])
    done = project.make(*STUDY, code=2)  # make's own code for a failed recipe
    assert "noise.safetensors: damaged" in done.stderr
    assert "Traceback" not in done.stderr
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("deleted", "remade"),
    [
        ("error-min/noise.safetensors", "noise error-min"),
        ("random/protected/manifest.parquet", "protect random"),
        ("error-min/model/history.jsonl", "train error-min"),
        ("clean/model/history.jsonl", "train clean"),
        ("clean/metrics.json", "evaluate clean"),
    ],
)
def test_what_is_deleted_is_made_again(project: Project, deleted: str, remade: str) -> None:
    """Messages say "delete it and run again"."""
    path = project.run / deleted
    away = path.rename(path.with_suffix(".away"))
    assert dry(project, RUN, *STUDY) >= {remade, "report"}
    away.rename(path)
    assert dry(project, RUN, *STUDY) == set()


@pytest.mark.parametrize(
    ("damaged", "trigger", "watched"),
    [
        ("error-min/protected/crops-00000.npy", "error-min/model/history.jsonl", "protected/manifest.parquet"),
        ("random/noise.json", "random/protected/manifest.parquet", "random/noise.safetensors"),
    ],
)
def test_what_a_message_advises_helps(project: Project, damaged: str, trigger: str, watched: str) -> None:
    """`make` watches one file of a stage: deleting another one would change nothing."""
    (project.run / damaged).write_bytes(b"damaged")
    (project.run / trigger).unlink()
    told = project.make(*STUDY, code=2).stderr
    advised = re.search(rf"{damaged}: .*; delete (\S+) and run the same command again", told)
    assert advised is not None and advised[1].endswith(watched), told
    (project.folder / advised[1]).unlink()
    project.make(*STUDY)
    assert dry(project, RUN, *STUDY) == set()


def test_a_refused_request_takes_nothing_away(project: Project) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (project.folder / "data").rglob("*") if path.is_file() and path.suffix != ".lock"}

    before = times()
    for word in ("DETECTOR=bogus", "EPSILON=300", "ARMS=clean magic"):
        project.make(*STUDY, word, code=2)
    assert times() == before
    assert dry(project, RUN, *STUDY) == set()


def test_a_matrix_goes_on_after_a_kill_and_its_verdict_knows_of_it(project: Project) -> None:
    words = ("matrix", "IDENTITIES=3", "ARMS=clean error-min", "MATRIX=grey recropped")
    running = subprocess.Popen(
        project.words(*words), cwd=project.folder, env=project.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if "matrix: 1 of 3 done" in line:
            os.killpg(running.pid, signal.SIGKILL)
            break
    running.communicate()
    done = project.make(*words)
    assert re.search(r"[12] of 3 trainings done before", done.stderr), "the first is not trained again"
    metrics = project.metrics()
    assert set(metrics["countermeasures"]) == {"early-stopping", "grey", "recropped"}
    assert set(metrics["countermeasures"]["grey"]) == {"clean", "error-min"}
    assert set(metrics["countermeasures"]["recropped"]) == {"error-min"}, "the clean arm's is the study itself"
    trial = project.run / "error-min" / "trials" / "recropped"
    published = pd.read_parquet(project.run / "error-min" / "protected" / "manifest.parquet").query("part == 'train'")
    anew, lost = (pd.read_parquet(trial / "aligned" / f"{name}.parquet") for name in ("manifest", "rejects"))
    assert sorted([*anew["photo"], *lost["photo"]]) == sorted(published["photo"])
    everyone = pd.read_parquet(project.run / "split.parquet").query("part == 'train'")
    assert json.loads((trial / "result.json").read_text(encoding="utf-8"))["photos"] == len(everyone) - len(lost)
    assert "greyscale" in (project.folder / "reports" / RUN / "index.html").read_text(encoding="utf-8")


def test_wrong_requests_cost_nothing(empty: Project, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for words, message in (
        (("EPSILON=300",), "EPSILON=300: allowed are whole numbers from 1 to 64"),
        (("IDENTITIES=1000",), "IDENTITIES=1000: allowed are 1 to 5"),
        (("SEEDS=0 x",), 'SEEDS=0 x: allowed are whole numbers, such as 0 or "0 1 2"'),
        (("IDENTITIES=3", "MATRIX=jpeg-50"), "MATRIX=jpeg-50 is for `make matrix`"),
        (("matrix", "IDENTITIES=3", "MATRIX=jpeg-0"), "MATRIX: countermeasure 'jpeg-0': allowed is jpeg-Q"),
        (("IDENTITIES=3", "LFW=/nowhere"), "LFW=/nowhere: allowed is a folder of LFW"),
        (("IDENTITIES=3 4",), "IDENTITIES=3 4: allowed is one value without spaces"),
        (("DATASET=folder", "PHOTOS=/no/such place"), "/no/such place"),
        (("ARMS=clean magic",), "ARMS=magic: allowed"),
        (("IDENTITIES=o'brien",), "IDENTITIES=o'brien: allowed is a value without any of"),
        (("REPORTS_ROOT=a:b",), "REPORTS_ROOT=a:b: allowed is a value without any of"),
        (("REPORTS_ROOT=~/x",), "REPORTS_ROOT=~/x: `~` is not read here"),
    ):
        done = empty.make("study", *words, f"DATA_ROOT={root}", code=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not root.exists()


def test_help_lists_every_target_and_variable() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^([A-Z_]+) \?=.*##", text, re.MULTILINE):
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name
    for name in re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE):
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name
