"""A worker as a process of its own: reads its plan from stdin. Started by `lab.sweeps.launchers`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from lab.errors import Interrupted, LabError
from lab.interrupt import interruptible
from lab.sweeps.lines import trial_line
from lab.threads import set_threads

STORAGE_VARIABLE = "LAB_SWEEP_STORAGE"
"""Where a plan without a storage looks for the URL of one, so that launchers need not write it down."""


def run_plan(data: Mapping[str, Any]) -> int:
    """Work on a plan given as plain data, in this process, and return how many trials were run.

    This is what launchers send to other machines: the working directory and the threads are set first.

    Raises:
        BadInput, RunFailed, Interrupted: see `lab.sweeps.worker.work`.
    """
    set_threads(data["threads"])
    os.chdir(data["cwd"])
    from lab.sweeps.plan import Plan
    from lab.sweeps.worker import work

    storage = data["storage"] or os.environ.get(STORAGE_VARIABLE)
    return work(
        Plan.from_dict({**data, "storage": storage}), lambda ended: print(trial_line(ended), flush=True)
    )


def main() -> int:
    """Read the plan, work, and return the exit code of the lab's verbs."""
    with interruptible():
        try:
            run_plan(json.loads(sys.stdin.read()))
        except LabError as error:
            print(error, flush=True)
            return error.exit_code
        except KeyboardInterrupt:
            return Interrupted.exit_code
        except Exception as error:
            traceback.print_exc()
            print(f"{type(error).__name__}: {error}", flush=True)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
