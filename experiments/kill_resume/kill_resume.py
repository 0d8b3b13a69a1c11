"""Kill training runs with SIGKILL at random moments, resume them, and compare each with an uninterrupted run.

    python experiments/kill_resume/kill_resume.py --moments 50 --seed 0

The moments are uniform over the processor time of an uninterrupted run, from the start of its process to its end
(wall time would depend on what else the machine does); every third run is killed once more soon after it has
been started again. Half of the runs are RLVR with AdamW, half SFT with momentum SGD. What is compared: weights
and optimiser state in the last checkpoint, every variable of the stored trajectory, every row of metrics.csv
(wall-clock apart) and the tensors of the kept checkpoints. The numbers go to result.json beside this file
after every moment; started again, the script goes on there. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).with_name("result.json")
SMALL = (
    "steps=12",
    "recorder.every=3",
    "recorder.save_every=2",
    "recorder.checkpoint_every=4",
    "recorder.keep_last=2",
    "evaluation.problems=8",
    "evaluation.rollouts=1",
    "probes.prompts=4",
    "probes.responses=2",
    "logger=none",
)
"""A run of a second that records and saves at different steps."""
KINDS = {
    "rlvr_adamw": ("objective.prompts=4", "objective.rollouts=4"),
    "sft_sgd": ("objective=sft", "objective.examples=16", "optimizer=sgd", "optimizer.heavy_ball=0.9"),
}
"""Objective and optimiser of each kind of run."""
WALL_CLOCK = ("step_time",)
"""Columns and variables that no two runs share."""


class Process:
    """`lab train WORDS` in a forked process; its output goes to `log`.

    Args:
        words: what follows the verb.
        directory: its working directory.
        signal_at: a file in it, and the signal that the process sends itself once that file has taken its name.
    """

    def __init__(
        self, words: tuple[str, ...], directory: Path, signal_at: tuple[str | Path, int] | None = None
    ) -> None:
        self.log = directory / "log.txt"
        self.pid = os.fork()
        if self.pid == 0:
            if signal_at is not None:
                send_itself((directory / signal_at[0]).absolute(), signal_at[1])
            _train(words, directory, self.log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; one to a process that has ended is no error."""
        os.kill(self.pid, number)  # not waited for yet, so the id is still this process's

    def used(self) -> float:
        """Return the seconds of processor time that it has had."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def ended(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def wait(self, until: Callable[[], bool] = lambda: False, timeout: float = 120.0) -> int | None:
        """Wait for the end, or until `until` says yes (then return None).

        Raises:
            TimeoutError: neither happened in time; the process is killed.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            code = self.ended()
            if code is not None:
                return code
            if until():
                return None
            time.sleep(0.0005)
        self.kill()
        os.waitpid(self.pid, 0)
        raise TimeoutError(f"{self.log.read_text()[-2000:]}")


def send_itself(file: Path, number: int) -> None:
    """Send this process a signal whenever `file` takes its name; atomic writes end in `os.replace`."""
    replace = os.replace

    def replace_and_send(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target).absolute() == file:
            os.kill(os.getpid(), number)

    os.replace = replace_and_send  # type: ignore[assignment]


def _train(words: tuple[str, ...], directory: Path, log: Path) -> None:
    """Be the forked process: run the command and leave, whatever happens."""
    code = 99
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(directory)
        from lab.cli import main

        code = main(["train", *words])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def differences(first: Path, second: Path) -> list[str]:
    """Return what differs between two finished runs, in words; nothing where they are the same bit for bit."""
    return [
        *_differing_checkpoints(first, second),
        *_differing_stores(first, second),
        *_differing_metrics(first, second),
        *_differing_models(first, second),
    ]


def _differing_checkpoints(first: Path, second: Path) -> Iterator[str]:
    import torch

    saved = [torch.load(path / "resume.ckpt", weights_only=True) for path in (first, second)]
    for part in ("state_dict", "optimizer_states", "lab_counters"):
        yield from _differing_values(saved[0][part], saved[1][part], f"resume.ckpt: {part}")


def _differing_values(first: Any, second: Any, where: str) -> Iterator[str]:
    import torch

    if type(first) is not type(second):
        yield f"{where}: {type(first).__name__} and {type(second).__name__}"
    elif isinstance(first, dict):
        if list(first) != list(second):
            yield f"{where}: keys {list(first)} and {list(second)}"
        for key in first.keys() & second.keys():
            yield from _differing_values(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        if len(first) != len(second):
            yield f"{where}: {len(first)} and {len(second)} items"
        for index, (left, right) in enumerate(zip(first, second, strict=False)):
            yield from _differing_values(left, right, f"{where}[{index}]")
    elif isinstance(first, torch.Tensor):
        if not _same_bits(first.numpy(), second.numpy()):
            yield f"{where}: tensors differ"
    elif first != second:
        yield f"{where}: {first!r} and {second!r}"


def _differing_stores(first: Path, second: Path) -> Iterator[str]:
    from lab.trajectory.store import open_store

    left, right = open_store(first), open_store(second)
    if list(left.children) != list(right.children):
        yield f"trajectory.nc: groups {list(left.children)} and {list(right.children)}"
        return
    for group in left.children:
        here, there = left[group].to_dataset(), right[group].to_dataset()
        if list(here.variables) != list(there.variables):
            yield f"trajectory.nc: {group}: {list(here.variables)} and {list(there.variables)}"
            continue
        for name in here.variables:
            same = _same_bits(here[name].values, there[name].values)
            if name not in WALL_CLOCK and not same:
                yield f"trajectory.nc: {group}/{name} differs"


def _differing_metrics(first: Path, second: Path) -> Iterator[str]:
    tables = []
    for path in (first, second):
        with (path / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        tables.append([{name: row[name] for name in row if name not in WALL_CLOCK} for row in rows])
    if tables[0] != tables[1]:
        yield "metrics.csv differs"


def _differing_models(first: Path, second: Path) -> Iterator[str]:
    from safetensors.numpy import load_file

    names = [sorted(path.name for path in run.glob("checkpoint-*")) for run in (first, second)]
    if names[0] != names[1]:
        yield f"checkpoints {names[0]} and {names[1]}"
        return
    for name in names[0]:
        models = [load_file(run / name / "model.safetensors") for run in (first, second)]
        if any(not _same_bits(models[0][tensor], models[1][tensor]) for tensor in models[0]):
            yield f"{name} differs"


def _same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return first.tobytes() == second.tobytes() if first.dtype != object else bool((first == second).all())


def warm_up(directory: Path) -> None:
    """Do a short run in this process, so that everything is imported and a forked process starts at once.

    Raises:
        RuntimeError: the run did not end well.
    """
    from lab.cli import main

    runs = f"runs_dir={directory / 'warm_up'}"
    if main(["train", runs, *SMALL, "steps=1", "recorder.checkpoint_every=1"]) != 0:
        raise RuntimeError("the warm-up run failed")


def interrupted_run(words: tuple[str, ...], directory: Path, delays: list[float]) -> tuple[Path, list[str]]:
    """Run `lab train`, kill it after each of the delays in turn, and let it end.

    Args:
        words: overrides, `name=a` among them.
        directory: new working directory.
        delays: seconds of processor time after which each process in turn is killed.

    Returns:
        the run, and what was on the disk at each kill.
    """
    directory.mkdir()
    states = []
    for delay in delays:
        process = Process(words, directory)
        if process.wait(until=lambda: process.used() >= delay) is None:  # noqa: B023  (called in this round only)
            process.kill()
            os.waitpid(process.pid, 0)
        states.append(_state(directory / "runs" / "train" / "a"))
    if not (directory / "runs" / "train" / "a" / "DONE").exists():
        process = Process(words, directory)
        if process.wait() != 0:
            raise RuntimeError(process.log.read_text()[-2000:])
    return directory / "runs" / "train" / "a", states


def _state(run: Path) -> str:
    """Return how far a run had come, for the record."""
    if (run / "DONE").exists():
        return "finished"
    steps = sorted(int(path.stem.split("_")[1]) for path in run.glob("records/step_*.npz"))
    if not steps:
        return "before step 0"
    return f"recorded step {steps[-1]}" + ("" if (run / "resume.ckpt").exists() else ", no checkpoint yet")


def main(arguments: list[str] | None = None) -> int:
    """Do the experiment; exit code 1 where any run differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lab.files import read_json, write_json
    from lab.provenance import provenance

    started = time.perf_counter()
    config = {"common": list(SMALL), "kinds": {kind: list(words) for kind, words in KINDS.items()}}
    trials: list[dict[str, Any]] = []
    before = 0.0
    if options.result.exists():
        old = read_json(options.result)
        if old["config"] == config and old["seed"] == options.seed:
            trials, before = old["trials"], old["seconds"]
    with tempfile.TemporaryDirectory(prefix="kill_resume_") as scratch:
        warm_up(Path(scratch))
        references, durations = {}, {}
        for kind, words in KINDS.items():
            before_s = resource.getrusage(resource.RUSAGE_CHILDREN)
            references[kind], _ = interrupted_run(("name=a", *SMALL, *words), Path(scratch, kind), [])
            after_s = resource.getrusage(resource.RUSAGE_CHILDREN)
            durations[kind] = after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime
        for number in range(len(trials), options.moments):
            kind = list(KINDS)[number % len(KINDS)]
            generator = np.random.default_rng([options.seed, number])
            words, folder = ("name=a", *SMALL, *KINDS[kind]), Path(scratch, f"trial{number}")
            while True:
                delays = [float(generator.uniform(0, durations[kind]))]
                if number % 3 == 2:
                    delays.append(float(generator.uniform(0, durations[kind] / 2)))
                run, states = interrupted_run(words, folder, delays)
                if states[0] != "finished":
                    break
                shutil.rmtree(folder)  # it ran faster than the reference: no kill, another moment
            found = differences(references[kind], run)
            trials.append(
                {
                    "kind": kind,
                    "killed_after_processor_s": delays,
                    "state_at_kill": states,
                    "differences": found,
                }
            )
            shutil.rmtree(folder)
            write_json(
                options.result,
                {
                    "question": "does a killed and resumed run equal the uninterrupted one, bit for bit?",
                    "moments": len(trials),
                    "kills": sum(state != "finished" for trial in trials for state in trial["state_at_kill"]),
                    "n_equal": sum(not trial["differences"] for trial in trials),
                    "n_different": sum(bool(trial["differences"]) for trial in trials),
                    "seed": options.seed,
                    "config": config,
                    "run_processor_s": durations,
                    "seconds": before + time.perf_counter() - started,
                    **provenance(),
                    "trials": trials,
                },
            )
            print(f"{number + 1}/{options.moments} {kind} {states}: {found or 'equal'}", flush=True)
    different = sum(bool(trial["differences"]) for trial in trials)
    print(f"{len(trials) - different} of {len(trials)} runs equal the uninterrupted one bit for bit")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
