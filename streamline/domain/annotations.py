"""What a function's annotations say about the values it returns."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from streamline.domain.payloads import ANY, Codec
from streamline.errors import DefinitionError


def return_codec(function: Callable[..., Any], where: str, local_names: Mapping[str, Any] | None = None) -> Codec:
    """Return the codec of the function's return annotation; ``Any`` where it has none.

    Raises:
        DefinitionError: The annotation cannot be resolved, or pydantic cannot handle it.
    """
    annotation = return_annotation(function, where, local_names)
    if annotation in (Any, NoReturn, inspect.Signature.empty):
        return ANY
    return Codec(type(None) if annotation is None else annotation, where)


def return_annotation(function: Callable[..., Any], where: str, local_names: Mapping[str, Any] | None = None) -> Any:
    """Return the function's return annotation, resolved; ``Any`` where it has none.

    Raises:
        DefinitionError: It cannot be resolved.
    """
    plain = _plain_function(function)
    annotation = getattr(plain, "__annotations__", {}).get("return", Any)
    return _resolve(annotation, plain, where, local_names) if isinstance(annotation, str) else annotation


def _plain_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not inspect.isroutine(function) and callable(function):
        return type(function).__call__
    return getattr(function, "__func__", function)


def _resolve(annotation: str, function: Any, where: str, local_names: Mapping[str, Any] | None) -> Any:
    names = dict(local_names or {}) | _closure(function)
    holder = type("_Holder", (), {"__annotations__": {"value": annotation}})
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), names, include_extras=True)["value"]
    except Exception as error:
        raise DefinitionError(
            f"{where}: the return annotation {annotation!r} cannot be resolved: {error}; define the type at module "
            "level or before the step",
            field=where,
        ) from error


def _closure(function: Any) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found
