"""`python -m pipeline STAGE …`: from arguments to what a stage is called with. `make` calls them in order; each can be called alone.

Exit codes: 0 done; 2 the request is wrong (a message names the value and what is allowed); 130 interrupted from the keyboard; 1 anything
else. Progress goes to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.bookkeeping import alone, keep_time
from pipeline.command_line import parser
from pipeline.distributed import launched
from pipeline.errors import RequestError, StageError

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

IN_SEVERAL_PROCESSES = ("noise", "train")  # the stages that torchrun may start
WITH_NOISE = ("noise", "protect", "show")  # the stages of arms that have noise


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
    from pipeline.asked_for import one_of
    from pipeline.noise.arms import ARMS, SURROGATES

    if args.stage == "configure" or ("arm" not in args and "arms" not in args):
        return
    allowed = tuple(name for name, arm in ARMS.items() if arm.method != "none" or args.stage not in WITH_NOISE)
    if args.stage == "train":
        allowed += (*SURROGATES,)
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
        make_noise(config, split, aligned, args.run, folder, runtime, threads=args.threads)
    elif args.stage == "protect":
        from pipeline.noise.arms import arm_of
        from pipeline.noise.protect import protect

        max_side = load(AlignConfig, args.data / "align.yaml").max_side
        photos = arm_of(args.arm).published
        protect(split, args.data, folder, folder / "protected", runtime, photos=photos, max_side=max_side)
    elif args.stage == "train":
        from pipeline.noise.arms import SURROGATES
        from pipeline.training.stage import train_arm

        machine.prepare_torch(runtime, args.threads)
        name = args.arm if args.arm in SURROGATES else "train"
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
