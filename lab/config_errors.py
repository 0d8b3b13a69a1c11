"""Hydra's and OmegaConf's errors as one message that names the key and lists what exists."""

from __future__ import annotations

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from lab.settings import suggest


def explain(error: BaseException) -> str:
    """Return one line for an error in the configuration."""
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}; write key=value, and put special characters in quotes"
    if isinstance(error, OmegaConfBaseException):
        return _omegaconf(error)
    cause = error.__cause__ or error.__context__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _omegaconf(cause)
    text = str(error)
    if text.startswith("Ambiguous value for argument"):
        return f"{_first_line(text)}: several values need -m; a list is written key=[a,b], a text in quotes"
    return " ".join(text.split()) or type(error).__name__


def _missing_config(error: MissingConfigException) -> str:
    name = error.missing_cfg_file
    if name and error.options is not None and "/" in name:
        group, option = name.rsplit("/", 1)
        options = [known for known in error.options if not known.startswith("_")]  # those are shared parts
        return f"{group}: unknown {option!r}; {suggest(option, options)}"
    return " ".join(str(error).split())


def _omegaconf(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key or "")
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        parent, last = error.parent_node, str(error.key)
        siblings = [str(name) for name in parent if name != "hydra"] if isinstance(parent, DictConfig) else []
        return f"{key}: no such key; {suggest(last, siblings)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: missing; give it a value"
    message = _first_line(str(error))
    return f"{key}: {message}" if key else message


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
