"""`python -m pipeline STAGE …`: the only place where arguments are read. `make` calls the stages in order; each can be called alone.

Exit codes: 0 done; 2 the request is wrong (a message names the value and what is allowed); 130 interrupted from the keyboard; 1 anything
else. Progress goes to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.distributed import launched
from pipeline.errors import RequestError, StageError

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

IN_SEVERAL_PROCESSES = ("noise", "train")  # the stages that torchrun may start
WITH_NOISE = ("noise", "protect", "show")  # the stages of arms that have noise
# What each stage writes last, by which `make` knows when it was done: in DATA, RUN, and from noise on in RUN/ARM.
MADE = {
    "data": "photos.parquet",
    "align": "aligned/manifest.parquet",
    "split": "split.parquet",
    "noise": "noise.safetensors",
    "protect": "protected/manifest.parquet",
    "train": "model/history.jsonl",
    "evaluate": "metrics.json",
}
WATCHED = "make runs it again when what it reads was made anew or its own code changed."
# Each stage in a few words, and what it reads and writes: DATA, RUN, ARM and so on are the arguments below.
STAGES = {
    "configure": (
        "check the request whole and write one snapshot a stage, only where its content changed",
        "Reads PROFILES/PROFILE.yaml and what is asked for below, and writes DATA/data.yaml, DATA/align.yaml and RUN/config/*.yaml, or "
        "nothing where something is wrong. make runs it first, each time: a stage whose snapshot stays as it is has nothing to do anew.",
    ),
    "data": (
        "render, import or link the photos",
        "Reads DATA/data.yaml. Fills DATA/photos/, one folder an identity: synthetic photos are rendered, those in a .rec written out, "
        "all others linked. Writes, last, the list DATA/photos.parquet. make runs it again when the photos of the source or its own code "
        "changed.",
    ),
    "align": (
        "find the faces and cut aligned 112×112 crops",
        "Reads DATA/align.yaml, DATA/photos.parquet and the photos. Writes DATA/aligned/: crops-*.npy, rejects.parquet (photos that "
        f"cannot be used, and why) and, last, manifest.parquet. Photos that have not changed are not looked at again. {WATCHED}",
    ),
    "split": (
        "draw who is protected and which photos are held out",
        "Reads RUN/config/split.yaml and DATA/aligned/. Writes RUN/split.json, RUN/left_out.csv (people who are in no training, and why) "
        f"and, last, RUN/split.parquet. {WATCHED}",
    ),
    "noise": (
        "search or draw one arm's noise",
        "Reads RUN/config/noise-ARM.yaml, RUN/split.parquet and the crops, for some arms also RUN/surrogate/model/, of an earlier "
        "run's patterns (NOISE) those and the noise.json beside. Writes RUN/ARM/noise.json and, last, RUN/ARM/noise.safetensors. A search "
        f"that was killed goes on where it was. {WATCHED}",
    ),
    "protect": (
        "put one arm's noise on crops and photos, and measure what was written",
        "Reads RUN/ARM/noise.safetensors, DATA/align.yaml, RUN/split.parquet, the crops and the photos. Writes RUN/ARM/protected/: "
        f"crops-*.npy, photos/ (PNG; of arms that a person would publish), measures.json and, last, manifest.parquet. {WATCHED}",
    ),
    "train": (
        "train one arm's recogniser",
        "Reads RUN/config/train.yaml, RUN/split.parquet, the crops and RUN/ARM/protected/; for ARM=surrogate RUN/config/surrogate.yaml "
        "and clean crops alone. Writes RUN/ARM/model/: weights.safetensors, train.json and, last, history.jsonl. A training that was "
        f"killed goes on where it was. {WATCHED}",
    ),
    "evaluate": (
        "measure one arm's recogniser on clean test photos",
        "Reads RUN/config/evaluate.yaml and train.yaml, DATA/align.yaml, RUN/split.parquet, RUN/ARM/model/ and the crops; of an arm with "
        "noise also RUN/ARM/noise.json, RUN/ARM/protected/ and the photos; where LFW was asked for LFW/aligned/. "
        f"Writes RUN/ARM/metrics.json. {WATCHED}",
    ),
    "trial": (
        "train one arm with another trainer or countermeasure, and score it",
        "Reads RUN/config/trials/TRIAL.yaml and evaluate.yaml, DATA/align.yaml, RUN/split.parquet, the crops and RUN/ARM/protected/; some "
        "trials also the photos or RUN/ARM/model/. Writes RUN/ARM/trials/TRIAL/: history.jsonl and, last, result.json; keeps what a frozen "
        "network was asked in RUN/clean/embeddings/ and RUN/ARM/embeddings/. Does nothing where the result is of the same config, inputs "
        "and code.",
    ),
    "matrix": (
        "run the trials of MATRIX on every arm, those that are missing or no longer current",
        "Runs `trial` for each of ARMS and of the trials in MATRIX, which `configure --matrix` has written a snapshot of. What is "
        "current is kept, so a matrix that was killed goes on where it was.",
    ),
    "report": (
        "join the arms' metrics into metrics.json, metrics.csv and index.html",
        "Reads RUN/ARM/metrics.json of each of ARMS, what the stages before left beside it, and results of trials that are current. Writes "
        f"OUTPUT/metrics.json, metrics.csv and, last, index.html. {WATCHED}",
    ),
    "seeds": (
        "join the reports of one study with different seeds into one",
        "Reads metrics.json in each of RUNS. Writes OUTPUT/metrics.json, metrics.csv and index.html.",
    ),
    "compare": (
        "put the reports of two or more runs side by side in one page",
        "Reads metrics.json in each of RUNS. Writes OUTPUT/metrics.csv and index.html.",
    ),
    "show": (
        "say where the protected photos are and how visible the change is",
        "Reads RUN/ARM/protected/, RUN/ARM/noise.json and DATA/aligned/rejects.parquet, counts what lies in PHOTOS and is not read, and "
        "writes nothing.",
    ),
    "verdict": ("print the verdict of a report and where it is", "Reads OUTPUT/metrics.json and writes nothing."),
    "arms": ("list the arms of a study, and what each does", "Reads and writes nothing."),
    "doctor": ("say what this machine has and what is missing", "Writes nothing."),
}


class WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says an argument's default where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default or action.default == 0 else action.help


def parser() -> argparse.ArgumentParser:
    """All stages and their arguments."""
    from pipeline.training.trials import SETS

    trials = f"{', '.join(SETS)}, or names of trials such as jpeg-50 resnet18 share-60"
    top = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Make face photos useless for training face recognisers, and measure how far that holds. "
        "`make study` runs configure, data, align, split, then noise, protect, train and evaluate for each arm, and report.",
    )
    stages = top.add_subparsers(dest="stage", required=True, metavar="STAGE")

    def stage(name: str) -> argparse.ArgumentParser:
        brief, whole = STAGES[name]
        text = f"{brief[0].upper()}{brief[1:]}. {whole}"
        return stages.add_parser(name, help=brief, description=text, formatter_class=WithDefaults)

    def runs_on(sub: argparse.ArgumentParser, *, threads: bool = False, workers: bool = True) -> None:
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        # Without use for some stages, to which `make` gives it like to all.
        told = "processes; auto: as many as cores this process may use" if workers else argparse.SUPPRESS
        sub.add_argument("--workers", default="auto", help=told)
        sub.add_argument("--precision", default="auto", help="auto, fp32 or bf16; auto: bf16 where the hardware has it")
        if threads:
            sub.add_argument(
                "--threads",
                type=int,
                default=1,
                help="CPU threads of a process; two arms in two processes of one thread each beat two threads",
            )

    def where(sub: argparse.ArgumentParser, *, run: bool = True, arm: str = "") -> None:
        sub.add_argument("--data", type=Path, required=True, help="folder of the data set, data/<dataset>")
        if run:
            sub.add_argument("--run", type=Path, required=True, help="folder of the run, data/runs/<run>")
        if arm:
            sub.add_argument("--arm", required=True, help=f"name of the arm, such as {arm}")

    sub = stage("configure")
    where(sub)
    sub.add_argument("--profiles", type=Path, default=Path("configs"), help="folder of the profiles")
    sub.add_argument("--profile", default="laptop", help="smoke, laptop or paper")
    sub.add_argument("--dataset", default="synthetic", help="synthetic, folder, webface, celeba or lfw")
    sub.add_argument("--photos", default="", help="path of the photos; synthetic needs none")
    sub.add_argument("--identities", default="50", help="how many to protect, drawn by seed; or a file with one name a line")
    sub.add_argument("--setting", default="partial", help="partial, or full (everyone is protected)")
    sub.add_argument("--arms", default="clean error-min random", help="arms of the study, clean first")
    sub.add_argument("--epsilon", default="16", help="largest change of a pixel, in 1/255")
    sub.add_argument("--seeds", default="0", help="seed of everything drawn")
    sub.add_argument("--detector", default="mtcnn", help="mtcnn or scrfd")
    sub.add_argument("--detector-pack", default="", help="scrfd: folder of a local insightface pack")
    sub.add_argument("--recogniser-weights", default="", help="safetensors to fine-tune from; empty: from scratch")
    sub.add_argument("--surrogate-weights", default="", help="safetensors the surrogate starts from; empty: from scratch")
    sub.add_argument("--show-people", default="no", help="no, or consented: the report may show the real people in the photos")
    sub.add_argument("--lfw", default="", help="folder of LFW with pairs.txt: verification by its protocol; empty: not measured")
    sub.add_argument(
        "--reference", default="", help="insightface recogniser (.onnx): does it still know the protected? Measured on LFW, too"
    )
    sub.add_argument(
        "--cloak-against",
        default="",
        help="recognisers that exist (.safetensors, .onnx), which the arms cloak and cloak-error-min are made against",
    )
    sub.add_argument("--noise", default="", help="noise.safetensors of an earlier run, whose patterns its people's photos get again")
    sub.add_argument("--matrix", default="", help=f"trials to configure: {trials}")
    for name in ("device", "workers"):
        sub.add_argument(f"--{name}", default="auto", help="what the stages will be given: only checked here, and written nowhere")

    sub = stage("data")
    where(sub, run=False)
    runs_on(sub)
    sub = stage("align")
    where(sub, run=False)
    runs_on(sub)
    sub = stage("split")
    where(sub)
    sub = stage("noise")
    where(sub, arm="random or error-min")
    runs_on(sub, threads=True, workers=False)
    sub = stage("protect")
    where(sub, arm="random or error-min")
    runs_on(sub)
    sub = stage("train")
    where(sub, arm="clean, error-min or surrogate")
    runs_on(sub, threads=True, workers=False)
    sub = stage("evaluate")
    where(sub, arm="clean or error-min")
    sub.add_argument("--lfw", type=Path, default=Path("data/lfw"), help="data folder of LFW, aligned, if it was asked for")
    runs_on(sub, threads=True)
    sub = stage("trial")
    where(sub, arm="clean or error-min")
    sub.add_argument("--trial", required=True, help="name of the trial, such as jpeg-50, resnet18, share-60")
    sub.add_argument("--parent", type=int, help="process without which this one ends, too")
    runs_on(sub, threads=True)
    sub = stage("matrix")
    where(sub)
    sub.add_argument("--arms", default="clean error-min random", help="the arms to try")
    sub.add_argument("--matrix", default="core", help=trials)
    sub.add_argument("--jobs", type=int, default=1, help="trials at a time, each in a process of its own")
    runs_on(sub)
    sub = stage("report")
    where(sub)
    sub.add_argument("--arms", default="clean error-min random", help="the arms to report, in this order")
    sub.add_argument("--output", type=Path, required=True, help="folder of the report, reports/<run>")
    runs_on(sub, workers=False)
    sub = stage("seeds")
    sub.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of the reports, one a seed")
    sub.add_argument("--output", type=Path, required=True, help="folder of the joined report")
    sub = stage("compare")
    sub.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of the reports")
    sub.add_argument("--output", type=Path, required=True, help="folder of the comparison")
    sub = stage("show")
    where(sub, arm="random or error-min")
    sub = stage("verdict")
    sub.add_argument("--output", type=Path, required=True, help="folder of the report, reports/<run>")
    sub = stage("arms")
    sub = stage("doctor")
    runs_on(sub)
    return top


def run_stage(args: argparse.Namespace) -> None:
    """Call the stage asked for. Imports are here, so that `--help` is quick."""
    from pipeline import runtime as machine

    ranks = launched(os.environ)
    if ranks.size > 1 and args.stage not in IN_SEVERAL_PROCESSES:
        raise RequestError(f"torchrun: {args.stage} runs in one process; allowed are {' and '.join(IN_SEVERAL_PROCESSES)}")
    check_arms(args)
    check_trial_and_threads(args)
    if args.stage == "configure":
        from pipeline.request import Request, about, no_claim, write_snapshots

        fields = {name: getattr(args, name) for name in Request.__dataclass_fields__}
        # Which device `auto` is takes seconds to find out where there is a GPU, and cannot be wrong.
        machine.decide("cpu" if args.device == "auto" else args.device, args.workers, "fp32")
        written = write_snapshots(Request(**fields), args.profiles, args.data, args.run)
        if written:  # a study that is new: what it will take, and whether it can end in a claim, before it takes it
            for told in (about(args.profiles, args.profile, args.dataset), no_claim(args.run)):
                if told:
                    machine.say(told)
        for path in written:
            machine.say(f"wrote {path}")
        return
    if args.stage == "split":
        from pipeline.config import SplitConfig, load
        from pipeline.split import split_photos

        split_photos(load(SplitConfig, args.run / "config" / "split.yaml"), args.data / "aligned", args.run / "split.parquet")
        return
    if args.stage == "seeds":
        from pipeline.report.stage import report_seeds

        report_seeds(args.runs, args.output)
        return
    if args.stage == "compare":
        from pipeline.report.compare import compare_runs

        compare_runs(args.runs, args.output)
        print(f"comparison: {args.output / 'index.html'}")
        return
    if args.stage == "arms":
        from pipeline.noise.arms import ARMS

        print("\n".join(f"{name:22}{arm.text}" for name, arm in ARMS.items()))
        return
    if args.stage == "show":
        from pipeline.noise.describe import show

        show(args.arm, args.data, args.run)
        return
    if args.stage == "verdict":
        from pipeline.artifacts import read_json

        print(f"{read_json(args.output / 'metrics.json')['verdict']}\nreport: {args.output / 'index.html'}")
        return
    runtime = machine.decide(args.device, args.workers, args.precision, ranks=ranks)
    if args.stage == "doctor":
        from pipeline.doctor import examine

        print(examine(runtime))
    elif args.stage == "data":
        from pipeline.config import DataConfig, load
        from pipeline.photos.stage import import_photos

        import_photos(load(DataConfig, args.data / "data.yaml"), args.data, runtime)
    elif args.stage == "align":
        from pipeline.config import AlignConfig, load
        from pipeline.faces.stage import align_photos

        align_photos(load(AlignConfig, args.data / "align.yaml"), args.data, runtime)
    elif args.stage == "matrix":
        from pipeline.config import AlignConfig, EvaluateConfig, TrainConfig, load
        from pipeline.training.matrix import run_matrix
        from pipeline.training.trials import Means, trials_asked_for

        own, limits = load(TrainConfig, args.run / "config" / "train.yaml"), load(EvaluateConfig, args.run / "config" / "evaluate.yaml")
        means = Means(
            own.model_dump(include={"weights"}, exclude_none=True),
            limits.model_dump(include={"reference"}, exclude_none=True),
            photos=not load(AlignConfig, args.data / "align.yaml").already_aligned,
        )
        try:
            trials = trials_asked_for(args.matrix, means, own)
        except ValueError as error:
            raise RequestError(f"MATRIX: {error}") from None
        run_matrix(args.arms.split(), trials, args.data, args.run, runtime, jobs=max(1, args.jobs), limits=limits)
    elif args.stage == "report":
        from pipeline.report.stage import report_run

        report_run(args.arms.split(), args.data, args.run, args.output, runtime)
    else:
        run_arm_stage(args, runtime)


def check_arms(args: argparse.Namespace) -> None:
    """`RequestError` where a stage is to work on an arm that there is not, or that has no noise; `configure` itself says so of ARMS."""
    from pipeline.noise.arms import ARMS
    from pipeline.request import one_of

    if args.stage == "configure" or ("arm" not in args and "arms" not in args):
        return
    allowed = tuple(name for name, arm in ARMS.items() if arm.method != "none" or args.stage not in WITH_NOISE)
    if args.stage == "train":
        allowed += ("surrogate",)
    asked = [args.arm] if "arm" in args else args.arms.split()
    for arm in asked or [""]:
        one_of("ARMS", arm, allowed)


def check_trial_and_threads(args: argparse.Namespace) -> None:
    """`RequestError` for a trial that there is not, or fewer threads than one."""
    if "trial" in args:
        from pipeline.training.trials import trial_of

        try:
            trial_of(args.trial)
        except ValueError as error:
            raise RequestError(f"--trial: {error}") from None
    if "threads" in args and args.threads < 1:
        raise RequestError(f"--threads={args.threads}: allowed are whole numbers from 1")


def run_arm_stage(args: argparse.Namespace, runtime: Runtime) -> None:
    """The stages that work on one arm, in the processes that there are."""
    if runtime.ranks.size == 1:
        return run_arm_stage_here(args, runtime)
    from pipeline.distributed import joined
    from pipeline.training.matrix import end_with

    if "TORCHELASTIC_RUN_ID" in os.environ:  # where torchrun is killed, its processes would go on, and wait for those that were stopped
        end_with(os.getppid())
    with joined(runtime.ranks, runtime.torch_device()) as ranks:
        return run_arm_stage_here(args, replace(runtime, ranks=ranks))


def run_arm_stage_here(args: argparse.Namespace, runtime: Runtime) -> None:
    """The stages that work on one arm, in this process."""
    from pipeline import runtime as machine
    from pipeline.config import AlignConfig, EvaluateConfig, NoiseConfig, TrainConfig, load

    folder, split, aligned = args.run / args.arm, args.run / "split.parquet", args.data / "aligned"
    if args.stage == "noise":
        from pipeline.noise.stage import make_noise

        config = load(NoiseConfig, args.run / "config" / f"noise-{args.arm}.yaml")
        make_noise(config, split, aligned, args.run / "surrogate" / "model", folder, runtime, threads=args.threads)
    elif args.stage == "protect":
        from pipeline.noise.arms import arm_of
        from pipeline.noise.protect import protect

        max_side = load(AlignConfig, args.data / "align.yaml").max_side
        photos = arm_of(args.arm).published
        protect(split, args.data, folder, folder / "protected", runtime, photos=photos, max_side=max_side)
    elif args.stage == "train":
        from pipeline.training.stage import train_arm

        machine.prepare_torch(runtime, args.threads)
        name = "surrogate" if args.arm == "surrogate" else "train"
        train_arm(load(TrainConfig, args.run / "config" / f"{name}.yaml"), args.arm, args.run, aligned, runtime)
    elif args.stage == "trial":
        from pipeline.training.matrix import end_with
        from pipeline.training.trial import run_trial

        if args.parent is not None:
            end_with(args.parent)
        machine.prepare_torch(runtime, args.threads)
        config = load(TrainConfig, args.run / "config" / "trials" / f"{args.trial}.yaml")
        scoring = load(EvaluateConfig, args.run / "config" / "evaluate.yaml")
        faces = load(AlignConfig, args.data / "align.yaml")
        run_trial(config, scoring, faces, args.trial, args.arm, args.run, args.data, runtime)
    elif args.stage == "evaluate":
        from pipeline.evaluation.stage import evaluate_arm

        machine.prepare_torch(runtime, args.threads)
        config = load(EvaluateConfig, args.run / "config" / "evaluate.yaml")
        training, faces = load(TrainConfig, args.run / "config" / "train.yaml"), load(AlignConfig, args.data / "align.yaml")
        evaluate_arm(config, training, faces, args.arm, split, aligned, folder, runtime, lfw=args.lfw / "aligned")


@contextmanager
def alone(args: argparse.Namespace) -> Iterator[None]:
    """A lock for as long as a stage works: two at once would write the same files. Nothing is held of a run that is not there."""
    from pipeline.artifacts import at_work

    root = getattr(args, "run", None) or getattr(args, "data", None)
    if args.stage not in (*MADE, "trial", "matrix") or not launched(os.environ).first or root is None or not root.is_dir():
        yield
        return
    # Who aligns photos reads the ones that the data stage would replace.
    lock = root / "locks" / f"{'photos' if args.stage in ('data', 'align') else piece_of_work(args)}.lock"
    with at_work(lock):
        began = lock.stat().st_mtime_ns  # by the clock that the other files' times are of, too
        yield
        date_back(args, began)


def date_back(args: argparse.Namespace, began: int) -> None:
    """Give what a stage made the time at which it began, if anything that it may have read has changed meanwhile.

    `make` compares times alone: noise that is found after another `make` wrote its snapshot anew would count as found by that one.
    """
    if args.stage not in MADE:
        return
    data, run, arm = args.data, getattr(args, "run", None), getattr(args, "arm", None)
    folders = {"data": data, "align": data, "split": run}
    made = {stage: folder / name for stage, name in MADE.items() if (folder := folders.get(stage, run and arm and run / arm))}
    read = {*made.values(), *data.glob("*.yaml"), *Path(__file__).parent.rglob("*.py")}
    if run:
        read |= {*run.glob("config/*.yaml"), run / "surrogate" / MADE["train"]}
    if "lfw" in args:
        read.add(args.lfw / MADE["align"])
    own = made[args.stage]
    if any(path.exists() and path.stat().st_mtime_ns > began for path in read - {own}):
        os.utime(own, ns=(began, began))


def piece_of_work(args: argparse.Namespace) -> str:
    """The stage, and the arm and the trial that it works on, as in the names of files about it."""
    return "-".join([args.stage, *(getattr(args, part) for part in ("arm", "trial") if part in args)])


def keep_time(args: argparse.Namespace, seconds: float) -> None:
    """Keep how long a stage took beside what it made, for the report's provenance."""
    from pipeline.artifacts import write_json

    if args.stage not in MADE:
        return
    root = getattr(args, "run", None) or args.data
    write_json(root / "timings" / f"{piece_of_work(args)}.json", {"seconds": round(seconds, 1)})


def main(words: list[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    args = parser().parse_args(words)
    started = time.perf_counter()
    try:
        with alone(args):
            run_stage(args)
        if launched(os.environ).first:
            keep_time(args, time.perf_counter() - started)
    except RequestError as error:
        print(f"{args.stage}: {error}", file=sys.stderr)
        return 2
    except StageError as error:
        print(f"{args.stage}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{args.stage}: {error.strerror or error}: {error.filename or 'no file named'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{args.stage}: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as error:
        from pipeline.runtime import out_of_memory

        told = out_of_memory(error)
        if told is None:
            raise
        print(
            f"{args.stage}: too little memory ({told}): end what else takes it, or give WORKERS=1, DEVICE=cpu, another GPU (DEVICE=cuda:N) "
            "or a profile with a smaller batch; the same command goes on where it was",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
