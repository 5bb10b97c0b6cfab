"""The command line: each stage in a few words, and its arguments. Nothing heavy is imported, so that `--help` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path

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
        "Reads RUN/config/noise-ARM.yaml, RUN/split.parquet and the crops, for some arms also RUN/surrogate/model/ (tap-ensemble and "
        "cloak-tap: RUN/surrogate-mobilefacenet/model/, too), of an earlier run's patterns (NOISE) those and the noise.json beside. Writes "
        "RUN/ARM/noise.json and, last, RUN/ARM/noise.safetensors. A search "
        f"that was killed goes on where it was. {WATCHED}",
    ),
    "protect": (
        "put one arm's noise on crops and photos, and measure what was written",
        "Reads RUN/ARM/noise.safetensors, DATA/align.yaml, RUN/split.parquet, the crops and the photos. Writes RUN/ARM/protected/: "
        f"crops-*.npy, photos/ (PNG; of arms that a person would publish), measures.json and, last, manifest.parquet. {WATCHED}",
    ),
    "train": (
        "train one arm's recogniser",
        "Reads RUN/config/train.yaml, RUN/split.parquet, the crops and RUN/ARM/protected/; for ARM=surrogate and surrogate-mobilefacenet "
        "RUN/config/ARM.yaml and clean crops alone. Writes RUN/ARM/model/: weights.safetensors, train.json and, last, history.jsonl. A "
        f"training that was killed goes on where it was. {WATCHED}",
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
        help="recognisers that exist (.safetensors, .onnx), which arms named cloak… are made against",
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
