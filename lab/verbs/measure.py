"""`lab measure run=NAME`: straightness and forecastability of a run, each beside its nulls."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.errors import BadInput
from lab.measure_settings import MeasureSettings
from lab.process import peak_memory_mb, seconds_since_start
from lab.runs import find_run, open_run
from lab.settings import build, whole_number
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys, run_settings


def run(config: DictConfig) -> str:
    """Measure and return the verdict.

    Raises:
        BadInput: no such run, one that has no store, or too few recorded steps.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, "seed", "threads", "dry_run", "run", "protocol", "flips"))
    how = build(MeasureSettings, {"protocol": resolved["protocol"], "flips": resolved["flips"]})
    whole_number(resolved["seed"], "seed", least=0)
    if not resolved["run"]:
        raise BadInput("run: name the run to measure, run=experiment/name (`lab list` shows them)")
    source = find_run(resolved["runs_dir"], str(resolved["run"]))
    from lab.trajectory.store import FILE_NAME, group, open_store

    if not (source / FILE_NAME).exists():
        children = sorted(path.parent.name for path in source.glob(f"*/{FILE_NAME}"))
        hint = f"measure one of its parts: {', '.join(f'{source}/{name}' for name in children)}"
        raise BadInput(f"run: {source} has no {FILE_NAME}; {hint if children else 'it has not finished'}")
    store = open_store(source)
    if is_dry_run(resolved):
        print_table({str(name): size for name, size in group(store, "weights").sizes.items()})
        return "dry run: nothing was computed"
    with open_run(run_settings(resolved, "measure"), resolved) as held:
        from lab.linearity import verdict
        from lab.measurement import measure
        from lab.measurement_report import write_measurement

        measured = measure(store, how.protocol, how.flips, resolved["seed"])
        line = verdict(measured.numbers["weights"])
        write_measurement(measured, store, str(source), line, how, held.path)
        held.write_summary(
            {
                **measured.numbers,
                "lag_cosine": measured.numbers["weights"]["lag_cosine"],
                "source": str(source),
                "protocol": how.protocol,
                "verdict": line,
                "wall_clock_s": seconds_since_start(),
                "peak_rss_mb": peak_memory_mb(),
                "result": line,
            }
        )
        held.finish()
        return f"{held.path / 'report.html'}: {line}"
