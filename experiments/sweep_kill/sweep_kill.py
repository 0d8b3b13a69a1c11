"""Kill workers of a sweep with SIGKILL at random moments, and see that no finished trial is lost and every point ends.

    python experiments/sweep_kill/sweep_kill.py --kills 20 --seed 0

Two workers share the study of `experiment=sweep_kill`: 40 trials of three RL steps, each measured. Again and again one
of the two, drawn at random, is killed with SIGKILL and started anew. Kills are spread over the study (the next one
is due when the next twentieth of the points has ended) and fall at a moment uniform over the time a trial takes, of
processor time of the worker that is hit. After each kill: are all trials that had ended still there, with the same
numbers? At the end: has every point ended, was any finished run repeated, and are the results those of a sweep that
nobody disturbed, bit for bit? The numbers go to result.json beside this file. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).with_name("result.json")
WORDS = ("sweep", "experiment=sweep_kill", "logger=none")


class Worker:
    """`lab sweep` in a forked process with `directory` as its working directory."""

    def __init__(self, directory: Path, words: tuple[str, ...]) -> None:
        self.log = directory / "log.txt"
        self.pid = os.fork()
        if self.pid == 0:
            _sweep(directory, words, self.log)

    def used(self) -> float:
        """Return the seconds of processor time that it has had."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def ended(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)  # not waited for yet, so the id is still this process's
        os.waitpid(self.pid, 0)


def _sweep(directory: Path, words: tuple[str, ...], log: Path) -> None:
    """Be the forked process: run the command and leave, whatever happens."""
    code = 99
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(directory)
        from lab.cli import main

        code = main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ended_trials(study: Path) -> dict[int, Any]:
    """Return number -> (state, parameters, numbers) of every trial that has ended, as Optuna alone reads them."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    from lab.sweeps.storage import JOURNAL

    journal = study / JOURNAL
    if not journal.exists():
        return {}
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if not optuna.get_all_study_summaries(storage):
        return {}
    trials = optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)
    return {
        trial.number: (trial.state.name, dict(trial.params), trial.user_attrs.get("metrics"))
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs
    }


def finished_runs(study: Path) -> dict[str, int]:
    """Return the finished seeds of all points, with the time at which each was finished (in nanoseconds)."""
    return {
        f"{done.parent.parent.name}/{done.parent.name}": done.stat().st_mtime_ns
        for done in study.glob("points/*/seed_*/DONE")
    }


def disturbed(directory: Path, words: tuple[str, ...], kills: int, points: int, seed: int) -> dict[str, Any]:
    """Run the sweep with two workers and kill one of them `kills` times; return what was seen."""
    study = directory / "runs" / "sweep_kill" / "sweep_kill"
    generator = np.random.default_rng(seed)
    before_s = time.perf_counter()
    workers = [Worker(directory, words) for _ in range(2)]
    known: dict[int, Any] = {}
    runs: dict[str, int] = {}
    lost, repeated, moments = [], [], []
    trial_s = 1.0  # of processor time; replaced by what is seen
    while len(moments) < kills:
        due = len(moments) * (points - 1) / kills
        while len(ended_trials(study)) < due:
            _revive(workers, directory, words)
            time.sleep(0.02)
        victim = int(generator.integers(2))
        _revive(workers, directory, words)
        until = workers[victim].used() + float(generator.uniform(0, 1.5 * trial_s))
        while workers[victim].ended() is None and workers[victim].used() < until:
            time.sleep(0.001)
        try:
            workers[victim].kill()
        except (ProcessLookupError, ChildProcessError):
            workers[victim] = Worker(directory, words)
            continue
        now, done = ended_trials(study), finished_runs(study)
        lost += [number for number, trial in known.items() if now.get(number) != trial]
        repeated += [name for name, when in runs.items() if done.get(name) != when]
        moments.append({"ended": len(now), "after_s": round(time.perf_counter() - before_s, 3)})
        print(f"kill {len(moments)}/{kills}: {len(now)} trials had ended, {len(lost)} lost", flush=True)
        known, runs = now, done
        workers[victim] = Worker(directory, words)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]) for worker in workers]
    now, done = ended_trials(study), finished_runs(study)
    lost += [number for number, trial in known.items() if now.get(number) != trial]
    repeated += [name for name, when in runs.items() if done.get(name) != when]
    return {
        "kills": moments,
        "trials_lost": sorted(set(lost)),
        "runs_repeated": sorted(set(repeated)),
        "exit_codes": codes,
        "seconds": time.perf_counter() - before_s,
    }


def _revive(workers: list[Worker], directory: Path, words: tuple[str, ...]) -> None:
    """Start workers anew that have ended by themselves."""
    for index, worker in enumerate(workers):
        code = worker.ended()
        if code is not None:
            if code not in (0, -signal.SIGKILL):
                raise RuntimeError(worker.log.read_text()[-2000:])
            workers[index] = Worker(directory, words)


def results(directory: Path) -> Any:
    """Return the dataset of a study."""
    import xarray as xr

    path = directory / "runs" / "sweep_kill" / "sweep_kill" / "results.nc"
    return xr.open_dataset(path, engine="h5netcdf").load()


def main(arguments: list[str] | None = None) -> int:
    """Do the experiment; exit code 1 where anything was lost, repeated, left or different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1")):
        os.environ.setdefault(name, value)
    from lab.files import write_json
    from lab.provenance import provenance

    with tempfile.TemporaryDirectory(prefix="sweep_kill_") as scratch:
        quiet, noisy = Path(scratch, "undisturbed"), Path(scratch, "disturbed")
        quiet.mkdir()
        noisy.mkdir()
        reference = _in_this_process(quiet)
        points = int(reference["state"].size)
        seen = disturbed(noisy, WORDS, options.kills, points, options.seed)
        found = results(noisy)
        trials = ended_trials(noisy / "runs" / "sweep_kill" / "sweep_kill")
    metrics = [name for name in reference.data_vars if "seed" in reference[name].dims]
    same = {str(name): bool(reference[name].identical(found[name])) for name in metrics}
    complete = int((found["state"].values == "complete").sum())
    well = not seen["trials_lost"] and not seen["runs_repeated"] and complete == points and all(same.values())
    write_json(
        options.result,
        {
            "question": "do kills with SIGKILL lose a finished trial, or leave a point undone?",
            "points": points,
            "points_complete": complete,
            "n_kills": len(seen["kills"]),
            "n_trials_lost": len(seen["trials_lost"]),
            "n_runs_repeated": len(seen["runs_repeated"]),
            "n_trials_that_ended": len(trials),
            "results_equal_those_of_an_undisturbed_sweep": same,
            "seed": options.seed,
            "command": "lab " + " ".join(WORDS),
            **seen,
            **provenance(),
        },
    )
    print(
        f"{len(seen['kills'])} kills: {len(seen['trials_lost'])} trials lost, {complete} of {points} points complete"
    )
    return int(not well)


def _in_this_process(directory: Path) -> Any:
    """Run the sweep undisturbed; this also imports everything, so that forked workers start at once."""
    from lab.cli import main

    here = Path.cwd()
    os.chdir(directory)
    try:
        if main(list(WORDS)) != 0:
            raise RuntimeError("the undisturbed sweep failed")
    finally:
        os.chdir(here)
    return results(directory)


if __name__ == "__main__":
    sys.exit(main())
