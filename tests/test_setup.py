"""One source of pins, for pip and conda users alike; the packages the project promises are in it and used."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from pipeline.bookkeeping import MADE
from pipeline.command_line import parser
from pipeline.faces.stage import NO_CROPS
from pipeline.noise.arms import ARMS, SURROGATES
from tests.tiny_onnx import write_recogniser

ROOT = Path(__file__).resolve().parents[1]
PROMISED = ("torch", "facenet-pytorch", "insightface", "onnxruntime-gpu", "opencv-python", "scikit-learn", "pandas")
MODULES = ("torch", "facenet_pytorch", "insightface", "onnxruntime", "cv2", "sklearn", "pandas")


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.strip() and not line.startswith("#") and "sys_platform == 'never'" not in line]
    pins = [line.split(";")[0].strip() for line in kept]
    assert all(re.fullmatch(r"[a-z0-9.\-]+==[^=]+", pin) for pin in pins), pins
    return dict(pin.split("==") for pin in pins)


def test_lock_is_plain_pins_without_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--" not in text
    assert locked()


def test_promised_packages_are_pinned_and_the_cpu_runtime_is_not() -> None:
    assert set(PROMISED) <= set(locked())
    assert "onnxruntime" not in locked()


def test_everything_declared_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[<>=!~\[ ]", one)[0].lower() for one in declared}
    assert names <= set(locked())
    for one in declared:
        if "==" in one and ";" not in one:
            name, version = one.split("==")
            assert locked()[name] == version


def test_what_is_imported_is_declared() -> None:
    """A package that only another one asks for goes with that one's next version."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[<>=!~\[ ]", one)[0].lower() for one in declared}
    nodes = [node for path in (ROOT / "pipeline").glob("**/*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    others = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"pipeline"}
    packages = packages_distributions()
    assert {module for module in others if not names & {package.lower() for package in packages[module]}} == set()


def test_conda_has_no_pins_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    names = {re.split(r"[<>=]", one)[0] for one in environment["dependencies"]}
    assert names == {"python", "make"}, "uv and pip are those of .venv"
    assert "requirements.lock" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="the provider of other systems is linked to other files")
def test_what_onnxruntime_needs_on_a_gpu_is_installed() -> None:
    """No machine without a GPU would notice: what its CUDA provider is linked to is the system's, or in a package that it searches."""
    from pipeline.onnx_session import DRIVER, cuda_provider, loads, needed_libraries

    needed = needed_libraries(cuda_provider())
    assert DRIVER in needed and "libc.so.6" in needed
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    installed = {path.name for path in packages.glob("**/lib/*.so*")}
    assert {name for name in needed if name not in installed and name != DRIVER and not loads(name)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_promised_packages_are_used(module: str) -> None:
    # facenet-pytorch's networks and weights are read from its files: the package as a whole imports a detector, which takes seconds.
    used = re.compile(rf'^\s*(import|from) {module}\b|find_spec\("{module}"\)', re.MULTILINE)
    assert any(used.search(path.read_text(encoding="utf-8")) for path in (ROOT / "pipeline").rglob("*.py"))


def make(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`make` in a folder, the project's own if none is given, as from a shell without any of its variables; it must run no stage."""
    named = re.findall(r"^([A-Z_0-9]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    kept = {name: value for name, value in os.environ.items() if name not in named and not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=folder, env=kept, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study", "DATA_ROOT=/my data"), "DATA_ROOT=/my data: allowed is one value without spaces"),
        (("study", "REPORTS_ROOT=my reports"), "REPORTS_ROOT=my reports: allowed is one value without spaces"),
        (("study", "VENV=my env"), "VENV=my env: allowed is one value without spaces"),
        (("study", "WORKERS=many"), "WORKERS=many: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=0"), "WORKERS=0: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=auto 2"), "WORKERS=auto 2: allowed are auto and whole numbers from 1"),
        (("study", "WORKERS=2; ls"), "WORKERS=2; ls: allowed are auto and whole numbers from 1"),
        (("study", "DEVICE=cuda:1", "NPROC=2"), "DEVICE=cuda:1: with NPROC=2 each process has a GPU of its own; allowed are auto, cpu"),
        (("study", f"IDENTITIES={ROOT / 'pipeline'}"), "pipeline: is a folder; allowed is how many, or a file with one name a line"),
        (("protect", "ARMS=clean"), "ARMS=clean: nothing to protect with; allowed is an arm with noise, such as error-min"),
        (("protect", "ARMS=clean removed"), "ARMS=clean removed: nothing to protect with"),
        (("study", "MATRIX=core"), "MATRIX=core is for `make matrix`"),
        (("study", "DATASET=folder", "PHOTOS=/a/b$c"), "PHOTOS=/a/b$c: allowed is a path without `$`"),
        (("study", "DATA_ROOT=$(HOME)/x"), "DATA_ROOT=$(HOME)/x: allowed is a path without `$`"),
        (("study", "DATA_ROOT=a|b"), "DATA_ROOT=a|b: allowed is a value without any of : ; % ' \" | &"),
        (("study", "IDENTITIES=tom&ann"), "IDENTITIES=tom&ann: allowed is a value without any of"),
        (("study", "VENV=a(b"), "VENV=a(b: allowed is a value without any of : ; % ' \" | & ( ) < > `"),
        (("study", "VENV=a>b"), "VENV=a>b: allowed is a value without any of"),
        (("study", "DATA_ROOT=-mine"), "DATA_ROOT=-mine: allowed is a value that does not begin with `-`"),
    ],
)
def test_what_make_itself_reads_is_checked_in_one_line(words: tuple[str, ...], message: str) -> None:
    done = make("-n", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr, done.stderr
    assert done.stdout == ""


def test_a_list_of_names_may_begin_like_an_option(tmp_path: Path) -> None:
    """A number below one is for `configure` to refuse, which says what is allowed; a file is counted whatever it is called."""
    (tmp_path / "-list").write_text("anna\nbob\n", encoding="utf-8")
    for given, count in (("-list", "2"), ("-3", "-3")):
        shown = "--eval=shown: ; @echo $(COUNT)$(WHO)"
        done = make("-f", str(ROOT / "Makefile"), shown, "shown", f"IDENTITIES={given}", folder=tmp_path)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert done.stdout.startswith(count) and ("-of" in done.stdout) == (given == "-list"), done.stdout


def test_values_that_begin_like_options_arrive(tmp_path: Path) -> None:
    """The recipe that hands them on is run, with `printf` in the place of Python: a word a line."""
    given = {"PHOTOS": "-mine", "DETECTOR_PACK": "--pack", "CLOAK_AGAINST": "-a b", "ARMS": "random", "LFW": "-lfw", "DEVICE": "-1"}
    target = f"{tmp_path}/data/runs/folder-laptop-partial-id50-eps16-s0/config/split.yaml"
    words = ["INSTALLED=", "PIPELINE=printf '%s\\n'", f"DATA_ROOT={tmp_path}/data", "DATASET=folder"]
    done = make(*words, *(f"{name}={value}" for name, value in given.items()), target)
    asked = parser().parse_args(done.stdout.splitlines())
    assert (asked.stage, asked.photos, asked.detector_pack, asked.cloak_against, asked.lfw, asked.device) == (
        "configure",
        "-mine",
        "--pack",
        "-a b",
        "-lfw",
        "-1",
    )
    assert not re.findall(r'--[a-z-]+ "\$', (ROOT / "Makefile").read_text(encoding="utf-8"))


def test_a_python_that_is_too_old_says_how_to_name_another(tmp_path: Path) -> None:
    old = tmp_path / "python"
    pretended = "import sys; sys.version_info, sys.version = (3, 9), '3.9.1 of old'; exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretended}" "$2"\n', encoding="utf-8")
    old.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON3={old}")
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 or newer is needed, this is 3.9.1: name one, as in PYTHON3=python3.12\n")
    assert re.search(r"^  PYTHON3 .*\(python3\)$", make("help").stdout, re.MULTILINE)


def test_setup_goes_on_where_venv_was_killed(tmp_path: Path) -> None:
    """It leaves a Python without pip; another call of it mends that."""
    venv, asked = tmp_path / "venv", tmp_path / "asked"
    (venv / "bin").mkdir(parents=True)
    half, whole = tmp_path / "python", venv / "bin" / "python"
    whole.write_text(f"#!/bin/sh\ntest -e {venv}/pip || exit 1\n", encoding="utf-8")
    half.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ntouch {venv}/pip\n', encoding="utf-8")
    for python in (half, whole):
        python.chmod(0o755)
    done = make("setup", f"VENV={venv}", f"PYTHON3={half}")
    assert done.returncode == 0, done.stderr
    assert asked.read_text(encoding="utf-8") == f"-m venv {venv}\n"
    (venv / "installed.lock").unlink()
    assert make("setup", f"VENV={venv}", f"PYTHON3={half}").returncode == 0
    assert asked.read_text(encoding="utf-8") == f"-m venv {venv}\n", "where there is uv or pip nothing is built again"


def test_stages_depend_on_files_and_not_on_folders() -> None:
    """A folder is newer as soon as Python caches a module in it."""
    names = re.findall(r"^(CODE_\w+) :=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for name in names:
        shown = make(f"--eval=show: ; @echo $({name})", "show")
        code = shown.stdout.split()
        assert code and all((ROOT / path).is_file() for path in code), (name, code, shown.stderr)
        folders = {"CODE_data": "photos/synthetic", "CODE_noise": "models", "CODE_train": "models", "CODE_align": "faces"}
        if name in folders:
            files = (ROOT / "pipeline" / folders[name]).glob("*.py")
            spared = {"restore.py"} if name == "CODE_align" else set()
            assert {str(path.relative_to(ROOT)) for path in files if path.name not in spared} <= set(code)
        assert name != "CODE_train" or not any("countermeasures" in path for path in code), "an arm is trained without any"
        of_countermeasures = [path for path in code if "countermeasures" in path]
        assert name != "CODE_noise" or of_countermeasures == ["pipeline/countermeasures/compression.py"], "a new one leaves noise as it is"
        assert name != "CODE_data" or "pipeline/photos/posted.py" not in code, "only trials call it"
        assert name != "CODE_align" or "pipeline/faces/restore.py" not in code, "no crop depends on it"
    assert "restore.py" in NO_CROPS


def imported(*names: str) -> set[str]:
    """The files of `pipeline/` that these and what they import import, wherever in the file."""
    found, todo = set(), {ROOT / "pipeline" / name for name in names}
    while todo:
        path = todo.pop()
        found.add(path)
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(one, ast.ImportFrom) and one.module:
                modules = [one.module, *(f"{one.module}.{alias.name}" for alias in one.names)]
                files = {(ROOT / module.replace(".", "/")).with_suffix(".py") for module in modules if module.startswith("pipeline.")}
                todo |= {file for file in files if file.is_file()} - found
    return {str(path.relative_to(ROOT)) for path in found}


def test_a_report_is_made_anew_after_an_edit_to_anything_it_is_made_with() -> None:
    # An edit to what all stages share makes nothing anew by itself; what a config's names are checked by has words for the report, too.
    shared = imported("runtime.py", "artifacts.py") | {"pipeline/config.py"}
    code = set(make("--eval=show: ; @echo $(CODE_report)", "show").stdout.split())
    assert imported("report/stage.py") - shared - code == set()


def run_of(*words: str) -> str:
    """The name of a run, as in `reports/`."""
    return make(*words, "--eval=show: ; @echo $(RUN)", "show").stdout.strip()


def test_people_given_by_name_have_a_run_of_their_own(tmp_path: Path) -> None:
    for name, people in {"me": "anna\n", "spouse": "bo\n", "both": "anna\nbo\n", "again": "bo\nanna\n"}.items():
        (tmp_path / name).write_text(people, encoding="utf-8")
    me, spouse, both, again = (run_of(f"IDENTITIES={tmp_path / name}") for name in ("me", "spouse", "both", "again"))
    assert me != spouse and me.startswith("synthetic-laptop-partial-id1-eps16-s0-of") and both == again
    assert run_of("IDENTITIES=2") == "synthetic-laptop-partial-id2-eps16-s0"
    assert run_of(f"IDENTITIES={tmp_path / 'me'}", "SURROGATE_WEIGHTS=w") == f"{me}-informed"
    assert run_of(f"IDENTITIES={tmp_path / 'me'}", "SURROGATE_WEIGHTS=w", "NOISE=n") == f"{me}-informed-given"


def test_targets_do_what_they_say_and_no_more(tmp_path: Path) -> None:
    there = (f"DATA_ROOT={tmp_path}/data", f"REPORTS_ROOT={tmp_path}/reports", "IDENTITIES=3", "PROFILE=smoke")
    run = "synthetic-smoke-partial-id3-eps16-s0"
    cleaned = make("-n", "clean", *there).stdout
    assert cleaned.split() == ["rm", "-rf", "--", f"{tmp_path}/data/runs/{run}".join("''"), f"{tmp_path}/reports/{run}".join("''")]
    compared = make("-n", "compare", "RUNS=one two", *there).stdout
    assert f"compare --runs '{tmp_path}/reports/one' '{tmp_path}/reports/two' --output '{tmp_path}/reports/comparison'" in compared
    shared = make("-n", "study", "NPROC=2", *there).stdout.splitlines()
    for stage in ("noise", "train", "align", "evaluate"):
        lines = [line for line in shared if f" pipeline {stage} " in line]
        assert lines and all(("--nproc-per-node 2" in line) == (stage in ("noise", "train")) for line in lines), stage
    told = make("-n", "study", "SEEDS=0 1", *there)
    assert told.stderr == "", "make has nothing to warn of"
    assert [
        told.stdout.count(f"report --data '{tmp_path}/data/synthetic-smoke' --run '{tmp_path}/data/runs/{run[:-1]}{seed}'")
        for seed in (0, 1)
    ] == [1, 1]
    assert f"seeds --runs '{tmp_path}/reports/{run}' '{tmp_path}/reports/{run[:-1]}1' --output '{tmp_path}/reports/{run}-1'" in told.stdout
    assert not list(tmp_path.iterdir())


def test_arms_share_a_gpu_as_they_share_cores(tmp_path: Path) -> None:
    """They take turns on it; but of several processes with a GPU each one arm at a time. In Windows' Linux there is no /dev/nvidia0."""

    def jobs(*words: str) -> str:
        return make("--eval=shown: ; @echo $(JOBS)", "shown", "WORKERS=3", *words).stdout.strip()

    driver = tmp_path / "libcuda.so.1"
    assert jobs("DEVICE=cpu", f"GPU_SIGNS={driver}") == jobs(f"GPU_SIGNS={driver}") == "3"
    driver.touch()
    assert jobs("DEVICE=cpu", f"GPU_SIGNS={driver}") == "3"
    assert jobs(f"GPU_SIGNS={driver}") == jobs("DEVICE=cuda", "GPU_SIGNS=") == jobs("DEVICE=cuda:1", "GPU_SIGNS=") == "3"
    together = ("NPROC=2", "WORKERS=6")
    assert jobs("DEVICE=cpu", *together) == "3"
    assert jobs(f"GPU_SIGNS={driver}", *together) == jobs("DEVICE=cuda", "GPU_SIGNS=", *together) == "1"
    signs = make("--eval=shown: ; @echo '$(GPU_SIGNS)'", "shown").stdout.split()
    assert signs == ["/dev/nvidia[0-9]*", "/usr/lib/wsl/lib/libcuda.so.1"]


def test_what_another_make_has_just_finished_is_not_taken_away(tmp_path: Path) -> None:
    """A stage that is refused because another process is at it fails, and make deletes what changed meanwhile unless it is precious."""
    there = (f"DATA_ROOT={tmp_path}/data", f"REPORTS_ROOT={tmp_path}/reports", "ARMS=clean error-max random")
    known = make("-pn", "study", *there).stdout
    (precious,) = re.findall(r"^\.PRECIOUS:(.*)$", known, re.MULTILINE)
    rules = re.findall(r"^(/\S+):.*\n(?:#.*\n)*\t@?(?:\$\(ASIDE\) )?\$\((?:PIPELINE|TOGETHER)\) (\w+)", known, re.MULTILINE)
    assert {stage for _, stage in rules} == {"configure", *MADE, "report"}
    assert {target for target, _ in rules} <= {*precious.split()}


def test_a_report_is_made_anew_for_other_arms() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    (report,) = re.findall(r"^\$\(REPORT\)/index\.html:(.*)$", rules, re.MULTILINE)
    (configs,) = re.findall(r"^CONFIGS :=(.*)$", rules, re.MULTILINE)
    assert "$(R)/config/report.yaml" in report and "$(R)/config/report.yaml" in configs


def test_the_makefile_knows_which_arms_need_a_surrogate_and_which_are_published() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    (against,) = re.findall(r"^AGAINST := \$\(filter ([^,]*),", rules, re.MULTILINE)
    (ensemble,) = re.findall(r"^ENSEMBLE := \$\(filter ([^,]*),", rules, re.MULTILINE)
    (line,) = re.findall(r"^PUBLISHED := .*$", rules, re.MULTILINE)
    kinds = re.findall(r"\$\(filter ([^,]*),\$\(ARMS\)\)", line)
    patterns = [word.replace("%", "*") for word in against.split()]
    assert {arm for arm in ARMS if any(fnmatch(arm, one) for one in patterns)} == {name for name, arm in ARMS.items() if arm.surrogates}
    assert set(ensemble.split()) == {name for name, arm in ARMS.items() if "surrogate-mobilefacenet" in arm.surrogates}
    assert {arm for kind in kinds for arm in kind.split()} == {name for name, arm in ARMS.items() if arm.published}


@pytest.mark.parametrize("setting", ["partial", "full"])
def test_all_arms_are_all_that_there_are(setting: str, tmp_path: Path) -> None:
    known = write_recogniser(tmp_path / "known.onnx")
    for against in ("", f"CLOAK_AGAINST={known}"):
        told = make("study", "-n", "ARMS=all", f"SETTING={setting}", f"DATA_ROOT={tmp_path}", *([against] if against else [])).stdout
        trained = set(re.findall(r"pipeline train .*--arm (\S+)", told))
        left_out = ({"removed"} if setting == "full" else set()) | (set() if against else {"cloak", "cloak-error-min", "cloak-tap"})
        assert trained - {*SURROGATES} == set(ARMS) - left_out
