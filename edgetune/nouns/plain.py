"""Frozen dataclasses to and from plain JSON values, by their type hints.

One implementation for every noun, so that a field added to a dataclass is written and read without
another line. Unknown keys are refused: a file that says more than this version knows is not one
this version may act on.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgetune.errors import EdgetuneError

Noun = TypeVar("Noun")


def to_plain(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[Noun], data: Any, where: str = "") -> Noun:
    """A `kind` from what `to_plain` made of one.

    Raises ValueError naming the path of the first value that does not fit.
    """
    result: Noun = _convert(kind, data, where or kind.__name__)
    return result


def _convert(hint: Any, data: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(hint, data, where)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(inner, data, where)
    if origin is Literal:
        _expect(data in arguments, f"one of {', '.join(map(repr, arguments))}", data, where)
        return data
    if origin is tuple:
        _expect(isinstance(data, list), "a list", data, where)
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(data, dict), "an object", data, where)
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if hint is float:
        _expect(isinstance(data, (int, float)) and not isinstance(data, bool), "float", data, where)
        return float(data)
    _expect(type(data) is hint, hint.__name__, data, where)
    return data


def _convert_dataclass(hint: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), "an object", data, where)
    fields = {field.name: field for field in dataclasses.fields(hint)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(f"{where}.{unknown[0]} is not known")
    hints = get_type_hints(hint)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and (
            field.default_factory is dataclasses.MISSING
        ):
            raise ValueError(f"{where}.{name} is missing")
    try:
        return hint(**values)
    except EdgetuneError as error:  # the noun's own check, such as an unknown optimizer
        raise ValueError(f"{where}: {error}") from error


def _expect(holds: bool, expected: str, found: Any, where: str) -> None:
    if not holds:
        raise ValueError(f"{where} is {found!r:.60}, expected {expected}")
