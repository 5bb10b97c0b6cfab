"""Arms × trials: what is missing or no longer current is trained, as many at a time as there are cores to spare; on a GPU in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pipeline.artifacts import read_json
from pipeline.config import EvaluateConfig, TrainConfig, load
from pipeline.errors import StageError
from pipeline.noise.arms import arm_of
from pipeline.runtime import Runtime, say
from pipeline.training.keys import trial_key
from pipeline.training.trials import trial_of

INTERRUPTED = 130  # the exit code of a stage after Ctrl-C


class UnderWay:
    """The processes that are running, until they are to end; from then on none begins."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.ended = threading.Event()

    def run(self, words: list[str]) -> int:
        """Run a command and wait for it; its exit code."""
        with self.lock:
            if self.ended.is_set():
                return 1
            process = subprocess.Popen(words)
            self.running.add(process)
        code = process.wait()
        with self.lock:
            self.running.remove(process)
        if code in (-signal.SIGINT, INTERRUPTED):  # Ctrl-C goes to the matrix, too, which may be the slower of the two
            self.ended.wait(5)
        return code

    def end(self) -> None:
        """End what is running."""
        with self.lock:
            self.ended.set()
            for process in self.running:
                process.terminate()


def run_matrix(arms: list[str], trials: list[str], data: Path, run: Path, runtime: Runtime, *, jobs: int, limits: EvaluateConfig) -> None:
    """Run every trial of every arm in processes of their own, one thread each on a CPU.

    A trial whose `result.json` is of the same config, inputs and code is kept, so a killed matrix goes on where it was. The clean arm goes
    first: what teaches next to nothing without noise says nothing of noise, so the other arms are spared it.

    Args:
        limits: what counts as learned, and what as next to nothing.

    Raises:
        StageError: trials failed; the others were still run, and are kept.
    """
    wanted = pairs_of(arms, trials)
    for trial in sorted(set(trials) - {trial for _, trial in wanted}):
        say(f"matrix: {trial} says nothing of {', '.join(arms)}")
    todo = [pair for pair in wanted if not is_current(*pair, run)]
    say(f"matrix: arms {len(arms)}, trials {len(trials)}, {len(wanted) - len(todo)} of {len(wanted)} trainings done before")
    first, others = [pair for pair in todo if pair[0] == "clean"], [pair for pair in todo if pair[0] != "clean"]
    threads = max(1, runtime.workers // jobs)
    took = [(trial, float(read_json(result_of(arm, trial, run))["seconds"])) for arm, trial in wanted if (arm, trial) not in todo]
    failed: list[str] = []
    under_way = UnderWay()

    def timed(arm: str, trial: str) -> int:
        started = time.perf_counter()
        code = run_one(arm, trial, data, run, runtime, threads, under_way)
        if not code:
            took.append((trial, time.perf_counter() - started))
        return code

    def run_all(pairs: list[tuple[str, str]], *, before: int, then: list[tuple[str, str]]) -> None:
        left = [*pairs, *then]
        total = before + len(left)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                running = {pool.submit(timed, *pair): pair for pair in pairs}
                for future in as_completed(running):
                    left.remove(running[future])
                    if future.result():
                        failed.append(", ".join(running[future]))
                    minutes = seconds_of([trial for _, trial in left], took) / jobs / 60
                    say(f"matrix: {total - len(left)} of {total} done, about {minutes:.0f} min left")
            except BaseException:  # Ctrl-C for one: leaving the pool waits for its threads, which would go through all that was asked for
                pool.shutdown(wait=False, cancel_futures=True)
                under_way.end()
                raise

    run_all(first, before=0, then=others)
    silent = {trial for trial in {trial for _, trial in others} if teaches_nothing(trial, run, limits)}
    for trial in sorted(silent):
        most = f"at most {limits.protected_at_most:.0%}, as little as noise is to leave"
        say(f"matrix: {trial} teaches too little without noise to say anything ({most}): not tried on other arms")
    others = [pair for pair in others if pair[1] not in silent]
    run_all(others, before=len(first), then=[])
    if failed:
        raise StageError(f"not done: {'; '.join(sorted(failed))}: see the messages above; the same command goes on with them")


def seconds_of(trials: list[str], took: list[tuple[str, float]]) -> float:
    """What `trials` will take, by what each of them `took` for other arms: adversarial training takes three times what greyscale does.

    A trial that was not seen yet takes what those that were take in the mean.
    """
    of_trial: dict[str, list[float]] = {}
    for trial, seconds in took:
        of_trial.setdefault(trial, []).append(seconds)
    mean = {trial: sum(seconds) / len(seconds) for trial, seconds in of_trial.items()}
    of_others = sum(mean.values()) / max(1, len(mean))
    return sum(mean.get(trial, of_others) for trial in trials)


def pairs_of(arms: list[str], trials: list[str]) -> list[tuple[str, str]]:
    """The (arm, trial) pairs that can say something.

    Who is trained without the protected names none of them, whatever else is done; but a last layer refitted on clean photos may find that
    a network which never saw them knows them as well as one that did. What concerns noise alone changes nothing for the clean arm, and
    whole photos there are only of the arms that a person would publish.
    """

    def says_nothing(arm: str, trial: str) -> bool:
        asked = trial_of(trial)
        of_removed = arm == "removed" and trial != "last-layer-refit"
        unpublished = asked.photos and arm != "clean" and not arm_of(arm).published
        return of_removed or unpublished or (arm == "clean" and asked.noise_only)

    return [(arm, trial) for trial in trials for arm in arms if not says_nothing(arm, trial)]


def teaches_nothing(trial: str, run: Path, limits: EvaluateConfig) -> bool:
    """Whether the clean arm's recogniser, which learned in the study itself, names no more under this trial than noise is to leave.

    Then noise could not lose to it. A trial under which it names more, but too few to be held against, may still undo the noise. Where it
    did not learn in the study either, the run makes no claim of anything, and nothing is left out.
    """
    study, result = run / "clean" / "metrics.json", result_of("clean", trial, run)
    if trial_of(trial).noise_only or not study.exists() or not is_current("clean", trial, run):
        return False
    own, tried = (read_json(path)["protected"] for path in (study, result))
    if own is None or tried is None or own["final"] < limits.clean_floor:
        return False
    return tried["final"] <= limits.protected_at_most and tried["peak"] <= limits.peak_at_most


def result_of(arm: str, trial: str, run: Path) -> Path:
    """Where what came of a trial is written."""
    return run / arm / "trials" / trial / "result.json"


def is_current(arm: str, trial: str, run: Path) -> bool:
    """Whether the trial's result is there and belongs to what is there now."""
    path = result_of(arm, trial, run)
    if not path.exists():
        return False
    config, scoring = load(TrainConfig, run / "config" / "trials" / f"{trial}.yaml"), load(EvaluateConfig, run / "config" / "evaluate.yaml")
    return read_json(path).get("key") == trial_key(config, scoring, arm, run, run / "split.parquet")


def run_one(arm: str, trial: str, data: Path, run: Path, runtime: Runtime, threads: int, under_way: UnderWay) -> int:
    """One trial in a process of its own; its exit code."""
    words = [sys.executable, "-m", "pipeline", "trial", "--data", str(data), "--run", str(run), "--arm", arm, "--trial", trial]
    words += ["--device", runtime.device, "--precision", runtime.precision, "--threads", str(threads), "--workers", str(threads)]
    return under_way.run([*words, "--parent", str(os.getpid())])


def end_with(parent: int) -> None:
    """From now on this process ends when `parent`, which started it, has: a matrix that was killed would find its trials still running."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
