"""`lab figures`: draw the figures of the findings anew from stored results."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.errors import BadInput
from lab.files import read_json
from lab.settings import choose
from lab.verbs.train import RUN_KEYS, is_dry_run, print_table, refuse_unread_keys

_ROOT = Path(__file__).resolve().parents[2]


def run(config: DictConfig) -> str:
    """Draw one figure, or all whose results are stored; return what was written where.

    Raises:
        BadInput: no such figure, or no stored results for the one that was asked for.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    refuse_unread_keys(resolved, (*RUN_KEYS, "seed", "threads", "dry_run", "fig", "output"))
    from paper_figs import FIGURES

    asked = resolved["fig"]
    if asked is not None:
        choose(FIGURES, str(asked), "fig")
    modules = {name: import_module(target) for name, target in FIGURES.items() if asked in (None, name)}
    sources = {name: _ROOT / module.SOURCE for name, module in modules.items()}
    absent = {name: path for name, path in sources.items() if not path.exists()}
    if asked is not None and absent:
        raise BadInput(f"fig: {asked} is drawn from {sources[asked]}, which is not there")
    there = [name for name in modules if name not in absent]
    print_table({name: "no stored results" if name in absent else modules[name].SOURCE for name in modules})
    if is_dry_run(resolved):
        return "dry run: nothing was computed"
    from lab.figures.style import save

    output = Path(str(resolved["output"])).expanduser()
    for name in there:
        figure, data = modules[name].draw(read_json(sources[name]))
        save(figure, data, output, name)
    return f"{output}: {len(there)} figures, each as PNG, PDF and CSV"
