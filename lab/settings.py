"""Typed settings: a plain configuration mapping becomes a frozen dataclass, or a clear error.

The YAML files hold the defaults, the dataclasses hold the types and the cross-checks, so a
dataclass used as settings declares no defaults. Nothing here imports torch: a wrong value is
refused in well under a second.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

from lab.errors import BadInput

T = TypeVar("T")


class Invalid(ValueError):
    """Raised by a settings class for an impossible value of one of its fields.

    `field` is the name relative to the class; `build` turns it into the full configuration key.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def require(condition: bool, field: str, message: str) -> None:
    """Raise `Invalid(field, message)` unless `condition` holds."""
    if not condition:
        raise Invalid(field, message)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the sentence listing what exists, led by the nearest match where there is one."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) if names else '(none)'}"


def whole_number(value: Any, key: str, least: int) -> int:
    """Return `value`, or refuse what is no whole number of at least `least`.

    Raises:
        BadInput: the message names `key`.
    """
    if type(value) is not int or value < least:
        raise BadInput(f"{key}: expected a whole number of at least {least}, got {value!r}")
    return value


def option_name(node: Any, key: str) -> str:
    """Return the `name` in the group of keys `node`, which says what the other keys are about.

    Raises:
        BadInput: `node` is no group of keys.
    """
    if not isinstance(node, Mapping):
        raise BadInput(f"{key}: expected a group of keys, got {node!r}")
    return str(node.get("name"))


def choose(registry: Mapping[str, T], name: str, key: str) -> T:
    """Return `registry[name]`, or refuse with the list of what exists.

    Raises:
        BadInput: `name` is not registered; the message names `key`.
    """
    if name not in registry:
        raise BadInput(f"{key}: unknown {name!r}; {suggest(str(name), registry)}")
    return registry[name]


def build(cls: type[T], node: Mapping[str, Any], key: str = "") -> T:
    """Build the settings dataclass `cls` from `node`, the mapping found under `key`.

    Raises:
        BadInput: a key that no field reads, a missing key, a wrong type, or a value that the
            class itself refuses (through `Invalid`); the message names the full key.
    """
    if not isinstance(node, Mapping):
        raise BadInput(f"{key or 'configuration'}: expected a group of keys, got {node!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in node:
        if name not in fields:
            raise BadInput(f"{_join(key, str(name))}: no code reads this key; {suggest(str(name), fields)}")
    missing = [name for name in fields if name not in node]
    if missing:
        raise BadInput(f"{_join(key, missing[0])}: missing; give it a value")
    values = {name: _convert(node[name], hint, _join(key, name)) for name, hint in fields.items()}
    try:
        return cls(**values)
    except Invalid as error:
        raise BadInput(f"{_join(key, error.field)}: {error.message}") from None


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _convert(value: Any, hint: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [argument for argument in arguments if argument is not type(None)]
        for option in options:
            try:
                return _convert(value, option, key)
            except BadInput:
                if option is options[-1]:
                    raise
    if origin is Literal:
        if value not in arguments:
            raise BadInput(f"{key}: unknown {value!r}; {suggest(str(value), map(str, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise BadInput(f"{key}: expected a list, got {value!r}")
        return tuple(_convert(item, arguments[0], f"{key}[{index}]") for index, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise BadInput(f"{key}: expected a group of keys, got {value!r}")
        return dict(value)
    return _convert_scalar(value, hint, key)


def _convert_scalar(value: Any, hint: Any, key: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise BadInput(f"{key}: expected a finite number, got {value!r}")
        return number
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    raise BadInput(f"{key}: expected {names.get(hint, hint)}, got {value!r}")
