"""The command line: verbs, messages, exit codes, paths with any character, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import lab as package
from lab import cli
from lab.arguments import parse, quote, quote_paths
from lab.composition import compose
from lab.errors import BadInput, CheckFailed, Interrupted, RunFailed

ROOT = Path(package.__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "pytorch_lightning")
AWKWARD = [
    "a,b",
    "x=1",
    "with space",
    "[1]",
    "a[0]",
    "(x)",
    "it's",
    'say "hi"',
    "{k}",
    "001",
    "1e3",
    "#x",
    "ü",
    "a\\b",
]

FAKE_CONFIG = """
defaults:
  - base
  - flavour: sweet
  - _self_
steps: 3
checkpoints: null
run: null
first: null
second: null
required: 1
"""


class Fake:
    """A verb that keeps the configurations it gets and does what `action` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configs: list[dict[str, Any]] = []
        self.action: Callable[[DictConfig], object] = lambda config: None

    def run(self, config: DictConfig) -> str:
        self.action(config)
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        self.configs.append(resolved)
        return "the result"

    @property
    def last(self) -> dict[str, Any]:
        return self.configs[-1]


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Register the verb `fake`, whose configuration lies in `fake.folder`."""
    folder = tmp_path_factory.mktemp("configurations, one=two")
    (folder / "flavour").mkdir()
    (folder / "fake.yaml").write_text(FAKE_CONFIG)
    (folder / "flavour" / "sweet.yaml").write_text("sugar: 1\n")
    (folder / "flavour" / "salty.yaml").write_text("salt: 1\n")
    verb = Fake(folder)
    module = types.ModuleType("fake_verb")
    module.run = verb.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    line = cli.Verb("a verb for tests", "fake_verb:run", "fake", ("first", "second"))
    monkeypatch.setitem(cli.VERBS, "fake", line)
    return verb


@pytest.fixture
def call(fake: Fake, lab: Callable[..., Any]) -> Callable[..., Any]:
    """Call `lab fake WORD ...` with the fake verb's configuration directory."""
    return lambda *words: lab("fake", "--config-dir", str(fake.folder), *words)


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, timeout=120
    )


# --- help, version, start-up -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb(lab: Callable[..., Any], words: list[str]) -> None:
    outcome = lab(*words)
    assert outcome.code == 0 and outcome.err == ""
    assert all(name in outcome.out and verb.help in outcome.out for name, verb in cli.VERBS.items())
    assert "130" in outcome.out


def test_version(lab: Callable[..., Any]) -> None:
    assert lab("--version").out == f"lab {package.__version__}\n"


def test_verb_help_lists_keys_groups_and_options(call: Callable[..., Any], fake: Fake) -> None:
    outcome = call("--help")
    assert outcome.code == 0 and fake.configs == []
    for word in ("a verb for tests", "flavour: salty, sweet", "steps: 3", "runs_dir: runs"):
        assert word in outcome.out


@pytest.mark.parametrize(
    "words", [["--help"], ["list", "runs_dri=1"], ["list", "--help"], ["list", "--cfg", "job"]]
)
def test_help_and_bad_keys_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    code = f"import sys, lab.cli; lab.cli.main({words!r}); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_is_lazy(tmp_path: Path) -> None:
    code = (
        f"import sys, lab; dir(lab); print([m for m in (*{HEAVY!r}, 'numpy', 'hydra') if m in sys.modules])"
    )
    assert python(code, tmp_path).stdout.strip() == "[]"
    assert {"open", "measure", "forecast"} <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


def test_running_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "list", "nope=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lab list: nope: no such key")


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stepz=1"], ["stepz: no such key", "did you mean 'steps'", "seed"]),
        (["flavour.suger=1"], ["flavour.suger: no such key", "did you mean 'sugar'"]),
        (["flavour=sowr"], ["flavour: unknown 'sowr'", "salty, sweet"]),
        (["steps=[1"], ["cannot read 'steps=[1'", "quotes"]),
        (["seed=1,2"], ["seed=1,2", "-m"]),
        (["required=???"], ["required: missing"]),
        (["required=${nowhere}"], ["required", "nowhere"]),
        (["threads=0"], ["threads", "at least 1"]),
        (["--flag"], ["--flag: unknown flag"]),
        (["--resolve"], ["--resolve", "--cfg"]),
        (["-m", "--cfg", "job"], ["--multirun and --cfg"]),
        (["one", "two", "three"], ["'three' is not key=value"]),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Callable[..., Any], fake: Fake, words: list[str], expected: list[str]
) -> None:
    fake.action = lambda config: config.required
    outcome = call(*words)
    assert outcome.code == 2
    assert fake.configs == []
    assert outcome.err.startswith("lab fake: ") and outcome.err.count("\n") == 1, outcome.err
    assert all(word in outcome.err for word in expected), outcome.err


def test_shared_parts_of_a_group_are_not_offered(call: Callable[..., Any], fake: Fake) -> None:
    (fake.folder / "flavour" / "_common.yaml").write_text("x: 1\n")
    assert "known: salty, sweet\n" in call("flavour=sowr").err


def test_unknown_verb(lab: Callable[..., Any]) -> None:
    outcome = lab("meazure")
    assert outcome.code == 2
    assert outcome.err.startswith("lab: unknown verb 'meazure'; did you mean 'measure'?")


def test_missing_config_dir(lab: Callable[..., Any]) -> None:
    outcome = lab("list", "--config-dir", "nowhere")
    assert outcome.code == 2 and "no such directory: nowhere" in outcome.err


def test_a_config_file_that_is_not_yaml_is_named(call: Callable[..., Any], fake: Fake) -> None:
    (fake.folder / "flavour" / "broken.yaml").write_text("a: [1\n")
    outcome = call("flavour=broken")
    assert outcome.code == 2 and "broken.yaml" in outcome.err


# --- exit codes --------------------------------------------------------------------------------------


def raiser(error: BaseException) -> Callable[[DictConfig], object]:
    def action(config: DictConfig) -> object:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CheckFailed("3 of 7 predictions failed"), 1, "lab fake: 3 of 7 predictions failed\n"),
        (BadInput("task: unknown"), 2, "lab fake: task: unknown\n"),
        (RunFailed("loss is NaN at step 3"), 3, "lab fake: loss is NaN at step 3\n"),
        (Interrupted("saved at step 3"), 130, "saved at step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 3, "lower the batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 3, "lower the batch"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "runs_dir"),
        (ZeroDivisionError("division by zero"), 3, "ZeroDivisionError: division by zero (LAB_DEBUG=1"),
        (SystemExit(5), 5, ""),
    ],
)
def test_exit_codes(
    call: Callable[..., Any], fake: Fake, error: BaseException, code: int, words: str
) -> None:
    fake.action = raiser(error)
    outcome = call()
    assert outcome.code == code
    assert words in outcome.err and "Traceback" not in outcome.err
    assert outcome.out == ""


def test_the_traceback_is_shown_on_request(
    call: Callable[..., Any], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DEBUG", "1")
    fake.action = raiser(ZeroDivisionError("oops"))
    outcome = call()
    assert outcome.code == 3 and "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("lab fake: ZeroDivisionError: oops")


def test_the_result_is_the_last_line(call: Callable[..., Any], fake: Fake) -> None:
    fake.action = lambda config: print("a table")
    outcome = call("steps=5", "flavour=salty")
    assert outcome.code == 0 and outcome.out == "a table\nthe result\n" and outcome.err == ""
    assert fake.last["steps"] == 5 and fake.last["flavour"] == {"salt": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_run_save_and_exits_with_130(
    call: Callable[..., Any], fake: Fake, number: signal.Signals
) -> None:
    saved = []

    def action(config: DictConfig) -> None:
        try:
            os.kill(os.getpid(), number)
        except Interrupted:
            os.kill(os.getpid(), signal.SIGTERM)  # ignored while the run saves
            saved.append(True)
            raise

    inherited = signal.signal(number, signal.SIG_DFL)  # a shell in the background leaves SIGINT ignored
    try:
        fake.action = action
        outcome = call()
        left = signal.getsignal(number)
    finally:
        signal.signal(number, inherited)
    assert outcome.code == 130 and saved == [True]
    assert number.name in outcome.err
    assert left is signal.SIG_DFL


def test_a_signal_that_a_library_swallowed_still_exits_with_130(call: Callable[..., Any], fake: Fake) -> None:
    def action(config: DictConfig) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            raise RuntimeError("could not import") from None

    fake.action = action
    assert call().code == 130


def test_a_signal_that_comes_in_a_finaliser_stops_the_run_none_the_less(
    call: Callable[..., Any], fake: Fake
) -> None:
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)  # what the handler raises here, Python drops
            raised.append("not in the finaliser")

    raised: list[str] = []

    def action(config: DictConfig) -> None:
        Dying()
        try:
            time.sleep(20)
        except Interrupted:
            raised.append("after it")
            raise

    fake.action = action
    hook = sys.unraisablehook
    outcome = call()
    assert outcome.code == 130 and outcome.err.count("stopped by SIGTERM") == 1
    assert raised == ["after it"] and sys.unraisablehook is hook


def test_sigterm_of_a_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, types, lab.cli\n"
        "module = types.ModuleType('slow'); sys.modules['slow'] = module\n"
        "module.run = lambda config: os.kill(os.getpid(), signal.SIGTERM)\n"
        "lab.cli.VERBS['list'] = lab.cli.Verb('', 'slow:run', 'list')\n"
        "sys.argv = ['lab', 'list']\n"
        "lab.cli.entry_point()\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 130 and "stopped by SIGTERM" in done.stderr


def test_it_works_outside_the_main_thread(lab: Callable[..., Any]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(lab("list").code))
    thread.start()
    thread.join()
    assert codes == [0]


# --- multirun ----------------------------------------------------------------------------------------


def test_multirun_runs_every_job_and_returns_the_largest_code(call: Callable[..., Any], fake: Fake) -> None:
    def action(config: DictConfig) -> None:
        if config.seed == 0:
            raise RunFailed("NaN")
        if config.seed == 1:
            raise CheckFailed("no")

    fake.action = action
    outcome = call("-m", "seed=0,1,2,3")
    assert outcome.code == 3
    assert [config["seed"] for config in fake.configs] == [2, 3]
    assert outcome.err == "lab fake: job 0: NaN\nlab fake: job 1: no\n"
    assert call("-m", "seed=1,2").code == 1
    assert call("seed=range(2,4)", "--multirun").code == 0


def test_an_interruption_ends_a_multirun(call: Callable[..., Any], fake: Fake) -> None:
    fake.action = lambda config: os.kill(os.getpid(), signal.SIGTERM) if config.seed == 1 else None
    assert call("-m", "seed=0,1,2").code == 130
    assert [config["seed"] for config in fake.configs] == [0]


# --- paths and names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AWKWARD)
def test_paths_with_any_character_need_no_quotes(
    call: Callable[..., Any], fake: Fake, tmp_path: Path, name: str
) -> None:
    path = f"{tmp_path}/{name}"
    keys = ("checkpoints", "run", "runs_dir", "resume")
    assert call(*(f"{key}={path}" for key in keys)).code == 0
    assert [fake.last[key] for key in keys] == [path] * len(keys)


def test_relative_awkward_names(call: Callable[..., Any], fake: Fake) -> None:
    for name in ("001", "1e3", "a,b", "x=1"):
        assert call(f"run={name}").code == 0
        assert fake.last["run"] == name
    assert call("name=007").code == 0 and fake.last["name"] == "007"
    assert call("checkpoints=~/x").code == 0 and fake.last["checkpoints"] == str(Path.home() / "x")


def test_values_with_a_meaning_keep_it(call: Callable[..., Any], fake: Fake) -> None:
    for text, value in [("true", True), ("false", False), ("auto", "auto"), ("null", None)]:
        assert call(f"resume={text}").code == 0
        assert fake.last["resume"] == value
    assert call("checkpoints=[a,b]").code == 0 and fake.last["checkpoints"] == ["a", "b"]
    assert call("checkpoints='a,b'").code == 0 and fake.last["checkpoints"] == "a,b"
    assert call("run=${runs_dir}/x").code == 0 and fake.last["run"] == "runs/x"


def test_multirun_splits_paths_unless_one_of_that_name_exists(
    call: Callable[..., Any], fake: Fake, tmp_path: Path
) -> None:
    assert call("-m", "checkpoints=a,b").code == 0
    assert [config["checkpoints"] for config in fake.configs] == ["a", "b"]
    (tmp_path / "c,d").mkdir()
    assert call("-m", "checkpoints=c,d", "seed=1,2").code == 0
    assert [config["checkpoints"] for config in fake.configs[2:]] == ["c,d", "c,d"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="$"), min_size=1))
def test_hydra_reads_a_quoted_text_back_exactly(text: str) -> None:
    parsed = OverridesParser.create().parse_override(f"key={quote(text)}")
    assert parsed.value() == text


def test_other_keys_are_left_alone() -> None:
    for word in ("seed=1,2", "steps=[1]", "~run", "objective.name=a,b", "run='x'", "base=[a,b]"):
        assert quote_paths(word) == word
    assert quote_paths("+policy.path=a,b") == "+policy.path='a,b'"


def test_words_without_a_key_set_the_positional_ones(
    call: Callable[..., Any], fake: Fake, tmp_path: Path
) -> None:
    assert call("train/001", "steps=4", "002").code == 0
    assert (fake.last["first"], fake.last["second"], fake.last["steps"]) == ("train/001", "002", 4)
    (tmp_path / "a=b").mkdir()
    assert call("a=b").code == 0 and fake.last["first"] == "a=b"


def test_flags_may_stand_anywhere() -> None:
    arguments = parse(["a=1", "--cfg", "job", "b=2", "--config-dir=x y", "--resolve"])
    assert arguments.overrides == ("a=1", "b=2")
    assert arguments.flags == ("--cfg", "job", "--resolve")
    assert arguments.config_dir == "x y"
    with pytest.raises(BadInput, match="needs a value"):
        parse(["--cfg"])


# --- configuration -----------------------------------------------------------------------------------


def test_search_order(
    call: Callable[..., Any], fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    places = {"command line": fake.folder, "conf": tmp_path / "conf", "shipped": shipped}
    monkeypatch.setattr("lab.composition._SHIPPED", shipped)
    for place, folder in places.items():
        (folder / "flavour").mkdir(parents=True, exist_ok=True)
        (folder / "base.yaml").write_text(
            f"defaults: [command_line]\nruns_dir: runs\nthreads: 1\nplace: {place}\n"
        )
    for place, folder in places.items():
        assert call().code == 0
        assert fake.last["place"] == place
        (folder / "base.yaml").unlink()
    assert call().code == 0
    assert "place" not in fake.last and fake.last["resume"] == "auto"


def test_cfg_prints_the_resolved_configuration(call: Callable[..., Any], fake: Fake) -> None:
    outcome = call("--cfg", "job", "--resolve", "run=${runs_dir}/a,b")
    assert outcome.code == 0 and fake.configs == []
    printed = OmegaConf.to_container(OmegaConf.create(outcome.out))
    assert isinstance(printed, dict) and printed["run"] == "runs/a,b" and "hydra" not in printed


def test_info(call: Callable[..., Any], fake: Fake) -> None:
    outcome = call("--info", "searchpath")
    assert outcome.code == 0 and str(fake.folder) in outcome.out and "pkg://lab.conf" in outcome.out
    assert call().out == "the result\n"


def test_compose_inside_and_outside_a_verb(call: Callable[..., Any], fake: Fake, tmp_path: Path) -> None:
    outside = compose("fake", ["steps=9"], config_dir=fake.folder)
    assert outside.steps == 9 and outside.resume == "auto"
    inside: list[DictConfig] = []
    fake.action = lambda config: inside.append(compose("fake", ["flavour=salty"]))
    assert call().code == 0
    assert inside[0].flavour == {"salt": 1}
    with pytest.raises(BadInput, match="stepz: no such key"):
        compose("fake", ["stepz=1"], config_dir=fake.folder)


def test_nothing_is_written_and_the_process_is_left_as_it_was(
    call: Callable[..., Any], fake: Fake, tmp_path: Path
) -> None:
    before = (list(sys.argv), dict(os.environ), os.getcwd())
    assert call().code == 0
    assert call("stepz=1").code == 2
    assert call("--help").code == 0
    assert (list(sys.argv), dict(os.environ), os.getcwd()) == before
    assert list(tmp_path.iterdir()) == []
    assert call("-m", "seed=1,2", "runs_dir=my runs").code == 0
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.iterdir()] == ["my runs"]
    assert [path.name for path in (tmp_path / "my runs").iterdir()] == [".multirun"]


def test_threads_are_set_before_the_verb_runs(call: Callable[..., Any], fake: Fake) -> None:
    seen: list[tuple[str, ...]] = []
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
    fake.action = lambda config: seen.append(tuple(os.environ[name] for name in names))
    assert call("threads=2").code == 0
    assert call().code == 0
    assert seen == [("2", "2", "PASSIVE"), ("1", "1", "PASSIVE")]


# --- lab list ----------------------------------------------------------------------------------------


def test_list(lab: Callable[..., Any], tmp_path: Path) -> None:
    from lab.runs import RunSettings, open_run

    assert lab("list").last_line == "0 runs in runs"
    for experiment in ("train", "sft"):
        with open_run(RunSettings(None, "my, runs", "auto", False, experiment), {"seed": 0}) as run:
            run.write_summary({"result": f"{experiment} [bold]went[/bold] well"})
            if experiment == "sft":
                run.finish()
    outcome = lab("list", "runs_dir=my, runs")
    assert outcome.last_line == "2 runs in my, runs: 1 finished, 1 unfinished"
    assert "sft/001" in outcome.out and "train/001" in outcome.out and "[bold]" in outcome.out
    for words in (["experiment=sft"], ["only=sft"], ["sft"]):
        only = lab("list", "runs_dir=my, runs", *words)
        assert only.last_line == "1 run in my, runs: 1 finished" and "train/001" not in only.out
    refused = lab("list", "+steps=3")
    assert refused.code == 2 and "steps: no code reads this key" in refused.err
