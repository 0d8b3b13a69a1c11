"""Composing the configuration of a verb from the places where configurations lie.

They are searched in this order: `--config-dir`, `./conf`, the shipped experiments, `lab/conf`.
In a value, `${by_device:A,B}` is A on a machine with a GPU and B on one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.config_errors import explain
from lab.errors import BadInput
from lab.hardware import has_gpu

CONFIG_PATH = "pkg://lab.conf"
VERSION_BASE = "1.3"

# Beside the package, in a checkout as in an installation; not by import, since any project that lies
# in the working directory may have a package named `experiments`.
_SHIPPED = Path(__file__).resolve().parent.parent / "experiments" / "conf"

_sources: list[tuple[str, Path]] = []


class LabSearchPath(SearchPathPlugin):
    """Puts the places of `search_order` before `lab/conf`; outside of it, it changes nothing."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Insert each place right before the main one, which keeps their order."""
        for provider, folder in _sources:
            search_path.prepend(provider, f"file://{folder}", anchor="main")


Plugins.instance().register(LabSearchPath)
OmegaConf.register_new_resolver(
    "by_device", lambda with_gpu, without: with_gpu if has_gpu() else without, replace=True
)


@contextmanager
def search_order(config_dir: str | Path | None = None) -> Iterator[None]:
    """Search the configurations of the user and of the experiments before those of the package.

    Raises:
        BadInput: `config_dir` is not a directory.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise BadInput(f"--config-dir: no such directory: {config_dir}")
    before = list(_sources)
    places = [("command-line", config_dir), ("conf", "conf"), ("experiments", _SHIPPED)]
    _sources[:] = [
        (provider, Path(folder).absolute())
        for provider, folder in places
        if folder is not None and Path(folder).is_dir()
    ]
    try:
        yield
    finally:
        _sources[:] = before


def compose(
    config_name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> DictConfig:
    """Return the configuration `config_name`, the way the verb of that name would see it.

    Inside a verb, the places that the command line named are searched and `config_dir` must be None.

    Raises:
        BadInput: an override or a file cannot be used; the message says which.
    """
    try:
        if GlobalHydra.instance().is_initialized():
            if config_dir is not None:
                raise ValueError("config_dir cannot be changed while a verb runs")
            return hydra.compose(config_name, list(overrides))
        with (
            search_order(config_dir),
            hydra.initialize_config_module(CONFIG_PATH.removeprefix("pkg://"), version_base=VERSION_BASE),
        ):
            return hydra.compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(explain(error)) from error
