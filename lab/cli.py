"""`lab VERB key=value group=option`: find the verb, compose its configuration, map errors to exit codes."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lab
from lab.arguments import Arguments, parse
from lab.errors import BadInput, Interrupted, LabError
from lab.interrupt import Interruption, interruptible
from lab.memory import is_out_of_memory
from lab.settings import suggest
from lab.threads import set_threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, its function `module:name`, and the configuration it composes.

    The function takes the composed configuration and returns the one-line result. `positional` are the
    keys that words without `=` set, in this order: `lab compare A B` is `lab compare first=A second=B`.
    `aliases` are other names of keys, for one that Hydra would take for the group of the same name.
    """

    help: str
    target: str
    config: str
    positional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


VERBS: dict[str, Verb] = {
    "quickstart": Verb(
        "the whole path on a tiny built-in model, in minutes on two cores",
        "lab.verbs.quickstart:run",
        "quickstart",
    ),
    "train": Verb(
        "one run from a configuration: RL with verifiable rewards, or supervised",
        "lab.verbs.train:run",
        "train",
    ),
    "measure": Verb(
        "straightness and forecasts of a run or of any checkpoints, against chance, with a verdict",
        "lab.verbs.measure:run",
        "measure",
    ),
    "extrapolate": Verb(
        "a model carried on beyond its checkpoints, as a model directory",
        "lab.verbs.extrapolate:run",
        "extrapolate",
    ),
    "check": Verb(
        "analytic predictions against simulation; exit code 1 when one fails", "lab.verbs.check:run", "check"
    ),
    "evaluate": Verb("avg@k and pass@k on a verifiable task", "lab.verbs.evaluate:run", "evaluate"),
    "figures": Verb(
        "the figures of the findings, drawn anew from stored results", "lab.verbs.figures:run", "figures"
    ),
    "list": Verb(
        "the runs that exist", "lab.verbs.list:run", "list", ("only",), aliases={"experiment": "only"}
    ),
    "compare": Verb("two runs side by side", "lab.verbs.compare:run", "compare", ("first", "second")),
    "sweep": Verb(
        "a study over configurations, resumable",
        "lab.verbs.sweep:run",
        "sweep",
        ("action",),
        # Their keys are keys of the configuration, dots and all: Hydra takes new ones only with a plus.
        {"sweep.space": "++sweep.space", "sweep.groups": "++sweep.groups"},
    ),
    "power": Verb("how many runs and checkpoints it takes to see an effect", "lab.verbs.power:run", "power"),
    "bench": Verb("benchmarks of the lab against its peers", "lab.verbs.bench:run", "bench"),
}

_FOOTER = """
lab VERB --help lists the keys and groups of a verb; key=value and group=option change them.
Exit codes: 0 done; 1 a check failed; 2 bad input; 3 the run failed; 130 interrupted.
LAB_DEBUG=1 adds the traceback to an error."""


def entry_point() -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(main())


def main(argv: list[str] | None = None) -> int:
    """Run `lab` with the words `argv` (by default those of the process) and return its exit code.

    Can be called any number of times in one process; `sys.argv` and the environment are left as they were.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"lab {lab.__version__}")
        return 0
    name = words[0]
    if name not in VERBS:
        print(f"lab: unknown verb {name!r}; {suggest(name, VERBS)}", file=sys.stderr)
        return BadInput.exit_code
    with _restored_process(), interruptible() as interruption:
        try:
            arguments = parse(words[1:], VERBS[name].positional, VERBS[name].aliases)
            return _run_verb(name, arguments, interruption)
        except (Exception, KeyboardInterrupt, SystemExit, _Stop) as error:
            return _report(f"lab {name}", error, interruption)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(["usage: lab VERB [key=value ...] [group=option ...]", "", *lines, _FOOTER])


def _run_verb(name: str, arguments: Arguments, interruption: Interruption) -> int:
    """Compose with Hydra and run the verb, once or for each combination of a multirun."""
    if "--version" in arguments.flags:
        print(f"lab {lab.__version__}")
        return 0
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from lab.composition import CONFIG_PATH, VERSION_BASE, search_order

    verb = VERBS[name]
    if "--help" in arguments.flags:
        print(f"lab {name}: {verb.help}\n")
    codes: list[int] = []
    process = os.getpid()

    def task(config: DictConfig) -> None:
        # Hydra drops what a task returns and stops a multirun at an exception: the code is kept here.
        try:
            if interruption.signal_name is not None:
                raise Interrupted(f"stopped by {interruption.signal_name}")
            print(_call(verb, config), flush=True)
            codes.append(0)
        except Exception as error:
            stop = isinstance(error, Interrupted) or interruption.signal_name is not None
            if os.getpid() != process:  # a launcher's worker: the exception travels home
                raise
            if stop:
                raise _Stop(error) from None
            where = f"lab {name}: job {len(codes)}" if arguments.multirun else f"lab {name}"
            codes.append(_report(where, error, interruption))

    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["lab", *arguments.overrides, *arguments.flags]
    GlobalHydra.instance().clear()
    try:
        with search_order(arguments.config_dir):
            hydra.main(config_path=CONFIG_PATH, config_name=verb.config, version_base=VERSION_BASE)(task)()
    finally:
        GlobalHydra.instance().clear()
    return max(codes, default=0)


class _Stop(BaseException):
    """Carries an interruption out through Hydra, which would go on with the next job otherwise."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _call(verb: Verb, config: DictConfig) -> str:
    """Import the verb and run it; threads are set first, since the import may bring in torch."""
    set_threads(config.get("threads", 1))
    module, function = verb.target.split(":")
    run: Callable[[Any], str] = getattr(importlib.import_module(module), function)
    return run(config)


def _report(where: str, error: BaseException, interruption: Interruption) -> int:
    """Print one message for the error on stderr and return its exit code."""
    if isinstance(error, SystemExit) and interruption.signal_name is None:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if os.environ.get("LAB_DEBUG") == "1":
        traceback.print_exception(error)
    code, message = _classify(error, interruption)
    print(f"{where}: {message}", file=sys.stderr, flush=True)
    return code


def _classify(error: BaseException, interruption: Interruption) -> tuple[int, str]:
    cause = error.error if isinstance(error, _Stop) else error
    if interruption.signal_name is not None or isinstance(cause, (Interrupted, KeyboardInterrupt)):
        message = str(cause) if isinstance(cause, Interrupted) else "interrupted"
        return Interrupted.exit_code, f"{message}; the same command continues an unfinished run"
    if isinstance(cause, LabError):
        return cause.exit_code, str(cause)
    if _is_config_error(cause):
        from lab.config_errors import explain

        return BadInput.exit_code, explain(cause)
    first_line = (str(cause).strip() or "(no message)").splitlines()[0]
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return 3, f"the disk is full ({first_line}); free some space, or set runs_dir to a larger disk"
    if is_out_of_memory(cause):
        return 3, (
            f"out of memory ({first_line}); lower the batch (prompts, rollouts, micro-batch, replicates), "
            "the response length or the size of the policy"
        )
    return (
        3,
        f"{type(cause).__name__}: {str(cause).strip() or '(no message)'} (LAB_DEBUG=1 shows the traceback)",
    )


def _is_config_error(error: BaseException) -> bool:
    if "omegaconf" not in sys.modules:  # then nothing can have raised one
        return False
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, ValueError) and "Config group override" in str(error):  # Hydra's, for group=null
        return True
    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError))


@contextmanager
def _restored_process() -> Iterator[None]:
    """Put `sys.argv`, the environment and the root logger (Hydra's `--info` changes it) back at the end."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    argv = list(sys.argv)
    environment = dict(os.environ)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
