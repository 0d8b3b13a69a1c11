"""A trial that costs nothing, and plans of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import lab
from lab.composition import compose
from lab.errors import BadInput
from lab.runs import Run
from lab.sweeps import configs, trials
from lab.sweeps.plan import Bench, Plan, set_up
from lab.sweeps.settings import SweepSettings
from lab.sweeps.study import SweepStudy


class FakeTrial:
    """Its number is a polynomial of the configuration, so that every result can be worked out by hand.

    `learning_rate` above 1 fails, `steps` of 13 has an undefined metric, `seconds` is how long a seed takes. Each
    seed that is really run leaves a line in `log`, once it is finished: one killed before that may be run again.
    """

    config = "train"
    defaults = ("logger=none",)
    metrics: Mapping[str, str] = {"value": "value"}

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds

    def check(self, resolved: Mapping[str, Any], settings: SweepSettings) -> None:
        if resolved["steps"] == 0:
            raise BadInput("steps: expected at least 1")

    def disk_bytes(self, resolved: Mapping[str, Any]) -> int:
        return 1000

    def run(self, run: Run, settings: SweepSettings) -> Mapping[str, Any]:
        config = run.config
        if not run.finished:
            time.sleep(self.seconds)
            if config["optimizer"]["learning_rate"] > 1:
                raise RuntimeError("diverged")
            run.write_summary({"done": True})
            run.finish()
            with self.log.open("a") as file:
                file.write(f"{run.path.parent.name}/{run.path.name}\n")
        value = expected(config["steps"], config["objective"].get("prompts", 0), config["seed"])
        return {
            "value": None if config["steps"] == 13 else value,
            "parts": {"series": [config["steps"], config["seed"]]},
            "seed": config["seed"],
        }


def expected(steps: float, prompts: float, seed: float) -> float:
    """What `FakeTrial` returns: distinct for distinct small whole arguments."""
    return 1000.0 * steps + 10.0 * prompts + seed


class Bed:
    """Makes plans of sweeps of `FakeTrial` in one directory."""

    def __init__(self, directory: Path, kind: FakeTrial) -> None:
        self.directory, self.kind = directory, kind

    def plan(self, storage: str | None = None, retry_below: int = 0, **sweep: Any) -> Plan:
        """Return a plan; keywords are keys of the node `sweep`."""
        file = Path(lab.__file__).parent / "conf" / "sweep.yaml"
        node: Any = OmegaConf.to_container(OmegaConf.load(file))
        self.directory.mkdir(exist_ok=True)
        return Plan(
            study="fake",
            directory=str(self.directory),
            cwd=str(self.directory.parent),
            config_dir=None,
            overrides=("logger=none",),
            sweep={**node["sweep"], "verb": "fake", **sweep},
            storage=storage,
            threads=1,
            retry_below=retry_below,
        )

    @contextmanager
    def study(self, plan: Plan, more: int | None = None) -> Iterator[tuple[Bench, SweepStudy]]:
        """Set a plan up and open its study, as the verb does."""
        with set_up(plan) as bench:
            study = bench.open_study()
            study.want(more)
            yield bench, study

    def ran(self) -> list[str]:
        """The seeds that were really run, in order."""
        return self.kind.log.read_text().split() if self.kind.log.exists() else []


_composed: dict[tuple[str, ...], DictConfig] = {}


def composed_once(config: str, overrides: Sequence[str]) -> DictConfig:
    """Compose, but the same only once in all tests: it takes longer than anything else here."""
    key = (config, *overrides)
    if key not in _composed:
        _composed[key] = compose(config, overrides)
    return copy.deepcopy(_composed[key])


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """A directory for one study of trials that cost nothing."""
    kind = FakeTrial(tmp_path / "log")
    monkeypatch.setattr(configs, "compose", composed_once)
    monkeypatch.setitem(trials.TRIALS, "fake", kind)
    return Bed(tmp_path / "study", kind)
