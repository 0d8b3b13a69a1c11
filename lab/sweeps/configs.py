"""From a point of the space to the resolved configuration of a trial."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.composition import CONFIG_PATH, VERSION_BASE, compose, search_order
from lab.config_errors import explain
from lab.errors import BadInput
from lab.runs import RUN_CONTROL_KEYS
from lab.settings import suggest
from lab.sweeps.space import Space

SWEEP_KEYS = ("sweep", "launcher", "storage", "add_trials", "retry_failed", "action")
"""Keys of `lab sweep` that no trial reads."""
_OF_THE_SWEEP = {*SWEEP_KEYS, "seed", *RUN_CONTROL_KEYS} - {"threads", "logger"}


@contextmanager
def composing(config_dir: str | None = None) -> Iterator[ConfigLoader]:
    """Make configurations findable while the block runs; inside a verb they are already."""
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else search_order(config_dir):
        if inside:
            yield GlobalHydra.instance().config_loader()
            return
        with hydra.initialize_config_module(CONFIG_PATH.removeprefix("pkg://"), version_base=VERSION_BASE):
            yield GlobalHydra.instance().config_loader()


class Composer:
    """Composes configurations of trials: the base once, then only what differs, where that is enough.

    Args:
        config: name of the configuration that the trials compose.
        overrides: of every trial; those of the sweep itself are left out.

    Use it within `composing`.

    Raises:
        BadInput: an override or a file cannot be used.
    """

    def __init__(self, config: str, overrides: Sequence[str]) -> None:
        self._config = config
        self._overrides = list(overrides)
        self._base = self._compose(self._overrides)
        self._copies: dict[str, DictConfig] = {}
        self._groups: dict[str, bool] = {}

    @property
    def base(self) -> dict[str, Any]:
        """The resolved configuration without any point."""
        return _resolved(self._base)

    def config(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the resolved configuration of a trial.

        Raises:
            BadInput: a key that does not exist, or an option that does not.
        """
        parsed = [_parse(text) for text in overrides]
        groups = [text for text, override in zip(overrides, parsed, strict=True) if self._is_group(override)]
        node = self._with_groups(groups)
        for text, override in zip(overrides, parsed, strict=True):
            if text not in groups:
                _update(node, override)
        return _resolved(node)

    def _with_groups(self, groups: Sequence[str]) -> DictConfig:
        """Return a fresh configuration with these options; composing is kept, since it takes tens of ms."""
        if not groups:
            return copy.deepcopy(self._base)
        name = "\n".join(groups)
        if name not in self._copies:
            chosen = {_parse(text).get_key_element() for text in groups}
            kept = [text for text in self._overrides if _parse(text).get_key_element() not in chosen]
            self._copies[name] = self._compose([*kept, *groups])
        return copy.deepcopy(self._copies[name])

    def _is_group(self, override: Override) -> bool:
        """Whether the override chooses an option of a configuration group; asked once, since it reads directories."""
        name = override.key_or_group
        if override.package is None and name not in self._groups:
            loader = GlobalHydra.instance().config_loader()
            self._groups[name] = "." not in name and bool(loader.get_group_options(name))
        return override.package is not None or self._groups[name]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        node = compose(self._config, overrides)
        OmegaConf.set_struct(node, False)
        node.pop("sweep", None)
        OmegaConf.set_struct(node, True)
        return node


def trial_overrides(
    experiment: str | None, given: Sequence[str], condition: Sequence[str], defaults: Sequence[str]
) -> tuple[str, ...]:
    """Return what every trial overrides: what was given for the sweep, less what only the sweep reads.

    Args:
        experiment: option of the group `experiment`.
        given: overrides of the command line, as Hydra got them.
        condition: overrides of `sweep.condition`, which win.
        defaults: overrides of the kind of trial, which lose.

    Raises:
        BadInput: an override cannot be read.
    """
    chosen: dict[str, str] = {} if experiment is None else {"experiment": f"experiment={experiment}"}
    for text in (*defaults, *given, *condition):
        override = _parse(text)
        key = override.get_key_element()
        plain = str(override.key_or_group)
        if plain == "experiment" or plain.split(".")[0] in _OF_THE_SWEEP:
            if plain == "seed":
                raise BadInput("seed: a sweep has several; set sweep.seeds")
            if text in condition:
                raise BadInput(f"sweep.condition: {text}: this key is the sweep's own")
            continue
        chosen.pop(key, None)  # an override given again takes its place at the end
        chosen[key] = text
    return tuple(chosen.values())


@lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise BadInput(explain(error)) from None


def refuse_own_keys(space: Space) -> None:
    """Raise BadInput for an axis over a key that belongs to the sweep itself."""
    for axis in space.axes:
        for label in axis.labels if axis.labels is not None else (axis.at(0.0),):
            for text in axis.overrides(label):
                key = str(_parse(text).key_or_group)
                top = key.split(".")[0]
                if top in _OF_THE_SWEEP:
                    where = f"sweep.space.{key}" if axis.key == key else f"sweep.groups.{axis.key}: {text}"
                    hint = "; the seeds of every point are sweep.seeds" if top == "seed" else ""
                    raise BadInput(f"{where}: this key is the sweep's own{hint}")


def _update(node: DictConfig, override: Override) -> None:
    """Set one value the way Hydra does.

    Raises:
        BadInput: the key does not exist.
    """
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete() or override.is_add() or override.is_force_add():
        raise BadInput(f"{override.input_line}: a point of a sweep is made of plain key=value")
    try:
        parent, _, last = key.rpartition(".")
        holder = OmegaConf.select(node, parent) if parent else node
        if not isinstance(holder, DictConfig) or last not in holder:
            names = [str(name) for name in holder] if isinstance(holder, DictConfig) else []
            raise BadInput(f"{key}: no such key; {suggest(last, names)}")
        OmegaConf.update(node, key, override.value(), merge=True)
    except OmegaConfBaseException as error:
        raise BadInput(explain(error)) from None


def _resolved(node: DictConfig) -> dict[str, Any]:
    try:
        resolved: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(explain(error)) from None
    return dict(resolved)


def as_json(config: Mapping[str, Any]) -> str:
    """Return the configuration as one line of JSON, for the attributes of a trial."""
    return json.dumps(config, ensure_ascii=False)
