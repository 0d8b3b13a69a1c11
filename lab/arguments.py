"""What is typed after the verb, as words that Hydra reads the way they were meant.

Hydra gives commas, `=`, quotes, brackets and numbers a meaning of their own. The values of keys that
hold a path or a name are therefore quoted here, so that `run=001` and `checkpoints=/data/a=1,b` work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput
from lab.settings import suggest

PATH_KEYS = (
    *("runs_dir", "checkpoints", "base", "run", "schedule", "resume", "policy.path", "output", "peers"),
    *("probes", "checkpoint", "second", "task.path"),
)
NAME_KEYS = ("name", "only")

_PLAIN_FLAGS = {"-h": "--help", "-r": "--run", "-m": "--multirun"}
_VALUE_FLAGS = {"-c": "--cfg", "-p": "--package", "-cn": "--config-name", "-cd": "--config-dir"}
_SHORT = {**_PLAIN_FLAGS, **_VALUE_FLAGS, "-i": "--info"}
_WITHOUT_VALUE = {*_PLAIN_FLAGS.values(), "--resolve", "--hydra-help", "--version"}
_WITH_VALUE = set(_VALUE_FLAGS.values())
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

_SPECIAL_VALUE = re.compile(r"(|true|false|null|auto|\?\?\?)", re.IGNORECASE)
_QUOTED = re.compile(r"""'.*'|".*\"""", re.DOTALL)
_CONTAINER = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
_FUNCTION = re.compile(r"\w+\(.*\)", re.DOTALL)
_OVERRIDE = re.compile(r"(?P<key>\+{0,2}[^=\s'\"]+)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Arguments:
    """The flags and overrides of one call, ready for Hydra, and the flags that the lab reads itself."""

    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    config_dir: str | None

    @property
    def multirun(self) -> bool:
        """Whether the call is for every combination of several values."""
        return "--multirun" in self.flags


def parse(
    words: Sequence[str], positional: Sequence[str] = (), aliases: Mapping[str, str] | None = None
) -> Arguments:
    """Sort the words after the verb; a word that is no override sets the next key of `positional`.

    A key of `aliases` is replaced by the key that it stands for.

    Raises:
        BadInput: an unknown flag, a flag without its value, or a word that has no meaning here.
    """
    flags: list[str] = []
    overrides: list[str] = []
    config_dir: str | None = None
    free = list(positional)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(_override(word, free, aliases or {}))
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name in _WITHOUT_VALUE and not equals:
            flags.append(name)
        elif name in _WITH_VALUE:
            if not equals and not rest:
                raise BadInput(f"{name}: needs a value")
            value = value if equals else rest.pop(0)
            if name == "--config-dir":
                config_dir = value
            else:
                flags += [name, value]
        elif name == "--info":
            follows = bool(rest) and rest[0] in _INFO
            flags += [name, value if equals else rest.pop(0) if follows else "all"]
        else:
            known = {*_WITHOUT_VALUE, *_WITH_VALUE, "--info"}
            raise BadInput(f"{word}: unknown flag; {suggest(name, known)}")
    _require_one_action(flags)
    multirun = "--multirun" in flags
    return Arguments(tuple(quote_paths(word, multirun) for word in overrides), tuple(flags), config_dir)


def quote_paths(override: str, multirun: bool = False) -> str:
    """Return the override with its value quoted where the key holds a path or a name.

    Left as they are: values already quoted, lists, `true`, `false`, `null`, `auto`, interpolations, and
    with `multirun` values that Hydra is to take apart, unless a file of exactly that name exists.
    """
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    key, value = match["key"], match["value"]
    if key.lstrip("+") in NAME_KEYS:
        is_name = re.fullmatch(r"[\w.+-]+", value) is not None and not _SPECIAL_VALUE.fullmatch(value)
        return f"{key}={quote(value)}" if is_name else override
    if key.lstrip("+") not in PATH_KEYS or _SPECIAL_VALUE.fullmatch(value) or _QUOTED.fullmatch(value):
        return override
    takes_apart = "," in value or _FUNCTION.fullmatch(value) is not None
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    if _CONTAINER.fullmatch(value) or (multirun and takes_apart):
        return f"{key}={quote(value)}" if _exists(value) else override
    return f"{key}={quote(value)}"


def quote(text: str) -> str:
    """Return `text` in quotes, such that Hydra reads back exactly `text`."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


def _require_one_action(flags: list[str]) -> None:
    actions = [flag for flag in flags if flag in ("--run", "--multirun", "--cfg", "--info")]
    if len(actions) > 1:
        raise BadInput(f"{' and '.join(actions)} cannot be given together")
    if "--resolve" in flags and "--cfg" not in flags and "--help" not in flags:
        raise BadInput("--resolve: give it together with --cfg job")


def _override(word: str, free: list[str], aliases: Mapping[str, str]) -> str:
    match = _OVERRIDE.fullmatch(word)
    if (match is not None or word.startswith("~")) and not (free and _exists(word)):
        if match is not None and match["key"] in aliases:
            return f"{aliases[match['key']]}={match['value']}"
        return word
    if not free:
        raise BadInput(f"{word!r} is not key=value")
    return f"{free.pop(0)}={quote(word)}"


def _exists(value: str) -> bool:
    return "\0" not in value and len(value) < 4096 and Path(value).expanduser().exists()
